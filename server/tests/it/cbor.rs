//! Subscribers in CBOR: the same conversation as in JSON, other bytes.

use futures_util::StreamExt;
use serde_json::{Value as Json, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
use valtronics_protocol::cbor;

use crate::server::{Client, DEADLINE, Server};

/// A subscriber who speaks CBOR; what comes is read by another implementation.
pub(crate) struct Subscriber(pub(crate) Client);

impl Subscriber {
    pub(crate) async fn connect(server: &Server, path: &str, protocols: &str) -> Self {
        let mut request = format!("ws://{}{path}", server.address).into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
        Self(server.connect_with(request).await)
    }

    pub(crate) async fn authenticated(server: &Server) -> Self {
        let mut client = Self::connect(server, "/ws", "valtronics.v1.cbor").await;
        let token = server.token("ops", Some("admin"), None).await;
        let answer = client.ask(json!({"type": "auth", "token": token})).await;
        assert_eq!(answer["success"], true, "{answer}");
        client
    }

    async fn send(&mut self, message: &Json) {
        self.0.send_frame(Message::binary(cbor::to_vec(message))).await;
    }

    pub(crate) async fn next(&mut self) -> Json {
        let next = timeout(DEADLINE, self.0.stream().next()).await.expect("a message comes");
        let Some(Ok(Message::Binary(bytes))) = next else {
            panic!("instead of a message came {next:?}");
        };
        let message = ciborium::from_reader(bytes.as_ref()).unwrap();
        // Each length is definite and each head as short as it can be.
        assert_eq!(bytes.as_ref(), cbor::to_vec(&message), "{message}");
        message
    }

    pub(crate) async fn ask(&mut self, message: Json) -> Json {
        self.send(&message).await;
        self.next().await
    }
}

#[tokio::test]
async fn the_same_is_said_as_in_json() {
    let server = Server::start().await;
    let token = server.token("ops", Some("admin"), None).await;
    let rule = r#"{"metric": "t", "kind": "threshold", "above": 30.0}"#;
    assert_eq!(server.http("PUT", "/api/v1/rules/hot", &token, rule).await.0, 200);
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "a", json!([{"metric": "t", "value": 20, "unit": "C"}])).await;
    let mut json = server.connect("/ws").await;
    let mut cbor = Subscriber::connect(&server, "/ws", "valtronics.v1.cbor").await;

    let subscribe = |channel| json!({"type": "subscribe", "channel": channel, "id": channel});
    for (request, messages) in [
        (json!({"type": "subscribe", "channel": "alerts", "id": 1}), 1),
        (json!({"type": "auth", "token": token, "id": u64::MAX >> 11}), 1),
        (subscribe("telemetry"), 2),
        (subscribe("devices"), 2),
        (subscribe("alerts"), 1),
        (json!({"type": "subscribe", "channel": "news", "id": "µ"}), 1),
        (json!({"type": "subscribe", "channel": "telemetry", "device_id": 1.0}), 1),
        (json!({"type": "shout", "x": [null, true, -1, 1e300]}), 1),
        (json!({"type": "batch", "messages": [{"type": "ping", "id": 1.5}, 7, {}]}), 3),
        (json!({"type": "batch", "messages": []}), 1),
        (json!({"type": "unsubscribe", "channel": "system"}), 1),
        (json!([]), 1),
    ] {
        json.send(request.clone()).await;
        cbor.send(&request).await;
        for _ in 0..messages {
            assert_eq!(cbor.next().await, json.next().await, "{request}");
        }
    }

    let values = json!([
        {"metric": "t", "value": 30.5}, {"metric": "n", "value": u64::MAX},
        {"metric": "m", "value": i64::MIN}, {"metric": "d", "value": 30.0},
        {"metric": "b", "value": false}, {"metric": "s", "value": "ein"},
    ]);
    agent.readings(2, "a", values).await;
    agent.readings(3, "b", json!([{"metric": "t", "value": -0.1}])).await;
    // Between the channels there is no order: device b comes online, alert 1 begins, two updates.
    let (mut expected, mut found) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        expected.push(json.next().await);
        found.push(cbor.next().await);
    }
    for messages in [&mut expected, &mut found] {
        messages.sort_by_key(|message| (message["type"].to_string(), message["seq"].as_u64()));
    }
    assert_eq!(found, expected);
    assert_eq!(found[0]["metadata"]["actual_value"], 30.5);
    assert_eq!(found[1]["type"], "device_status_update");
    assert_eq!(found[2]["telemetry"]["n"]["value"], u64::MAX);
    assert!(found[2]["telemetry"]["d"]["value"].is_f64());

    let pong = cbor.ask(json!({"type": "ping", "timestamp": "now", "id": -5})).await;
    assert_eq!((&pong["timestamp"], &pong["id"]), (&json!("now"), &json!(-5)));
    let system =
        json!({"type": "subscribe", "channel": "system", "metrics": ["cpu_usage", "memory_total"]});
    assert_eq!(cbor.ask(system).await["success"], true);
    let update = cbor.next().await;
    assert!(update["metrics"]["memory_total"].is_u64(), "{update}");
    assert!(update["metrics"]["cpu_usage"].is_f64(), "{update}");
}

#[tokio::test]
async fn frames_that_cannot_be_read_end_nothing() {
    let server = Server::start().await;
    let mut client = Subscriber::authenticated(&server).await;
    for frame in [
        Message::text(r#"{"type":"ping"}"#),
        Message::binary(&br#"{"type":"ping"}"#[..]),
        Message::binary(&b""[..]),
        Message::binary(&b"\xa2\x64type\x64ping\x64type\x64ping"[..]),
        Message::binary(&b"\xa1\x64type\x64ping\x00"[..]),
        Message::binary(vec![0x81; 1000]),
        Message::binary(&b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff"[..]),
    ] {
        client.0.send_frame(frame.clone()).await;
        let answer = client.next().await;
        assert_eq!(
            (&answer["type"], &answer["error"]),
            (&json!("error"), &json!("invalid_json")),
            "{frame:?}"
        );
    }
    client.0.send_frame(Message::binary(vec![0xbf; 60_000])).await;
    assert_eq!(client.next().await["error"], "message_too_large");
    let indefinite = &b"\xbf\x64type\x7f\x62pi\x62ng\xff\xff"[..];
    client.0.send_frame(Message::binary(indefinite)).await;
    assert_eq!(client.next().await["type"], "pong");

    let mut json = server.subscriber().await;
    json.send_frame(Message::binary(cbor::to_vec(&json!({"type": "ping"})))).await;
    assert_eq!(json.next().await["error"], "invalid_json");
    json.expect_silence().await;
}

#[tokio::test]
async fn the_client_chooses_the_format() {
    let server = Server::start().await;
    let token = server.token("ops", None, None).await;
    let auth = json!({"type": "auth", "token": token});
    let path = "/ws/telemetry?batch=true";
    let offered = "soap, valtronics.v1.cbor, valtronics.v1.json";
    let mut cbor = Subscriber::connect(&server, path, offered).await;
    assert_eq!(cbor.ask(auth.clone()).await["success"], true);
    assert_eq!(cbor.next().await["type"], "subscribe_response");
    let offered = "valtronics.v1.json, valtronics.v1.cbor";
    let mut json = Subscriber::connect(&server, path, offered).await.0;
    assert_eq!(json.ask(auth).await["success"], true);
    assert_eq!(json.next().await["type"], "subscribe_response");
}
