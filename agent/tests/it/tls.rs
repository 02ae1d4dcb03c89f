//! TLS: servers and brokers that are known by `ca_file`.

use std::sync::Arc;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tokio::{io::AsyncWriteExt, net::TcpListener};
use tokio_rustls::TlsAcceptor;
use valtronics_protocol::value::Value;

use crate::{
    parts::Broker,
    server::Server,
    world::{World, within},
};

fn pair() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap()
}

fn acceptor(pair: &CertifiedKey<KeyPair>) -> TlsAcceptor {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(pair.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![pair.cert.der().clone()], key);
    TlsAcceptor::from(Arc::new(config.unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_server_that_is_known_gets_the_token() {
    let (world, known, stranger) = (World::new(), pair(), pair());
    let server = Server::start().await.with_tls(acceptor(&stranger));
    world.write("ca.crt", known.cert.pem());
    let lines = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = lines.local_addr().unwrap();
    let serial = format!("[[serial]]\nport = \"tcp://{port}\"\nname = \"a\"\nformat = \"kv\"\n");
    let uplink = format!("url = \"wss://{}/uplink\"\nca_file = \"ca.crt\"", server.address);
    world.configure_uplink(&uplink, &serial);
    let agent = world.run();
    server.distrusted().await;
    let (mut line, _) = within("the agent reads", lines.accept()).await.unwrap();
    line.write_all(b"t=1\n").await.unwrap();

    // The name and the address stay; the right one comes back.
    let server = server.with_tls(acceptor(&known));
    let mut session = server.welcome(None).await;
    assert_eq!(session.auth.token, "a-token");
    let (seq, reading) = session.numbered(1).await.remove(0);
    assert_eq!((seq, &reading.value), (1, &Value::Int(1)));
    session.ack(1).await;
    assert_eq!(agent.stop().await, Some(0));
    assert!(!world.log().contains("a-token"), "{}", world.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_read_over_tls() {
    let (world, server, pair) = (World::new(), Server::start().await, pair());
    let certificate = world.write("broker.crt", pair.cert.pem());
    let key = world.write("broker.key", pair.signing_key.serialize_pem());
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (plain, tls) = (free(), free());
    let [plain, tls] = [plain, tls].map(|free| free.local_addr().unwrap().port());
    let listener = format!(
        "listener {tls} 127.0.0.1\ncertfile {}\nkeyfile {}\n",
        certificate.display(),
        key.display()
    );
    let broker = Broker::start_with(&world, plain, &listener).await;
    broker.publish("farm/field/data", br#"{"t":2.5,"ts":1767225600}"#, &["-r"]).await;
    let source = format!(
        "[[mqtt]]\nurl = \"mqtts://127.0.0.1:{tls}\"\nname = \"broker\"\nca_file = \"broker.crt\"\n\
         read = [{{ topic = \"farm/{{device}}/data\", time = \"ts\" }}]\n"
    );
    world.configure(&server.address, &source);
    let _agent = world.run();
    let mut session = server.welcome(None).await;
    let (_, reading) = session.numbered(1).await.remove(0);
    assert_eq!((&*reading.device, &reading.value), ("field", &Value::Float(2.5)));
}
