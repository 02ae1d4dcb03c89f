//! What a token opens and what it does not (WebSocket API, section 8), where no other of these files
//! shows it.

use serde_json::{Value as Json, json};

use crate::{
    provider::{now, sign_with},
    server::Server,
};

const CHANNELS: [&str; 4] = ["telemetry", "alerts", "devices", "system"];

#[tokio::test]
async fn each_scope_opens_its_channel() {
    let server = Server::with("[limits]\nconnects_per_minute = 100").await;
    for (scope, open, listed) in [
        (
            None,
            &CHANNELS[..],
            &["telemetry:read", "alerts:read", "devices:read", "system:read"][..],
        ),
        (Some("telemetry:read"), &["telemetry"], &["telemetry:read"]),
        (Some("alerts:read"), &["alerts"], &["alerts:read"]),
        (Some("devices:read"), &["devices"], &["devices:read"]),
        (Some("system:read"), &["system"], &["system:read"]),
        (
            Some("alerts:write devices:write uplink"),
            &[],
            &["alerts:write", "devices:write", "uplink"],
        ),
        (
            Some("admin"),
            &CHANNELS,
            &[
                "telemetry:read",
                "alerts:read",
                "alerts:write",
                "devices:read",
                "devices:write",
                "system:read",
                "admin",
            ],
        ),
        // What it does not know opens nothing.
        (Some("openid telemetry:read telemetry:all"), &["telemetry"], &["telemetry:read"]),
    ] {
        let mut client = server.connect("/ws").await;
        let answer = client.authenticate(&server.token("ops", scope, None).await).await;
        assert_eq!(answer["scopes"], json!(listed), "{scope:?}");
        for channel in CHANNELS {
            client.send(json!({"type": "subscribe", "channel": channel})).await;
            let answer = client.next_of("subscribe_response").await;
            let is_open = open.contains(&channel);
            assert_eq!(answer["success"], is_open, "{scope:?} {channel}: {answer}");
            let error = (!is_open).then_some("forbidden");
            assert_eq!(answer["error"].as_str(), error, "{scope:?} {channel}");
        }
        let mut agent = server.connect("/uplink").await;
        let token = server.token("ops", scope, None).await;
        let answer = agent.ask(json!({"type": "auth", "token": token})).await;
        assert_eq!(answer["success"], listed.contains(&"uplink"), "{scope:?}: {answer}");
    }
}

#[tokio::test]
async fn a_pattern_with_a_slash_is_held_against_the_key() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    let rule = r#"{"metric":"t","kind":"threshold","above":30}"#;
    assert_eq!(server.http("PUT", "/api/v1/rules/hot", &admin, rule).await.0, 200);
    // Equal names under two subjects, and one that looks like the key of another.
    let mut agents = [server.agent("one", None).await, server.agent("two", None).await];
    for (agent, seq, device) in
        [(1, 1, "boiler"), (0, 1, "boiler"), (1, 2, "one/boiler"), (0, 2, "pump")]
    {
        agents[agent].readings(seq, device, json!([{"metric": "t", "value": 31}])).await;
    }
    for (devices, expected) in [
        ("one/*", &[2, 4][..]),
        ("*/boiler", &[1, 2, 3]),
        ("one/boiler", &[2]),
        ("boiler", &[1, 2]),
        ("two/one/boiler", &[3]),
    ] {
        let token = server.token("reader", None, Some(devices)).await;
        let mut client = server.connect("/ws").await;
        client.authenticate(&token).await;
        for channel in ["telemetry", "alerts", "devices"] {
            client.send(json!({"type": "subscribe", "channel": channel})).await;
            assert_eq!(client.next().await["success"], true);
            let mut shown = Vec::new();
            for _ in expected {
                shown.push(client.next().await["device_id"].as_u64().unwrap());
            }
            shown.sort_unstable();
            assert_eq!(shown, expected, "{devices} {channel}");
            client.expect_silence().await;
            client.ask(json!({"type": "unsubscribe", "channel": channel})).await;
        }
        let (_, list) = server.http("GET", "/api/v1/devices", &token, "").await;
        let list: Json = serde_json::from_str(&list).unwrap();
        let listed = list["devices"].as_array().unwrap().iter();
        let listed: Vec<_> = listed.map(|device| device["id"].as_u64().unwrap()).collect();
        assert_eq!(listed, expected, "{devices}");
    }
}

#[tokio::test]
async fn the_log_names_the_token_by_its_id() {
    let mut server = Server::start().await;
    let secret = std::fs::read_to_string(server.folder().join("data/secret")).unwrap();
    let claims =
        json!({"sub": "ops", "exp": now() + 600, "jti": "token-77", "scope": "admin uplink"});
    let token = sign_with(secret.trim().as_bytes(), &json!({"alg": "HS256"}), &claims);
    for path in ["/ws", "/uplink"] {
        server.connect(path).await.authenticate(&token).await;
    }
    let said = server.has_said("token-77", 2).await;
    assert!(!said.contains(&token));
}
