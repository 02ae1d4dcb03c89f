//! Who may do what: tokens are JWT (RFC 7519), and say so themselves (WebSocket API, section 8).
//!
//! A key verifies its own algorithm only: which one comes from the configuration, never from the
//! token. The claims are checked against the clock that is given. Keys are exchanged while the server
//! runs, in a [`KeyRing`] only.

use std::{path::Path, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header};
use serde_json::{Map, Value as Json};
use valtronics_protocol::{error::TokenFault, reading::is_name, time::UnixMillis};

mod config;
mod key_files;
mod jwks;
mod crypto;
mod claims;
mod grant;
mod fetch;
mod key_ring;

use config::Source;
pub use config::{AuthConfigError, Config, KeyError};
pub use grant::{DeviceGrant, Scope, Scopes};
pub use jwks::JwksError;
pub use key_ring::{KEYS_WITHIN, KeyRing, RefreshError, Rejected};

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

/// A key, which verifies its own algorithm only.
#[derive(Clone)]
struct Key {
    algorithm: Algorithm,
    /// Its name in a JWKS: a token that names a key is verified by those without a name, too.
    kid: Option<String>,
    key: DecodingKey,
}

impl Key {
    /// Tells whether a token that names this key, or none, may be signed by it.
    fn answers_to(&self, kid: Option<&str>) -> bool {
        kid.is_none() || self.kid.is_none() || self.kid.as_deref() == kid
    }
}

/// The keys that verify tokens, several an algorithm.
pub struct Keys {
    /// Those of files of their own.
    own: Vec<Key>,
    /// Those of the JWKS; none while it has not been fetched yet.
    provided: Vec<Key>,
    source: Option<Source>,
    signing: Option<EncodingKey>,
    issuer: Option<String>,
    audience: Option<String>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let algorithms = self.all().map(|key| key.algorithm).collect::<Vec<_>>();
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
        crypto::install();
        let mut own = Vec::new();
        for (name, algorithm, file) in config.public_keys() {
            if config.audience.is_none() {
                return Err(KeyError::NoAudience.of(name));
            }
            let keys = key_files::public_keys(algorithm, &folder.join(file));
            let keys = keys.map_err(|error| error.of(name))?.into_iter();
            own.extend(keys.map(|key| Key { algorithm, kid: None, key }));
        }
        let wrong_jwks = |error: KeyError| error.of("jwks");
        let source = config.jwks_source(folder).map_err(wrong_jwks)?;
        let provided = match &source {
            Some(_) if config.audience.is_none() => return Err(wrong_jwks(KeyError::NoAudience)),
            Some(Source::File(path)) => key_files::jwks(path).map_err(wrong_jwks)?,
            Some(Source::Url(_)) | None => Vec::new(),
        };
        let secret = match &config.hs256_secret_file {
            Some(file) => key_files::secret(&folder.join(file))
                .map(Some)
                .map_err(|error| error.of("hs256_secret_file"))?,
            None if own.is_empty() && source.is_none() => {
                key_files::own_secret(data_dir, make).map_err(|error| error.of("data_dir"))?
            }
            None => None,
        };
        own.extend(secret.as_deref().map(|secret| Key {
            algorithm: Algorithm::HS256,
            kid: None,
            key: DecodingKey::from_secret(secret),
        }));
        Ok(Self {
            own,
            provided,
            source,
            signing: secret.as_deref().map(EncodingKey::from_secret),
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
        })
    }

    fn all(&self) -> impl Iterator<Item = &Key> {
        self.own.iter().chain(&self.provided)
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
        if !self.all().any(|key| key.algorithm == named) {
            return Err(TokenFault::Algorithm);
        }
        let kid = header.get("kid").and_then(Json::as_str);
        for key in self.all().filter(|key| key.algorithm == named && key.answers_to(kid)) {
            match jsonwebtoken::crypto::verify(
                signature,
                message.as_bytes(),
                &key.key,
                key.algorithm,
            ) {
                Ok(true) => return self.check(&object(payload)?, now),
                Ok(false) => {}
                Err(_) => return Err(TokenFault::Malformed),
            }
        }
        Err(TokenFault::Signature)
    }

    /// Tells whether a token names a key that the JWKS does not hold, but might by now.
    fn lack_key_of(&self, token: &str) -> bool {
        let header = token.split('.').next().and_then(|header| object(header).ok());
        let kid = header.as_ref().and_then(|header| header.get("kid")?.as_str());
        self.source.is_some()
            && kid
                .is_some_and(|kid| self.provided.iter().all(|key| key.kid.as_deref() != Some(kid)))
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

/// Returns whose token was refused, for the log, when the fault was found after its signature.
#[must_use]
pub fn refused_sub(token: &str, fault: TokenFault) -> Option<String> {
    match fault {
        TokenFault::Missing
        | TokenFault::Malformed
        | TokenFault::Signature
        | TokenFault::Algorithm => None,
        TokenFault::Expired
        | TokenFault::NotYetValid
        | TokenFault::Issuer
        | TokenFault::Audience
        | TokenFault::Claims => {
            let claims = object(token.split('.').nth(1)?).ok()?;
            let sub = claims.get("sub")?.as_str()?;
            is_name(sub).then(|| sub.to_owned())
        }
    }
}

/// Reads one part of a token.
fn object(part: &str) -> Result<Map<String, Json>, TokenFault> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenFault::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenFault::Malformed)
}

#[cfg(test)]
mod tests;
