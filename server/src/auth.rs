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
use valtronics_protocol::{
    error::TokenFault,
    filter::Channel,
    id::DeviceId,
    reading::{MAX_NAME_BYTES, is_name},
    time::UnixMillis,
};

use crate::domain::pattern::NamePattern;

mod crypto;

/// How far clocks may differ.
const LEEWAY: Duration = Duration::from_secs(30);
/// The least that a secret has: as much as its hash (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;
/// The most entries of `devices` in a token: what fits 8 KiB.
const MAX_GRANTS: usize = 4096;

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

/// What a scope allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Read readings.
    TelemetryRead,
    /// Read alerts and rules.
    AlertsRead,
    /// Change alerts and rules.
    AlertsWrite,
    /// Read devices.
    DevicesRead,
    /// Change devices.
    DevicesWrite,
    /// Read the server's state.
    SystemRead,
    /// Send readings.
    Uplink,
    /// Everything but send readings.
    Admin,
}

impl Scope {
    const ALL: [Self; 8] = [
        Self::TelemetryRead,
        Self::AlertsRead,
        Self::AlertsWrite,
        Self::DevicesRead,
        Self::DevicesWrite,
        Self::SystemRead,
        Self::Uplink,
        Self::Admin,
    ];

    /// Returns the name in a token.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TelemetryRead => "telemetry:read",
            Self::AlertsRead => "alerts:read",
            Self::AlertsWrite => "alerts:write",
            Self::DevicesRead => "devices:read",
            Self::DevicesWrite => "devices:write",
            Self::SystemRead => "system:read",
            Self::Uplink => "uplink",
            Self::Admin => "admin",
        }
    }
}

/// The scopes of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// What a token without `scope` may: read everything.
    #[must_use]
    pub fn reading() -> Self {
        let reading =
            [Scope::TelemetryRead, Scope::AlertsRead, Scope::DevicesRead, Scope::SystemRead];
        Self(reading.into_iter().fold(0, |bits, scope| bits | 1 << scope as u8))
    }

    /// Reads names separated by spaces (RFC 6749, section 3.3); what is not known allows nothing.
    fn parse(text: &str) -> Self {
        let known = |name: &str| Scope::ALL.into_iter().find(|scope| scope.as_str() == name);
        Self(text.split(' ').filter_map(known).fold(0, |bits, scope| bits | 1 << scope as u8))
    }

    fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// Tells whether a scope is allowed; `admin` is everything but `uplink`.
    #[must_use]
    pub fn contains(self, scope: Scope) -> bool {
        self.has(scope) || (self.has(Scope::Admin) && scope != Scope::Uplink)
    }

    /// Tells whether a channel may be read.
    #[must_use]
    pub fn may_read(self, channel: Channel) -> bool {
        self.contains(match channel {
            Channel::Telemetry => Scope::TelemetryRead,
            Channel::Alerts => Scope::AlertsRead,
            Channel::Devices => Scope::DevicesRead,
            Channel::System => Scope::SystemRead,
        })
    }

    /// Returns what the token came to, as names.
    #[must_use]
    pub fn names(self) -> Vec<&'static str> {
        let had = Scope::ALL.into_iter().filter(|scope| self.contains(*scope));
        had.map(Scope::as_str).collect()
    }
}

/// The devices of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceGrant {
    /// All of them.
    All,
    /// These ids, and those whose name or key one of these patterns covers.
    Only {
        /// Ids, sorted.
        ids: Arc<[DeviceId]>,
        /// Patterns.
        patterns: Arc<[NamePattern]>,
    },
}

impl DeviceGrant {
    /// Tells whether every device is allowed.
    #[must_use]
    pub fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// Tells whether a device is allowed.
    #[must_use]
    pub fn allows(&self, id: DeviceId, name: &str, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only { ids, patterns } => {
                ids.binary_search(&id).is_ok()
                    || patterns.iter().any(|pattern| pattern.covers(name, key))
            }
        }
    }

    /// Tells whether a device that does not exist yet may be asked for: under ids only those, under
    /// patterns any, to be judged when it appears.
    #[must_use]
    pub fn knows_id(&self, id: DeviceId) -> bool {
        match self {
            Self::All => true,
            Self::Only { ids, patterns } => !patterns.is_empty() || ids.binary_search(&id).is_ok(),
        }
    }
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

fn read_grant(devices: Option<&Json>) -> Result<DeviceGrant, TokenFault> {
    let entries = match devices {
        None => return Ok(DeviceGrant::All),
        Some(Json::Array(entries)) if entries.len() <= MAX_GRANTS => entries,
        Some(_) => return Err(TokenFault::Claims),
    };
    let (mut ids, mut patterns) = (Vec::new(), Vec::new());
    for entry in entries {
        match entry {
            Json::Number(id) => ids.push(DeviceId(id.as_u64().ok_or(TokenFault::Claims)?)),
            Json::String(text) if !text.is_empty() && text.len() <= 2 * MAX_NAME_BYTES => {
                patterns.push(NamePattern::new(text));
            }
            _ => return Err(TokenFault::Claims),
        }
    }
    ids.sort();
    Ok(DeviceGrant::Only { ids: ids.into(), patterns: patterns.into() })
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
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

    fn keys(config: &Config) -> (tempfile::TempDir, Keys) {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::load(config, dir.path(), dir.path(), true).unwrap();
        (dir, keys)
    }

    fn sign(keys: &Keys, claims: &Json) -> String {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &keys.signing).unwrap()
    }

    #[test]
    fn a_secret_is_made_once_and_for_the_server_only() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, keys) = keys(&Config::default());
        let token = keys.mint("ops", None, None, Duration::from_secs(60), NOW).unwrap();
        let again = Keys::load(&Config::default(), dir.path(), dir.path(), true).unwrap();
        assert!(again.verify(&token, NOW).is_ok());
        let mode = std::fs::metadata(dir.path().join("secret")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let empty = tempfile::tempdir().unwrap();
        let missing = Keys::load(&Config::default(), empty.path(), empty.path(), false);
        assert!(matches!(missing, Err(AuthConfigError::NoSecret)));
    }

    #[test]
    fn each_fault_has_its_name() {
        let config = Config {
            issuer: Some("us".into()),
            audience: Some("dash".into()),
            ..Config::default()
        };
        let (_dir, keys) = keys(&config);
        let exp = NOW.0 / 1000 + 60;
        let good = json!({"sub": "ops", "exp": exp, "iss": "us", "aud": ["x", "dash"]});
        let with = |key: &str, value: Json| {
            let mut claims = good.clone();
            claims[key] = value;
            sign(&keys, &claims)
        };
        let without = |key: &str| {
            let mut claims = good.clone();
            claims.as_object_mut().unwrap().remove(key);
            sign(&keys, &claims)
        };
        let good_token = sign(&keys, &good);
        let none = format!("eyJhbGciOiJub25lIn0.{}.", good_token.split('.').nth(1).unwrap());
        let hs512 = {
            let body = good_token.split('.').nth(1).unwrap();
            format!("eyJhbGciOiJIUzUxMiJ9.{body}.AAAA")
        };
        let mut forged = good_token.clone();
        forged.replace_range(forged.len() - 4.., "AAAA");
        for (token, fault) in [
            (String::new(), TokenFault::Missing),
            ("jwt-token".into(), TokenFault::Malformed),
            ("a.b.c".into(), TokenFault::Malformed),
            (forged, TokenFault::Signature),
            (none, TokenFault::Algorithm),
            (hs512, TokenFault::Algorithm),
            (with("exp", json!(NOW.0 / 1000 - 31)), TokenFault::Expired),
            (with("exp", json!("soon")), TokenFault::Claims),
            (with("exp", json!(1e18)), TokenFault::Claims),
            (without("exp"), TokenFault::Claims),
            (with("nbf", json!(NOW.0 / 1000 + 31)), TokenFault::NotYetValid),
            (with("iss", json!("them")), TokenFault::Issuer),
            (without("iss"), TokenFault::Issuer),
            (with("aud", json!("mail")), TokenFault::Audience),
            (without("aud"), TokenFault::Audience),
            (without("sub"), TokenFault::Claims),
            (with("sub", json!("")), TokenFault::Claims),
            (with("scope", json!(["uplink"])), TokenFault::Claims),
            (with("devices", json!([1.5])), TokenFault::Claims),
        ] {
            assert_eq!(keys.verify(&token, NOW), Err(fault), "{token}");
        }
        for token in
            [good_token, with("exp", json!(NOW.0 / 1000 - 29)), with("nbf", json!(exp - 60))]
        {
            assert!(keys.verify(&token, NOW).is_ok());
        }
    }

    #[test]
    fn scopes_and_devices_narrow() {
        let (_dir, keys) = keys(&Config::default());
        let verify = |scope: Option<&str>, devices: Option<&[Json]>| {
            let token = keys.mint("ops", scope, devices, Duration::from_secs(60), NOW).unwrap();
            keys.verify(&token, NOW).unwrap()
        };
        let reading = ["telemetry:read", "alerts:read", "devices:read", "system:read"];
        assert_eq!(verify(None, None).scopes.names(), reading);
        assert_eq!(verify(Some("uplink x"), None).scopes.names(), ["uplink"]);
        let admin = verify(Some("admin"), None).scopes;
        assert!(admin.contains(Scope::AlertsWrite) && !admin.contains(Scope::Uplink));
        let narrow = verify(None, Some(&[json!(3), json!("boiler*"), json!("site/x*")])).devices;
        assert!(narrow.allows(DeviceId(3), "roof", "ops/roof"));
        assert!(narrow.allows(DeviceId(4), "boiler-2", "ops/boiler-2"));
        assert!(narrow.allows(DeviceId(4), "x1", "site/x1"));
        assert!(!narrow.allows(DeviceId(4), "x1", "ops/x1"));
        assert!(narrow.knows_id(DeviceId(99)));
        let ids = verify(None, Some(&[json!(3)])).devices;
        assert!(ids.knows_id(DeviceId(3)) && !ids.knows_id(DeviceId(4)));
    }
}
