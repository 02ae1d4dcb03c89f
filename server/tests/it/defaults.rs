//! The limits as they are when nobody configures them (WebSocket API, section 6), where no other of
//! these files shows it.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::{
    io::AsyncReadExt as _,
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use valtronics_server::{clock, listen::raise_descriptor_limit};

use crate::{endpoints::UPGRADE, server::Server};

#[tokio::test]
async fn a_user_has_a_hundred_connections_and_the_server_a_thousand() {
    raise_descriptor_limit();
    let server = Server::with(
        "[limits]\nconnects_per_minute = 100000\nhandshakes_per_minute_per_address = 100000",
    )
    .await;
    let mut inside = Vec::new();
    for user in 0..10 {
        let token = server.token(&format!("user{user}"), None, None).await;
        let entering = (0..100).map(async |_| {
            let mut client = server.connect("/ws").await;
            client.authenticate(&token).await;
            client
        });
        inside.extend(join_all(entering).await);
        if user == 0 {
            let mut client = server.connect("/ws").await;
            let answer = client.ask(json!({"type": "auth", "token": token})).await;
            assert_eq!(
                (&answer["error"], &answer["retry_after"]),
                (&json!("connection_limit"), &json!(60))
            );
            assert_eq!(client.closed().await.0, 4429);
        }
    }
    for path in ["/ws", "/uplink"] {
        let (head, _) = server.exchange("GET", path, UPGRADE, "").await;
        assert!(head.starts_with("HTTP/1.1 503 "), "{path} {head}");
        assert!(head.contains("retry-after: "), "{path} {head}");
    }
    for client in &mut inside {
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn sixty_handshakes_a_minute_may_come_to_nothing() {
    let server = Server::start().await;
    for _ in 0..60 {
        assert_eq!(server.raw("GET", "/ws", UPGRADE, "").await.0, 101);
    }
    let (head, _) = server.exchange("GET", "/uplink", UPGRADE, "").await;
    assert!(head.starts_with("HTTP/1.1 429 ") && head.contains("retry-after: "), "{head}");
}

#[tokio::test]
async fn a_frame_has_64_kib_and_16_before_auth() {
    let server = Server::start().await;
    let token = server.token("ops", None, None).await;
    for (is_inside, most) in [(false, 16 * 1024), (true, 64 * 1024)] {
        for (bytes, fits) in [(most, true), (most + 1, false)] {
            let mut client = server.connect("/ws").await;
            if is_inside {
                client.authenticate(&token).await;
            }
            // The size is what counts, whether it is JSON or not.
            client.send_frame(Message::text("x".repeat(bytes))).await;
            if fits {
                assert_eq!(client.next().await["error"], "message_too_large");
                client.expect_silence().await;
            } else {
                assert_eq!(client.closed().await.0, 1009, "{bytes}");
            }
        }
    }
}

/// Says nothing, not even a pong; returns when the server pinged and when and how it ended it.
async fn stay_silent(server: &Server, path: &str) -> (Duration, Duration, u16) {
    let mut client = server.connect(path).await;
    let token = server.token("quiet", Some("admin uplink"), None).await;
    client.authenticate(&token).await;
    let heard = clock::instant();
    // Not through the codec, which would answer the ping.
    let stream = client.stream().get_mut();
    let mut next = async || {
        let mut bytes = [0; 64];
        let read = timeout(Duration::from_secs(90), stream.read(&mut bytes)).await;
        let count = read.expect("the server says something").unwrap();
        (bytes[..count].to_vec(), heard.elapsed())
    };
    let (ping, pinged_after) = next().await;
    assert_eq!(ping, [0x89, 0], "a ping");
    let (close, ended_after) = next().await;
    assert_eq!(close[0], 0x88, "a close");
    (pinged_after, ended_after, u16::from_be_bytes([close[2], close[3]]))
}

/// Opens the ten connections of a minute, then comes every few seconds; returns how soon it is let in.
async fn insist(server: &Server) -> Duration {
    let token = server.token("eager", None, None).await;
    let begun = clock::instant();
    for _ in 0..10 {
        server.connect("/ws").await.authenticate(&token).await;
    }
    loop {
        let mut client = server.connect("/ws").await;
        let passed = begun.elapsed().as_secs();
        let answer = client.ask(json!({"type": "auth", "token": token})).await;
        if answer["success"] == true {
            return begun.elapsed();
        }
        assert_eq!(answer["error"], "rate_limited");
        // The oldest of them came a little later than the time here began.
        assert!(answer["retry_after"].as_u64().unwrap() + passed <= 60 + 1, "{passed} {answer}");
        sleep(Duration::from_secs(4)).await;
    }
}

#[tokio::test]
#[ignore = "takes more than a minute"]
async fn the_longer_times_are_those_of_the_contract() {
    let server = Server::start().await;
    let (subscriber, agent, eager) =
        tokio::join!(stay_silent(&server, "/ws"), stay_silent(&server, "/uplink"), insist(&server));
    for (pinged_after, ended_after, code) in [subscriber, agent] {
        assert!((30..30 + 20).contains(&pinged_after.as_secs()), "{pinged_after:?}");
        assert!((75..75 + 20).contains(&ended_after.as_secs()), "{ended_after:?}");
        assert_eq!(code, 4408);
    }
    // A refused attempt does not count: who comes again and again still comes in after the minute.
    assert!((60..60 + 30).contains(&eager.as_secs()), "{eager:?}");
}
