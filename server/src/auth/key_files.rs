//! The files of keys, and the secret that a server makes when nobody gave it a key.

use std::{io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use jsonwebtoken::{Algorithm, DecodingKey};

use super::{Key, KeyError, jwks};

/// The least that a secret has: as much as its hash (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;
/// The sizes of RSA keys that `ring` verifies with.
pub(super) const RSA_MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

fn read(path: &Path) -> Result<Vec<u8>, KeyError> {
    std::fs::read(path).map_err(|error| KeyError::File { path: path.to_path_buf(), error })
}

/// Reads a secret; the end of its line is not part of it.
pub(super) fn secret(path: &Path) -> Result<Vec<u8>, KeyError> {
    let read = read(path)?;
    let secret = read.strip_suffix(b"\n").unwrap_or(&read);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    if secret.len() < MIN_SECRET_BYTES {
        let found = secret.len();
        return Err(KeyError::ShortSecret { path: path.to_path_buf(), found });
    }
    Ok(secret.to_vec())
}

/// Reads the server's own secret; one that is not there is made if `make` says so.
pub(super) fn own_secret(data_dir: &Path, make: bool) -> Result<Option<Vec<u8>>, KeyError> {
    let path = data_dir.join("secret");
    if !path.exists() {
        if !make {
            return Ok(None);
        }
        make_secret(data_dir, &path)
            .map_err(|error| KeyError::File { path: path.clone(), error })?;
    }
    secret(&path).map(Some)
}

/// Makes a secret that only the server's user can read.
fn make_secret(folder: &Path, path: &Path) -> std::io::Result<()> {
    let mut random = [0_u8; MIN_SECRET_BYTES];
    getrandom::fill(&mut random).map_err(std::io::Error::other)?;
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::create_dir_all(folder)?;
    let temporary = path.with_extension("new");
    // What stands here already keeps its rights, whatever `mode` says.
    if temporary.exists() {
        std::fs::remove_file(&temporary)?;
    }
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(folder)?.sync_all()
}

/// Reads a set of public keys.
pub(super) fn jwks(path: &Path) -> Result<Vec<Key>, KeyError> {
    jwks::parse(&read(path)?).map_err(|error| KeyError::Jwks { path: path.to_path_buf(), error })
}

/// Reads public keys, one or several; one that could never verify anything is refused here.
pub(super) fn public_keys(algorithm: Algorithm, path: &Path) -> Result<Vec<DecodingKey>, KeyError> {
    let read = read(path)?;
    let text = String::from_utf8_lossy(&read);
    let begins = text.match_indices("-----BEGIN ").map(|(at, _)| at);
    let ends = begins.clone().skip(1).chain([text.len()]);
    let keys: Option<Vec<_>> =
        begins.zip(ends).map(|(at, end)| public_key(algorithm, text.get(at..end)?)).collect();
    keys.filter(|keys| !keys.is_empty()).ok_or_else(|| {
        let wanted = match algorithm {
            Algorithm::RS256 => "RSA has 2048 to 8192 bits",
            Algorithm::ES256 => "its curve is P-256",
            _ => "its curve is Ed25519",
        };
        KeyError::PublicKey { path: path.to_path_buf(), algorithm, wanted }
    })
}

fn public_key(algorithm: Algorithm, pem: &str) -> Option<DecodingKey> {
    let key = match algorithm {
        Algorithm::RS256 => DecodingKey::from_rsa_pem(pem.as_bytes()),
        Algorithm::ES256 => DecodingKey::from_ec_pem(pem.as_bytes()),
        _ => DecodingKey::from_ed_pem(pem.as_bytes()),
    };
    key.ok().filter(|key| fits(algorithm, key.try_get_as_bytes().unwrap_or_default()))
}

fn fits(algorithm: Algorithm, key: &[u8]) -> bool {
    match (algorithm, key) {
        // RSAPublicKey (RFC 8017, appendix A.1.1) begins with the modulus, which has one byte more
        // for its sign; a private key begins with its version, a much shorter number.
        (Algorithm::RS256, &[0x30, 0x82, _, _, 0x02, 0x82, high, low, ..]) => {
            let bytes = usize::from(high) << 8 | usize::from(low);
            RSA_MODULUS_BITS.contains(&(8 * bytes.saturating_sub(1)))
        }
        (Algorithm::RS256, _) => false,
        (Algorithm::ES256, point) => point.len() == 65 && point.first() == Some(&0x04),
        (_, point) => point.len() == 32,
    }
}
