//! An identity provider: key pairs, the tokens that they sign, and their public halves.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RsaKeyPair, RsaPublicKeyComponents,
    },
};
use serde_json::{Value as Json, json};

/// Its RSA key in PEM, as it would be published.
pub(crate) const RSA_PUBLIC: &str = include_str!("../../src/auth/testdata/rsa.public.pem");
const RSA_PRIVATE: &str = include_str!("../../src/auth/testdata/rsa.private.pem");

/// What stands before the point in SubjectPublicKeyInfo (RFC 5480, RFC 8410).
const EC_BEFORE: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const ED_BEFORE: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// One provider; those of another one differ, but for the key of RSA.
pub(crate) struct Provider {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Provider {
    /// Makes new keys.
    pub(crate) fn new() -> Self {
        let random = SystemRandom::new();
        let curve = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let ec = EcdsaKeyPair::generate_pkcs8(curve, &random).unwrap();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self {
            rsa: RsaKeyPair::from_pkcs8(&der(RSA_PRIVATE)).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(curve, ec.as_ref(), &random).unwrap(),
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
        }
    }

    /// Returns the public key of ES256 in PEM.
    pub(crate) fn ec_public(&self) -> String {
        pem(&[&EC_BEFORE[..], self.ec.public_key().as_ref()].concat())
    }

    /// Returns the public key of EdDSA in PEM.
    pub(crate) fn ed_public(&self) -> String {
        pem(&[&ED_BEFORE[..], self.ed.public_key().as_ref()].concat())
    }

    /// Returns the public key of RS256 as it stands in a JWKS.
    pub(crate) fn rsa_jwk(&self, kid: &str) -> Json {
        let RsaPublicKeyComponents { n, e } =
            RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public());
        let [n, e] = [n, e].map(|number| URL_SAFE_NO_PAD.encode(number));
        json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": n, "e": e})
    }

    /// Returns the public key of ES256 as it stands in a JWKS.
    pub(crate) fn ec_jwk(&self, kid: &str) -> Json {
        let point = self.ec.public_key().as_ref();
        let [x, y] = [&point[1..33], &point[33..]].map(|number| URL_SAFE_NO_PAD.encode(number));
        json!({"kty": "EC", "crv": "P-256", "key_ops": ["verify"], "kid": kid, "x": x, "y": y})
    }

    /// Returns the public key of EdDSA as it stands in a JWKS.
    pub(crate) fn ed_jwk(&self, kid: &str) -> Json {
        let x = URL_SAFE_NO_PAD.encode(self.ed.public_key());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x})
    }

    /// Signs what the header says.
    pub(crate) fn sign(&self, header: &Json, claims: &Json) -> String {
        let message = unsigned(header, claims);
        let random = SystemRandom::new();
        let signature = match header["alg"].as_str().unwrap() {
            "RS256" => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                let bytes = message.as_bytes();
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature).unwrap();
                signature
            }
            "ES256" => self.ec.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
            other => panic!("{other} is signed by nobody here"),
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Signs with a secret: HS512 if the header says so, else HS256 whatever it says.
pub(crate) fn sign_with(secret: &[u8], header: &Json, claims: &Json) -> String {
    let hash = if header["alg"] == "HS512" { hmac::HMAC_SHA512 } else { hmac::HMAC_SHA256 };
    let message = unsigned(header, claims);
    let signature = hmac::sign(&hmac::Key::new(hash, secret), message.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// Returns the claims of a user, good for an hour, for the audience `dash`.
pub(crate) fn claims() -> Json {
    json!({"sub": "ops", "aud": "dash", "exp": now() + 3600})
}

/// Returns the seconds since 1970.
pub(crate) fn now() -> i64 {
    valtronics_server::clock::now().0 / 1000
}

/// Returns what is signed.
pub(crate) fn unsigned(header: &Json, claims: &Json) -> String {
    let part = |part: &Json| URL_SAFE_NO_PAD.encode(part.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// Returns the bytes that PEM holds.
pub(crate) fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(body).unwrap()
}

fn pem(der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
}
