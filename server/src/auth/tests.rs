use base64::engine::general_purpose::STANDARD;
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RsaKeyPair,
    },
};
use serde_json::json;
use valtronics_protocol::id::DeviceId;

use std::path::PathBuf;

use super::*;

const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn keys(config: &Config) -> (tempfile::TempDir, Keys) {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::load(config, dir.path(), dir.path(), true).unwrap();
    (dir, keys)
}

/// What is wrong with which key of the configuration.
fn fault(loaded: Result<Keys, AuthConfigError>) -> (&'static str, KeyError) {
    let AuthConfigError { key, error } = loaded.unwrap_err();
    (key, error)
}

fn sign(keys: &Keys, claims: &Json) -> String {
    let signing = keys.signing.as_ref().unwrap();
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, signing).unwrap()
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
    let none = Keys::load(&Config::default(), empty.path(), empty.path(), false).unwrap();
    assert_eq!(none.verify(&token, NOW), Err(TokenFault::Algorithm));
    let minted = none.mint("ops", None, None, Duration::from_secs(60), NOW);
    assert!(matches!(minted, Err(KeyError::NoSecret)));
    assert!(!empty.path().join("secret").exists());
}

/// Keys that want an issuer and an audience, and claims that they take.
fn demanding() -> (tempfile::TempDir, Keys, Json) {
    let config =
        Config { issuer: Some("us".into()), audience: Some("dash".into()), ..Config::default() };
    let (dir, keys) = keys(&config);
    let exp = NOW.0 / 1000 + 60;
    (dir, keys, json!({"sub": "ops", "exp": exp, "iss": "us", "aud": ["x", "dash"]}))
}

#[test]
fn what_is_no_good_token_is_told_by_its_fault() {
    let (_dir, keys, good) = demanding();
    let good = sign(&keys, &good);
    let body = good.split('.').nth(1).unwrap();
    let mut forged = good.clone();
    forged.replace_range(forged.len() - 4.., "AAAA");
    for (token, fault) in [
        (String::new(), TokenFault::Missing),
        ("jwt-token".into(), TokenFault::Malformed),
        ("a.b.c".into(), TokenFault::Malformed),
        (forged, TokenFault::Signature),
        (format!("eyJhbGciOiJub25lIn0.{body}."), TokenFault::Algorithm),
        (format!("eyJhbGciOiJIUzUxMiJ9.{body}.AAAA"), TokenFault::Algorithm),
    ] {
        assert_eq!(keys.verify(&token, NOW), Err(fault), "{token}");
    }
}

#[test]
fn each_claim_is_checked() {
    let (_dir, keys, good) = demanding();
    let now = NOW.0 / 1000;
    let check = |name: &str, claim: Option<Json>, expected: Result<(), TokenFault>| {
        let mut claims = good.clone();
        let map = claims.as_object_mut().unwrap();
        match claim {
            Some(claim) => map.insert(name.to_owned(), claim),
            None => map.remove(name),
        };
        let found = keys.verify(&sign(&keys, &claims), NOW);
        assert_eq!(found.map(|_| ()), expected, "{claims}");
    };
    for (name, claim) in [
        ("exp", json!(now - 29)),
        ("exp", json!(now as f64 + 0.5)),
        ("nbf", json!(now + 29)),
        ("aud", json!("dash")),
        ("sub", json!("x".repeat(128))),
        ("scope", json!("")),
    ] {
        check(name, Some(claim), Ok(()));
    }
    let mut named = good.clone();
    named["jti"] = json!("t-1");
    let named = keys.verify(&sign(&keys, &named), NOW).unwrap();
    assert_eq!(named.jti.as_deref(), Some("t-1"));
    check("exp", Some(json!(now - 31)), Err(TokenFault::Expired));
    check("nbf", Some(json!(now + 31)), Err(TokenFault::NotYetValid));
    check("iss", Some(json!("them")), Err(TokenFault::Issuer));
    check("iss", None, Err(TokenFault::Issuer));
    check("aud", Some(json!("mail")), Err(TokenFault::Audience));
    check("aud", Some(json!([])), Err(TokenFault::Audience));
    check("aud", None, Err(TokenFault::Audience));
    check("exp", None, Err(TokenFault::Claims));
    check("sub", None, Err(TokenFault::Claims));
    let wrong = json!({
        "exp": ["soon", 1e18, null, -1], "nbf": ["now"], "iss": [["us"]], "aud": [["dash", 1]],
        "sub": ["", 7, "a\nb", "x".repeat(129)], "scope": [["uplink"], null], "jti": [1],
        "devices": ["boiler*", [1.5], [-1], [""], vec!["boiler*"; 65]],
    });
    for (name, values) in wrong.as_object().unwrap() {
        for value in values.as_array().unwrap() {
            check(name, Some(value.clone()), Err(TokenFault::Claims));
        }
    }
}

#[test]
fn scopes_and_devices_narrow() {
    let (_dir, keys) = keys(&Config::default());
    let verify = |scope: Option<&str>, devices: Option<&[Json]>| {
        let token = keys.mint("ops", scope, devices, Duration::from_secs(60), NOW).unwrap();
        keys.verify(&token, NOW).unwrap()
    };
    assert_eq!(verify(Some(""), None).scopes.names(), [""; 0]);
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
    let many: Vec<Json> = (0..500).map(Json::from).chain(vec![json!("boiler*"); 64]).collect();
    assert!(verify(None, Some(&many)).devices.allows(DeviceId(499), "roof", "ops/roof"));
    let ids = verify(None, Some(&[json!(3)])).devices;
    assert!(ids.knows_id(DeviceId(3)) && !ids.knows_id(DeviceId(4)));
}

/// The key pairs of an identity provider, and a folder with its public keys.
struct Provider {
    folder: tempfile::TempDir,
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Provider {
    fn new() -> Self {
        let random = SystemRandom::new();
        let curve = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let ec = EcdsaKeyPair::generate_pkcs8(curve, &random).unwrap();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let provider = Self {
            folder: tempfile::tempdir().unwrap(),
            rsa: RsaKeyPair::from_pkcs8(&der(include_str!("testdata/rsa.private.pem"))).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(curve, ec.as_ref(), &random).unwrap(),
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
        };
        // SubjectPublicKeyInfo: all that stands before the point (RFC 5480, RFC 8410).
        let ec = [&EC_BEFORE[..], provider.ec.public_key().as_ref()].concat();
        let ed = [&ED_BEFORE[..], provider.ed.public_key().as_ref()].concat();
        provider.write("rsa", include_str!("testdata/rsa.public.pem"));
        provider.write("ec", &pem("PUBLIC KEY", &ec));
        provider.write("ed", &pem("PUBLIC KEY", &ed));
        provider
    }

    fn write(&self, file: &str, text: &str) {
        std::fs::write(self.folder.path().join(file), text).unwrap();
    }

    fn load(&self, config: &Config) -> Result<Keys, AuthConfigError> {
        Keys::load(config, self.folder.path(), self.folder.path(), true)
    }

    fn sign(&self, header: &Json, claims: &Json) -> String {
        let part = |part: &Json| URL_SAFE_NO_PAD.encode(part.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let random = SystemRandom::new();
        let signature = match header["alg"].as_str().unwrap() {
            "RS256" => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                let bytes = message.as_bytes();
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature).unwrap();
                signature
            }
            "ES256" => self.ec.sign(&random, message.as_bytes()).unwrap().as_ref().to_vec(),
            _ => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

const EC_BEFORE: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const ED_BEFORE: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

fn der(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    STANDARD.decode(body).unwrap()
}

fn pem(kind: &str, der: &[u8]) -> String {
    format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", STANDARD.encode(der))
}

fn public(rsa: Option<&str>, ec: Option<&str>, ed: Option<&str>) -> Config {
    Config {
        rs256_public_key_file: rsa.map(PathBuf::from),
        es256_public_key_file: ec.map(PathBuf::from),
        eddsa_public_key_file: ed.map(PathBuf::from),
        audience: Some("dash".into()),
        ..Config::default()
    }
}

fn for_dash() -> Json {
    json!({"sub": "ops", "exp": NOW.0 / 1000 + 60, "aud": "dash"})
}

#[test]
fn each_key_verifies_its_own_algorithm_only() {
    let provider = Provider::new();
    let all = provider.load(&public(Some("rsa"), Some("ec"), Some("ed"))).unwrap();
    let signed = |alg: &str| provider.sign(&json!({"alg": alg}), &for_dash());
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        let mut token = signed(algorithm);
        assert_eq!(&*all.verify(&token, NOW).unwrap().sub, "ops", "{algorithm}");
        // The first character of the signature: the last one holds bits that nobody reads.
        let at = token.rfind('.').unwrap() + 1;
        token.replace_range(at..=at, if &token[at..=at] == "A" { "B" } else { "A" });
        assert_eq!(all.verify(&token, NOW), Err(TokenFault::Signature), "{algorithm}");
    }
    let one = provider.load(&public(None, Some("ec"), None)).unwrap();
    assert!(one.verify(&signed("ES256"), NOW).is_ok());
    assert_eq!(one.verify(&signed("EdDSA"), NOW), Err(TokenFault::Algorithm));
    // Another provider's key of the same kind.
    let other = Provider::new().sign(&json!({"alg": "ES256"}), &for_dash());
    assert_eq!(one.verify(&other, NOW), Err(TokenFault::Signature));
    let minted = one.mint("ops", None, None, Duration::from_secs(60), NOW);
    assert!(matches!(minted, Err(KeyError::NoSecret)));
}

#[test]
fn a_public_key_is_no_secret() {
    let provider = Provider::new();
    provider.write("secret", &"s".repeat(32));
    let config = public(Some("rsa"), None, None);
    let both = Config { hs256_secret_file: Some("secret".into()), ..config.clone() };
    let (one, both) = (provider.load(&config).unwrap(), provider.load(&both).unwrap());
    let minted = both.mint("ops", None, None, Duration::from_secs(60), NOW).unwrap();
    assert!(both.verify(&minted, NOW).is_ok());
    assert_eq!(one.verify(&minted, NOW), Err(TokenFault::Algorithm));
    let public_pem = include_str!("testdata/rsa.public.pem");
    let in_pem = der(public_pem);
    for secret in [public_pem.as_bytes(), public_pem.trim().as_bytes(), &in_pem] {
        let key = EncodingKey::from_secret(secret);
        let forged = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &for_dash(), &key);
        let forged = forged.unwrap();
        assert_eq!(one.verify(&forged, NOW), Err(TokenFault::Algorithm));
        assert_eq!(both.verify(&forged, NOW), Err(TokenFault::Signature));
    }
}

#[test]
fn a_header_is_read_as_the_standard_says() {
    let provider = Provider::new();
    let keys = provider.load(&public(None, None, Some("ed"))).unwrap();
    for header in [
        json!({"alg": "EdDSA", "kid": "../../etc/passwd", "x": {"y": 1}}),
        json!({"alg": "EdDSA", "typ": "at+jwt", "jku": "http://192.0.2.1/", "jwk": 5, "x5u": "x"}),
    ] {
        assert!(keys.verify(&provider.sign(&header, &for_dash()), NOW).is_ok(), "{header}");
    }
    for (header, fault) in [
        (json!({"alg": "EdDSA", "crit": ["exp"]}), TokenFault::Malformed),
        (json!({"alg": "EdDSA", "crit": [], "b64": false}), TokenFault::Malformed),
        (json!({"alg": "none"}), TokenFault::Algorithm),
        (json!({"alg": "None"}), TokenFault::Algorithm),
        (json!({"alg": "eddsa"}), TokenFault::Algorithm),
        (json!({"alg": "HS512"}), TokenFault::Algorithm),
        (json!({"alg": "RS256"}), TokenFault::Algorithm),
        (json!({"alg": ""}), TokenFault::Algorithm),
    ] {
        assert_eq!(keys.verify(&provider.sign(&header, &for_dash()), NOW), Err(fault), "{header}");
    }
    let good = provider.sign(&json!({"alg": "EdDSA"}), &for_dash());
    let (message, _) = good.rsplit_once('.').unwrap();
    for (token, fault) in [
        (format!("{good}."), TokenFault::Malformed),
        (format!("{good}.x"), TokenFault::Malformed),
        (format!("{good}="), TokenFault::Malformed),
        (format!(" {good}"), TokenFault::Malformed),
        (message.to_owned(), TokenFault::Malformed),
        ("..".to_owned(), TokenFault::Malformed),
        (format!("{}.e30.", URL_SAFE_NO_PAD.encode("[]")), TokenFault::Malformed),
        (format!("{}.e30.", URL_SAFE_NO_PAD.encode("{\"alg\":1}")), TokenFault::Malformed),
        (format!("{message}."), TokenFault::Signature),
    ] {
        assert_eq!(keys.verify(&token, NOW), Err(fault), "{token}");
    }
}

#[test]
fn what_could_never_verify_is_refused_at_the_start() {
    let provider = Provider::new();
    provider.write("private", include_str!("testdata/rsa.private.pem"));
    provider.write("short", include_str!("testdata/rsa-1024.public.pem"));
    provider.write("nothing", "");
    provider.write("secret", &format!("{}\r\n", "s".repeat(31)));
    provider.write("pkcs1", &pem("RSA PUBLIC KEY", provider.rsa.public().as_ref()));
    assert!(provider.load(&public(Some("pkcs1"), None, None)).is_ok());
    for config in [
        public(Some("private"), None, None),
        public(Some("short"), None, None),
        public(Some("nothing"), None, None),
        public(Some("ec"), None, None),
        public(None, Some("rsa"), None),
        public(None, Some("ed"), None),
        public(None, None, Some("ec")),
        public(None, None, Some("private")),
    ] {
        let (_, found) = fault(provider.load(&config));
        assert!(matches!(found, KeyError::PublicKey { .. }), "{config:?}: {found:?}");
    }
    let unnamed = Config { audience: None, ..public(Some("rsa"), None, None) };
    assert!(matches!(
        fault(provider.load(&unnamed)),
        ("rs256_public_key_file", KeyError::NoAudience)
    ));
    let absent = provider.load(&public(Some("absent"), None, None));
    assert!(matches!(fault(absent), ("rs256_public_key_file", KeyError::File { .. })));
    let short = Config { hs256_secret_file: Some("secret".into()), ..Config::default() };
    let short = provider.load(&short);
    assert!(matches!(fault(short), ("hs256_secret_file", KeyError::ShortSecret { found: 31, .. })));
}

#[test]
fn of_a_set_counts_what_can_verify() {
    let provider = Provider::new();
    let (x, y) = provider.ec.public_key().as_ref()[1..].split_at(32);
    let [x, y] = [x, y].map(|number| URL_SAFE_NO_PAD.encode(number));
    let ed = URL_SAFE_NO_PAD.encode(provider.ed.public_key());
    let rsa = ring::rsa::PublicKeyComponents::<Vec<u8>>::from(provider.rsa.public());
    let n = URL_SAFE_NO_PAD.encode([&[0][..], &rsa.n].concat());
    let ec = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "1"});
    let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": ed});
    let rsa = json!({"kty": "RSA", "n": n, "e": "AQAB"});
    let check = |base: &Json, name: &str, value: Json, expected: bool| {
        let mut key = base.clone();
        key[name] = value;
        let parsed = jwks::parse(json!({ "keys": [key, 5] }).to_string().as_bytes());
        assert_eq!(parsed.is_ok(), expected, "{key}: {:?}", parsed.err());
    };
    for key in [&ec, &ed, &rsa] {
        check(key, "x5c", json!(["ignored"]), true);
        check(key, "use", json!("sig"), true);
        check(key, "use", json!("enc"), false);
        check(key, "key_ops", json!(["verify"]), true);
        check(key, "key_ops", json!(["sign"]), false);
        check(key, "alg", json!("none"), false);
        check(key, "alg", json!("HS256"), false);
        check(key, "d", json!("AQAB"), false);
        check(key, "kty", json!("oct"), false);
    }
    check(&ed, "alg", json!("Ed25519"), true);
    check(&rsa, "alg", json!("PS256"), false);
    check(&rsa, "n", json!("AQAB"), false);
    check(&rsa, "n", json!("not base64!"), false);
    check(&rsa, "e", json!("AA"), false);
    check(&ec, "crv", json!("P-384"), false);
    check(&ec, "x", json!("AQAB"), false);
    let many = json!({ "keys": vec![&ed; 65] }).to_string();
    assert!(matches!(jwks::parse(many.as_bytes()), Err(JwksError::TooLarge)));
    assert!(matches!(jwks::parse(b"[]"), Err(JwksError::Form(_))));
    assert!(matches!(jwks::parse(&[b' '; 300_000]), Err(JwksError::TooLarge)));
}
