//! What subscribers get: every channel, filters, frequency, snapshots, resuming.

use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn an_update_has_exactly_the_documented_shape() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    let mut agent = server.agent("site", Some("q")).await;
    agent
        .readings(1, "boiler", json!([
            {"metric": "temperature", "value": 23.5, "unit": "C", "timestamp": "2024-01-01T12:00:00Z"},
            {"metric": "humidity", "value": 45.2, "unit": "%", "timestamp": "2024-01-01T12:00:00.250Z"},
            {"metric": "count", "value": 30},
            {"metric": "exact", "value": 30.0},
            {"metric": "open", "value": true},
            {"metric": "state", "value": "on"},
        ]))
        .await;
    let text = client.next_text().await;
    let expected = concat!(
        r#"{"type":"telemetry_update","channel":"telemetry","device_id":1,"telemetry":{"#,
        r#""temperature":{"value":23.5,"unit":"°C","timestamp":"2024-01-01T12:00:00Z"},"#,
        r#""humidity":{"value":45.2,"unit":"%","timestamp":"2024-01-01T12:00:00.250Z"},"#,
        r#""count":{"value":30,"unit":"","timestamp":""#,
    );
    assert!(text.starts_with(expected), "{text}");
    assert!(text.contains(r#""exact":{"value":30.0,"#), "{text}");
    assert!(text.contains(r#""open":{"value":true,"#), "{text}");
    assert!(text.contains(r#""state":{"value":"on","#), "{text}");
}

#[tokio::test]
async fn filters_choose_devices_and_metrics() {
    let server = Server::start().await;
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "a", json!([{"metric": "t", "value": 1}])).await;
    agent.readings(2, "b", json!([{"metric": "t", "value": 1}])).await;
    let mut client = server.subscriber().await;
    let request = json!({"type": "subscribe", "channel": "telemetry", "snapshot": false,
        "device_id": 2, "filters": {"metrics": ["battery.*", "t"]}});
    let answer = client.ask(request).await;
    assert_eq!(answer["filters"], json!({"device_id": [2], "metrics": ["battery.*", "t"]}));
    agent.readings(3, "a", json!([{"metric": "t", "value": 2}])).await;
    agent.readings(4, "b", json!([{"metric": "h", "value": 2}])).await;
    agent
        .readings(
            5,
            "b",
            json!([
                {"metric": "h", "value": 3}, {"metric": "battery.level", "value": 3},
                {"metric": "battery", "value": 3}, {"metric": "t", "value": 3},
            ]),
        )
        .await;
    let update = client.next().await;
    assert_eq!(update["device_id"], 2);
    let metrics: Vec<_> = update["telemetry"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(metrics, ["battery.level", "t"]);
    client.expect_silence().await;
}

#[tokio::test]
async fn a_key_of_a_device_counts_before_that_of_all() {
    let server = Server::start().await;
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "a", json!([{"metric": "t", "value": 1}, {"metric": "h", "value": 1}])).await;
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    let own = json!({"type": "subscribe", "channel": "telemetry", "device_id": 1, "metrics": "h",
        "snapshot": false});
    client.ask(own).await;
    let both = json!([{"metric": "t", "value": 2}, {"metric": "h", "value": 2}]);
    agent.readings(2, "a", both.clone()).await;
    assert_eq!(client.next().await["telemetry"].as_object().unwrap().len(), 1);
    client.ask(json!({"type": "unsubscribe", "channel": "telemetry", "device_id": 1})).await;
    agent.readings(3, "a", both.clone()).await;
    assert_eq!(client.next().await["telemetry"].as_object().unwrap().len(), 2);
    client.ask(json!({"type": "unsubscribe", "channel": "telemetry"})).await;
    agent.readings(4, "a", both).await;
    client.expect_silence().await;
}

#[tokio::test]
async fn a_metric_named_twice_comes_in_two_messages() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    let mut agent = server.agent("site", None).await;
    agent
        .readings(1, "a", json!([
            {"metric": "t", "value": 1}, {"metric": "h", "value": 5}, {"metric": "t", "value": 2},
        ]))
        .await;
    let (first, second) = (client.next().await, client.next().await);
    assert_eq!(first["telemetry"].as_object().unwrap().len(), 2);
    assert_eq!(second["telemetry"]["t"]["value"], 2);
}

#[tokio::test]
async fn a_period_lets_the_first_and_the_newest_through() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    let request = json!({"type": "subscribe", "channel": "telemetry", "frequency": "500ms"});
    assert_eq!(client.ask(request).await["filters"], json!({"frequency": "500ms"}));
    let mut agent = server.agent("site", None).await;
    for value in 1..=20 {
        let metric = if value % 2 == 0 { "even" } else { "odd" };
        agent.readings(value, "a", json!([{"metric": metric, "value": value}])).await;
    }
    let first = client.next().await;
    assert_eq!(first["telemetry"]["odd"]["value"], 1, "{first}");
    let mut newest = (0, 0);
    while newest != (19, 20) {
        let update = client.next().await;
        let value =
            |metric: &str, before| update["telemetry"][metric]["value"].as_u64().unwrap_or(before);
        newest = (value("odd", newest.0), value("even", newest.1));
    }
    client.expect_silence().await;
}

#[tokio::test]
async fn a_snapshot_is_the_present_state() {
    let server = Server::start().await;
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "a", json!([{"metric": "t", "value": 1, "unit": "C"}])).await;
    agent.readings(2, "b", json!([{"metric": "t", "value": 2}])).await;
    let mut client = server.subscriber().await;
    client.send(json!({"type": "subscribe", "channel": "telemetry"})).await;
    assert_eq!(client.next().await["type"], "subscribe_response");
    for (device, value) in [(1, 1), (2, 2)] {
        let update = client.next().await;
        assert_eq!((&update["device_id"], &update["snapshot"]), (&json!(device), &json!(true)));
        assert_eq!(update["telemetry"]["t"]["value"], value);
    }
    client.send(json!({"type": "subscribe", "channel": "devices"})).await;
    assert_eq!(client.next_of("subscribe_response").await["seq"], 2);
    for device in [1, 2] {
        let update = client.next().await;
        assert_eq!(update["device_id"], device);
        assert_eq!(
            (&update["old_status"], &update["new_status"]),
            (&json!("online"), &json!("online"))
        );
        assert_eq!(update["snapshot"], true);
    }
}

#[tokio::test]
async fn late_readings_go_only_to_who_wants_them() {
    let server = Server::start().await;
    let (mut plain, mut thorough) = (server.subscriber().await, server.subscriber().await);
    plain.subscribe("telemetry").await;
    let request = json!({"type": "subscribe", "channel": "telemetry", "historical": true});
    assert_eq!(thorough.ask(request).await["success"], true);
    let mut agent = server.agent("site", None).await;
    let at = |second: u64| format!("2024-01-01T12:00:{second:02}Z");
    let reading = |value: u64| json!([{"metric": "t", "value": value, "timestamp": at(value)}]);
    agent.readings(1, "a", reading(10)).await;
    agent.readings(2, "a", reading(5)).await;
    let marked = json!({"type": "readings", "seq": 3, "device": "a", "historical": true,
        "readings": reading(20)});
    agent.ask(marked).await;
    for (value, historical) in [(10, json!(null)), (5, json!(true)), (20, json!(true))] {
        let update = thorough.next().await;
        assert_eq!(update["telemetry"]["t"]["value"], value);
        assert_eq!(update["historical"], historical);
    }
    assert_eq!(plain.next().await["telemetry"]["t"]["value"], 10);
    plain.expect_silence().await;
    let (_, devices) =
        server.http("GET", "/api/v1/devices/1", &server.token("o", None, None).await, "").await;
    assert!(devices.contains(r#""value":10"#), "late readings move no last value: {devices}");
}

const HOT: &str = r#"{"device":"boiler*","metric":"temperature","kind":"threshold","above":30.0,
    "clear_below":28.0,"severity":"critical","title":"High Temperature Alert",
    "message":"Temperature exceeds safe threshold"}"#;

#[tokio::test]
async fn an_alert_is_announced_and_its_end_is_told() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    assert_eq!(server.http("PUT", "/api/v1/rules/hot", &admin, HOT).await.0, 200);
    let (mut client, mut other) = (server.subscriber().await, server.subscriber().await);
    let request = json!({"type": "subscribe", "channel": "alerts",
        "filters": {"severity": ["critical", "warning"], "alert_type": "threshold"}});
    let answer = client.ask(request).await;
    assert_eq!(answer["seq"], 0);
    other.ask(json!({"type": "subscribe", "channel": "alerts", "severity": "info"})).await;
    let mut agent = server.agent("site", None).await;
    let temperature = |value: f64| json!([{"metric": "temperature", "value": value, "timestamp": "2024-01-01T12:00:00Z"}]);
    agent.readings(1, "boiler-1", temperature(32.5)).await;
    agent.readings(2, "kitchen", temperature(99.0)).await;
    let text = client.next_text().await;
    let expected = concat!(
        r#"{"type":"alert","channel":"alerts","alert_id":1,"device_id":1,"severity":"critical","#,
        r#""title":"High Temperature Alert","message":"Temperature exceeds safe threshold","#,
        r#""timestamp":"2024-01-01T12:00:00Z","#,
        r#""metadata":{"threshold_value":30.0,"actual_value":32.5,"metric":"temperature","rule":"hot"},"#,
        r#""alert_type":"threshold","status":"active","seq":1}"#,
    );
    assert_eq!(text, expected);
    agent.readings(3, "boiler-1", temperature(29.0)).await;
    agent.readings(4, "boiler-1", temperature(27.9)).await;
    let end = client.next().await;
    assert_eq!(
        (&end["type"], &end["status"], &end["seq"]),
        (&json!("alert_update"), &json!("resolved"), &json!(2))
    );
    agent.readings(5, "boiler-1", temperature(31.0)).await;
    assert_eq!(client.next().await["alert_id"], 2);
    other.expect_silence().await;

    let since = client.ask(json!({"type": "subscribe", "channel": "alerts", "since": 1})).await;
    assert_eq!((&since["resumed"], &since["seq"]), (&json!(true), &json!(3)));
    assert_eq!(client.next().await["seq"], 2);
    assert_eq!(client.next().await["seq"], 3);
    let beyond = other.ask(json!({"type": "subscribe", "channel": "alerts", "since": 99})).await;
    assert_eq!(beyond["resumed"], false);
    assert_eq!(other.next().await["snapshot"], true, "what is unresolved comes instead");
}

#[tokio::test]
async fn a_condition_has_to_hold_for_its_time() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    let rule = r#"{"metric":"t","kind":"threshold","above":30,"for":"1s"}"#;
    assert_eq!(server.http("PUT", "/api/v1/rules/hot", &admin, rule).await.0, 200);
    let mut client = server.subscriber().await;
    client.subscribe("alerts").await;
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "d", json!([{"metric": "t", "value": 31}])).await;
    client.expect_silence().await;
    assert_eq!(client.next().await["status"], "active", "no further reading is needed");
}

#[tokio::test]
async fn a_status_has_its_reason() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    let request = json!({"type": "subscribe", "channel": "devices",
        "filters": {"device_id": [1, 2, 3], "status_types": ["online", "offline", "warning"]}});
    assert_eq!(client.ask(request).await["success"], true);
    let mut agent = server.agent("site", Some("q")).await;
    agent.readings(1, "boiler", json!([{"metric": "t", "value": 1}])).await;
    let update = client.next().await;
    assert_eq!(
        (&update["old_status"], &update["new_status"]),
        (&json!("offline"), &json!("online"))
    );
    let offline = json!({"type": "status", "seq": 2, "device": "boiler", "status": "offline",
        "reason": "Connection lost", "timestamp": "2024-01-01T12:00:00Z"});
    assert_eq!(agent.ask(offline).await, json!({"type": "ack", "seq": 2}));
    let text = client.next_text().await;
    let expected = concat!(
        r#"{"type":"device_status_update","channel":"devices","device_id":1,"old_status":"online","#,
        r#""new_status":"offline","timestamp":"2024-01-01T12:00:00Z","reason":"Connection lost","#,
        r#""metadata":{"last_seen":""#,
    );
    assert!(text.starts_with(expected), "{text}");
    agent.readings(3, "boiler", json!([{"metric": "t", "value": 1}])).await;
    assert_eq!(client.next().await["new_status"], "online");
}

#[tokio::test]
async fn silence_makes_a_device_offline() {
    let server = Server::with("[devices]\noffline_after = \"1s\"").await;
    let mut client = server.subscriber().await;
    client.subscribe("devices").await;
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "boiler", json!([{"metric": "t", "value": 1}])).await;
    assert_eq!(client.next().await["new_status"], "online");
    let update = client.next().await;
    assert_eq!(
        (&update["new_status"], &update["reason"]),
        (&json!("offline"), &json!("No data for 1 s"))
    );
}

#[tokio::test]
async fn system_status_comes_at_once_and_at_its_period() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    let request = json!({"type": "subscribe", "channel": "system", "frequency": "1s"});
    assert_eq!(client.ask(request).await["success"], true);
    for _ in 0..2 {
        let update = client.next().await;
        assert_eq!(update["type"], "system_status_update");
        let metrics: Vec<_> = update["metrics"].as_object().unwrap().keys().cloned().collect();
        assert_eq!(metrics, ["cpu_usage", "memory_usage", "disk_usage", "active_connections"]);
        assert_eq!(update["metrics"]["active_connections"], 1);
    }
    let some = json!({"type": "subscribe", "channel": "system",
        "metrics": ["uptime_seconds", "devices_online"]});
    client.send(some).await;
    loop {
        let update = client.next_of("system_status_update").await;
        if update["metrics"].as_object().unwrap().len() == 2 {
            break;
        }
    }
}

#[tokio::test]
async fn who_does_not_read_gets_the_newest_values_and_is_told() {
    let server = Server::with("[limits]\nqueue_bytes = \"16KiB\"").await;
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    let mut agent = server.agent("site", None).await;
    let padding = "x".repeat(1000);
    // More than the kernel's buffers hold, while nobody reads.
    let last = 20_000_u64;
    for value in 1..=last {
        let readings = json!([{"metric": "t", "value": value}, {"metric": "p", "value": padding}]);
        agent.send(json!({"type": "readings", "device": "a", "readings": readings})).await;
    }
    agent.readings(1, "b", json!([{"metric": "t", "value": 1}])).await;
    let (mut newest, mut dropped, mut before) = (0, 0, 0);
    while newest < last || dropped == 0 {
        let message = client.next().await;
        if message["type"] == "lagged" {
            assert_eq!(message["channel"], "telemetry");
            dropped += message["dropped"].as_u64().unwrap();
        } else if message["device_id"] == 1 {
            newest = message["telemetry"]["t"]["value"].as_u64().unwrap_or(newest);
            assert!(newest >= before, "time does not go backwards");
            before = newest;
        }
    }
    assert!(dropped > 1000, "{dropped}");
}
