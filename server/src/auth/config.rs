//! `[auth]`: where the keys are, and what can be wrong with them.

use std::path::{Path, PathBuf};

use jsonwebtoken::Algorithm;
use serde::Deserialize;

/// `[auth]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A file with the secret of HS256.
    pub hs256_secret_file: Option<PathBuf>,
    /// A PEM file with the public key of RS256, of 2048 bits or more.
    pub rs256_public_key_file: Option<PathBuf>,
    /// A PEM file with the public key of ES256.
    pub es256_public_key_file: Option<PathBuf>,
    /// A PEM file with the public key of EdDSA (Ed25519).
    pub eddsa_public_key_file: Option<PathBuf>,
    pub(super) jwks: Option<String>,
    /// Who has to have issued a token; absent: anybody with the key.
    pub issuer: Option<String>,
    /// For whom a token has to be meant; absent: anybody, which no public key allows.
    pub audience: Option<String>,
}

impl Config {
    /// Returns the files of public keys, each with its key of the configuration.
    pub(super) fn public_keys(&self) -> impl Iterator<Item = (&'static str, Algorithm, &Path)> {
        let files = [
            ("rs256_public_key_file", Algorithm::RS256, &self.rs256_public_key_file),
            ("es256_public_key_file", Algorithm::ES256, &self.es256_public_key_file),
            ("eddsa_public_key_file", Algorithm::EdDSA, &self.eddsa_public_key_file),
        ];
        let named = files.into_iter();
        named.filter_map(|(name, algorithm, file)| Some((name, algorithm, file.as_deref()?)))
    }
}

/// Why the keys cannot be used, and which key of the configuration says so.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {error}")]
pub struct AuthConfigError {
    /// The key in `[auth]`, or `data_dir`, where the server's own secret is.
    pub key: &'static str,
    /// Why not.
    pub error: KeyError,
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
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
    /// A file does not hold the public key that it should.
    #[error("{}: this is no public key for {algorithm:?} in PEM; {wanted}", .path.display())]
    PublicKey {
        /// Which file.
        path: PathBuf,
        /// What the key is for.
        algorithm: Algorithm,
        /// What would be one.
        wanted: &'static str,
    },
    /// A public key without `audience`: any application's token of that issuer would do.
    #[error("needs an audience: say for whom a token has to be meant")]
    NoAudience,
    /// A key of a kind that this version does not know.
    #[error("is not supported by this version yet: name the file of the public key instead")]
    Unsupported,
    /// There is no secret to sign with.
    #[error("there is no HS256 secret to sign with: start the server once, or name its file")]
    NoSecret,
}

impl KeyError {
    /// Says which key of the configuration is wrong.
    pub(super) fn of(self, key: &'static str) -> AuthConfigError {
        AuthConfigError { key, error: self }
    }
}
