//! What stands below messages: control frames, reserved bits, extensions.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{client_async, tungstenite::client::IntoClientRequest};

use crate::server::{Client, DEADLINE, Server};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                       Sec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Shakes hands with these headers too; returns the head of the answer.
async fn shake_hands(server: &Server, headers: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    let request = format!("{UPGRADE}Host: {}\r\n{headers}\r\n", server.address);
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(DEADLINE, stream.read_u8()).await.unwrap().unwrap());
    }
    (stream, String::from_utf8(head).unwrap().to_ascii_lowercase())
}

/// Makes a frame of a client, whose mask changes nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat()
}

#[tokio::test]
async fn compression_is_not_agreed_on_and_reserved_bits_end_the_connection() {
    let server = Server::start().await;
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
    for reserved in [0x40, 0x20, 0x10] {
        let (mut stream, head) = shake_hands(&server, offer).await;
        assert!(head.starts_with("http/1.1 101 "), "{head}");
        assert!(!head.contains("sec-websocket-extensions"), "{head}");
        stream.write_all(&frame(0x81 | reserved, br#"{"type":"ping"}"#)).await.unwrap();
        let mut answer = Vec::new();
        timeout(DEADLINE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        // A close frame, not masked, with the code 1002.
        assert_eq!(answer.first(), Some(&0x88), "{answer:?}");
        assert_eq!(answer.get(2..4), Some(&1002u16.to_be_bytes()[..]), "{answer:?}");
    }
}

#[tokio::test]
async fn who_pings_and_never_reads_costs_nothing() {
    let server = Server::with("[limits]\nmessages_per_second = 4000000000").await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(server.address.parse().unwrap()).await.unwrap();
    let request = format!("ws://{}/ws", server.address).into_client_request().unwrap();
    let mut client = Client::over(client_async(request, stream).await.unwrap().0);
    client.authenticate(&server.token("ops", None, None).await).await;
    let before = server.resident_bytes();
    // 10 MB of pongs: far more than the systems keep between the two.
    let pings = frame(0x89, &[b'x'; 125]).repeat(1000);
    let stream = client.stream().get_mut();
    let mut most = before;
    for _ in 0..80 {
        timeout(DEADLINE, stream.write_all(&pings)).await.expect("the server reads on").unwrap();
        most = most.max(server.resident_bytes());
    }
    let grown = most.saturating_sub(before);
    assert!(grown < 1024 * 1024, "{grown} bytes");
    // The connection is as good as before once its client reads.
    let pong = client.ask(json!({"type": "ping", "timestamp": "still"})).await;
    assert_eq!(pong["timestamp"], "still");
}

#[tokio::test]
async fn control_frames_count_as_messages() {
    let server = Server::with("[limits]\nmessages_per_second = 10").await;
    let mut client = server.subscriber().await;
    let pings = frame(0x89, b"").repeat(700);
    client.stream().get_mut().write_all(&pings).await.unwrap();
    let (code, reason) = client.closed().await;
    assert_eq!((code, reason.contains("retry_after=60")), (4429, true), "{reason}");

    // A few too many end nothing, but use up what requests could have.
    let server = Server::with("[limits]\nmessages_per_second = 1").await;
    let mut client = server.subscriber().await;
    let many = [frame(0x8a, b"").repeat(20), frame(0x81, br#"{"type":"ping"}"#)].concat();
    client.stream().get_mut().write_all(&many).await.unwrap();
    assert_eq!(client.next().await["error"], "rate_limited");
    let later = timeout(DEADLINE, async {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if client.ask(json!({"type": "ping"})).await["type"] == "pong" {
                break;
            }
        }
    });
    later.await.expect("the bucket fills again");
}
