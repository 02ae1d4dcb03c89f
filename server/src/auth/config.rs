//! `[auth]`: where the keys are, and what can be wrong with them.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use axum::http::Uri;
use jsonwebtoken::Algorithm;
use serde::Deserialize;

use super::jwks::JwksError;

/// `[auth]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A file with the secret of HS256.
    pub hs256_secret_file: Option<PathBuf>,
    /// A PEM file with the public key of RS256, of 2048 bits or more; several may stand in it, as
    /// in the next two.
    pub rs256_public_key_file: Option<PathBuf>,
    /// A PEM file with the public key of ES256.
    pub es256_public_key_file: Option<PathBuf>,
    /// A PEM file with the public key of EdDSA (Ed25519).
    pub eddsa_public_key_file: Option<PathBuf>,
    /// A JSON Web Key Set with public keys: a file, an https URL, or an http URL of this machine.
    pub jwks: Option<String>,
    /// Who has to have issued a token; absent: anybody with the key.
    pub issuer: Option<String>,
    /// For whom a token has to be meant; absent: anybody, which no public key allows.
    pub audience: Option<String>,
}

/// Where a JWKS is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    File(PathBuf),
    Url(Uri),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url(url) => url.fmt(f),
        }
    }
}

impl Config {
    /// Returns where the JWKS is, if there is one.
    pub(super) fn jwks_source(&self, folder: &Path) -> Result<Option<Source>, KeyError> {
        let Some(jwks) = &self.jwks else { return Ok(None) };
        if !jwks.contains("://") {
            return Ok(Some(Source::File(folder.join(jwks))));
        }
        let url: Uri = jwks.parse().map_err(|_| KeyError::Url)?;
        let host = url.host().unwrap_or_default();
        let here = host == "localhost"
            || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
        let named = url.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        match url.scheme_str() {
            Some("https") if named => Ok(Some(Source::Url(url))),
            Some("http") if named && here => Ok(Some(Source::Url(url))),
            _ => Err(KeyError::Url),
        }
    }

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
    /// A JWKS is nowhere from where keys could be had safely.
    #[error("is a file, an https URL, or an http URL of this machine itself")]
    Url,
    /// A file does not hold the JWKS that it should.
    #[error("{}: {error}", .path.display())]
    Jwks {
        /// Which file.
        path: PathBuf,
        /// Why not.
        error: JwksError,
    },
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
