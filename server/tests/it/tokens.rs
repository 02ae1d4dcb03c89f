//! Which tokens are good, each over a socket (WebSocket API, sections 2 and 8).

use std::process::{Output, Stdio};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::timeout,
};

use crate::{
    provider::{Provider, RSA_PUBLIC, claims, der, now, sign_with, unsigned},
    server::{DEADLINE, PROGRAM, Server},
};

const SECRET: &str = "a secret of these tests, 32 bytes";

/// Brings a token; returns the answer, after which a refused connection has ended.
async fn bring(server: &Server, token: &str) -> Json {
    let mut client = server.connect("/ws").await;
    let answer = client.ask(json!({"type": "auth", "token": token, "id": 1})).await;
    assert_eq!((&answer["type"], &answer["id"]), (&json!("auth_response"), &json!(1)), "{answer}");
    assert!(token.is_empty() || !answer.to_string().contains(token), "no answer repeats a token");
    if answer["success"] == false {
        assert_eq!(client.closed().await.0, 4401);
    }
    answer
}

async fn expect(server: &Server, token: &str, reason: Option<&str>) {
    let answer = bring(server, token).await;
    assert_eq!(answer["success"], reason.is_none(), "{answer}");
    assert_eq!(answer["reason"].as_str(), reason, "{answer}");
    assert_eq!(answer["error"].as_str(), reason.map(|_| "invalid_token"), "{answer}");
}

/// Claims with one of them changed, or without it.
fn but(name: &str, claim: Json) -> Json {
    let mut claims = claims();
    claims["iss"] = json!("us");
    let map = claims.as_object_mut().unwrap();
    if claim.is_null() {
        map.remove(name)
    } else {
        map.insert(name.into(), claim)
    };
    claims
}

#[tokio::test]
async fn a_refusal_says_what_is_wrong() {
    let config = "[auth]\nhs256_secret_file = \"key\"\nissuer = \"us\"\naudience = \"dash\"\n\
        [limits]\nhandshakes_per_minute_per_address = 1000\nbad_tokens_per_minute = 1000";
    let server = Server::with_files(config, &[("key", SECRET)]).await;
    let sign = |claims: &Json| sign_with(SECRET.as_bytes(), &json!({"alg": "HS256"}), claims);
    let good = sign(&but("aud", json!(["other", "dash"])));
    expect(&server, &good, None).await;
    expect(&server, &sign(&but("exp", json!(now() - 20))), None).await;
    let stranger = sign_with(&[7; 32], &json!({"alg": "HS256"}), &but("sub", json!("ops")));
    for (token, reason) in [
        ("", "missing"),
        ("jwt-token", "malformed"),
        ("a.b.c", "malformed"),
        (&format!("{good}="), "malformed"),
        (&stranger, "signature"),
        (&good[..good.rfind('.').unwrap() + 1], "signature"),
    ] {
        expect(&server, token, Some(reason)).await;
    }
    for (name, claim, reason) in [
        ("exp", json!(now() - 40), "expired"),
        ("nbf", json!(now() + 60), "not_yet_valid"),
        ("iss", json!("them"), "issuer"),
        ("iss", Json::Null, "issuer"),
        ("aud", json!("other"), "audience"),
        ("aud", Json::Null, "audience"),
        ("exp", Json::Null, "claims"),
        ("exp", json!("tomorrow"), "claims"),
        ("sub", Json::Null, "claims"),
        ("sub", json!(""), "claims"),
        ("scope", json!(["admin"]), "claims"),
        ("devices", json!("boiler*"), "claims"),
    ] {
        expect(&server, &sign(&but(name, claim)), Some(reason)).await;
    }
}

const PUBLIC_KEYS: &str = "[auth]\nhs256_secret_file = \"key\"\nrs256_public_key_file = \"rsa.pem\"\n\
    es256_public_key_file = \"ec.pem\"\neddsa_public_key_file = \"ed.pem\"\naudience = \"dash\"\n\
    [limits]\nhandshakes_per_minute_per_address = 1000\nbad_tokens_per_minute = 1000";

async fn with_all_keys(provider: &Provider) -> Server {
    let (ec, ed) = (provider.ec_public(), provider.ed_public());
    let files = [("key", SECRET), ("rsa.pem", RSA_PUBLIC), ("ec.pem", &ec), ("ed.pem", &ed)];
    Server::with_files(PUBLIC_KEYS, &files).await
}

#[tokio::test]
async fn the_configuration_says_the_algorithm_never_the_token() {
    let provider = Provider::new();
    let server = with_all_keys(&provider).await;
    for algorithm in ["RS256", "ES256", "EdDSA"] {
        let token = provider.sign(&json!({"alg": algorithm}), &claims());
        expect(&server, &token, None).await;
        // The same signature under another of the configured names.
        let renamed = if algorithm == "RS256" { "ES256" } else { "RS256" };
        let (_, signature) = token.rsplit_once('.').unwrap();
        let renamed = format!("{}.{signature}", unsigned(&json!({"alg": renamed}), &claims()));
        expect(&server, &renamed, Some("signature")).await;
    }
    let rsa_der = der(RSA_PUBLIC);
    for public in [RSA_PUBLIC.as_bytes(), RSA_PUBLIC.trim().as_bytes(), &rsa_der] {
        let forged = sign_with(public, &json!({"alg": "HS256"}), &claims());
        expect(&server, &forged, Some("signature")).await;
        let forged = sign_with(public, &json!({"alg": "RS256"}), &claims());
        expect(&server, &forged, Some("signature")).await;
    }
    let other = Provider::new().sign(&json!({"alg": "EdDSA"}), &claims());
    expect(&server, &other, Some("signature")).await;
    for algorithm in ["none", "None", "NONE", "nOnE", "HS384", "RS384", "PS256", "hs256", ""] {
        let header = json!({"alg": algorithm, "typ": "JWT"});
        for signature in ["", ".", ".AAAA"] {
            let token = format!("{}{signature}", unsigned(&header, &claims()));
            let reason = if signature.is_empty() { "malformed" } else { "algorithm" };
            expect(&server, &token, Some(reason)).await;
        }
    }
    let hs512 = sign_with(SECRET.as_bytes(), &json!({"alg": "HS512"}), &claims());
    expect(&server, &hs512, Some("algorithm")).await;
    let no_name = format!("{}.e30.", URL_SAFE_NO_PAD.encode("{\"typ\":\"JWT\"}"));
    expect(&server, &no_name, Some("malformed")).await;
}

#[tokio::test]
async fn a_header_points_nowhere() {
    let (provider, stranger) = (Provider::new(), Provider::new());
    let server = with_all_keys(&provider).await;
    // Whoever followed these would take the stranger's key, or read a file.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let [x5u, jku] = ["x5u", "jku"].map(|name| json!({"alg": "EdDSA", name: url, "kid": "1"}));
    let headers = [
        x5u,
        jku,
        json!({"alg": "EdDSA", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": "AA"}}),
        json!({"alg": "EdDSA", "kid": "../../../etc/passwd"}),
        json!({"alg": "EdDSA", "kid": "' OR 1=1 --"}),
        json!({"alg": "EdDSA", "kid": ""}),
        json!({"alg": "EdDSA", "kid": 7}),
        json!({"alg": "EdDSA", "kid": null}),
        json!({"alg": "EdDSA", "kid": "k".repeat(2000)}),
    ];
    for header in headers {
        expect(&server, &provider.sign(&header, &claims()), None).await;
        expect(&server, &stranger.sign(&header, &claims()), Some("signature")).await;
    }
    let critical = json!({"alg": "EdDSA", "crit": ["exp"]});
    expect(&server, &provider.sign(&critical, &claims()), Some("malformed")).await;
    let followed = timeout(std::time::Duration::ZERO, listener.accept()).await;
    assert!(followed.is_err(), "nobody may follow jku or x5u");
}

async fn run(arguments: &[&str], folder: &std::path::Path) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).arg("--config").arg(folder.join("server.toml"));
    command.kill_on_drop(true).output().await.unwrap()
}

#[tokio::test]
async fn a_mistake_in_the_keys_names_file_and_line_and_nothing_starts() {
    let files = [("rsa.pem", RSA_PUBLIC), ("short", "too short"), ("nothing.pem", "")];
    for (lines, expected) in [
        ("hs256_secret_file = \"absent\"", ":4: hs256_secret_file: "),
        ("hs256_secret_file = \"short\"", ":4: hs256_secret_file: "),
        ("rs256_public_key_file = \"rsa.pem\"", ":4: rs256_public_key_file: needs an audience"),
        ("audience = \"dash\"\nes256_public_key_file = \"rsa.pem\"", ":5: es256_public_key_file: "),
        ("audience = \"dash\"\neddsa_public_key_file = \"nothing.pem\"", ":5: eddsa_public_key"),
        (
            "audience = \"dash\"\njwks = \"http://id.example.com/keys\"",
            ":5: jwks: is a file, an https",
        ),
        (
            "audience = \"dash\"\njwks = \"https://us:them@id.example.com/keys\"",
            ":5: jwks: is a file",
        ),
        ("audience = \"dash\"\njwks = \"ftp://127.0.0.1/keys\"", ":5: jwks: is a file, an https"),
        ("audience = \"dash\"\njwks = \"absent.json\"", ":5: jwks: "),
        ("audience = \"dash\"\njwks = \"short\"", ":5: jwks: "),
        ("jwks = \"https://id.example.com/keys\"", ":4: jwks: needs an audience"),
        ("rs512_public_key_file = \"rsa.pem\"", ":4: unknown field `rs512_public_key_file`"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let text = format!("listen = \"127.0.0.1:0\"\ndata_dir = \"data\"\n[auth]\n{lines}\n");
        std::fs::write(dir.path().join("server.toml"), text).unwrap();
        for arguments in [&["check"][..], &["run"], &["token", "--sub", "ops"]] {
            let output = run(arguments, dir.path()).await;
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
            assert!(said.contains(&format!("server.toml{expected}")), "{arguments:?}: {said}");
            assert!(output.stdout.is_empty());
        }
    }
}

#[tokio::test]
async fn without_a_secret_no_token_is_signed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rsa.pem"), RSA_PUBLIC).unwrap();
    let public = "[auth]\naudience = \"dash\"\nrs256_public_key_file = \"rsa.pem\"\n";
    for config in ["", public] {
        std::fs::write(dir.path().join("server.toml"), format!("data_dir = \"data\"\n{config}"))
            .unwrap();
        assert_eq!(run(&["check"], dir.path()).await.status.code(), Some(0));
        let output = run(&["token", "--sub", "ops"], dir.path()).await;
        assert_eq!((output.status.code(), output.stdout), (Some(2), vec![]));
        assert!(String::from_utf8(output.stderr).unwrap().contains("no HS256 secret"));
        assert!(!dir.path().join("data").exists(), "looking makes nothing");
    }
}

#[tokio::test]
async fn the_secret_of_the_data_directory_stays_on_sighup() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("server.toml");
    std::fs::write(&config, "listen = \"127.0.0.1:0\"\ndata_dir = \"elsewhere\"").unwrap();
    let mut child = Command::new(PROGRAM)
        .arg("--config")
        .arg(&config)
        .arg("--data")
        .arg(dir.path().join("here"))
        .env_remove("RUST_LOG")
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut until_said = async |text: &str| {
        while !timeout(DEADLINE, lines.next_line()).await.unwrap().unwrap().unwrap().contains(text)
        {
        }
    };
    until_said("listening").await;
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-HUP", &id]).status().await.unwrap().success());
    until_said("taken over").await;
    assert!(dir.path().join("here/secret").exists());
    assert!(!dir.path().join("elsewhere").exists(), "another secret is made");
    child.kill().await.unwrap();
}

#[tokio::test]
async fn the_log_says_whose_token_was_refused_once_its_signature_is_known() {
    let config = "[auth]\nhs256_secret_file = \"key\"\nissuer = \"us\"";
    let mut server = Server::with_files(config, &[("key", SECRET)]).await;
    let header = json!({"alg": "HS256"});
    let mut expired = but("exp", json!(now() - 40));
    expired["sub"] = json!("anna");
    let expired = sign_with(SECRET.as_bytes(), &header, &expired);
    expect(&server, &expired, Some("expired")).await;
    let said = server.has_said("refused an auth", 1).await;
    assert!(said.contains("\"sub\":\"anna\""), "{said}");
    // The next second: this one's line is said.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let mut agent = server.connect("/uplink").await;
    assert_eq!(agent.ask(json!({"type": "auth", "token": expired})).await["reason"], "expired");
    let said = server.has_said("refused an auth", 2).await;
    assert_eq!(said.matches("\"sub\":\"anna\"").count(), 2, "{said}");
    // What nobody signed may say anything.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let mut forged = but("exp", json!(now() + 40));
    forged["sub"] = json!("mallory");
    expect(&server, &sign_with(&[7; 32], &header, &forged), Some("signature")).await;
    let said = server.has_said("refused an auth", 3).await;
    assert!(!said.contains("mallory"), "{said}");
}
