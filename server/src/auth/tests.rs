use serde_json::json;

use valtronics_protocol::id::DeviceId;

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
    let config =
        Config { issuer: Some("us".into()), audience: Some("dash".into()), ..Config::default() };
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
    for token in [good_token, with("exp", json!(NOW.0 / 1000 - 29)), with("nbf", json!(exp - 60))] {
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
