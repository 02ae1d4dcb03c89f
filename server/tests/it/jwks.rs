//! The keys of an identity provider: published as a JWKS, rotated, broken, and read again.

use std::{
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use rcgen::generate_simple_self_signed;
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    process::Command,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};
use valtronics_server::clock;

use crate::{
    provider::{Provider, claims, sign_with},
    server::{DEADLINE, PROGRAM, Server},
};

/// Limits under which many tokens can be tried.
const LIMITS: &str = "[limits]\nhandshakes_per_minute_per_address = 1000\n\
    bad_tokens_per_minute = 1000\nconnects_per_minute = 1000\n";
/// How far apart fetches are that tokens ask for.
const REST: u64 = 10;

fn config_of(jwks: &str) -> String {
    format!("[auth]\naudience = \"dash\"\njwks = \"{jwks}\"\n{LIMITS}")
}

fn set(keys: &[Json]) -> String {
    json!({ "keys": keys }).to_string()
}

fn token(provider: &Provider, algorithm: &str, kid: &str) -> String {
    provider.sign(&json!({"alg": algorithm, "kid": kid}), &claims())
}

/// Brings a token; returns the reason of the refusal, if it is one.
async fn bring(server: &Server, token: &str) -> Option<String> {
    let mut client = server.connect("/ws").await;
    let answer = client.ask(json!({"type": "auth", "token": token})).await;
    assert_eq!(answer["success"], answer["error"].is_null(), "{answer}");
    answer["reason"].as_str().map(str::to_owned)
}

/// Brings a token until it fares so: what is read again is read a moment later.
async fn bring_until(server: &Server, token: &str, expected: Option<&str>) {
    let trying = async {
        while bring(server, token).await.as_deref() != expected {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(DEADLINE, trying).await.expect("the keys change");
}

fn refused() -> Option<String> {
    Some("signature".into())
}

/// Replaces a file as a careful operator does.
fn replace(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join("new"), text).unwrap();
    std::fs::rename(folder.join("new"), folder.join(name)).unwrap();
}

/// An HTTP server on this machine that publishes one document.
struct Publisher {
    url: String,
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Publisher {
    async fn new(status: &str, document: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys?v=1", listener.local_addr().unwrap());
        let answer = Arc::new(Mutex::new(String::new()));
        let asked = Arc::new(AtomicUsize::new(0));
        let mut serving = JoinSet::new();
        let (shared, counter) = (Arc::clone(&answer), Arc::clone(&asked));
        serving.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (mut request, mut piece) = (Vec::new(), [0; 1024]);
                while !request.ends_with(b"\r\n\r\n") {
                    let count = stream.read(&mut piece).await.unwrap();
                    assert!(count > 0, "a request is whole");
                    request.extend_from_slice(&piece[..count]);
                }
                assert!(request.starts_with(b"GET /keys?v=1 HTTP/1.1\r\n"));
                let answer = shared.lock().unwrap().clone();
                counter.fetch_add(1, Ordering::SeqCst);
                // Who has read enough does not read on.
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let publisher = Self { url, answer, asked, _serving: serving };
        publisher.publish(status, document);
        publisher
    }

    /// Publishes another document; the status may hold headers, too.
    fn publish(&self, status: &str, document: &str) {
        let length = document.len();
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n");
        *self.answer.lock().unwrap() = format!("{head}Connection: close\r\n\r\n{document}");
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

#[tokio::test]
async fn a_file_of_keys_is_read_again_when_it_changes() {
    let (old, new) = (Provider::new(), Provider::new());
    let others = [
        json!({"kty": "oct", "kid": "oct", "alg": "HS256", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"}),
        json!({"kty": "RSA", "kid": "encrypt", "use": "enc", "n": "AQAB", "e": "AQAB"}),
        json!({"kty": "of tomorrow"}),
    ];
    let keys = [old.rsa_jwk("r"), old.ec_jwk("c"), old.ed_jwk("d"), new.ed_jwk("second")];
    let text = set(&[&others[..], &keys].concat());
    let server = Server::with_files(&config_of("keys.json"), &[("keys.json", &text)]).await;
    for (algorithm, kid) in [("RS256", "r"), ("ES256", "c"), ("EdDSA", "d")] {
        assert_eq!(bring(&server, &token(&old, algorithm, kid)).await, None, "{algorithm}");
        let unnamed = old.sign(&json!({"alg": algorithm}), &claims());
        assert_eq!(bring(&server, &unnamed).await, None, "{algorithm} without kid");
    }
    assert_eq!(bring(&server, &token(&new, "EdDSA", "second")).await, None, "two of a kind");
    // A key verifies what names it, in its own algorithm, and a secret in a set nothing.
    assert_eq!(bring(&server, &token(&new, "EdDSA", "d")).await, refused());
    assert_eq!(bring(&server, &token(&old, "EdDSA", "c")).await, refused());
    let oct = json!({"alg": "HS256", "kid": "oct"});
    let forged = sign_with(b"secretsecretsecretsecret", &oct, &claims());
    assert_eq!(bring(&server, &forged).await.as_deref(), Some("algorithm"));

    replace(server.folder(), "keys.json", "{\"keys\": 5}");
    assert_eq!(bring(&server, &token(&new, "ES256", "new")).await, refused());
    assert_eq!(bring(&server, &token(&old, "ES256", "c")).await, None, "the old keys stay");

    replace(server.folder(), "keys.json", &set(&[new.ec_jwk("new")]));
    bring_until(&server, &token(&new, "ES256", "new"), None).await;
    assert_eq!(bring(&server, &token(&old, "ES256", "c")).await, refused(), "it is withdrawn");
}

#[tokio::test]
async fn a_rotation_is_met_by_the_first_token_that_needs_it() {
    let (old, new) = (Provider::new(), Provider::new());
    let publisher = Publisher::new("200 OK", &set(&[old.ec_jwk("old")])).await;
    let server = Server::with(&config_of(&publisher.url)).await;
    assert_eq!(publisher.asked(), 1, "before anybody comes");
    assert_eq!(bring(&server, &token(&old, "ES256", "old")).await, None);
    assert_eq!(publisher.asked(), 1, "a key that is known is not fetched");

    publisher.publish("200 OK", &set(&[new.ec_jwk("new")]));
    let begin = clock::instant();
    assert_eq!(bring(&server, &token(&new, "ES256", "new")).await, None);
    assert_eq!(publisher.asked(), 2);
    let (status, _) = server.http("GET", "/api/v1/devices", &token(&new, "ES256", "new"), "").await;
    assert_eq!(status, 200);

    // A flood of unknown keys asks no oftener than it may, and is refused.
    let mut flood = FuturesUnordered::new();
    for n in 0..40 {
        let (server, token) = (&server, token(&old, "ES256", &format!("unknown {n}")));
        flood.push(async move { bring(server, &token).await });
    }
    while let Some(answer) = flood.next().await {
        assert_eq!(answer, refused());
    }
    let (status, _) = server.http("GET", "/api/v1/devices", &token(&old, "ES256", "x"), "").await;
    assert_eq!(status, 401);
    let most = 3 + usize::try_from(begin.elapsed().as_secs() / REST).unwrap();
    assert!(publisher.asked() <= most, "{} times, not {most}", publisher.asked());
    assert_eq!(bring(&server, &token(&old, "ES256", "old")).await, refused(), "it is withdrawn");
    assert_eq!(bring(&server, &token(&new, "ES256", "new")).await, None);
}

#[tokio::test]
async fn what_is_no_set_of_keys_changes_nothing() {
    let (provider, stranger) = (Provider::new(), Provider::new());
    let publisher = Publisher::new("200 OK", &set(&[provider.ed_jwk("1")])).await;
    let elsewhere = Publisher::new("200 OK", &set(&[stranger.ed_jwk("1")])).await;
    let server = Server::with(&config_of(&publisher.url)).await;
    let redirect = format!("302 Found\r\nLocation: {}", elsewhere.url);
    let good = set(&[stranger.ed_jwk("1")]);
    let large = format!("{good}{}", " ".repeat(300_000));
    for (status, document) in [
        ("500 Internal Server Error", &*good),
        ("404 Not Found", &good),
        (&redirect, &good),
        ("200 OK", "{\"keys\": []}"),
        ("200 OK", "<html>"),
        ("200 OK", &large),
        ("200 OK\r\nContent-Length: 9", &good),
    ] {
        publisher.publish(status, document);
        let before = publisher.asked();
        server.reload(&config_of(&publisher.url)).await;
        let fetched = async {
            while publisher.asked() == before {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE, fetched).await.expect("SIGHUP fetches");
        assert_eq!(bring(&server, &token(&provider, "EdDSA", "1")).await, None, "{status}");
        assert_eq!(bring(&server, &token(&stranger, "EdDSA", "1")).await, refused(), "{status}");
    }
    assert_eq!(elsewhere.asked(), 0, "no redirect is followed");
    publisher.publish("200 OK", &set(&[stranger.ed_jwk("1")]));
    server.reload(&config_of(&publisher.url)).await;
    bring_until(&server, &token(&stranger, "EdDSA", "1"), None).await;
    assert_eq!(bring(&server, &token(&provider, "EdDSA", "1")).await, refused());
}

/// Starts the program with one certificate as the only root, until it listens; returns what it
/// said before.
async fn said_at_start(url: &str, root: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("server.toml");
    let listen = format!("listen = \"127.0.0.1:0\"\ndata_dir = \"data\"\n{}", config_of(url));
    std::fs::write(&config, listen).unwrap();
    std::fs::write(dir.path().join("root.pem"), root).unwrap();
    let mut child = Command::new(PROGRAM)
        .arg("--config")
        .arg(config)
        .env("SSL_CERT_FILE", dir.path().join("root.pem"))
        .env_remove("SSL_CERT_DIR")
        .env_remove("RUST_LOG")
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = String::new();
    while !said.contains("listening") {
        let line = timeout(DEADLINE, lines.next_line()).await.expect("the server starts");
        said.push_str(&line.unwrap().expect("the server runs"));
    }
    child.kill().await.unwrap();
    said
}

#[tokio::test]
async fn over_https_the_certificate_is_checked() {
    let pair = || generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (ours, other) = (pair(), pair());
    let key = PrivateKeyDer::try_from(ours.signing_key.serialize_der()).unwrap();
    let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![ours.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = Arc::new(AtomicUsize::new(0));
    let (mut serving, counter) = (JoinSet::new(), Arc::clone(&served));
    let document = set(&[Provider::new().ed_jwk("1")]);
    serving.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4096]).await;
            counter.fetch_add(1, Ordering::SeqCst);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", document.len());
            let _ = stream.write_all(format!("{head}{document}").as_bytes()).await;
            let _ = stream.flush().await;
            // Until it is closed: what is on its way may be lost otherwise.
            let _ = stream.read(&mut [0; 4096]).await;
        }
    });
    let said = said_at_start(&format!("https://localhost:{port}/"), &ours.cert.pem()).await;
    assert!(!said.contains("JWKS"), "{said}");
    assert_eq!(served.load(Ordering::SeqCst), 1);
    for (host, root) in [("localhost", &other), ("127.0.0.1", &ours)] {
        let said = said_at_start(&format!("https://{host}:{port}/"), &root.cert.pem()).await;
        assert!(said.contains("JWKS cannot be used") && said.contains("certificate"), "{said}");
    }
    assert_eq!(served.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_provider_that_is_down_stops_no_server() {
    let provider = Provider::new();
    let publisher = Publisher::new("503 Service Unavailable", "").await;
    let config = format!(
        "[auth]\nhs256_secret_file = \"key\"\naudience = \"dash\"\njwks = \"{}\"\n{LIMITS}",
        publisher.url
    );
    let secret = "a secret of these tests, 32 bytes";
    let server = Server::with_files(&config, &[("key", secret)]).await;
    let ours = sign_with(secret.as_bytes(), &json!({"alg": "HS256"}), &claims());
    assert_eq!(bring(&server, &ours).await, None);
    publisher.publish("200 OK", &set(&[provider.rsa_jwk("1")]));
    // Agents, too, wait for the key of their token.
    let mut uplink = server.connect("/uplink").await;
    let mut sender = claims();
    sender["scope"] = json!("uplink");
    let sender = provider.sign(&json!({"alg": "RS256", "kid": "1"}), &sender);
    let answer = uplink.ask(json!({"type": "auth", "token": sender})).await;
    assert_eq!(answer["success"], true, "{answer}");
    assert_eq!(bring(&server, &token(&provider, "RS256", "1")).await, None);
}

#[tokio::test]
async fn keys_in_files_are_read_again_on_sighup() {
    let (old, new) = (Provider::new(), Provider::new());
    let both = format!("{}{}", old.ed_public(), new.ed_public());
    let config =
        format!("[auth]\naudience = \"dash\"\neddsa_public_key_file = \"ed.pem\"\n{LIMITS}");
    let server = Server::with_files(&config, &[("ed.pem", &old.ed_public())]).await;
    let sign = |provider: &Provider| provider.sign(&json!({"alg": "EdDSA"}), &claims());
    let (by_old, by_new) = (sign(&old), sign(&new));
    assert_eq!(bring(&server, &by_old).await, None);
    assert_eq!(bring(&server, &by_new).await, refused());
    let mut inside = server.connect("/ws").await;
    inside.authenticate(&by_old).await;

    replace(server.folder(), "ed.pem", &both);
    server.reload(&config).await;
    bring_until(&server, &by_new, None).await;
    assert_eq!(bring(&server, &by_old).await, None, "both count while they change");

    replace(server.folder(), "ed.pem", &new.ed_public());
    server.reload(&config).await;
    bring_until(&server, &by_old, Some("signature")).await;
    assert_eq!(bring(&server, &by_new).await, None);
    inside.subscribe("alerts").await;

    // A bad file changes nothing, the limits in it neither.
    replace(server.folder(), "ed.pem", "nothing");
    server.reload(&config.replace("connects_per_minute = 1000", "connects_per_minute = 1")).await;
    inside.expect_silence().await;
    assert_eq!(bring(&server, &by_new).await, None);
}
