//! What the server never says about those who connect.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::{Child, Command},
    time::{interval, timeout},
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest},
};
use valtronics_protocol::cbor;

use crate::server::{Client, DEADLINE, PROGRAM};

/// Starts a server that logs all it can into a file.
fn start(folder: &Path) -> Child {
    let config = "listen = \"127.0.0.1:0\"\ndata_dir = \"data\"\n";
    std::fs::write(folder.join("server.toml"), config).unwrap();
    let log = std::fs::File::create(folder.join("log")).unwrap();
    Command::new(PROGRAM)
        .arg("--config")
        .arg(folder.join("server.toml"))
        .env("RUST_LOG", "trace,tungstenite::protocol=trace,tokio_tungstenite=trace,hyper=trace")
        .stderr(Stdio::from(log))
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// Waits for a line of the log.
async fn said(folder: &Path, message: &str) -> Json {
    let found = timeout(DEADLINE, async {
        let mut often = interval(Duration::from_millis(20));
        loop {
            often.tick().await;
            let log = std::fs::read_to_string(folder.join("log")).unwrap();
            let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok());
            if let Some(line) = lines.find(|line| line["message"] == message) {
                return line;
            }
        }
    });
    found.await.unwrap_or_else(|_| panic!("the server says {message}"))
}

async fn token(folder: &Path) -> String {
    let mut command = Command::new(PROGRAM);
    command.args(["token", "--sub", "ops", "--scope", "admin", "--data"]).arg(folder.join("data"));
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn no_token_is_ever_logged_however_much_is() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = start(folder.path());
    let address = said(folder.path(), "listening").await["address"].as_str().unwrap().to_owned();
    let good = token(folder.path()).await;
    let forged = format!("{good}forged");
    let connect = async |protocol: &str, bearer: &str| {
        let mut request = format!("ws://{address}/ws").into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("sec-websocket-protocol", protocol.parse().unwrap());
        if !bearer.is_empty() {
            headers.insert("authorization", format!("Bearer {bearer}").parse().unwrap());
        }
        let stream = TcpStream::connect(&address).await.unwrap();
        Client::over(client_async(request, stream).await.unwrap().0)
    };
    for (token, success) in [(&good, true), (&forged, false)] {
        let auth = json!({"type": "auth", "token": token});
        let report = json!({"type": "error_report", "error": "mine"});
        let mut client = connect("valtronics.v1.json", "").await;
        assert_eq!(client.ask(auth.clone()).await["success"], success);
        if success {
            client.send(report).await;
            said(folder.path(), "the client reports an error").await;
        }
        let mut client = connect("valtronics.v1.cbor", "").await;
        client.send_frame(Message::binary(cbor::to_vec(&auth))).await;
        assert!(matches!(client.next_frame().await, Message::Binary(_)));
        assert_eq!(connect("valtronics.v1.json", token).await.next().await["success"], success);
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let request = format!(
            "GET /api/v1/devices?token={token} HTTP/1.1\r\nHost: {address}\r\n\
             Authorization: Bearer {token}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    }
    said(folder.path(), "refused an auth").await;
    server.kill().await.unwrap();
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    for part in good.split('.') {
        assert!(part.len() > 10 && !log.contains(part), "{part} in {log}");
    }
}
