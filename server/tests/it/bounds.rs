//! What a client may send, hold and leave behind: each is bounded, whatever comes how often.

use std::time::Duration;

use futures_util::{StreamExt, future::join_all};
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use valtronics_server::clock;

use crate::{
    bad_input::frame,
    endpoints::UPGRADE,
    server::{Client, DEADLINE, Server},
};

/// How much more memory the server may need for what is done again and again.
const SOME_MEMORY: usize = 8 * 1024 * 1024;

/// Sends this every 20 ms until the server ends the connection; returns the close code.
pub(crate) async fn ends_although_it_sends(mut client: Client, bytes: &[u8]) -> u16 {
    let sending = async {
        loop {
            match timeout(Duration::from_millis(20), client.stream().next()).await {
                Ok(Some(Ok(Message::Close(Some(frame))))) => return frame.code.into(),
                Ok(Some(Ok(_))) => sleep(Duration::from_millis(20)).await,
                Ok(other) => panic!("instead of a close came {other:?}"),
                // The server may have ended it already; then its last word is still to be read.
                Err(_) => drop(client.stream().get_mut().write_all(bytes).await),
            }
        }
    };
    timeout(DEADLINE, sending).await.expect("the server ends it")
}

#[tokio::test]
async fn fragments_without_end_are_silence() {
    let server = Server::with("[limits]\nping_after = \"1s\"\nsilence = \"2s\"").await;
    let token = server.token("ops", Some("admin uplink"), None).await;
    let all = ["/ws", "/uplink"].map(async |path| {
        let mut client = server.connect(path).await;
        client.authenticate(&token).await;
        // Not through the codec, which would answer the server's ping.
        let (mut read, mut write) = client.stream().get_mut().split();
        write.write_all(&frame(0x01, b"xx")).await.unwrap();
        let mut heard = Vec::new();
        let sending = async {
            // The server may have ended it already; then its last word is still to be read.
            while write.write_all(b"\x00\x82\x00\x00\x00\x00xx").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
            std::future::pending::<()>().await;
        };
        let ended = timeout(DEADLINE, async {
            tokio::select! { _ = read.read_to_end(&mut heard) => {}, () = sending => {} }
        });
        ended.await.expect("the server ends it");
        let close = heard.windows(4).find(|bytes| bytes[0] == 0x88).expect("a close frame");
        u16::from_be_bytes([close[2], close[3]])
    });
    assert_eq!(join_all(all).await, [4408; 2]);
}

#[tokio::test]
async fn a_message_has_1024_bytes_and_one_with_a_token_8192() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    let padded = |begin: &str, bytes: usize| {
        let text = format!("{begin}{}\"}}", "y".repeat(bytes - begin.len() - 2));
        assert_eq!(text.len(), bytes);
        text
    };
    let (ping, auth) = (r#"{"type":"ping","x":""#, r#"{"type":"auth","token":""#);
    for (text, kind, error) in [
        (padded(ping, 1024), "pong", Json::Null),
        (padded(ping, 1025), "error", json!("message_too_large")),
        (padded(auth, 8191), "auth_response", json!("invalid_token")),
        (padded(auth, 8192), "auth_response", json!("invalid_token")),
        (padded(auth, 8193), "auth_response", json!("message_too_large")),
    ] {
        let (begin, end) = text.as_bytes().split_at(text.len() / 2);
        let fragments = [frame(0x01, begin), frame(0x80, end)].concat();
        for bytes in [frame(0x81, text.as_bytes()), fragments] {
            client.stream().get_mut().write_all(&bytes).await.unwrap();
            let answer = client.next().await;
            assert_eq!((&answer["type"], &answer["error"]), (&json!(kind), &error), "{answer}");
        }
    }
    let mut stranger = server.connect("/ws").await;
    stranger.send_frame(Message::text(padded(ping, 16 * 1024 + 1))).await;
    assert_eq!(stranger.closed().await.0, 1009);
}

#[tokio::test]
async fn items_of_a_batch_count_and_their_envelope_does_not() {
    const RATE: usize = 10;
    let server = Server::with(&format!("[limits]\nmessages_per_second = {RATE}")).await;
    let mut client = server.subscriber().await;
    let mut other = server.subscriber().await;
    let begun = clock::instant();
    client.send(json!({"type": "batch", "messages": vec![json!({"type": "ping"}); 50]})).await;
    let mut pongs = 0;
    for _ in 0..50 {
        let answer = client.next().await;
        let served = answer["type"] == "pong";
        assert!(served || answer["error"] == "rate_limited", "{answer}");
        pongs += usize::from(served);
    }
    let most = RATE * (usize::try_from(begun.elapsed().as_secs()).unwrap() + 2);
    assert!((RATE - 1..=most).contains(&pongs), "{pongs}");
    other.expect_silence().await;
}

/// Comes in as far as the number says, and vanishes.
async fn vanish(server: &Server, token: &str, number: usize) {
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    // The half of them as after a crash, with a reset; the others as after kill -9.
    if number.is_multiple_of(2) {
        stream.set_zero_linger().unwrap();
    }
    let auth = json!({"type": "auth", "token": token, "queue": format!("q{number}")});
    match number / 2 % 5 {
        0 => stream.write_all(b"GET /ws HTTP/1.1\r\nHost: ").await.unwrap(),
        1 => drop(server.connect_over("/ws/alerts", stream).await),
        2 => server.connect_over("/ws", stream).await.send(auth).await,
        3 => {
            let mut client = server.connect_over("/ws/telemetry", stream).await;
            client.authenticate(token).await;
        }
        _ => {
            let mut agent = server.connect_over("/uplink", stream).await;
            assert_eq!(agent.ask(auth).await["success"], true);
        }
    }
}

#[tokio::test]
async fn two_thousand_who_vanish_leave_no_place_taken() {
    let server = Server::with(
        "[limits]\nconnections = 100\nconnections_per_user = 90\nconnects_per_minute = 100000\n\
         handshakes_per_minute_per_address = 100000",
    )
    .await;
    let token = server.token("ops", Some("admin uplink"), None).await;
    let open = |endpoint: &str| format!("valtronics_connections_open{{endpoint=\"{endpoint}\"}} 0");
    for group in 0..40 {
        join_all((0..50).map(|number| vanish(&server, &token, group * 50 + number))).await;
        let gone = async {
            loop {
                let figures = server.raw("GET", "/metrics", "", "").await.1;
                if figures.contains(&open("ws")) && figures.contains(&open("uplink")) {
                    break;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(DEADLINE, gone).await.expect("who vanishes is gone");
    }
    // Every place is free: for this user 90, for anybody 100.
    let mut inside = Vec::new();
    for number in 0..100 {
        let mut client = server.connect("/ws").await;
        if number < 90 {
            client.authenticate(&token).await;
        }
        inside.push(client);
    }
    assert_eq!(server.raw("GET", "/ws", UPGRADE, "").await.0, 503);
    assert_eq!(inside[99].ask(json!({"type": "auth", "token": token})).await["success"], false);
}

#[tokio::test]
async fn subscriptions_that_come_and_go_take_no_memory() {
    let server = Server::with("[limits]\nmessages_per_second = 1000000").await;
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "d", json!([{"metric": "t", "value": 1}])).await;
    let mut client = server.subscriber().await;
    let channels = ["telemetry", "alerts", "devices", "system"];
    let mut before = 0;
    for round in 0..420 {
        // The first rounds show what memory the work itself takes.
        if round == 20 {
            before = server.resident_bytes();
        }
        let items = (0..25).flat_map(|number| {
            let channel = channels[number % 4];
            let mut subscribe = json!({"type": "subscribe", "channel": channel});
            if channel != "system" {
                subscribe["device_id"] = json!((round * 25 + number) % 3 + 1);
            }
            [subscribe, json!({"type": "unsubscribe", "channel": channel})]
        });
        client.send(json!({"type": "batch", "messages": items.collect::<Vec<_>>()})).await;
        for _ in 0..25 {
            assert_eq!(client.next_of("unsubscribe_response").await["success"], true);
        }
    }
    let more = server.resident_bytes().saturating_sub(before);
    assert!(more < SOME_MEMORY, "{more} bytes for 10,000 subscriptions");
    agent.readings(2, "d", json!([{"metric": "t", "value": 2}])).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn huge_filters_are_refused_or_bounded() {
    let mut server = Server::start().await;
    let devices = |count: u64| json!({"device_id": (10_000..10_000 + count).collect::<Vec<_>>()});
    let metrics = |count: u64| json!({"metrics": (0..count).map(|number| format!("m{number}")).collect::<Vec<_>>()});
    let request = |mut filters: Json| {
        filters["type"] = json!("subscribe");
        filters["channel"] = json!("telemetry");
        filters
    };
    let mut client = server.subscriber().await;
    for filters in [devices(10_000), metrics(6_000)] {
        assert_eq!(client.ask(request(filters)).await["error"], "message_too_large");
    }
    client.send(request(metrics(100_000))).await;
    assert_eq!(client.closed().await.0, 1009, "more than a frame may have");

    server = Server::with("[limits]\nmessage_bytes = 32768").await;
    let mut client = server.subscriber().await;
    let mut before = 0;
    for round in 0..20 {
        let answer = client.ask(request(devices(3_000))).await;
        assert_eq!(answer["error"], "subscription_limit", "{answer}");
        let answer = client.ask(request(metrics(2_000))).await;
        assert_eq!(answer["success"], true, "{}", answer["error"]);
        if round == 4 {
            before = server.resident_bytes();
        }
    }
    let more = server.resident_bytes().saturating_sub(before);
    assert!(more < SOME_MEMORY, "{more} bytes");
    client.expect_silence().await;
}
