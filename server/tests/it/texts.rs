//! Texts that come in (WebSocket API, section 9): how long they may be, and of what.

use serde_json::{Value as Json, json};

use crate::server::Server;

/// Control characters: the first and the last of each range.
const CONTROLS: [&str; 6] = ["\0", "\u{1f}", "\n", "\u{7f}", "\u{80}", "\u{9f}"];

/// What fits into so many bytes, and what does not.
fn around(most: usize) -> [(String, bool); 4] {
    [
        ("x".repeat(most), true),
        ("x".repeat(most + 1), false),
        ("ü".repeat(most / 2), true),
        (format!("x{}", "ü".repeat(most / 2)), false),
    ]
}

/// Makes a message of a reading with one of its texts as given.
fn reading(field: &str, text: &str) -> Json {
    let mut reading = json!({"metric": "t", "value": 1});
    let mut device = "d";
    if field == "device" {
        device = text
    } else {
        reading[field] = json!(text)
    }
    json!({"type": "readings", "device": device, "readings": [reading]})
}

fn status(reason: &str) -> Json {
    json!({"type": "status", "device": "d", "status": "online", "reason": reason})
}

#[tokio::test]
async fn texts_of_readings_and_reports_are_short_and_clean() {
    let server = Server::start().await;
    let mut agent = server.agent("site", None).await;
    let uplink = server.token("site", Some("uplink"), None).await;
    let mut seq = 0;
    for (field, most) in
        [("device", 128), ("metric", 128), ("value", 1024), ("unit", 32), ("reason", 512)]
    {
        let controls = CONTROLS.map(|control| (format!("a{control}b"), false));
        for (text, is_good) in around(most).into_iter().chain(controls) {
            let mut message = if field == "reason" { status(&text) } else { reading(field, &text) };
            if is_good {
                seq += 1;
                message["seq"] = json!(seq);
            }
            let answer = agent.ask(message.clone()).await;
            let kind = if is_good { "ack" } else { "error" };
            assert_eq!(answer["type"], kind, "{field} of {} bytes: {answer}", text.len());
            if !is_good {
                assert_eq!(answer["error"], "invalid_message");
                assert!(answer["message"].as_str().unwrap().contains(field), "{answer}");
            }
            if field != "reason" {
                let body = message.to_string();
                let (status, answer) =
                    server.http("POST", "/api/v1/telemetry", &uplink, &body).await;
                assert_eq!(status, if is_good { 202 } else { 422 }, "{field} {answer}");
            }
        }
    }
    for field in ["device", "metric"] {
        assert_eq!(agent.ask(reading(field, "")).await["error"], "invalid_message", "{field}");
    }
}

#[tokio::test]
async fn texts_of_rules_are_short_and_clean() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    for field in ["title", "message"] {
        let controls = CONTROLS.map(|control| (format!("a{control}b"), false));
        for (text, is_good) in around(512).into_iter().chain(controls) {
            let mut rule = json!({"metric": "t", "kind": "threshold", "above": 1});
            rule[field] = json!(text);
            let (status, answer) =
                server.http("PUT", "/api/v1/rules/hot", &admin, &rule.to_string()).await;
            assert_eq!(status, if is_good { 200 } else { 422 }, "{field} {answer}");
            assert!(is_good || answer.contains(field), "{answer}");
        }
    }
}
