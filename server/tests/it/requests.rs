//! What the server answers to requests, good and bad.
//!
//! Where each code of an error (WebSocket API, section 7) comes over a socket:
//!
//! | code | tests, by file |
//! | --- | --- |
//! | `invalid_json`, `missing_type`, `unknown_type`, `invalid_message`, `unknown_channel` | here, `bad_input::what_is_no_request_…` |
//! | `invalid_filter` | `filters::a_filter_is_understood_…` |
//! | `channel_not_available` | `conversation::each_path_…` |
//! | `auth_required` | `auth::before_auth_…` |
//! | `invalid_token` | `tokens::a_refusal_says_…` |
//! | `forbidden` | `rights::each_scope_…`, `security::a_token_of_one_device_…` |
//! | `rate_limited`, `message_too_large` | `conversation::whatever_refuses_…` |
//! | `connection_limit` | `limits::a_user_has_so_many_…` |
//! | `subscription_limit` | `keys::a_connection_holds_…` |
//! | `batch_too_large`, `nested_batch` | here |
//! | `internal` | no message carries it in this version: what breaks within ends its connection with 1011 (`security::a_store_that_takes_nothing_…`), and what it cost an agent is counted by that name |

use futures_util::SinkExt as _;
use serde_json::{Value as Json, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::server::{DEADLINE, Server};

#[tokio::test]
async fn every_bad_request_gets_its_code_and_the_connection_stays() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    for (frame, kind, code) in [
        ("nonsense", "error", "invalid_json"),
        (r#"{"type":"ping","type":"ping"}"#, "error", "invalid_json"),
        ("{}", "error", "missing_type"),
        (r#"{"type":"shout"}"#, "error", "unknown_type"),
        (r#"{"type":"ping","timestamp":1}"#, "error", "invalid_message"),
        (r#"{"type":"subscribe"}"#, "subscribe_response", "invalid_message"),
        (r#"{"type":"subscribe","channel":"news"}"#, "subscribe_response", "unknown_channel"),
        (
            r#"{"type":"subscribe","channel":"alerts","severity":"fatal"}"#,
            "subscribe_response",
            "invalid_filter",
        ),
        (
            r#"{"type":"subscribe","channel":"telemetry","device_id":null}"#,
            "subscribe_response",
            "invalid_filter",
        ),
        (r#"{"type":"unsubscribe","channel":"x"}"#, "unsubscribe_response", "unknown_channel"),
        (r#"{"type":"auth"}"#, "auth_response", "invalid_token"),
        (r#"{"type":"batch","messages":[]}"#, "error", "invalid_message"),
        (r#"{"type":"batch","messages":[{"type":"batch"}]}"#, "error", "nested_batch"),
        (
            &format!("{{\"type\":\"ping\",\"x\":\"{}\"}}", "y".repeat(1024)),
            "error",
            "message_too_large",
        ),
    ] {
        client.send_frame(Message::text(frame)).await;
        let answer = client.next().await;
        assert_eq!((&answer["type"], &answer["error"]), (&json!(kind), &json!(code)), "{frame}");
        assert!(answer["message"].as_str().is_some_and(|why| !why.is_empty()), "{answer}");
    }
    client.send_frame(Message::binary(vec![1, 2, 3])).await;
    assert_eq!(client.next().await["error"], "invalid_json");
    client.expect_silence().await;
}

#[tokio::test]
async fn a_failure_carries_back_what_the_request_carried() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    let request = json!({"type": "subscribe", "channel": "telemetry", "id": "a1", "colour": 1});
    let answer = client.ask(request).await;
    assert_eq!(answer["success"], false);
    assert_eq!(answer["channel"], "telemetry");
    assert_eq!(answer["id"], "a1");
    let pong =
        client.ask(json!({"type": "ping", "id": 7, "timestamp": "2024-01-01T12:00:00Z"})).await;
    assert_eq!((&pong["id"], &pong["timestamp"]), (&json!(7), &json!("2024-01-01T12:00:00Z")));
}

#[tokio::test]
async fn what_has_no_channel_does_not_carry_one_back() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    let request = json!({"type": "ping", "channel": "telemetry", "timestamp": 5, "id": 3});
    let mut answer = client.ask(request).await;
    assert!(answer["message"].take().is_string());
    let expected = json!({"type": "error", "error": "invalid_message", "message": null, "id": 3});
    assert_eq!(answer, expected);
    let request = json!({"type": "auth", "token": "x", "channel": "telemetry"});
    assert_eq!(client.ask(request).await["channel"], json!(null));
}

#[tokio::test]
async fn who_sends_and_never_reads_takes_no_memory_and_is_silent() {
    let limits = "[limits]\nmessages_per_second = 1000000\nping_after = \"1s\"\nsilence = \"3s\"";
    let server = Server::with(limits).await;
    let mut client = server.narrow_subscriber().await;
    let admin = server.token("ops", Some("admin"), None).await;
    let request = json!({"type": "subscribe", "channel": "telemetry", "k".repeat(940): 1});
    let frame = Message::text(request.to_string());
    let flood = async { while client.stream().send(frame.clone()).await.is_ok() {} };
    let watch = async {
        loop {
            let connections = server.http("GET", "/api/v1/connections", &admin, "").await.1;
            let connections: Json = serde_json::from_str(&connections).unwrap();
            for connection in connections["connections"].as_array().unwrap() {
                let queued = connection["queued_bytes"].as_u64().unwrap();
                assert!(queued < 80 * 1024, "{connection}");
            }
        }
    };
    let ended = timeout(DEADLINE, async {
        tokio::select! { () = flood => {}, () = watch => {} }
    });
    ended.await.expect("who reads nothing is ended");
}

#[tokio::test]
async fn an_unknown_key_comes_back_cut_short() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    let key = "ü".repeat(400);
    let answer = client.ask(json!({"type": "subscribe", "channel": "system", &key: 1})).await;
    let why = answer["message"].as_str().unwrap();
    assert!(why.starts_with("üüü") && why.len() < 200, "{why}");
}

#[tokio::test]
async fn a_batch_is_handled_in_order() {
    let server = Server::start().await;
    let token = server.token("ops", None, None).await;
    let mut client = server.connect("/ws").await;
    client
        .send(json!({"type": "batch", "messages": [
            {"type": "subscribe", "channel": "devices", "id": 0},
            {"type": "auth", "token": token, "id": 1},
            {"type": "subscribe", "channel": "devices", "id": 2},
            {"type": "ping", "id": 3},
            {"type": "unsubscribe", "channel": "devices", "id": 4},
        ]}))
        .await;
    let mut answers = Vec::new();
    for _ in 0..5 {
        let answer = client.next().await;
        let kind = answer["type"].as_str().unwrap().to_owned();
        answers.push((kind, answer["id"].clone(), answer["error"].clone()));
    }
    let expected = [
        ("subscribe_response", json!(0), json!("auth_required")),
        ("auth_response", json!(1), json!(null)),
        ("subscribe_response", json!(2), json!(null)),
        ("pong", json!(3), json!(null)),
        ("unsubscribe_response", json!(4), json!(null)),
    ];
    assert_eq!(answers, expected.map(|(kind, id, error)| (kind.to_owned(), id, error)));
}

#[tokio::test]
async fn more_than_fifty_items_are_none() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    let many = vec![json!({"type": "ping"}); 51];
    let answer = client.ask(json!({"type": "batch", "messages": many, "id": "b"})).await;
    assert_eq!((&answer["error"], &answer["id"]), (&json!("batch_too_large"), &json!("b")));
    client.expect_silence().await;
}

#[tokio::test]
async fn a_flood_is_refused_and_then_ended() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    for _ in 0..700 {
        client.send(json!({"type": "ping"})).await;
    }
    let (mut pongs, mut refused) = (0, 0);
    let mut closed = None;
    while closed.is_none() {
        let next = futures_util::StreamExt::next(client.stream()).await;
        match next {
            Some(Ok(Message::Text(text))) if text.contains("\"pong\"") => pongs += 1,
            Some(Ok(Message::Text(text))) if text.contains("rate_limited") => refused += 1,
            Some(Ok(Message::Close(frame))) => closed = frame,
            other => panic!("{other:?}"),
        }
    }
    assert!((100..250).contains(&pongs), "{pongs}");
    assert!(refused >= 500, "{refused}");
    let frame = closed.unwrap();
    assert_eq!(u16::from(frame.code), 4429);
    assert!(frame.reason.contains("retry_after="), "{frame:?}");
}
