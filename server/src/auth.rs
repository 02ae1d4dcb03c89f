//! Who may do what: tokens are JWT (RFC 7519), and say so themselves (WebSocket API, section 8).
//!
//! The algorithm comes from the configured keys, never from the token. The library checks form and
//! signature; the claims are checked here, against the clock that is given.

use std::{
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use serde::Deserialize;
use serde_json::{Map, Value as Json};
use valtronics_protocol::{error::TokenFault, reading::is_name, time::UnixMillis};

mod crypto;
mod grant;

use grant::read_grant;
pub use grant::{DeviceGrant, Scope, Scopes};

/// How far clocks may differ: for so long a token counts after its expiry (WebSocket API, section 8).
pub const LEEWAY: Duration = Duration::from_secs(30);
/// The least that a secret has: as much as its hash (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// `[auth]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A file with the secret of HS256.
    pub hs256_secret_file: Option<PathBuf>,
    rs256_public_key_file: Option<PathBuf>,
    es256_public_key_file: Option<PathBuf>,
    eddsa_public_key_file: Option<PathBuf>,
    jwks: Option<String>,
    /// Who has to have issued a token; absent: anybody with the key.
    pub issuer: Option<String>,
    /// For whom a token has to be meant; absent: anybody.
    pub audience: Option<String>,
}

/// Why the keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthConfigError {
    /// A file cannot be read or written.
    #[error("{}: {error}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: std::io::Error,
    },
    /// The secret is too short.
    #[error("{}: the secret has {found} bytes, but needs at least 32", .path.display())]
    ShortSecret {
        /// Which file.
        path: PathBuf,
        /// How many it has.
        found: usize,
    },
    /// A key of a kind that this version does not know.
    #[error("{0} is not supported by this version yet: use hs256_secret_file")]
    Unsupported(&'static str),
    /// There is no secret to sign with.
    #[error("there is no HS256 secret to sign with: start the server once, or name its file")]
    NoSecret,
}

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
}

/// The keys that verify tokens.
pub struct Keys {
    verifying: DecodingKey,
    signing: EncodingKey,
    validation: Validation,
    issuer: Option<String>,
    audience: Option<String>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Keys {
    /// Loads the keys; where none is configured, `data_dir` holds a secret, which is made at the
    /// first start if `make` says so.
    ///
    /// # Errors
    /// When a file cannot be read or written, or what it holds is not good enough.
    pub fn load(
        config: &Config,
        folder: &Path,
        data_dir: &Path,
        make: bool,
    ) -> Result<Self, AuthConfigError> {
        let unsupported = [
            ("rs256_public_key_file", config.rs256_public_key_file.is_some()),
            ("es256_public_key_file", config.es256_public_key_file.is_some()),
            ("eddsa_public_key_file", config.eddsa_public_key_file.is_some()),
            ("jwks", config.jwks.is_some()),
        ];
        if let Some((key, _)) = unsupported.into_iter().find(|(_, given)| *given) {
            return Err(AuthConfigError::Unsupported(key));
        }
        let made = data_dir.join("secret");
        let path = config.hs256_secret_file.as_ref().map_or(made.clone(), |file| folder.join(file));
        let at = |error| AuthConfigError::File { path: path.clone(), error };
        if config.hs256_secret_file.is_none() && !made.exists() {
            if !make {
                return Err(AuthConfigError::NoSecret);
            }
            make_secret(&made).map_err(at)?;
        }
        let secret = std::fs::read(&path).map_err(at)?;
        let secret = secret.strip_suffix(b"\n").unwrap_or(&secret);
        let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
        if secret.len() < MIN_SECRET_BYTES {
            return Err(AuthConfigError::ShortSecret { path, found: secret.len() });
        }
        crypto::install();
        let mut validation = Validation::new(Algorithm::HS256);
        // The claims are checked here, against the clock that is given.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        Ok(Self {
            verifying: DecodingKey::from_secret(secret),
            signing: EncodingKey::from_secret(secret),
            validation,
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
        let header = jsonwebtoken::decode_header(token);
        if header.is_ok_and(|header| header.alg != Algorithm::HS256) {
            return Err(TokenFault::Algorithm);
        }
        let decoded =
            jsonwebtoken::decode::<Map<String, Json>>(token, &self.verifying, &self.validation);
        let claims = decoded.map_err(|error| match error.kind() {
            ErrorKind::InvalidSignature => TokenFault::Signature,
            ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => TokenFault::Algorithm,
            // A header names an algorithm that the library has never heard of: `none`.
            ErrorKind::Json(_) if names_an_algorithm(token) => TokenFault::Algorithm,
            _ => TokenFault::Malformed,
        })?;
        self.check(&claims.claims, now)
    }

    fn check(&self, claims: &Map<String, Json>, now: UnixMillis) -> Result<Claims, TokenFault> {
        let moment = |name| match claims.get(name) {
            None => Ok(None),
            Some(seconds) => {
                let seconds = seconds.as_f64().ok_or(TokenFault::Claims)?;
                // RFC 3339 ends with the year 9999.
                let most = UnixMillis::MAX.0 as f64 / 1000.0;
                let known = (0.0..=most).contains(&seconds);
                if known {
                    Ok(Some(UnixMillis((seconds * 1000.0) as i64)))
                } else {
                    Err(TokenFault::Claims)
                }
            }
        };
        let expires_at = moment("exp")?.ok_or(TokenFault::Claims)?;
        if expires_at.plus(LEEWAY) <= now {
            return Err(TokenFault::Expired);
        }
        if moment("nbf")?.is_some_and(|not_before| not_before > now.plus(LEEWAY)) {
            return Err(TokenFault::NotYetValid);
        }
        if let Some(issuer) = &self.issuer
            && claims.get("iss").and_then(Json::as_str) != Some(issuer)
        {
            return Err(TokenFault::Issuer);
        }
        if let Some(audience) = &self.audience {
            let meant = match claims.get("aud") {
                Some(Json::String(one)) => one == audience,
                Some(Json::Array(many)) => many.iter().any(|one| one.as_str() == Some(audience)),
                _ => false,
            };
            if !meant {
                return Err(TokenFault::Audience);
            }
        }
        let sub = claims.get("sub").and_then(Json::as_str).filter(|sub| is_name(sub));
        let scopes = match claims.get("scope") {
            None => Scopes::reading(),
            Some(Json::String(scope)) => Scopes::parse(scope),
            Some(_) => return Err(TokenFault::Claims),
        };
        Ok(Claims {
            sub: sub.ok_or(TokenFault::Claims)?.into(),
            scopes,
            devices: read_grant(claims.get("devices"))?,
            expires_at,
        })
    }

    /// Signs a token.
    ///
    /// # Errors
    /// When the library cannot, which is a bug.
    pub fn mint(
        &self,
        sub: &str,
        scope: Option<&str>,
        devices: Option<&[Json]>,
        ttl: Duration,
        now: UnixMillis,
    ) -> Result<String, jsonwebtoken::errors::Error> {
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
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.signing)
    }
}

/// Tells whether a token's header is JSON that names an algorithm.
fn names_an_algorithm(token: &str) -> bool {
    use base64::Engine as _;
    let header = token.split('.').next().unwrap_or_default();
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header);
    let header = bytes.ok().and_then(|bytes| serde_json::from_slice::<Json>(&bytes).ok());
    header.is_some_and(|header| header.get("alg").is_some_and(Json::is_string))
}

/// Makes a secret that only the server's user can read.
fn make_secret(path: &Path) -> std::io::Result<()> {
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let temporary = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
