//! The original documentation (WebSocket API v1.0): its examples, letter by letter.

use serde_json::Value as Json;
use valtronics_protocol::{
    event::{AlertStatus, Event},
    filter::Channel,
    id::{DeviceId, Seq},
    request::{MessageLimits, Request, parse},
};

fn request(frame: &str) -> Request {
    let mut messages = parse(frame, &MessageLimits::default());
    assert_eq!(messages.len(), 1, "{frame}");
    messages.remove(0).request.unwrap()
}

fn subscribed(frame: &str) -> (Channel, String) {
    match request(frame) {
        Request::Subscribe(subscribe) => {
            (subscribe.channel, serde_json::to_string(&subscribe.filters).unwrap())
        }
        other => panic!("{frame}: {other:?}"),
    }
}

#[test]
fn requests_of_the_documentation() {
    let auth = "{\n\"type\": \"auth\",\n\"token\": \"jwt-token-string\"\n}";
    assert_eq!(request(auth), Request::Auth(Ok("jwt-token-string".into())));
    let ping = "{\n\"type\": \"ping\",\n\"timestamp\": \"2024-01-01T12:00:00Z\"\n}";
    let timestamp = Some("2024-01-01T12:00:00Z".into());
    assert_eq!(request(ping), Request::Ping { timestamp });
    let unsubscribe =
        "{\n\"type\": \"unsubscribe\",\n\"channel\": \"alerts\",\n\"device_id\": 1\n}";
    match request(unsubscribe) {
        Request::Unsubscribe(unsubscribe) => {
            assert_eq!(unsubscribe.channel, Channel::Alerts);
            assert_eq!(unsubscribe.devices, Some(vec![DeviceId(1)]));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn subscriptions_of_the_documentation() {
    for (frame, channel, filters) in [
        (
            r#"{"type":"subscribe","channel":"telemetry","device_id":1,"filters":{"metrics":["temperature","humidity"]}}"#,
            Channel::Telemetry,
            r#"{"device_id":[1],"metrics":["temperature","humidity"]}"#,
        ),
        (
            r#"{"type":"subscribe","channel":"telemetry","device_id":1,"filters":{"metrics":["temperature","humidity"],"frequency":"real-time"}}"#,
            Channel::Telemetry,
            r#"{"device_id":[1],"metrics":["temperature","humidity"],"frequency":"real-time"}"#,
        ),
        (
            r#"{"type":"subscribe","channel":"alerts","filters":{"severity":["critical","warning"],"device_id":1}}"#,
            Channel::Alerts,
            r#"{"device_id":[1],"severity":["critical","warning"]}"#,
        ),
        (
            r#"{"type":"subscribe","channel":"devices","filters":{"device_id":[1,2,3],"status_types":["online","offline","warning"]}}"#,
            Channel::Devices,
            // All there are restrict nothing (our reading, section 3).
            r#"{"device_id":[1,2,3]}"#,
        ),
        (
            r#"{"type":"subscribe","channel":"system","filters":{"metrics":["cpu_usage","memory_usage","active_connections"],"frequency":"30s"}}"#,
            Channel::System,
            r#"{"metrics":["cpu_usage","memory_usage","active_connections"],"frequency":"30s"}"#,
        ),
        // The JavaScript class spreads filters, the Python class nests them or leaves them out.
        (
            r#"{"type":"subscribe","channel":"alerts","severity":["critical","warning"]}"#,
            Channel::Alerts,
            r#"{"severity":["critical","warning"]}"#,
        ),
        (r#"{"type": "subscribe", "channel": "devices"}"#, Channel::Devices, "{}"),
    ] {
        assert_eq!(subscribed(frame), (channel, filters.to_owned()), "{frame}");
    }
}

const TELEMETRY: &str = r#"{
"type": "telemetry_update",
"channel": "telemetry",
"device_id": 1,
"telemetry": {
"temperature": {
"value": 23.5,
"unit": "°C",
"timestamp": "2024-01-01T12:00:00Z"
},
"humidity": {
"value": 45.2,
"unit": "%",
"timestamp": "2024-01-01T12:00:00Z"
}
}
}"#;

const ALERT: &str = r#"{
"type": "alert",
"channel": "alerts",
"alert_id": 123,
"device_id": 1,
"severity": "critical",
"title": "High Temperature Alert",
"message": "Temperature exceeds safe threshold",
"timestamp": "2024-01-01T12:00:00Z",
"metadata": {
"threshold_value": 30.0,
"actual_value": 32.5
}
}"#;

const STATUS: &str = r#"{
"type": "device_status_update",
"channel": "devices",
"device_id": 1,
"old_status": "online",
"new_status": "offline",
"timestamp": "2024-01-01T12:00:00Z",
"reason": "Connection lost",
"metadata": {
"last_seen": "2024-01-01T11:45:00Z"
}
}"#;

const SYSTEM: &str = r#"{
"type": "system_status_update",
"channel": "system",
"metrics": {
"cpu_usage": 45.2,
"memory_usage": 67.8,
"disk_usage": 23.1,
"active_connections": 15
},
"timestamp": "2024-01-01T12:00:00Z"
}"#;

/// Checks that what is written has every key of the example, first and in its order, with its
/// values as they stand; what was added follows.
fn begins_like(written: &Json, example: &Json, path: &str) {
    match (written, example) {
        (Json::Object(written), Json::Object(example)) => {
            let mut entries = written.iter();
            for (key, value) in example {
                let (written_key, written_value) = entries.next().unwrap();
                assert_eq!(written_key, key, "{path}");
                begins_like(written_value, value, &format!("{path}.{key}"));
            }
        }
        (written, example) => assert_eq!(written.to_string(), example.to_string(), "{path}"),
    }
}

#[test]
fn messages_of_the_documentation() {
    for example in [TELEMETRY, ALERT, STATUS, SYSTEM] {
        let event: Event<'_> = serde_json::from_str(example).unwrap();
        let written: Json = serde_json::from_str(&serde_json::to_string(&event).unwrap()).unwrap();
        begins_like(&written, &serde_json::from_str(example).unwrap(), "");
    }
}

#[test]
fn nothing_is_added_to_readings_and_system_status() {
    for example in [TELEMETRY, SYSTEM] {
        let event: Event<'_> = serde_json::from_str(example).unwrap();
        let compact: String = example.lines().collect();
        let compact = compact.replace("\": ", "\":");
        assert_eq!(serde_json::to_string(&event).unwrap(), compact);
    }
}

#[test]
fn what_is_added_to_alerts_and_status_changes() {
    let Event::Alert(mut alert) = serde_json::from_str(ALERT).unwrap() else { panic!() };
    (alert.seq, alert.status, alert.snapshot) = (Seq(7), AlertStatus::Acknowledged, true);
    (alert.alert_type, alert.metadata.rule) = ("threshold".into(), "hot".into());
    alert.metadata.metric = "temperature".into();
    let written = serde_json::to_string(&Event::AlertUpdate(alert)).unwrap();
    let added = concat!(
        r#""actual_value":32.5,"metric":"temperature","rule":"hot"},"#,
        r#""alert_type":"threshold","status":"acknowledged","seq":7,"snapshot":true}"#,
    );
    assert!(written.ends_with(added), "{written}");
    assert!(written.starts_with(r#"{"type":"alert_update","channel":"alerts","alert_id":123,"#));
    let Event::DeviceStatusUpdate(mut update) = serde_json::from_str(STATUS).unwrap() else {
        panic!()
    };
    (update.seq, update.metadata.last_seen) = (Seq(8), None);
    let written = serde_json::to_string(&Event::DeviceStatusUpdate(update)).unwrap();
    assert!(written.ends_with(r#""metadata":{"last_seen":null},"seq":8}"#), "{written}");
}
