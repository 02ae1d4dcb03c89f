//! Who is connected, for an operator: the list, and one connection's messages in the log.

use serde_json::{Value as Json, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use valtronics_server::clock;

use crate::server::{Client, DEADLINE, Server};

/// Waits for a line of the log; returns all lines up to it.
pub(crate) async fn said(server: &Server, is_it: impl Fn(&Json) -> bool) -> Vec<Json> {
    let mut lines = server.said.clone();
    let found = timeout(DEADLINE, lines.wait_for(|lines| lines.iter().any(&is_it)));
    let lines = found.await.expect("the server says it").unwrap().clone();
    let at = lines.iter().position(is_it).unwrap();
    lines[..=at].to_vec()
}

pub(crate) async fn connections(server: &Server, query: &str) -> Json {
    let admin = server.token("boss", Some("admin"), None).await;
    let path = format!("/api/v1/connections{query}");
    let (status, body) = server.http("GET", &path, &admin, "").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

async fn set_log(server: &Server, id: &Json, body: &str) -> (u16, String) {
    let admin = server.token("boss", Some("admin"), None).await;
    server.http("PUT", &format!("/api/v1/connections/{id}/log"), &admin, body).await
}

pub(crate) async fn user(server: &Server, name: &str) -> Client {
    let mut client = server.connect("/ws").await;
    client.authenticate(&server.token(name, None, None).await).await;
    client
}

#[tokio::test]
async fn an_admin_sees_who_is_connected() {
    let server = Server::start().await;
    let (mut anna, mut ben) = (user(&server, "anna").await, user(&server, "ben").await);
    anna.subscribe("telemetry").await;
    let both = json!({"type": "subscribe", "channel": "devices", "device_id": [1, 2]});
    assert_eq!(anna.ask(both).await["success"], true);
    ben.expect_silence().await;
    let _stranger = server.connect("/ws").await;
    let _agent = server.agent("site", None).await;
    let listed = connections(&server, "").await;
    let stats = &listed["stats"];
    assert_eq!((&stats["totalConnections"], &stats["activeConnections"]), (&json!(2), &json!(2)));
    assert_eq!((&stats["messagesReceived"], &stats["messagesSent"]), (&json!(5), &json!(5)));
    assert_eq!(stats["messagesPerConnection"], 5.0);
    assert!(stats["averageConnectionDuration"].as_f64().unwrap() >= 0.0);
    let users: Vec<&Json> =
        listed["connections"].as_array().unwrap().iter().map(|one| &one["user"]).collect();
    assert_eq!(users, [&json!("anna"), &json!("ben"), &json!(null)]);
    let first = listed["connections"][0].as_object().unwrap();
    let keys: Vec<&str> = first.keys().map(String::as_str).collect();
    assert_eq!(
        keys.join(" "),
        "id user address connected_at duration_seconds messages_received messages_sent \
         subscriptions queued_bytes lagged log_level"
    );
    assert_eq!(first["address"], "127.0.0.1");
    assert!(first["connected_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!((&first["messages_received"], &first["messages_sent"]), (&json!(3), &json!(3)));
    assert_eq!((&first["subscriptions"], &first["queued_bytes"]), (&json!(3), &json!(0)));
    assert_eq!((&first["lagged"], &first["log_level"]), (&json!(0), &json!("info")));
    assert_eq!(listed["next"], json!(null));
    let page = connections(&server, "?limit=1").await;
    assert_eq!(page["connections"].as_array().unwrap().len(), 1);
    let next = format!("?limit=2&cursor={}", page["next"].as_str().unwrap());
    let page = connections(&server, &next).await;
    assert_eq!(page["connections"][0]["user"], "ben");
    assert_eq!(page["next"], json!(null));
    let gone = json!({"type": "unsubscribe", "channel": "devices"});
    assert_eq!(anna.ask(gone).await["success"], true);
    assert_eq!(connections(&server, "").await["connections"][0]["subscriptions"], 1);
}

#[tokio::test]
async fn only_an_admin_sees_and_changes_connections() {
    let server = Server::start().await;
    let _client = user(&server, "anna").await;
    let id = &connections(&server, "").await["connections"][0]["id"];
    let path = format!("/api/v1/connections/{id}/log");
    let (reader, admin) =
        (server.token("ops", None, None).await, server.token("boss", Some("admin"), None).await);
    let good = r#"{"level":"debug","for":"10m"}"#;
    for (method, path, token, body, expected) in [
        ("GET", "/api/v1/connections", "", "", 401),
        ("GET", "/api/v1/connections", &*reader, "", 403),
        ("GET", "/api/v1/connections?limit=0", &*admin, "", 400),
        ("GET", "/api/v1/connections?limit=1001", &*admin, "", 400),
        ("GET", "/api/v1/connections?user=x", &*admin, "", 400),
        ("PUT", &*path, "", good, 401),
        ("PUT", &*path, &*reader, good, 403),
        ("PUT", &*path, &*admin, "nonsense", 400),
        ("PUT", &*path, &*admin, "{}", 422),
        ("PUT", &*path, &*admin, r#"{"level":"loud"}"#, 422),
        ("PUT", &*path, &*admin, r#"{"level":"debug","for":"soon"}"#, 422),
        ("PUT", &*path, &*admin, r#"{"level":"debug","for":"10ms"}"#, 422),
        ("PUT", &*path, &*admin, r#"{"level":"debug","for":"25h"}"#, 422),
        ("PUT", &*path, &*admin, r#"{"level":"debug","until":"10m"}"#, 422),
        ("PUT", "/api/v1/connections/999999/log", &*admin, good, 404),
        ("PUT", "/api/v1/connections/x/log", &*admin, good, 404),
        ("PUT", &*path, &*admin, good, 200),
    ] {
        let (status, answer) = server.http(method, path, token, body).await;
        assert_eq!(status, expected, "{method} {path} {body}: {answer}");
        if status != 200 {
            let problem: Json = serde_json::from_str(&answer).unwrap();
            assert_eq!(problem["status"], expected);
        }
    }
}

fn is_message_line(line: &Json) -> bool {
    line["target"] == "valtronics_server::messages"
}

#[tokio::test]
async fn a_raised_level_logs_one_connection_for_a_while_and_no_token() {
    let server = Server::start().await;
    let (mut anna, mut ben) = (user(&server, "anna").await, user(&server, "ben").await);
    let listed = connections(&server, "").await;
    let (id, bens) = (&listed["connections"][0]["id"], &listed["connections"][1]["id"]);
    let (status, body) = set_log(&server, id, r#"{"level":"debug","for":"10m"}"#).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(serde_json::from_str::<Json>(&body).unwrap()["log_level"], "debug");
    let token = server.token("anna", None, None).await;
    anna.authenticate(&token).await;
    ben.authenticate(&server.token("ben", None, None).await).await;
    anna.subscribe("alerts").await;
    let odd = json!({"type": token, "channel": token});
    assert_eq!(anna.ask(odd).await["error"], "unknown_type");
    anna.send_frame(Message::text(token.clone())).await;
    assert_eq!(anna.next().await["error"], "invalid_json");
    ben.expect_silence().await;
    let last = |line: &Json| is_message_line(line) && line["type"] == "error";
    let mut lines = said(&server, last).await;
    lines.retain(is_message_line);
    let short: Vec<String> = lines
        .iter()
        .map(|line| {
            assert_eq!(&line["connection"], id, "{line}");
            assert_eq!(line["level"], "DEBUG", "{line}");
            assert!(line["timestamp"].is_string() && line["size"].as_u64() > Some(0), "{line}");
            format!("{} {} {}", line["direction"], line["type"], line["channel"]).replace('"', "")
        })
        .collect();
    assert_eq!(
        short,
        [
            "received auth null",
            "sent auth_response null",
            "received subscribe alerts",
            "sent subscribe_response alerts",
            "received unknown null",
            "sent error null",
        ]
    );
    // For ben a time that ends, for anna an end by hand.
    assert_eq!(set_log(&server, bens, r#"{"level":"debug","for":"1s"}"#).await.0, 200);
    assert_eq!(set_log(&server, id, r#"{"level":"info"}"#).await.0, 200);
    ben.expect_silence().await;
    let bens_ping = |line: &Json| is_message_line(line) && &line["connection"] == bens;
    let before = said(&server, bens_ping).await.len();
    let begun = clock::instant();
    while connections(&server, "").await["connections"][1]["log_level"] == "debug" {
        assert!(begun.elapsed() < DEADLINE);
    }
    for client in [&mut anna, &mut ben] {
        client.send(json!({"type": "error_report", "error": "the end"})).await;
        client.expect_silence().await;
    }
    let end = |line: &Json| line["error"] == "the end" && &line["connection"] == bens;
    let lines = said(&server, end).await;
    let extra: Vec<&Json> = lines[before..].iter().filter(|line| is_message_line(line)).collect();
    assert!(extra.iter().all(|line| line["type"] == "pong"), "{extra:?}");
    assert!(extra.len() <= 1, "{extra:?}");
    let all = Json::from(lines).to_string();
    assert!(!all.contains(&token[..20]), "a token stands in the log");
}
