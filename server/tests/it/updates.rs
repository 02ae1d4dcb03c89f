//! Messages from the server, in their shape, order and number (WebSocket API, section 5), where no
//! other of these files shows it.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value as Json, json};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _};
use valtronics_protocol::{
    batch::Encoder,
    reading::{Reading, TimeSource},
    time::UnixMillis,
    uplink::{FrameHeader, SUBPROTOCOL_AGENT},
    value::Value,
};
use valtronics_server::clock;

use crate::server::{Client, Server};

const MOST_BYTES: usize = 256 * 1024;

fn keys(message: &Json) -> Vec<&str> {
    message.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn a_status_has_exactly_the_documented_shape() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    client.subscribe("devices").await;
    let mut agent = server.agent("site", None).await;
    // A report is no sign of life.
    let report = |seq: u64, status: &str, reason: &str| {
        json!({"type": "status", "seq": seq, "device": "a", "status": status, "reason": reason,
            "timestamp": "2024-01-01T12:00:00Z"})
    };
    assert_eq!(agent.ask(report(1, "offline", "Serial port unplugged")).await["seq"], 1);
    assert_eq!(
        client.next_text().await,
        concat!(
            r#"{"type":"device_status_update","channel":"devices","device_id":1,"#,
            r#""old_status":"offline","new_status":"offline","timestamp":"2024-01-01T12:00:00Z","#,
            r#""reason":"Serial port unplugged","metadata":{"last_seen":null},"seq":1}"#
        )
    );
    let seen = json!([{"metric": "t", "value": 1}]);
    agent.readings(2, "a", seen).await;
    let online = client.next().await;
    let last_seen = &online["metadata"]["last_seen"];
    let at: UnixMillis = last_seen.as_str().unwrap().parse().unwrap();
    assert!(clock::now().since(at) < crate::server::DEADLINE, "{online}");
}

#[tokio::test]
async fn alerts_have_one_shape_whatever_they_tell() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    let rule = json!({"metric": "t", "kind": "threshold", "steps": [
        {"above": 30, "severity": "warning"}, {"above": 40.0, "severity": "critical"}]});
    assert_eq!(server.http("PUT", "/api/v1/rules/hot", &admin, &rule.to_string()).await.0, 200);
    let mut client = server.subscriber().await;
    client.subscribe("alerts").await;
    let mut severe = server.subscriber().await;
    let request = json!({"type": "subscribe", "channel": "alerts", "severity": "critical"});
    assert_eq!(severe.ask(request).await["success"], true);
    let mut agent = server.agent("site", None).await;
    for (seq, value) in (1..).zip([31, 41, 35, 20]) {
        agent.readings(seq, "a", json!([{"metric": "t", "value": value}])).await;
    }
    for (seq, kind, severity, status, bound) in [
        (1, "alert", "warning", "active", json!(30)),
        (2, "alert", "critical", "active", json!(40.0)),
        (3, "alert_update", "warning", "active", json!(30)),
        (4, "alert_update", "warning", "resolved", json!(30)),
    ] {
        let message = client.next().await;
        assert_eq!(
            keys(&message).join(" "),
            "type channel alert_id device_id severity title message timestamp metadata \
             alert_type status seq"
        );
        assert_eq!(
            keys(&message["metadata"]),
            ["threshold_value", "actual_value", "metric", "rule"]
        );
        let told = (&message["seq"], &message["type"], &message["severity"], &message["status"]);
        assert_eq!(told, (&json!(seq), &json!(kind), &json!(severity), &json!(status)));
        assert_eq!(message["metadata"]["threshold_value"], bound, "{message}");
        // Who was told of an alert is told of its end.
        if seq > 1 {
            assert_eq!(severe.next().await, message);
        }
    }
    severe.expect_silence().await;
}

#[tokio::test]
async fn system_status_has_exactly_the_documented_shape() {
    let server = Server::start().await;
    // Agents, and who has not said who he is, are no active connections.
    let _agent = server.agent("site", None).await;
    let _stranger = server.connect("/ws").await;
    let mut client = server.subscriber().await;
    let subscribe =
        |metrics: Json| json!({"type": "subscribe", "channel": "system", "filters": metrics});
    assert_eq!(client.ask(subscribe(json!({}))).await["success"], true);
    let text = client.next_text().await;
    let update: Json = serde_json::from_str(&text).unwrap();
    let [cpu, memory, disk] = ["cpu_usage", "memory_usage", "disk_usage"].map(|metric| {
        let percent = update["metrics"][metric].as_f64().unwrap();
        assert!((0.0..=100.0).contains(&percent), "{text}");
        format!("{percent:.1}")
    });
    let timestamp = update["timestamp"].as_str().unwrap();
    assert_eq!(
        text,
        format!(
            r#"{{"type":"system_status_update","channel":"system","metrics":{{"cpu_usage":{cpu},"memory_usage":{memory},"disk_usage":{disk},"active_connections":1}},"timestamp":"{timestamp}"}}"#
        )
    );
    // Exactly what is named, in that order.
    let all = [
        "devices_online",
        "messages_per_second",
        "uptime_seconds",
        "load_average",
        "memory_total",
        "active_connections",
        "disk_usage",
        "memory_usage",
        "cpu_usage",
    ];
    let mut other = server.subscriber().await;
    assert_eq!(other.ask(subscribe(json!({"metrics": all}))).await["success"], true);
    let update = other.next().await;
    assert_eq!(keys(&update["metrics"]), all);
    assert!(update["metrics"].as_object().unwrap().values().all(Json::is_number), "{update}");
    assert_eq!(update["metrics"]["active_connections"], 2);
}

#[tokio::test]
async fn what_comes_in_apart_goes_out_apart() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    let mut agent = server.agent("site", None).await;
    let message = |seq: u64| {
        let readings = json!([{"metric": "z", "value": 1}, {"metric": "a", "value": 1}]);
        json!({"type": "readings", "seq": seq, "device": "d", "readings": readings})
    };
    // In one frame, of the same values.
    agent.send(json!([message(1), message(2), message(3)])).await;
    for _ in 0..3 {
        let update = client.next().await;
        assert_eq!(keys(&update), ["type", "channel", "device_id", "telemetry"]);
        assert_eq!(keys(&update["telemetry"]), ["z", "a"], "in the order in which they came");
        assert_eq!(keys(&update["telemetry"]["z"]), ["value", "unit", "timestamp"]);
    }
    client.expect_silence().await;
}

/// Connects as our own agent does, as the gateway `gw`.
async fn our_agent(server: &Server) -> Client {
    let mut request = format!("ws://{}/uplink", server.address).into_client_request().unwrap();
    let protocol = SUBPROTOCOL_AGENT.parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let mut agent = server.connect_with(request).await;
    let token = server.token("site", Some("uplink"), None).await;
    let gateway = json!({"name": "gw", "version": "1", "boot_id": "", "machine_id": "",
        "time": clock::now()});
    let auth = json!({"type": "auth", "token": token, "queue": "q", "gateway": gateway});
    assert_eq!(agent.ask(auth).await["success"], true);
    agent
}

fn frame(readings: &[(&str, &str, UnixMillis)]) -> Message {
    let readings: Vec<Reading> = readings
        .iter()
        .map(|(device, metric, timestamp)| Reading {
            device: (*device).into(),
            metric: (*metric).into(),
            value: Value::Int(1),
            unit: None,
            timestamp: *timestamp,
            time_source: TimeSource::Device,
        })
        .collect();
    let mut frame = Vec::new();
    FrameHeader::Numbered { historical: false, first: 1 }.write(&mut frame);
    Encoder::default().encode(&readings, &mut frame);
    Message::binary(frame)
}

#[tokio::test]
async fn of_our_agent_one_moment_of_a_device_is_one_update() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    let mut agent = our_agent(&server).await;
    let now = clock::now();
    let then = now.minus(Duration::from_secs(1));
    let readings =
        [("a", "t", then), ("a", "h", then), ("b", "t", then), ("a", "t", now), ("a", "h", now)];
    agent.send_frame(frame(&readings)).await;
    for (device, metrics) in [(1, &["t", "h"][..]), (2, &["t"]), (1, &["t", "h"])] {
        let update = client.next().await;
        assert_eq!(
            (&update["device_id"], keys(&update["telemetry"])),
            (&json!(device), metrics.to_vec())
        );
    }
    client.expect_silence().await;
}

#[tokio::test]
async fn a_gateway_that_is_lost_takes_its_devices_along() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    client.subscribe("devices").await;
    let mut agent = our_agent(&server).await;
    agent.send(json!({"type": "device", "device": "gw", "offline_after": "1s"})).await;
    agent.send_frame(frame(&[("boiler", "t", clock::now())])).await;
    assert_eq!(client.next().await["new_status"], "online");
    drop(agent);
    let update = client.next().await;
    assert_eq!(
        (&update["new_status"], &update["reason"]),
        (&json!("offline"), &json!("Gateway gw offline")),
        "{update}"
    );
}

#[tokio::test]
async fn numbers_come_out_as_they_came_in() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    let mut agent = server.agent("site", None).await;
    let numbers = [
        ("0", "0"),
        ("-1", "-1"),
        ("9007199254740993", "9007199254740993"),
        ("9223372036854775807", "9223372036854775807"),
        ("18446744073709551615", "18446744073709551615"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("30.0", "30.0"),
        ("30.50", "30.5"),
        ("0.1", "0.1"),
        ("5e-324", "5e-324"),
        ("0.30000000000000004", "0.30000000000000004"),
        ("1e2", "100.0"),
        ("-0.0", "-0.0"),
        ("true", "true"),
        (r#""on""#, r#""on""#),
    ];
    let readings: Vec<String> = numbers
        .iter()
        .enumerate()
        .map(|(at, (number, _))| format!(r#"{{"metric":"m{at}","value":{number}}}"#))
        .collect();
    let message = format!(
        r#"{{"type":"readings","seq":1,"device":"d","readings":[{}]}}"#,
        readings.join(",")
    );
    agent.send_frame(Message::text(message)).await;
    assert_eq!(agent.next().await["type"], "ack");
    let live = client.next_text().await;
    client.send(json!({"type": "subscribe", "channel": "telemetry"})).await;
    assert_eq!(client.next().await["success"], true);
    let snapshot = client.next_text().await;
    let reader = server.token("ops", None, None).await;
    for (at, (_, expected)) in numbers.iter().enumerate() {
        for text in [&live, &snapshot] {
            let value = format!(r#""m{at}":{{"value":{expected},"unit":""#);
            assert!(text.contains(&value), "{value} {text}");
        }
        let path = format!("/api/v1/devices/1/telemetry?metric=m{at}");
        let (status, history) = server.http("GET", &path, &reader, "").await;
        assert_eq!(status, 200, "{history}");
        assert!(history.contains(&format!(r#""value":{expected}"#)), "{expected} {history}");
    }
}

#[tokio::test]
async fn moments_are_those_of_the_measurement_in_utc() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    let mut agent = server.agent("site", None).await;
    for (seq, (given, expected)) in (1..).zip([
        ("2024-01-01T12:00:00Z", "2024-01-01T12:00:00Z"),
        ("2024-01-01T12:00:00.000Z", "2024-01-01T12:00:00Z"),
        ("2024-01-01T14:00:00.250+02:00", "2024-01-01T12:00:00.250Z"),
        ("2024-01-01T12:00:00.5Z", "2024-01-01T12:00:00.500Z"),
        ("2024-01-01T12:00:00.501999Z", "2024-01-01T12:00:00.501Z"),
        ("2024-02-29T23:59:59-00:30", "2024-03-01T00:29:59Z"),
    ]) {
        agent.readings(seq, "d", json!([{"metric": "t", "value": 1, "timestamp": given}])).await;
        let update = client.next().await;
        assert_eq!(update["telemetry"]["t"]["timestamp"], expected);
        assert_eq!(update.get("historical"), None, "age alone makes nothing historical");
    }
    for timestamp in
        [json!("2024-01-01T12:00:00"), json!("2024-02-30T12:00:00Z"), json!(1), json!("")]
    {
        let readings = json!([{"metric": "t", "value": 1, "timestamp": timestamp}]);
        let message = json!({"type": "readings", "device": "d", "readings": readings});
        let refusal = agent.ask(message).await;
        assert_eq!(refusal["error"], "invalid_message", "{timestamp}");
        assert!(refusal["message"].as_str().unwrap().contains("timestamp"), "{refusal}");
    }
}

#[tokio::test]
async fn ids_count_from_one_in_the_order_of_the_names() {
    let mut server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    let rule = r#"{"metric":"t","kind":"threshold","above":30}"#;
    assert_eq!(server.http("PUT", "/api/v1/rules/hot", &admin, rule).await.0, 200);
    let mut names = Vec::new();
    for round in 0..2_u64 {
        let mut client = server.subscriber().await;
        client.subscribe("alerts").await;
        let mut agent = server.agent("site", Some("q")).await;
        // Sorted in no way; the second is known, which leaves no hole.
        let devices =
            [format!("z{round}"), format!("a{round}"), format!("z{round}"), format!("m{round}")];
        let messages = (1..).zip(&devices).map(|(seq, device)| {
            json!({"type": "readings", "seq": round * 10 + seq, "device": device,
                "readings": [{"metric": "t", "value": 31}]})
        });
        agent.send(messages.collect()).await;
        for _ in 0..3 {
            let alert = client.next().await;
            assert_eq!(alert["alert_id"], alert["device_id"], "{alert}");
        }
        names.extend(
            devices.into_iter().enumerate().filter(|(at, _)| *at != 2).map(|(_, name)| name),
        );
        server.crash_and_restart().await;
    }
    let (_, list) = server.http("GET", "/api/v1/devices", &admin, "").await;
    let list: Json = serde_json::from_str(&list).unwrap();
    let listed = list["devices"].as_array().unwrap().iter();
    let listed: Vec<_> = listed.map(|d| (d["id"].as_u64(), d["name"].as_str())).collect();
    let expected: Vec<_> = (1..).zip(&names).map(|(id, name)| (Some(id), Some(&**name))).collect();
    assert_eq!(listed, expected);
}

/// Reads updates until all of these metrics have come; each has its value once.
async fn collect(client: &mut Client, count: usize) -> (usize, BTreeMap<String, usize>) {
    let (mut messages, mut lengths) = (0, BTreeMap::new());
    while lengths.len() < count {
        let text = client.next_text().await;
        assert!(text.len() <= MOST_BYTES, "{}", text.len());
        let update: Json = serde_json::from_str(&text).unwrap();
        assert_eq!(update["device_id"], 1);
        messages += 1;
        for (metric, reading) in update["telemetry"].as_object().unwrap() {
            let length = reading["value"].as_str().unwrap().len();
            assert_eq!(lengths.insert(metric.clone(), length), None, "{metric} comes once");
        }
    }
    (messages, lengths)
}

#[tokio::test]
async fn what_is_too_large_for_one_message_comes_in_several() {
    const METRICS: usize = 700;
    let server = Server::start().await;
    let mut live = server.subscriber().await;
    live.subscribe("telemetry").await;
    let mut agent = server.agent("site", None).await;
    let reading = |at: usize| json!({"metric": format!("m{at}"), "value": "x".repeat(1000)});
    agent.readings(1, "d", (0..METRICS).map(reading).collect()).await;
    let mut shown = server.subscriber().await;
    shown.send(json!({"type": "subscribe", "channel": "telemetry"})).await;
    assert_eq!(shown.next().await["success"], true);
    for client in [&mut live, &mut shown] {
        let (messages, lengths) = collect(client, METRICS).await;
        assert!((3..=6).contains(&messages), "{messages} of 700 KB");
        assert!(lengths.values().all(|length| *length == 1000));
        client.expect_silence().await;
    }
}
