//! `Idempotency-Key`: a body that comes again under its key is not stored again.

use serde_json::json;

use crate::server::Server;

const PATH: &str = "/api/v1/telemetry";

fn body(value: u64) -> String {
    json!({"device": "d", "readings": [{"metric": "t", "value": value}]}).to_string()
}

async fn post(server: &Server, token: &str, keys: &[&str], body: &str) -> u16 {
    let keys: String = keys.iter().map(|key| format!("Idempotency-Key: {key}\r\n")).collect();
    let headers = format!("Authorization: Bearer {token}\r\n{keys}");
    server.raw("POST", PATH, &headers, body).await.0
}

#[tokio::test]
async fn a_repeat_is_answered_as_the_first_and_not_stored_again() {
    let mut server = Server::start().await;
    let token = server.token("site", Some("uplink"), None).await;
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    for _ in 0..3 {
        assert_eq!(post(&server, &token, &["a"], &body(1)).await, 202);
    }
    assert_eq!(post(&server, &token, &["a"], &body(2)).await, 422);
    assert_eq!(post(&server, &token, &["b"], &body(2)).await, 202);
    // Without a key it is stored again.
    assert_eq!(post(&server, &token, &[], &body(2)).await, 202);
    for value in [1, 2, 2] {
        assert_eq!(client.next().await["telemetry"]["t"]["value"], value);
    }
    client.expect_silence().await;
    // A key is its subject's own.
    let other = server.token("other", Some("uplink"), None).await;
    assert_eq!(post(&server, &other, &["a"], &body(3)).await, 202);

    server.crash_and_restart().await;
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    assert_eq!(post(&server, &token, &["a"], &body(1)).await, 202);
    assert_eq!(post(&server, &token, &["b"], &body(1)).await, 422);
    client.expect_silence().await;
}

#[tokio::test]
async fn repeats_at_the_same_time_are_stored_once() {
    let server = Server::start().await;
    let token = server.token("site", Some("uplink"), None).await;
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    for round in 0..10 {
        let (key, body) = (round.to_string(), body(round));
        let keys = [key.as_str()];
        let one = || post(&server, &token, &keys, &body);
        let answers = tokio::join!(one(), one(), one(), one());
        assert_eq!(answers, (202, 202, 202, 202));
        assert_eq!(client.next().await["telemetry"]["t"]["value"], round);
    }
    client.expect_silence().await;
}

#[tokio::test]
async fn a_key_that_is_none_is_refused() {
    let server = Server::start().await;
    let token = server.token("site", Some("uplink"), None).await;
    let long = "x".repeat(256);
    for keys in [&[""][..], &["a b"], &["\u{e9}"], &[&long], &["a", "b"]] {
        assert_eq!(post(&server, &token, keys, &body(1)).await, 400, "{keys:?}");
    }
    assert_eq!(
        post(&server, &token, &["\"8e03978e-40d5-43dd-bc93-6894a57f9324\""], &body(1)).await,
        202
    );
    // What was refused has used no key up.
    assert_eq!(post(&server, &token, &["k"], "{}").await, 422);
    assert_eq!(post(&server, &token, &["k"], &body(1)).await, 202);
}
