//! What a changed configuration changes while the server runs, for those who come from then on.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    endpoints::UPGRADE,
    server::{DEADLINE, Server},
};

async fn status(server: &Server, headers: &str) -> u16 {
    server.raw("GET", "/ws", &format!("{UPGRADE}{headers}"), "").await.0
}

#[tokio::test]
async fn origins_are_read_again() {
    let mut server = Server::with("[origins]\nallow = [\"https://old.example\"]").await;
    let [old, new] = ["old", "new"].map(|name| format!("Origin: https://{name}.example\r\n"));
    assert_eq!((status(&server, &old).await, status(&server, &new).await), (101, 403));
    server.reload("[origins]\nallow = [\"https://new.example\"]").await;
    server.has_said("are taken over", 1).await;
    assert_eq!((status(&server, &old).await, status(&server, &new).await), (403, 101));
    let (head, _) = server.exchange("GET", "/api/v1/devices", &new, "").await;
    assert!(head.contains("access-control-allow-origin: https://new.example\r\n"), "{head}");
    // A bad list changes nothing.
    server.reload("[origins]\nallow = [\"old.example\"]").await;
    server.has_said("is not taken over", 1).await;
    assert_eq!((status(&server, &old).await, status(&server, &new).await), (403, 101));
}

#[tokio::test]
async fn trusted_proxies_are_read_again() {
    const ONE: &str = "[limits]\nhandshakes_per_minute_per_address = 1\n";
    let mut server = Server::with(ONE).await;
    let of = |client: u8| format!("X-Forwarded-For: 198.51.100.{client}\r\n");
    assert_eq!(status(&server, &of(1)).await, 101);
    assert_eq!(status(&server, &of(2)).await, 429, "anybody can write that");
    server.reload(&format!("{ONE}[http]\ntrusted_proxies = [\"127.0.0.1\"]")).await;
    server.has_said("are taken over", 1).await;
    assert_eq!(status(&server, &of(2)).await, 101);
    assert_eq!(status(&server, &of(2)).await, 429, "it is this client now");
}

async fn half_a_handshake(stream: &mut TcpStream) {
    stream.write_all(b"GET /ws HTTP/1.1\r\nHost: ").await.unwrap();
}

#[tokio::test]
async fn the_time_of_a_handshake_is_read_again() {
    let mut server = Server::with("[limits]\nhandshake_within = \"1h\"").await;
    // An answer shows that the server has taken this one on.
    let mut before = TcpStream::connect(&server.address).await.unwrap();
    before.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let answered = timeout(DEADLINE, before.read(&mut [0; 1024])).await;
    assert!(answered.expect("the server answers").unwrap() > 0);
    half_a_handshake(&mut before).await;
    server.reload("[limits]\nhandshake_within = \"300ms\"").await;
    server.has_said("are taken over", 1).await;
    let mut after = TcpStream::connect(&server.address).await.unwrap();
    half_a_handshake(&mut after).await;
    let ended = timeout(DEADLINE, after.read_to_end(&mut Vec::new())).await;
    ended.expect("half a handshake ends").unwrap();
    // Whoever was there keeps the time that he was given.
    let read = before.try_read(&mut [0; 8]);
    assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}
