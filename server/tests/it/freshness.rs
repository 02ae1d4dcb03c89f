//! Metrics that fall silent, readings that come late, and clocks that are wrong.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use valtronics_protocol::uplink::SUBPROTOCOL_AGENT;
use valtronics_server::clock;

use crate::server::{Client, Server};

/// How often the device of these tests speaks.
const BEAT: Duration = Duration::from_millis(100);

/// Says, as our own agent does, after how much silence a device counts as offline.
async fn declare(server: &Server, device: &str, offline_after: &str) -> Client {
    let url = format!("ws://{}/uplink", server.address);
    let mut request = url.into_client_request().unwrap();
    let protocol = SUBPROTOCOL_AGENT.parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let mut agent = server.connect_with(request).await;
    let token = server.token("site", Some("uplink"), None).await;
    assert_eq!(agent.ask(json!({"type": "auth", "token": token})).await["success"], true);
    agent.send(json!({"type": "device", "device": device, "offline_after": offline_after})).await;
    agent
}

/// Sends each of these metrics again and again until the subscriber is told something.
async fn beat_until_told(agent: &mut Client, metrics: &[&str], client: &mut Client) -> Json {
    let mut told = std::pin::pin!(client.next());
    loop {
        let reading = |metric: &&str| json!({"metric": metric, "value": 1});
        let readings: Vec<Json> = metrics.iter().map(reading).collect();
        agent.send(json!({"type": "readings", "device": "boiler", "readings": readings})).await;
        if let Ok(message) = tokio::time::timeout(BEAT, &mut told).await {
            return message;
        }
    }
}

/// Returns the last values of the first device, as a new subscriber sees them.
async fn snapshot(server: &Server) -> Json {
    let mut client = server.subscriber().await;
    client.send(json!({"type": "subscribe", "channel": "telemetry"})).await;
    client.next_of("telemetry_update").await["telemetry"].take()
}

#[tokio::test]
async fn a_metric_that_falls_silent_is_a_warning_until_it_speaks() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    client.subscribe("devices").await;
    let _gateway = declare(&server, "boiler", "5s").await;
    let mut agent = server.agent("site", None).await;
    for _ in 0..5 {
        let readings = json!([{"metric": "t", "value": 1}, {"metric": "p", "value": 1}]);
        agent.send(json!({"type": "readings", "device": "boiler", "readings": readings})).await;
        tokio::time::sleep(BEAT).await;
    }
    assert_eq!(client.next().await["new_status"], "online");
    let warning = beat_until_told(&mut agent, &["p"], &mut client).await;
    assert_eq!(
        (&warning["old_status"], &warning["new_status"], &warning["reason"]),
        (&json!("online"), &json!("warning"), &json!("No data from t for 5 s"))
    );
    let values = snapshot(&server).await;
    assert_eq!((&values["t"]["stale"], &values["p"]["stale"]), (&json!(true), &Json::Null));

    // What is late does not say that the metric speaks.
    agent
        .send(json!({"type": "readings", "seq": 1, "device": "boiler", "readings": [
        {"metric": "t", "value": 2, "timestamp": "2024-01-01T12:00:00Z"}]}))
        .await;
    agent
        .send(json!({"type": "readings", "seq": 2, "device": "boiler", "historical": true,
        "readings": [{"metric": "t", "value": 3}]}))
        .await;
    while agent.next().await["seq"] != 2 {}
    assert_eq!(snapshot(&server).await["t"]["value"], 1);

    let back = beat_until_told(&mut agent, &["p", "t"], &mut client).await;
    assert_eq!((&back["old_status"], &back["new_status"]), (&json!("warning"), &json!("online")));
    assert_eq!(back["seq"], 3, "nothing was said of it in between");
    assert_eq!(snapshot(&server).await["t"]["stale"], Json::Null);
}

#[tokio::test]
async fn what_is_late_moves_nothing_back_ends_no_silence_and_raises_no_alert() {
    let server = Server::with("[devices]\noffline_after = \"1s\"").await;
    let admin = server.token("ops", Some("admin"), None).await;
    let rule = r#"{"metric":"t","kind":"threshold","above":30}"#;
    server.http("PUT", "/api/v1/rules/hot", &admin, rule).await;
    let mut client = server.subscriber().await;
    client.subscribe("devices").await;
    client.subscribe("alerts").await;
    let mut agent = server.agent("site", Some("q")).await;
    agent.readings(1, "boiler", json!([{"metric": "t", "value": 1}])).await;
    assert_eq!(client.next().await["new_status"], "online");
    assert_eq!(client.next().await["new_status"], "offline");

    let old = "2024-01-01T12:00:00Z";
    agent.readings(2, "boiler", json!([{"metric": "t", "value": 99, "timestamp": old}])).await;
    let marked = json!({"type": "readings", "seq": 3, "device": "boiler", "historical": true,
        "readings": [{"metric": "t", "value": 98}]});
    assert_eq!(agent.ask(marked).await["seq"], 3);
    client.expect_silence().await;
    assert_eq!(snapshot(&server).await["t"]["value"], 1);

    agent.readings(4, "boiler", json!([{"metric": "t", "value": 31}])).await;
    let (mut status, mut alert) = (client.next().await, client.next().await);
    if status["type"] == "alert" {
        std::mem::swap(&mut status, &mut alert);
    }
    assert_eq!((&status["new_status"], &status["seq"]), (&json!("online"), &json!(3)));
    assert_eq!((&alert["metadata"]["actual_value"], &alert["seq"]), (&json!(31), &json!(1)));
}

#[tokio::test]
async fn a_clock_that_runs_ahead_freezes_nothing() {
    let server = Server::start().await;
    let mut agent = server.agent("site", None).await;
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    let ahead = clock::now().plus(Duration::from_secs(50));
    agent.readings(1, "boiler", json!([{"metric": "t", "value": 2, "timestamp": ahead}])).await;
    let first = client.next().await;
    assert_eq!(first["telemetry"]["t"]["timestamp"], json!(ahead), "it is shown as it was given");
    // The clock is set right: a second later its readings are the newest again.
    let next = beat_until_told(&mut agent, &["t"], &mut client).await;
    assert_eq!((&next["telemetry"]["t"]["value"], &next["historical"]), (&json!(1), &Json::Null));
    assert_eq!(snapshot(&server).await["t"]["value"], 1);
}

#[tokio::test]
async fn after_a_start_agents_have_time_to_come_back() {
    let mut server = Server::with("[devices]\noffline_after = \"3s\"").await;
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "boiler", json!([{"metric": "t", "value": 1}])).await;
    let mut client = server.subscriber().await;
    assert_eq!(client.subscribe("devices").await["seq"], 1);
    server.crash_and_restart().await;

    let mut client = server.subscriber().await;
    let uptime = json!({"type": "subscribe", "channel": "system", "frequency": "1s",
        "metrics": ["uptime_seconds", "devices_online"]});
    client.send(uptime).await;
    loop {
        let status = client.next_of("system_status_update").await["metrics"].take();
        assert_eq!(status["devices_online"], 1);
        if status["uptime_seconds"].as_u64() > Some(5) {
            break;
        }
    }
    let answer = server.subscriber().await.subscribe("devices").await;
    assert_eq!(answer["seq"], 1, "nothing is announced so early");
}
