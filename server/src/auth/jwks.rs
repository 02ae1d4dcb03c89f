//! JSON Web Key Sets (RFC 7517): the public keys of an identity provider, several an algorithm.
//!
//! What the server could not verify with is passed over, since a set may hold keys for others
//! (section 5). That goes for secrets, too: whoever may read a set must not be able to sign.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value as Json;

use super::{Key, key_files::RSA_MODULUS_BITS};

/// The largest set in bytes: those of large providers have ten keys, with certificates some 30 KiB.
pub(super) const MAX_BYTES: usize = 256 * 1024;
/// The most keys of a set: a token without `kid` is tried with each one of its algorithm.
const MAX_KEYS: usize = 64;

/// Why a set is of no use.
#[derive(Debug, thiserror::Error)]
pub enum JwksError {
    /// It is none.
    #[error("this is no JSON Web Key Set: {0}")]
    Form(#[from] serde_json::Error),
    /// None of its keys can verify anything here.
    #[error("it holds no public key for RS256, ES256 or EdDSA")]
    NoKey,
    /// It is larger than any set that is meant.
    #[error("it has more than {MAX_KEYS} keys or {MAX_BYTES} bytes")]
    TooLarge,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Json>,
}

/// Reads a set.
pub(super) fn parse(text: &[u8]) -> Result<Vec<Key>, JwksError> {
    if text.len() > MAX_BYTES {
        return Err(JwksError::TooLarge);
    }
    let set: Set = serde_json::from_slice(text)?;
    let keys: Vec<Key> = set.keys.iter().filter_map(key).collect();
    match keys.len() {
        0 => Err(JwksError::NoKey),
        1..=MAX_KEYS => Ok(keys),
        _ => Err(JwksError::TooLarge),
    }
}

/// Reads a key, if it is one to verify with.
fn key(jwk: &Json) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Json::as_str);
    let number = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    // A point's coordinate, or a key of Edwards curves (RFC 7518, section 6.2.1; RFC 8037).
    let point = |name: &str| number(name).filter(|bytes| bytes.len() == 32);
    let (algorithm, names, key) = match (text("kty")?, text("crv")) {
        ("RSA", _) => {
            let (n, e) = (magnitude(number("n")?), magnitude(number("e")?));
            let fits = RSA_MODULUS_BITS.contains(&bits(&n)) && !e.is_empty();
            let key = fits.then(|| DecodingKey::from_rsa_raw_components(&n, &e))?;
            (Algorithm::RS256, &["RS256"][..], key)
        }
        ("EC", Some("P-256")) => {
            let uncompressed = [&[0x04][..], &point("x")?, &point("y")?].concat();
            (Algorithm::ES256, &["ES256"][..], DecodingKey::from_ec_der(&uncompressed))
        }
        // RFC 9864 names the algorithm by the curve.
        ("OKP", Some("Ed25519")) => {
            let key = DecodingKey::from_ed_der(&point("x")?);
            (Algorithm::EdDSA, &["EdDSA", "Ed25519"][..], key)
        }
        _ => return None,
    };
    let operations = jwk.get("key_ops").and_then(Json::as_array);
    let verifies = text("use").is_none_or(|purpose| purpose == "sig")
        && operations.is_none_or(|all| all.iter().any(|one| one == "verify"))
        && text("alg").is_none_or(|alg| names.contains(&alg))
        // Who publishes the private half has made it worthless.
        && jwk.get("d").is_none();
    verifies.then(|| Key { algorithm, kid: text("kid").map(str::to_owned), key })
}

/// Removes the zeros before a number: some providers write them, against section 2 of RFC 7518.
fn magnitude(number: Vec<u8>) -> Vec<u8> {
    number.into_iter().skip_while(|byte| *byte == 0).collect()
}

fn bits(number: &[u8]) -> usize {
    let first = number.first().map_or(0, |first| first.leading_zeros() as usize);
    8 * number.len() - first
}
