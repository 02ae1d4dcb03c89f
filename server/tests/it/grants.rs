//! What a token narrows beside reading: whose readings come in, and who edits rules.

use serde_json::{Value as Json, json};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};
use valtronics_protocol::{
    batch::Encoder,
    reading::{Reading, TimeSource},
    time::UnixMillis,
    uplink::{FrameHeader, SUBPROTOCOL_AGENT},
    value::Value,
};

use crate::server::{Client, Server};

fn readings(seq: u64, device: &str) -> Json {
    json!({"type": "readings", "seq": seq, "device": device,
        "readings": [{"metric": "t", "value": seq}]})
}

/// Connects with a token for some devices.
async fn agent(server: &Server, devices: Option<&str>) -> Client {
    let mut agent = server.connect("/uplink").await;
    agent.authenticate(&server.token("site", Some("uplink"), devices).await).await;
    agent
}

/// Lists the names of all devices.
async fn devices(server: &Server) -> Vec<String> {
    let all = server.token("ops", None, None).await;
    let body = server.http("GET", "/api/v1/devices", &all, "").await.1;
    let listed: Json = serde_json::from_str(&body).unwrap();
    let names = listed["devices"].as_array().unwrap().iter();
    names.map(|device| device["name"].as_str().unwrap().to_owned()).collect()
}

fn check_refused(answer: &Json, seq: u64, device: &str) {
    let got = (&answer["type"], &answer["error"], &answer["seq"]);
    assert_eq!(got, (&json!("error"), &json!("forbidden"), &json!(seq)), "{answer}");
    assert!(answer["message"].as_str().unwrap().contains(device), "{answer}");
}

#[tokio::test]
async fn an_agent_writes_its_own_devices_only_and_others_do_not_come_into_being() {
    let server = Server::start().await;
    let mut narrow = agent(&server, Some("boiler*,site/pump")).await;
    let status = json!({"type": "status", "seq": 4, "device": "secret", "status": "offline"});
    let sent = [readings(1, "boiler-1"), readings(2, "secret"), readings(3, "pump"), status];
    narrow.send(json!(sent)).await;
    check_refused(&narrow.next().await, 2, "secret");
    check_refused(&narrow.next().await, 4, "secret");
    assert_eq!(narrow.next().await, json!({"type": "ack", "seq": 3}));
    assert_eq!(devices(&server).await, ["boiler-1", "pump"]);

    // By their ids, too, whether they are known yet or not.
    let mut by_id = agent(&server, Some("2,3")).await;
    by_id.send(json!([readings(1, "boiler-1"), readings(2, "pump"), readings(3, "new")])).await;
    check_refused(&by_id.next().await, 1, "boiler-1");
    check_refused(&by_id.next().await, 3, "new");
    assert_eq!(by_id.next().await, json!({"type": "ack", "seq": 2}));
    assert_eq!(devices(&server).await, ["boiler-1", "pump"]);

    // A new token counts at once, for names that are known already, too.
    let token = server.token("site", Some("uplink"), Some("pump")).await;
    narrow.send(json!({"type": "auth", "token": token})).await;
    check_refused(&narrow.ask(readings(5, "boiler-1")).await, 5, "boiler-1");
}

#[tokio::test]
async fn a_body_with_readings_of_another_device_is_refused_whole() {
    let server = Server::start().await;
    let token = server.token("site", Some("uplink"), Some("boiler*")).await;
    let post = async |body: Json| {
        server.http("POST", "/api/v1/telemetry", &token, &body.to_string()).await
    };
    assert_eq!(post(json!([readings(1, "boiler")])).await.0, 202);
    let (status, body) = post(json!([readings(1, "boiler-2"), readings(2, "secret")])).await;
    assert_eq!(status, 403, "{body}");
    assert!(body.contains("secret"), "{body}");
    assert_eq!(devices(&server).await, ["boiler"]);
}

/// Connects as our own agent does.
async fn our_agent(server: &Server, devices: &str) -> Client {
    let mut request = format!("ws://{}/uplink", server.address).into_client_request().unwrap();
    let protocol = SUBPROTOCOL_AGENT.parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let mut agent = server.connect_with(request).await;
    let token = server.token("site", Some("uplink"), Some(devices)).await;
    let auth = json!({"type": "auth", "token": token, "queue": "q"});
    assert_eq!(agent.ask(auth).await["success"], true);
    agent
}

fn frame(encoder: &mut Encoder, first: u64, device: &str) -> Message {
    let reading = Reading {
        device: device.into(),
        metric: "t".into(),
        unit: None,
        timestamp: UnixMillis(1_700_000_000_000),
        time_source: TimeSource::Device,
        value: Value::Int(1),
    };
    let mut frame = Vec::new();
    FrameHeader::Numbered { historical: false, first }.write(&mut frame);
    encoder.encode([&reading], &mut frame);
    Message::binary(frame)
}

#[tokio::test]
async fn our_agent_is_told_which_device_it_may_not_write() {
    let server = Server::start().await;
    let control = |message: Json| Message::text(message.to_string());
    let device = json!({"type": "device", "device": "secret"});
    let status = json!({"type": "status", "seq": 1, "device": "secret", "status": "offline",
        "reason": "so", "timestamp": "2024-01-01T00:00:00Z"});
    let binary = |device| frame(&mut Encoder::default(), 2, device);
    for refused in [control(device), control(status), binary("secret")] {
        let mut agent = our_agent(&server, "boiler").await;
        agent.send_frame(frame(&mut Encoder::default(), 1, "boiler")).await;
        agent.send_frame(refused).await;
        let (code, reason) = agent.closed().await;
        assert_eq!(code, 4403, "{reason}");
        assert!(reason.contains("secret") && !reason.contains("queue"), "{reason}");
    }
    // By this word our agent knows that its queue is taken over.
    let mut agent = our_agent(&server, "boiler").await;
    agent.send_frame(binary("queue-pump")).await;
    let (code, reason) = agent.closed().await;
    assert!(code == 4403 && !reason.contains("queue"), "{code} {reason}");
    assert_eq!(devices(&server).await, ["boiler"]);
}

#[tokio::test]
async fn a_new_token_of_our_agent_counts_for_what_it_has_announced() {
    let server = Server::start().await;
    let mut agent = our_agent(&server, "boiler,pump").await;
    let mut encoder = Encoder::default();
    agent.send_frame(frame(&mut encoder, 1, "boiler")).await;
    let token = server.token("site", Some("uplink"), Some("pump")).await;
    agent.send(json!({"type": "auth", "token": token})).await;
    agent.send_frame(frame(&mut encoder, 2, "boiler")).await;
    let (code, reason) = agent.closed().await;
    assert!(code == 4403 && reason.contains("boiler"), "{code} {reason}");
}

#[tokio::test]
async fn rules_concern_every_device_so_a_narrow_token_only_reads_them() {
    let server = Server::start().await;
    let rule = r#"{"metric":"t","kind":"threshold","above":1}"#;
    let all = server.token("ops", Some("admin"), None).await;
    let narrow = server.token("ops", Some("alerts:read alerts:write"), Some("boiler*")).await;
    let path = "/api/v1/rules/hot";
    let (status, body) = server.http("PUT", path, &narrow, rule).await;
    assert_eq!(status, 403, "{body}");
    assert_eq!(server.http("PUT", path, &all, rule).await.0, 200);
    assert_eq!(server.http("DELETE", path, &narrow, "").await.0, 403);
    assert_eq!(server.http("GET", path, &narrow, "").await.0, 200);
    assert!(server.http("GET", "/api/v1/rules", &narrow, "").await.1.contains("\"hot\""));
}
