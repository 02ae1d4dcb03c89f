//! Paths, requests and their answers (WebSocket API, sections 1 and 2), where no other of these files
//! shows it.

use std::time::Duration;

use futures_util::SinkExt as _;
use serde_json::{Value as Json, json};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};
use valtronics_protocol::time::UnixMillis;
use valtronics_server::clock;

use crate::server::{Client, Server};

const HOT: &str = r#"{"metric":"a,b","kind":"threshold","above":30,"severity":"critical"}"#;

/// Starts a server with a device whose metric `a,b` raises an alert.
async fn with_an_alert() -> (Server, Client, String) {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    assert_eq!(server.http("PUT", "/api/v1/rules/hot", &admin, HOT).await.0, 200);
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "boiler", json!([{"metric": "a,b", "value": 31}])).await;
    (server, agent, admin)
}

/// Connects to a path that subscribes by itself; returns the connection and what it says of that.
async fn enter(server: &Server, path: &str, token: &str) -> (Client, Json) {
    let mut client = server.connect(path).await;
    client.authenticate(token).await;
    let answer = client.next().await;
    assert_eq!(answer["type"], "subscribe_response", "{path}: {answer}");
    assert_eq!(answer.get("id"), None, "nobody asked");
    (client, answer)
}

#[tokio::test]
async fn each_path_carries_its_channel_and_no_other() {
    let (server, _agent, admin) = with_an_alert().await;
    for (channel, kind, other) in [
        ("telemetry", "telemetry_update", "system"),
        ("alerts", "alert", "telemetry"),
        ("system", "system_status_update", "alerts"),
        ("devices", "device_status_update", "alerts"),
    ] {
        // As the original's class does after a break: it connects again, and subscribes to nothing.
        for _ in 0..2 {
            let (mut client, answer) = enter(&server, &format!("/ws/{channel}"), &admin).await;
            assert_eq!((&answer["success"], &answer["channel"]), (&json!(true), &json!(channel)));
            assert_eq!(client.next().await["type"], kind);
            client.send(json!({"type": "unsubscribe", "channel": other})).await;
            let answer = client.next_of("unsubscribe_response").await;
            assert_eq!(answer["success"], true, "{channel}: {answer}");
            client.send(json!({"type": "subscribe", "channel": other})).await;
            let answer = client.next_of("subscribe_response").await;
            assert_eq!(
                (&answer["error"], &answer["channel"]),
                (&json!("channel_not_available"), &json!(other))
            );
        }
    }
}

#[tokio::test]
async fn a_query_says_what_a_subscribe_says() {
    let (server, mut agent, admin) = with_an_alert().await;
    for (path, filters, resumed) in [
        (
            "telemetry?device_id=1&device_id=3,2&metrics=a%2Cb&metrics=c&frequency=30s\
             &historical=true&snapshot=false&batch=true",
            json!({"device_id": [1, 3, 2], "metrics": ["a,b", "c"], "frequency": "30s"}),
            json!(null),
        ),
        (
            "alerts?severity=critical,warning&alert_type=threshold&device_id=1&since=1",
            json!({"device_id": [1], "severity": ["critical", "warning"],
                "alert_type": ["threshold"]}),
            json!(true),
        ),
        (
            "devices?status_types=offline&since=0&log=another",
            json!({"status_types": ["offline"]}),
            json!(false),
        ),
        (
            "system?metrics=cpu_usage,uptime_seconds&frequency=1s",
            json!({"metrics": ["cpu_usage", "uptime_seconds"], "frequency": "1s"}),
            json!(null),
        ),
    ] {
        let (_, answer) = enter(&server, &format!("/ws/{path}"), &admin).await;
        assert_eq!((&answer["success"], &answer["filters"]), (&json!(true), &filters), "{path}");
        assert_eq!(answer["resumed"], resumed, "{path}");
    }
    let path = "/ws/telemetry?snapshot=false&metrics=a%2Cb";
    let (mut client, _) = enter(&server, path, &admin).await;
    let both = json!([{"metric": "a", "value": 1}, {"metric": "a,b", "value": 2}]);
    agent.readings(2, "boiler", both).await;
    let update = client.next().await;
    let metrics: Vec<_> = update["telemetry"].as_object().unwrap().keys().collect();
    assert_eq!(metrics, ["a,b"]);
}

#[tokio::test]
async fn what_a_query_does_not_know_is_refused_on_every_path() {
    let server = Server::start().await;
    let upgrade = crate::endpoints::UPGRADE;
    for query in [
        "telemetry?severity=critical",
        "telemetry?since=1",
        "telemetry?id=1",
        "telemetry?filters=x",
        "telemetry?snapshot=yes",
        "telemetry?frequency=1s,2s",
        "telemetry?frequency=1s&frequency=2s",
        "telemetry?metrics=%ff",
        "telemetry?metrics=%2",
        "alerts?metrics=a",
        "alerts?severity=fatal",
        "alerts?historical=true",
        "devices?status_types=gone",
        "devices?since=last",
        "system?device_id=1",
        "system?metrics=swap",
        "system?frequency=500ms",
    ] {
        let path = format!("/ws/{query}");
        let (head, body) = server.exchange("GET", &path, upgrade, "").await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{path} {head}");
        assert!(head.contains("application/problem+json"), "{path} {head}");
        let problem: Json = serde_json::from_str(&body).unwrap();
        assert!(problem["detail"].as_str().is_some_and(|why| !why.is_empty()), "{path} {body}");
    }
}

#[tokio::test]
async fn answers_have_exactly_the_documented_shape() {
    let server = Server::start().await;
    let mut client = server.connect("/ws").await;
    let token = server.token("ops", Some("alerts:read uplink"), None).await;
    client.send(json!({"type": "auth", "token": token, "id": "a"})).await;
    let text = client.next_text().await;
    let expires_at = serde_json::from_str::<Json>(&text).unwrap()["expires_at"].take();
    let expected = format!(
        r#"{{"type":"auth_response","success":true,"user":"ops","expires_at":{expires_at},"scopes":["alerts:read","uplink"],"id":"a"}}"#
    );
    assert_eq!(text, expected);
    assert!(expires_at.as_str().unwrap().ends_with('Z'));
    for (request, expected) in [
        (
            json!({"type": "unsubscribe", "channel": "devices", "device_id": [7], "id": 1}),
            r#"{"type":"unsubscribe_response","success":true,"channel":"devices","id":1}"#,
        ),
        (
            json!({"type": "subscribe", "channel": "system", "id": 2}),
            r#"{"type":"subscribe_response","success":false,"error":"forbidden","message":"#,
        ),
        (
            json!({"type": "ping", "timestamp": "now"}),
            r#"{"type":"pong","timestamp":"now","server_time":"2"#,
        ),
        (json!({"type": "ping"}), r#"{"type":"pong","server_time":"2"#),
        (json!({"type": "shout", "id": 3}), r#"{"type":"error","error":"unknown_type","message":"#),
    ] {
        client.send(request.clone()).await;
        let text = client.next_text().await;
        assert!(text.starts_with(expected), "{request}: {text}");
        assert!(text.ends_with('}') && !text.contains("\"channel\":null"), "{text}");
    }
}

#[tokio::test]
async fn an_id_comes_back_if_it_is_one() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    for id in [
        json!(""),
        json!("x".repeat(64)),
        json!("ü".repeat(32)),
        json!(0),
        json!(-1),
        json!(1_i64 << 53),
        json!(-(1_i64 << 53)),
    ] {
        let pong = client.ask(json!({"type": "ping", "id": id})).await;
        assert_eq!((&pong["type"], &pong["id"]), (&json!("pong"), &id));
    }
    for id in [
        json!("x".repeat(65)),
        json!("ü".repeat(33)),
        json!((1_i64 << 53) + 1),
        json!(1.0),
        json!(null),
        json!(true),
        json!(["a"]),
    ] {
        let refusal = client.ask(json!({"type": "ping", "id": id})).await;
        assert_eq!(refusal["error"], "invalid_message", "{id}");
        assert!(refusal["message"].as_str().unwrap().contains("id"), "{refusal}");
    }
}

#[tokio::test]
async fn only_subscribe_knows_all_of_its_keys() {
    let server = Server::start().await;
    let token = server.token("ops", None, None).await;
    let mut client = server.connect("/ws").await;
    let requests = [
        (json!({"type": "auth", "token": token}), "auth_response"),
        (json!({"type": "ping"}), "pong"),
        (json!({"type": "unsubscribe", "channel": "alerts"}), "unsubscribe_response"),
        (json!({"type": "batch", "messages": [{"type": "ping"}]}), "pong"),
        (json!({"type": "error_report", "error": "mine", "data": {"a": 1}}), "pong"),
        (json!({"type": "subscribe", "channel": "alerts"}), "subscribe_response"),
    ];
    for (mut request, answer) in requests {
        request["colour"] = json!("blue");
        client.send(request.clone()).await;
        if request["type"] == "error_report" {
            // It has no answer of its own.
            client.send(json!({"type": "ping"})).await;
        }
        let told = client.next().await;
        assert_eq!(told["type"], answer, "{request}");
        let is_refused = (told["error"] == "invalid_filter").then_some("subscribe");
        assert_eq!(is_refused, (answer == "subscribe_response").then_some("subscribe"), "{told}");
    }
}

#[tokio::test]
async fn a_timestamp_of_a_ping_is_a_text_of_at_most_64_bytes() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    for text in ["", "2024-01-01T12:00:00.000000", "ü \" \\ \u{1f600}", &"y".repeat(64)] {
        let pong = client.ask(json!({"type": "ping", "timestamp": text})).await;
        assert_eq!(pong["timestamp"], text);
        let time: UnixMillis = pong["server_time"].as_str().unwrap().parse().unwrap();
        assert!(clock::now().since(time) < crate::server::DEADLINE, "{pong}");
    }
    for timestamp in [json!("y".repeat(65)), json!(1), json!(null), json!({})] {
        let refusal = client.ask(json!({"type": "ping", "timestamp": timestamp})).await;
        assert_eq!(refusal["error"], "invalid_message", "{timestamp}");
        assert!(refusal["message"].as_str().unwrap().contains("timestamp"), "{refusal}");
    }
    assert_eq!(client.ask(json!({"type": "ping"})).await.get("timestamp"), None);
}

#[tokio::test]
async fn whatever_refuses_a_request_its_own_response_says_so() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    let requests = |more: &str| {
        [
            (json!({"type": "auth", "id": 1, "token": more}), "auth_response"),
            (
                json!({"type": "subscribe", "id": 1, "channel": "alerts", "x": more}),
                "subscribe_response",
            ),
            (
                json!({"type": "unsubscribe", "id": 1, "channel": "alerts", "x": more}),
                "unsubscribe_response",
            ),
            (json!({"type": "error_report", "id": 1, "error": more}), "error"),
            (json!({"type": "ping", "id": 1, "x": more}), "error"),
        ]
    };
    let check = |answer: &Json, kind: &str, code: &str| {
        assert_eq!((&answer["type"], &answer["error"]), (&json!(kind), &json!(code)), "{answer}");
        assert_eq!(answer["id"], 1, "{answer}");
        assert!(answer["message"].as_str().is_some_and(|why| why.len() > 10), "{answer}");
        let is_response = kind != "error";
        assert_eq!(answer.get("success"), is_response.then_some(&json!(false)), "{answer}");
        let has_channel = kind.ends_with("subscribe_response");
        assert_eq!(answer.get("channel"), has_channel.then_some(&json!("alerts")), "{answer}");
    };
    for (request, kind) in requests(&"y".repeat(8200)) {
        check(&client.ask(request).await, kind, "message_too_large");
    }

    // One a second, which the auth has had; they are there before the next second is.
    let server = Server::with("[limits]\nmessages_per_second = 1").await;
    let mut client = server.subscriber().await;
    client.send_frame(Message::Ping("".into())).await;
    let batch: Vec<Json> = requests("").into_iter().map(|(request, _)| request).collect();
    client.send(json!({"type": "batch", "messages": batch})).await;
    for (_, kind) in requests("") {
        check(&client.next().await, kind, "rate_limited");
    }
}

#[tokio::test]
async fn what_comes_in_one_packet_is_handled_in_order() {
    let server = Server::start().await;
    let token = server.token("ops", None, None).await;
    let mut client = server.connect("/ws").await;
    for request in [
        json!({"type": "subscribe", "channel": "alerts"}),
        json!({"type": "auth", "token": token}),
        json!({"type": "subscribe", "channel": "alerts"}),
    ] {
        client.stream().feed(Message::text(request.to_string())).await.unwrap();
    }
    client.stream().flush().await.unwrap();
    assert_eq!(client.next().await["error"], "auth_required");
    assert_eq!(client.next().await["type"], "auth_response");
    let answer = client.next().await;
    assert_eq!((&answer["type"], &answer["success"]), (&json!("subscribe_response"), &json!(true)));
}

#[tokio::test]
async fn a_bad_item_of_a_batch_harms_no_other() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    let nested = json!({"type": "batch", "messages": [{"type": "ping", "id": 9}], "id": 2});
    let items = json!([
        {"type": "ping", "id": 1}, nested, 7, {"type": "shout"},
        {"type": "ping", "x": "y".repeat(1024), "id": 3},
        {"type": "auth", "token": "y".repeat(8100), "id": 4},
        {"type": "auth", "token": "y".repeat(8192), "id": 5},
        {"type": "ping", "id": 6},
    ]);
    client.send(json!({"type": "batch", "messages": items})).await;
    for (error, id) in [
        (json!(null), json!(1)),
        (json!("nested_batch"), json!(2)),
        (json!("invalid_message"), json!(null)),
        (json!("unknown_type"), json!(null)),
        (json!("message_too_large"), json!(3)),
        (json!("invalid_token"), json!(4)),
        (json!("message_too_large"), json!(5)),
        (json!(null), json!(6)),
    ] {
        let answer = client.next().await;
        assert_eq!((&answer["error"], &answer["id"]), (&error, &id), "{answer}");
    }
    for messages in [json!(null), json!([]), json!({}), json!("x")] {
        let answer = client.ask(json!({"type": "batch", "messages": messages, "id": 1})).await;
        assert_eq!((&answer["error"], &answer["id"]), (&json!("invalid_message"), &json!(1)));
        assert!(answer["message"].as_str().unwrap().contains("messages"), "{answer}");
    }
    let answer = client.ask(json!({"type": "batch"})).await;
    assert_eq!(answer["error"], "invalid_message");
    client.expect_silence().await;
}

#[tokio::test]
async fn a_handshake_brings_a_token_as_a_bearer_only() {
    let server = Server::start().await;
    let connect = async |path: &str, authorization: &str| {
        let mut request = format!("ws://{}{path}", server.address).into_client_request().unwrap();
        request.headers_mut().insert("authorization", authorization.parse().unwrap());
        server.connect_with(request).await
    };
    let token = server.token("ops", Some("admin uplink"), None).await;
    // A proxy's own; the client says who it is as usual.
    let mut client = connect("/ws", "Basic b3BzOnNlY3JldA==").await;
    assert_eq!(client.ask(json!({"type": "ping"})).await["type"], "pong", "nothing came before");
    client.authenticate(&token).await;

    let mut agent = connect("/uplink", &format!("Bearer {token}")).await;
    let answer = agent.next().await;
    assert_eq!((&answer["type"], &answer["success"]), (&json!("auth_response"), &json!(true)));
    agent.readings(1, "boiler", json!([{"metric": "t", "value": 1}])).await;

    let mut agent = connect("/uplink", "Bearer nonsense").await;
    let answer = agent.next().await;
    assert_eq!((&answer["success"], &answer["reason"]), (&json!(false), &json!("malformed")));
    assert_eq!(agent.closed().await.0, 4401);
}

#[tokio::test]
async fn a_minute_before_its_token_expires_a_client_is_told() {
    let server = Server::start().await;
    let token = server.token_with("ops", ["--scope", "admin uplink", "--ttl", "63s"]).await;
    for path in ["/ws", "/uplink"] {
        let mut client = server.connect(path).await;
        client.authenticate(&token).await;
        let warning = client.next().await;
        assert_eq!(warning["type"], "auth_expiring", "{path}");
        let expires_at: UnixMillis = warning["expires_at"].as_str().unwrap().parse().unwrap();
        let left = expires_at.since(clock::now());
        assert!(left <= Duration::from_secs(60), "{path}: {left:?}");
    }
}
