//! TLS on the server's one port: certificates, their change, and handshakes that never end.

use std::{path::Path, sync::Arc};

use futures_util::TryStreamExt as _;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore, SupportedProtocolVersion,
        crypto::ring,
        pki_types::CertificateDer,
        version::{TLS12, TLS13},
    },
};
use tokio_tungstenite::tungstenite::Message;

use crate::server::{DEADLINE, PROGRAM, Server, drip};

const CONFIG: &str = "[tls]\ncert = \"server.crt\"\nkey = \"server.key\"";
/// A handshake's record of 512 bytes begins (RFC 8446, section 5.1).
const HALF_A_HELLO: &[u8] = &[22, 3, 1, 2, 0, 1, 0];

fn pair() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned()]).unwrap()
}

fn write(folder: &Path, pair: &CertifiedKey<KeyPair>) {
    std::fs::write(folder.join("server.crt"), pair.cert.pem()).unwrap();
    std::fs::write(folder.join("server.key"), pair.signing_key.serialize_pem()).unwrap();
}

async fn server(pair: &CertifiedKey<KeyPair>, config: &str) -> Server {
    let (cert, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    let files = [("server.crt", &*cert), ("server.key", &key)];
    Server::with_files(&format!("{config}\n{CONFIG}"), &files).await
}

/// Connects with one of these certificates as the root.
async fn connect(
    server: &Server,
    trusted: &[&CertifiedKey<KeyPair>],
    version: &'static SupportedProtocolVersion,
) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.iter().map(|pair| pair.cert.der().clone()));
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(&server.address).await.unwrap();
    let connecting =
        TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), tcp);
    timeout(DEADLINE, connecting).await.expect("the handshake ends").unwrap()
}

fn shown(stream: &TlsStream<TcpStream>) -> &CertificateDer<'static> {
    &stream.get_ref().1.peer_certificates().unwrap()[0]
}

#[tokio::test]
async fn a_subscriber_over_wss_gets_telemetry() {
    let pair = pair();
    let server = server(&pair, "").await;
    let token = server.token("ops", None, None).await;
    // Programs of this machine need no TLS: this agent speaks plain on the same port.
    let mut agent = server.agent("site", None).await;
    for (seq, version) in [(1, &TLS12), (2, &TLS13)] {
        let mut client =
            server.connect_over("/ws", connect(&server, &[&pair], version).await).await;
        client.authenticate(&token).await;
        client.subscribe("telemetry").await;
        agent.readings(seq, "a", json!([{"metric": "t", "value": seq}])).await;
        assert_eq!(client.next().await["telemetry"]["t"]["value"], seq);
        client.send_frame(Message::Close(None)).await;
        let left = timeout(DEADLINE, client.stream().try_collect::<Vec<_>>()).await.unwrap();
        assert!(left.is_ok(), "TLS ends with its last word: {left:?}");
    }
}

#[tokio::test]
async fn https_is_on_the_same_port() {
    let pair = pair();
    let server = server(&pair, "").await;
    let mut stream = connect(&server, &[&pair], &TLS13).await;
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok\n"), "{answer}");
    assert_eq!(server.raw("GET", "/healthz", "", "").await.0, 200, "and so is HTTP, from here");
}

#[tokio::test]
async fn a_new_certificate_is_for_those_who_come_and_a_bad_one_for_nobody() {
    let (old, new) = (pair(), pair());
    let mut server = server(&old, "").await;
    let stream = connect(&server, &[&old, &new], &TLS13).await;
    assert_eq!(shown(&stream), old.cert.der());
    let mut client = server.connect_over("/ws", stream).await;
    client.authenticate(&server.token("ops", None, None).await).await;

    write(server.folder(), &new);
    server.reload(CONFIG).await;
    server.has_said("the certificate is read again", 1).await;
    let stream = connect(&server, &[&old, &new], &TLS13).await;
    assert_eq!(shown(&stream), new.cert.der());
    client.expect_silence().await;

    let lost = pair().signing_key.serialize_pem();
    std::fs::write(server.folder().join("server.key"), &lost).unwrap();
    server.reload(CONFIG).await;
    let said = server.has_said("the certificate stays", 1).await;
    assert!(said.contains("server.key: is not the key of"), "{said}");
    for line in lost.lines() {
        assert!(!said.contains(line), "a key is in the log: {said}");
    }
    // The rest of the configuration is taken over all the same.
    server.has_said("and rules are taken over", 2).await;
    let stream = connect(&server, &[&old, &new], &TLS13).await;
    assert_eq!(shown(&stream), new.cert.der());
    client.expect_silence().await;
}

#[tokio::test]
async fn a_changed_file_needs_no_signal() {
    let (old, new) = (pair(), pair());
    let mut server = server(&old, "").await;
    let certificate = server.folder().join("server.crt");
    std::fs::remove_file(&certificate).unwrap();
    server.has_said("the certificate stays", 1).await;
    assert_eq!(shown(&connect(&server, &[&old, &new], &TLS13).await), old.cert.der());
    write(server.folder(), &new);
    let said = server.has_said("the certificate is read again", 1).await;
    assert_eq!(said.matches("the certificate stays").count(), 1, "said once: {said}");
    assert_eq!(shown(&connect(&server, &[&old, &new], &TLS13).await), new.cert.der());
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_ended_and_holds_nobody_up() {
    let pair = pair();
    let server = server(&pair, "[limits]\nhandshake_within = \"1s\"").await;
    let tcp = async || TcpStream::connect(&server.address).await.unwrap();
    let (hello, head) = (tcp().await, connect(&server, &[&pair], &TLS13).await);
    tokio::join!(drip(hello, HALF_A_HELLO), drip(head, b"GET /healthz HTTP/1.1\r\nX: "));
}

#[tokio::test]
async fn five_hundred_half_open_handshakes_hold_nobody_up() {
    let pair = pair();
    let server = server(&pair, "[limits]\nhandshake_within = \"60s\"").await;
    let mut half_open = Vec::new();
    for _ in 0..500 {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(HALF_A_HELLO).await.unwrap();
        half_open.push(stream);
    }
    let mut client = server.connect_over("/ws", connect(&server, &[&pair], &TLS13).await).await;
    client.authenticate(&server.token("ops", None, None).await).await;
    client.expect_silence().await;
    for stream in half_open {
        let read = stream.try_read(&mut [0; 8]);
        assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "still half-open");
    }
}

#[test]
fn check_says_which_file_of_a_pair_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, other) = (pair(), pair());
    let check = |cert: &str, key: &str| {
        std::fs::write(folder.path().join("server.crt"), cert).unwrap();
        std::fs::write(folder.path().join("server.key"), key).unwrap();
        std::fs::write(folder.path().join("server.toml"), format!("\n{CONFIG}")).unwrap();
        let mut check = std::process::Command::new(PROGRAM);
        let output = check.args(["check", "--config"]).arg(folder.path().join("server.toml"));
        let output = output.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (cert, key) = (ours.cert.pem(), ours.signing_key.serialize_pem());
    assert_eq!(check(&cert, &key), (Some(0), String::new()), "and nothing to warn of");
    let odd_pem = key.replace("-----END", "-----ENDE");
    for (cert, key, at, why) in [
        ("", &*key, "server.toml:3: cert: ", "server.crt: holds no certificate"),
        ("nonsense", &key, "server.toml:3: cert: ", "server.crt: holds no certificate"),
        (&cert.replace('M', "N"), &key, "server.toml:3: cert: ", "server.crt: "),
        (&cert, "", "server.toml:4: key: ", "server.key: holds no private key"),
        (&cert, &odd_pem, "server.toml:4: key: ", "server.key: is no PEM"),
        (&cert, &cert, "server.toml:4: key: ", "server.key: holds no private key"),
        (&cert, &other.signing_key.serialize_pem(), "server.toml:4: key: ", "is not the key of"),
    ] {
        let (code, said) = check(cert, key);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(at) && said.contains(why), "{at}{why}: {said}");
        let secret = key.lines().nth(1).unwrap_or("nothing");
        assert!(!said.contains(secret), "{said}");
    }
    std::fs::remove_file(folder.path().join("server.key")).unwrap();
    let mut run = std::process::Command::new(PROGRAM);
    let output = run.arg("--config").arg(folder.path().join("server.toml")).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "nothing starts");
}
