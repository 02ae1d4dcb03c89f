//! Who may come in, and what he may see.

use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn a_bad_token_is_answered_and_the_connection_ends() {
    let server = Server::start().await;
    for (message, reason) in [
        (json!({"type": "auth"}), "missing"),
        (json!({"type": "auth", "token": "jwt-token"}), "malformed"),
        (json!({"type": "auth", "token": 5}), "malformed"),
    ] {
        let mut client = server.connect("/ws").await;
        let answer = client.ask(message).await;
        assert_eq!(answer["type"], "auth_response");
        assert_eq!(answer["success"], false);
        assert_eq!(
            (&answer["error"], &answer["reason"]),
            (&json!("invalid_token"), &json!(reason))
        );
        assert_eq!(client.closed().await.0, 4401);
    }
}

#[tokio::test]
async fn who_says_nothing_is_ended() {
    let server = Server::with("[limits]\nauth_within = \"300ms\"").await;
    let mut client = server.connect("/ws").await;
    assert_eq!(client.closed().await.0, 4408);
}

#[tokio::test]
async fn before_auth_only_auth_and_ping_are_served() {
    let server = Server::start().await;
    let mut client = server.connect("/ws").await;
    assert_eq!(client.ask(json!({"type": "ping"})).await["type"], "pong");
    let answer = client.ask(json!({"type": "unsubscribe", "channel": "alerts"})).await;
    assert_eq!(
        (&answer["type"], &answer["error"]),
        (&json!("unsubscribe_response"), &json!("auth_required"))
    );
    let answer = client.ask(json!({"type": "error_report", "error": "x"})).await;
    assert_eq!((&answer["type"], &answer["error"]), (&json!("error"), &json!("auth_required")));
}

#[tokio::test]
async fn a_token_says_who_and_what() {
    let server = Server::start().await;
    let mut client = server.connect("/ws").await;
    let answer = client.authenticate(&server.token("ops", None, None).await).await;
    assert_eq!(answer["user"], "ops");
    assert!(answer["expires_at"].as_str().unwrap().ends_with('Z'));
    let scopes = json!(["telemetry:read", "alerts:read", "devices:read", "system:read"]);
    assert_eq!(answer["scopes"], scopes);

    let mut narrow = server.connect("/ws").await;
    narrow.authenticate(&server.token("ops", Some("alerts:read"), None).await).await;
    let answer = narrow.ask(json!({"type": "subscribe", "channel": "telemetry"})).await;
    assert_eq!((&answer["success"], &answer["error"]), (&json!(false), &json!("forbidden")));
    narrow.subscribe("alerts").await;
}

#[tokio::test]
async fn a_token_of_some_devices_sees_no_others() {
    let server = Server::start().await;
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "boiler-1", json!([{"metric": "t", "value": 1}])).await;
    agent.readings(2, "roof", json!([{"metric": "t", "value": 2}])).await;
    let mut client = server.connect("/ws").await;
    client.authenticate(&server.token("ops", None, Some("boiler*")).await).await;
    client.send(json!({"type": "subscribe", "channel": "telemetry"})).await;
    assert_eq!(client.next().await["success"], true);
    assert_eq!(client.next().await["device_id"], 1);
    let answer =
        client.ask(json!({"type": "subscribe", "channel": "telemetry", "device_id": 2})).await;
    assert_eq!(answer["error"], "forbidden");
    agent.readings(3, "roof", json!([{"metric": "t", "value": 3}])).await;
    agent.readings(4, "boiler-2", json!([{"metric": "t", "value": 4}])).await;
    let update = client.next_of("telemetry_update").await;
    assert_eq!(update["device_id"], 3, "a device that appears later is seen, too");
    client.expect_silence().await;
}

#[tokio::test]
async fn a_new_token_keeps_subscriptions_but_not_what_it_may_not_see() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    client.subscribe("alerts").await;
    let other = server.token("other", None, None).await;
    let answer = client.ask(json!({"type": "auth", "token": other})).await;
    assert_eq!((&answer["success"], &answer["error"]), (&json!(false), &json!("forbidden")));
    client.authenticate(&server.token("ops", Some("telemetry:read"), None).await).await;
    let ended = client.next().await;
    assert_eq!(ended["type"], "subscribe_response");
    assert_eq!((&ended["channel"], &ended["error"]), (&json!("alerts"), &json!("forbidden")));
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "d", json!([{"metric": "t", "value": 1}])).await;
    assert_eq!(client.next().await["type"], "telemetry_update");
}

#[tokio::test]
async fn a_user_who_connects_too_fast_is_told_when_to_come_back() {
    let server = Server::with("[limits]\nconnects_per_minute = 2").await;
    let token = server.token("ops", None, None).await;
    let mut inside = Vec::new();
    for _ in 0..2 {
        let mut client = server.connect("/ws").await;
        client.authenticate(&token).await;
        inside.push(client);
    }
    let mut client = server.connect("/ws").await;
    let answer = client.ask(json!({"type": "auth", "token": token})).await;
    assert_eq!(answer["error"], "rate_limited");
    assert!((1..=60).contains(&answer["retry_after"].as_u64().unwrap()), "{answer}");
    let (code, reason) = client.closed().await;
    assert_eq!(code, 4429);
    assert!(reason.contains("retry_after="), "{reason}");
}
