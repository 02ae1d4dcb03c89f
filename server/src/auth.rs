//! Who may do what: tokens are JWT (RFC 7519), and say so themselves (WebSocket API, section 8).
//!
//! A key verifies its own algorithm only: which one comes from the configuration, never from the
//! token. The claims are checked against the clock that is given. Keys are read once, at the start.

use std::{path::Path, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde_json::{Map, Value as Json};
use valtronics_protocol::{error::TokenFault, time::UnixMillis};

mod config;
mod key_files;
mod crypto;
mod claims;
mod grant;

pub use config::{AuthConfigError, Config, KeyError};
pub use grant::{DeviceGrant, Scope, Scopes};

/// How far clocks may differ: for so long a token counts after its expiry (WebSocket API, section 8).
pub const LEEWAY: Duration = Duration::from_secs(30);

/// What a good token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Its subject: the user.
    pub sub: Arc<str>,
    /// What it allows.
    pub scopes: Scopes,
    /// Of which devices.
    pub devices: DeviceGrant,
    /// When it expires.
    pub expires_at: UnixMillis,
    /// The name of this one token, for the log; any text, so it has to be logged escaped.
    pub jti: Option<String>,
}

/// The keys that verify tokens, at most one an algorithm.
pub struct Keys {
    verifying: Vec<(Algorithm, DecodingKey)>,
    signing: Option<EncodingKey>,
    issuer: Option<String>,
    audience: Option<String>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let algorithms = self.verifying.iter().map(|(algorithm, _)| algorithm).collect::<Vec<_>>();
        f.debug_struct("Keys").field("algorithms", &algorithms).finish_non_exhaustive()
    }
}

impl Keys {
    /// Loads the keys; where none is configured, `data_dir` holds a secret, which is made at the
    /// first start if `make` says so. Without it no token is good.
    ///
    /// # Errors
    /// When a file cannot be read or written, or what it holds is not good enough.
    pub fn load(
        config: &Config,
        folder: &Path,
        data_dir: &Path,
        make: bool,
    ) -> Result<Self, AuthConfigError> {
        if config.jwks.is_some() {
            return Err(KeyError::Unsupported.of("jwks"));
        }
        crypto::install();
        let mut verifying = Vec::new();
        for (name, algorithm, file) in config.public_keys() {
            if config.audience.is_none() {
                return Err(KeyError::NoAudience.of(name));
            }
            let key = key_files::public_key(algorithm, &folder.join(file));
            verifying.push((algorithm, key.map_err(|error| error.of(name))?));
        }
        let secret = match &config.hs256_secret_file {
            Some(file) => key_files::secret(&folder.join(file))
                .map(Some)
                .map_err(|error| error.of("hs256_secret_file"))?,
            None if verifying.is_empty() => {
                key_files::own_secret(data_dir, make).map_err(|error| error.of("data_dir"))?
            }
            None => None,
        };
        verifying
            .extend(secret.as_deref().map(|s| (Algorithm::HS256, DecodingKey::from_secret(s))));
        Ok(Self {
            verifying,
            signing: secret.as_deref().map(EncodingKey::from_secret),
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
        })
    }

    /// Verifies a token.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn verify(&self, token: &str, now: UnixMillis) -> Result<Claims, TokenFault> {
        if token.is_empty() {
            return Err(TokenFault::Missing);
        }
        let parts: Vec<&str> = token.splitn(4, '.').collect();
        let (&[header, payload, _], Some((message, signature))) =
            (parts.as_slice(), token.rsplit_once('.'))
        else {
            return Err(TokenFault::Malformed);
        };
        let header = object(header)?;
        // What stands in `crit` has to be understood, and nothing is (RFC 7515, section 4.1.11);
        // any other parameter that is not understood is ignored.
        if header.contains_key("crit") {
            return Err(TokenFault::Malformed);
        }
        let named = header.get("alg").and_then(Json::as_str).ok_or(TokenFault::Malformed)?;
        let named: Algorithm = named.parse().map_err(|_| TokenFault::Algorithm)?;
        let key = self.verifying.iter().find(|(algorithm, _)| *algorithm == named);
        let (algorithm, key) = key.ok_or(TokenFault::Algorithm)?;
        match jsonwebtoken::crypto::verify(signature, message.as_bytes(), key, *algorithm) {
            Ok(true) => self.check(&object(payload)?, now),
            Ok(false) => Err(TokenFault::Signature),
            Err(_) => Err(TokenFault::Malformed),
        }
    }

    /// Signs a token with the secret of HS256.
    ///
    /// # Errors
    /// [`KeyError::NoSecret`] when there are only public keys.
    pub fn mint(
        &self,
        sub: &str,
        scope: Option<&str>,
        devices: Option<&[Json]>,
        ttl: Duration,
        now: UnixMillis,
    ) -> Result<String, KeyError> {
        let signing = self.signing.as_ref().ok_or(KeyError::NoSecret)?;
        let mut claims = serde_json::json!({
            "sub": sub, "iat": now.0 / 1000, "exp": now.plus(ttl).0 / 1000,
        });
        let optional = [
            ("iss", self.issuer.clone().map(Json::from)),
            ("aud", self.audience.clone().map(Json::from)),
            ("scope", scope.map(Json::from)),
            ("devices", devices.map(Json::from)),
        ];
        if let Some(claims) = claims.as_object_mut() {
            claims.extend(
                optional.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))),
            );
        }
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, signing);
        Ok(token.expect("claims are JSON, and a secret signs any text"))
    }
}

/// Reads one part of a token.
fn object(part: &str) -> Result<Map<String, Json>, TokenFault> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenFault::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenFault::Malformed)
}

#[cfg(test)]
mod tests;
