//! What a new subscriber is shown, and what the answer to him carries (WebSocket API, sections 3 and
//! 4), where no other of these files shows it.

use std::time::Duration;

use serde_json::{Value as Json, json};
use valtronics_server::clock;

use crate::server::Server;

async fn subscribe(server: &Server, request: Json) -> (crate::server::Client, Json) {
    let mut client = server.subscriber().await;
    let answer = client.ask(request).await;
    assert_eq!(answer["success"], true, "{answer}");
    (client, answer)
}

#[tokio::test]
async fn open_alerts_are_shown_as_they_stand_and_oldest_first() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    let rule = r#"{"metric":"t","kind":"threshold","above":30}"#;
    assert_eq!(server.http("PUT", "/api/v1/rules/hot", &admin, rule).await.0, 200);
    let mut live = server.subscriber().await;
    live.subscribe("alerts").await;
    let mut agent = server.agent("site", None).await;
    for (seq, device) in (1..).zip(["a", "b", "c", "d"]) {
        agent.readings(seq, device, json!([{"metric": "t", "value": 31}])).await;
    }
    let until = clock::now().plus(Duration::from_secs(3600));
    let shelf = json!({"until": until}).to_string();
    // The oldest changes last, and stays the first.
    for (what, body) in [("2/resolve", ""), ("3/shelve", &shelf), ("1/acknowledge", "")] {
        let path = format!("/api/v1/alerts/{what}");
        assert_eq!(server.http("POST", &path, &admin, body).await.0, 200);
    }
    let mut last = vec![Json::Null; 4];
    for _ in 0..7 {
        let message = live.next().await;
        let at = message["alert_id"].as_u64().unwrap() as usize - 1;
        last[at] = message;
    }
    let (mut client, answer) =
        subscribe(&server, json!({"type": "subscribe", "channel": "alerts"})).await;
    assert_eq!(answer["seq"], 7);
    for (id, kind, status) in [
        (1, "alert_update", "acknowledged"),
        (3, "alert_update", "shelved"),
        (4, "alert", "active"),
    ] {
        let mut shown = client.next().await;
        assert_eq!((&shown["type"], &shown["status"]), (&json!(kind), &json!(status)), "{shown}");
        // It is the last that was told of the alert, but for the mark.
        assert_eq!(shown.as_object_mut().unwrap().remove("snapshot"), Some(json!(true)));
        assert_eq!(shown, last[id - 1]);
    }
    client.expect_silence().await;
}

#[tokio::test]
async fn devices_are_shown_with_their_last_change() {
    let server = Server::start().await;
    let mut live = server.subscriber().await;
    live.subscribe("devices").await;
    let mut agent = server.agent("site", None).await;
    for (seq, device) in (1..).zip(["a", "b"]) {
        agent.readings(seq, device, json!([{"metric": "t", "value": 1}])).await;
    }
    let report = json!({"type": "status", "seq": 3, "device": "a", "status": "warning",
        "reason": "Filter clogged", "timestamp": "2024-01-01T12:00:00.250Z"});
    assert_eq!(agent.ask(report).await["seq"], 3);
    let mut changes = Vec::new();
    for _ in 0..3 {
        changes.push(live.next().await);
    }
    let request = json!({"type": "subscribe", "channel": "devices"});
    let (mut client, answer) = subscribe(&server, request).await;
    assert_eq!(answer["seq"], 3);
    for last in [&changes[2], &changes[1]] {
        let shown = client.next().await;
        for key in ["device_id", "new_status", "seq", "timestamp", "reason"] {
            assert_eq!(shown[key], last[key], "{key}: {shown}");
        }
        assert_eq!(shown["old_status"], shown["new_status"]);
        assert_eq!(shown["snapshot"], true);
    }
    client.expect_silence().await;
    // Which devices are shown is what their status is.
    let request = json!({"type": "subscribe", "channel": "devices", "status_types": "warning"});
    let (mut client, _) = subscribe(&server, request).await;
    assert_eq!(client.next().await["device_id"], 1);
    client.expect_silence().await;
}

#[tokio::test]
async fn only_what_matches_is_shown() {
    let server = Server::start().await;
    let mut agent = server.agent("site", None).await;
    for (seq, device) in (1..).zip(["a", "b", "c"]) {
        let metric = if device == "b" { "other" } else { "battery.level" };
        let readings = json!([{"metric": metric, "value": seq}, {"metric": "t", "value": seq}]);
        agent.readings(seq, device, readings).await;
    }
    let request = json!({"type": "subscribe", "channel": "telemetry", "metrics": "battery.*"});
    let (mut client, answer) = subscribe(&server, request).await;
    assert_eq!((answer.get("seq"), answer.get("log")), (None, None), "telemetry is not resumed");
    for device in [1, 3] {
        let text = client.next_text().await;
        let expected = format!(
            r#"{{"type":"telemetry_update","channel":"telemetry","device_id":{device},"telemetry":{{"battery.level":{{"value":{device},"unit":"","timestamp":""#
        );
        assert!(text.starts_with(&expected) && text.ends_with(r#""}},"snapshot":true}"#), "{text}");
    }
    client.expect_silence().await;
}

#[tokio::test]
async fn who_wants_no_snapshot_gets_none() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    let rule = r#"{"metric":"t","kind":"threshold","above":30}"#;
    assert_eq!(server.http("PUT", "/api/v1/rules/hot", &admin, rule).await.0, 200);
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "a", json!([{"metric": "t", "value": 31}])).await;
    for channel in ["telemetry", "alerts", "devices"] {
        let request = json!({"type": "subscribe", "channel": channel, "snapshot": false});
        let (mut client, _) = subscribe(&server, request).await;
        client.expect_silence().await;
    }
}

#[tokio::test]
async fn an_answer_says_where_the_log_stands() {
    let server = Server::start().await;
    let mut agent = server.agent("site", None).await;
    for (seq, device) in (1..).zip(["a", "b"]) {
        agent.readings(seq, device, json!([{"metric": "t", "value": 1}])).await;
    }
    let mut client = server.subscriber().await;
    let mut logs = Vec::new();
    for (channel, seq) in [("alerts", 0), ("devices", 2)] {
        let answer = client.subscribe(channel).await;
        assert_eq!((&answer["seq"], answer.get("resumed")), (&json!(seq), None), "{answer}");
        assert!(answer["log"].as_str().is_some_and(|log| !log.is_empty()), "{answer}");
        logs.push(answer["log"].clone());
        // The last position is one to go on from; nothing came after it.
        let request = json!({"type": "subscribe", "channel": channel, "since": seq,
            "log": answer["log"]});
        let answer = client.ask(request).await;
        assert_eq!((&answer["resumed"], &answer["seq"]), (&json!(true), &json!(seq)));
        client.expect_silence().await;
    }
    assert_eq!(logs[0], logs[1], "it is made with the data directory");
    let other = Server::start().await.subscriber().await.subscribe("alerts").await;
    assert_ne!(other["log"], logs[0]);
}

#[tokio::test]
async fn of_what_is_no_longer_held_the_present_state_is_shown() {
    let mut server = Server::start().await;
    let mut agent = server.agent("site", Some("q")).await;
    for seq in 1..=5 {
        let status = if seq % 2 == 0 { "warning" } else { "offline" };
        let report = json!({"type": "status", "seq": seq, "device": "a", "status": status});
        assert_eq!(agent.ask(report).await["seq"], seq);
    }
    let store = rusqlite::Connection::open(server.folder().join("data/valtronics.db")).unwrap();
    store.execute("DELETE FROM events WHERE seq < 3", []).unwrap();
    drop(store);
    server.crash_and_restart().await;
    for (since, resumed) in [(0, false), (1, false), (2, true), (5, true), (6, false)] {
        let request = json!({"type": "subscribe", "channel": "devices", "since": since});
        let (mut client, answer) = subscribe(&server, request).await;
        assert_eq!((&answer["resumed"], &answer["seq"]), (&json!(resumed), &json!(5)), "{since}");
        if resumed {
            for seq in since + 1..=5 {
                let event = client.next().await;
                assert_eq!((&event["seq"], event.get("snapshot")), (&json!(seq), None));
            }
        } else {
            let shown = client.next().await;
            assert_eq!((&shown["seq"], &shown["snapshot"]), (&json!(5), &json!(true)));
        }
        client.expect_silence().await;
    }
}
