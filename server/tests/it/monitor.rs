//! What an operator sees in figures, and who was refused.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value as Json, json};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use valtronics_protocol::{
    batch,
    reading::{Reading, TimeSource},
    time::UnixMillis,
    uplink::{FrameHeader, SUBPROTOCOL_AGENT},
    value::Value,
};
use valtronics_server::clock;

use crate::{
    connections::{connections, said, user},
    server::{DEADLINE, Server},
};

/// Reads the text format: each sample by its name and labels.
fn parse(text: &str) -> HashMap<String, f64> {
    let (mut samples, mut family) = (HashMap::new(), String::new());
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let words: Vec<&str> = comment.splitn(3, ' ').collect();
            assert!(["HELP", "TYPE"].contains(&words[0]) && words.len() == 3, "{line}");
            if words[0] == "TYPE" {
                assert!(["counter", "gauge", "histogram"].contains(&words[2]), "{line}");
                assert_eq!(words[2] == "counter", words[1].ends_with("_total"), "{line}");
                family = words[1].to_owned();
            }
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
        let name = sample.split('{').next().unwrap();
        assert!(!family.is_empty() && name.starts_with(&family), "{line} is not of {family}");
        let well_named = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(name.starts_with("valtronics_") && name.chars().all(well_named), "{line}");
        assert_eq!(sample.contains('{'), sample.ends_with("\"}"), "{line}");
        let known = samples.insert(sample.to_owned(), value.parse().unwrap());
        assert_eq!(known, None, "{line} stands twice");
    }
    samples
}

async fn metrics(server: &Server) -> HashMap<String, f64> {
    let (status, text) = server.raw("GET", "/metrics", "", "").await;
    assert_eq!(status, 200, "{text}");
    parse(&text)
}

/// Waits until the metrics show this.
async fn until(server: &Server, shown: impl Fn(&HashMap<String, f64>) -> bool) {
    let begun = clock::instant();
    loop {
        let metrics = metrics(server).await;
        if shown(&metrics) {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "{metrics:#?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn the_figures_are_what_was_sent() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    client.subscribe("devices").await;
    let mut agent = server.agent("site", Some("q")).await;
    agent.readings(1, "a", json!([{"metric": "t", "value": 1}])).await;
    let two = json!([{"metric": "t", "value": 2}, {"metric": "u", "value": 3.5}]);
    agent.readings(2, "a", two.clone()).await;
    agent.send(json!({"type": "readings", "seq": 2, "device": "a", "readings": two})).await;
    assert_eq!(agent.next().await["type"], "ack");
    let bad = json!({"type": "readings", "seq": 3, "device": "a", "readings": [{}]});
    assert_eq!(agent.ask(bad).await["error"], "invalid_message");
    let (mut telemetry, mut telemetry_bytes, mut devices) = (0, 0, 0);
    while telemetry < 2 || devices < 1 {
        let text = client.next_text().await;
        let message: Json = serde_json::from_str(&text).unwrap();
        match message["channel"].as_str() {
            Some("telemetry") => {
                telemetry += 1;
                telemetry_bytes += text.len();
            }
            Some("devices") => devices += 1,
            _ => panic!("{text}"),
        }
    }
    // A flush is over a moment after the client has read it.
    until(&server, |m| m["valtronics_delivery_latency_seconds_count"] >= 1.0).await;
    let metrics = metrics(&server).await;
    let is = |name: &str, expected: f64| {
        let figure = metrics.get(&format!("valtronics_{name}"));
        assert_eq!(figure, Some(&expected), "{name}");
    };
    is(r#"connections_open{endpoint="ws"}"#, 1.0);
    is(r#"connections_open{endpoint="uplink"}"#, 1.0);
    is(r#"connections_authenticated{endpoint="uplink"}"#, 1.0);
    is(r#"connections_accepted_total{endpoint="ws"}"#, 1.0);
    is(r#"messages_received_total{endpoint="ws"}"#, 3.0);
    is(r#"messages_received_total{endpoint="uplink"}"#, 5.0);
    is(r#"messages_sent_total{endpoint="ws",channel="telemetry"}"#, 2.0);
    is(r#"bytes_sent_total{endpoint="ws",channel="telemetry"}"#, telemetry_bytes as f64);
    is(r#"messages_sent_total{endpoint="ws",channel="devices"}"#, 1.0);
    is(r#"messages_sent_total{endpoint="ws",channel="alerts"}"#, 0.0);
    is(r#"messages_sent_total{endpoint="ws",channel="none"}"#, 3.0);
    is("outbox_bytes", 0.0);
    is("uplink_readings_total", 3.0);
    is("uplink_duplicates_total", 1.0);
    is("uplink_refused_total", 1.0);
    assert!(metrics["valtronics_commits_total"] >= 1.0);
    let latency = |part: &str| metrics[&format!("valtronics_delivery_latency_seconds_{part}")];
    assert!((1.0..=2.0).contains(&latency("count")));
    assert_eq!(latency("count"), latency(r#"bucket{le="+Inf"}"#));
    let (sum, most) = (latency("sum"), DEADLINE.as_secs_f64());
    assert!(sum > 0.0 && sum < most, "{sum}");
}

#[tokio::test]
async fn what_waits_for_a_slow_reader_and_what_he_misses_is_shown() {
    let server = Server::with("[limits]\nqueue_bytes = \"64KiB\"").await;
    // With a small window little of what he does not read is in the network.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(server.address.parse().unwrap()).await.unwrap();
    let mut slow = server.connect_over("/ws", stream).await;
    slow.authenticate(&server.token("slow", None, None).await).await;
    slow.subscribe("telemetry").await;
    let mut agent = server.agent("site", Some("q")).await;
    let padding = "x".repeat(1000);
    let (mut waited, mut seq) = (0.0, 0);
    let conflated = r#"valtronics_messages_conflated_total{channel="telemetry"}"#;
    let begun = clock::instant();
    loop {
        assert!(begun.elapsed() < DEADLINE, "{waited} bytes wait, nothing is conflated");
        let twenty = (0..20).map(|_| {
            seq += 1;
            let readings =
                json!([{"metric": "t", "value": seq}, {"metric": "p", "value": padding}]);
            json!({"type": "readings", "seq": seq, "device": "a", "readings": readings})
        });
        agent.send(twenty.collect()).await;
        while agent.next_of("ack").await["seq"] != seq {}
        let metrics = metrics(&server).await;
        waited = metrics["valtronics_outbox_bytes"].max(waited);
        if metrics[conflated] > 0.0 {
            break;
        }
    }
    assert!((1.0..=65_536.0).contains(&waited), "{waited}");
    let listed = connections(&server, "").await;
    let lagged = listed["connections"][0]["lagged"].as_f64().unwrap();
    assert!(lagged > 0.0);
    drop(slow);
    until(&server, |m| m[r#"valtronics_connections_open{endpoint="ws"}"#] == 0.0).await;
    let metrics = metrics(&server).await;
    assert_eq!((metrics["valtronics_outbox_bytes"], metrics[conflated] >= lagged), (0.0, true));
}

/// Makes a frame of our agent with one reading of each moment.
fn frame_of(moments: &[UnixMillis]) -> Message {
    let reading = |at: &UnixMillis| Reading {
        device: "b".into(),
        metric: "t".into(),
        value: Value::Int(1),
        unit: None,
        timestamp: *at,
        time_source: TimeSource::Device,
    };
    let readings: Vec<Reading> = moments.iter().map(reading).collect();
    let mut frame = Vec::new();
    FrameHeader::Numbered { historical: false, first: 1 }.write(&mut frame);
    batch::Encoder::default().encode(&readings, &mut frame);
    Message::binary(frame)
}

#[tokio::test]
async fn replaced_timestamps_are_counted_whichever_way_they_came() {
    let server = Server::start().await;
    let uplink = server.token("site", Some("uplink"), None).await;
    let now = clock::now();
    let (soon, far) = (now.plus(Duration::from_secs(30)), now.plus(Duration::from_secs(3600)));
    let at = |at| json!({"metric": "t", "value": 1, "timestamp": at});
    let three = json!([at(now), at(soon), at(far)]);

    let body = json!({"device": "h", "readings": three}).to_string();
    assert_eq!(server.http("POST", "/api/v1/telemetry", &uplink, &body).await.0, 202);

    let mut json = server.agent("site", Some("json")).await;
    json.readings(1, "a", three).await;
    let status =
        json!({"type": "status", "seq": 2, "device": "a", "status": "offline", "timestamp": far});
    assert_eq!(json.ask(status).await["type"], "ack");

    let mut request = format!("ws://{}/uplink", server.address).into_client_request().unwrap();
    let protocol = SUBPROTOCOL_AGENT.parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let mut agent = server.connect_with(request).await;
    agent.authenticate(&uplink).await;
    agent.send_frame(frame_of(&[now, soon, far])).await;
    assert_eq!(agent.next_of("ack").await["seq"], 3);

    let metrics = metrics(&server).await;
    let replaced = |endpoint: &str| {
        metrics[&format!("valtronics_timestamps_replaced_total{{endpoint=\"{endpoint}\"}}")]
    };
    assert_eq!((replaced("http"), replaced("uplink")), (1.0, 3.0));
}

#[tokio::test]
async fn metrics_are_for_loopback_and_whoever_may_read_the_system() {
    let server = Server::start().await;
    let reader = server.token("ops", Some("system:read"), None).await;
    let other = server.token("ops", Some("telemetry:read"), None).await;
    // Behind a proxy on this machine the other side is not this machine.
    let ask = async |server: &Server, token: &str| {
        let proxied = format!("X-Forwarded-For: 203.0.113.7\r\n{token}");
        server.raw("GET", "/metrics", &proxied, "").await.0
    };
    let bearer = |token| format!("Authorization: Bearer {token}\r\n");
    assert_eq!(server.raw("GET", "/metrics", "", "").await.0, 200);
    assert_eq!(ask(&server, "").await, 401);
    assert_eq!(ask(&server, &bearer("nonsense")).await, 401);
    assert_eq!(ask(&server, &bearer(&other)).await, 403);
    assert_eq!(ask(&server, &bearer(&reader)).await, 200);
    let open = Server::with("[metrics]\nopen = true").await;
    assert_eq!(ask(&open, "").await, 200);
}

#[tokio::test]
async fn who_is_refused_is_counted_and_logged_at_most_once_a_second() {
    let server = Server::start().await;
    let begun = clock::instant();
    for _ in 0..5 {
        let headers = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://evil.example\r\n";
        assert_eq!(server.raw("GET", "/ws", headers, "").await.0, 403);
    }
    assert_eq!(server.raw("GET", "/ws?token=secret-thing", "", "").await.0, 400);
    assert_eq!(server.raw("GET", "/uplink", "", "").await.0, 426);
    let elapsed = begun.elapsed().as_secs() as usize + 1;
    // The next second: the last one's line has gone by.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let mut client = server.connect("/ws").await;
    client.send(json!({"type": "auth", "token": "secret-thing"})).await;
    assert_eq!(client.closed().await.0, 4401);
    let auth = |line: &Json| line["message"] == "refused an auth";
    let lines = said(&server, auth).await;
    let refused = lines.iter().filter(|line| line["message"] == "refused a handshake");
    let refused: Vec<&Json> = refused.collect();
    assert!((1..=elapsed).contains(&refused.len()), "{refused:?}");
    assert_eq!((&refused[0]["level"], &refused[0]["reason"]), (&json!("WARN"), &json!("origin")));
    assert_eq!(refused[0]["address"], "127.0.0.1");
    let last = lines.last().unwrap();
    assert_eq!((&last["level"], &last["reason"]), (&json!("WARN"), &json!("malformed")));
    assert!(!Json::from(lines.clone()).to_string().contains("secret-thing"));
    // Another user's token, on connections that stay.
    let token = server.token("mallory", Some("uplink"), None).await;
    for mut client in [user(&server, "anna").await, server.agent("site", Some("q")).await] {
        let answer = client.ask(json!({"type": "auth", "token": token})).await;
        assert_eq!(answer["error"], "forbidden");
    }
    until(&server, |m| m.contains_key(r#"valtronics_connections_closed_total{code="4401"}"#)).await;
    let metrics = metrics(&server).await;
    for (reason, count) in [("origin", 5.0), ("malformed", 1.0), ("not_websocket", 1.0)] {
        let name = format!("valtronics_handshakes_refused_total{{reason=\"{reason}\"}}");
        assert_eq!(metrics[&name], count, "{reason}");
    }
    assert_eq!(metrics[r#"valtronics_auth_failures_total{reason="malformed"}"#], 1.0);
    assert_eq!(metrics[r#"valtronics_auth_failures_total{reason="forbidden"}"#], 2.0);
}

#[tokio::test]
async fn ends_are_counted_by_code_and_who_vanishes_is_gone() {
    let server = Server::start().await;
    let mut polite = user(&server, "anna").await;
    polite.stream().close(None).await.unwrap();
    drop(user(&server, "ben").await);
    drop(server.connect("/ws").await);
    drop(server.agent("site", None).await);
    let request = format!("ws://{}/ws", server.address).into_client_request().unwrap();
    let stream = tokio::net::TcpStream::connect(&server.address).await.unwrap();
    let (mut odd, _) = client_async(request, stream).await.unwrap();
    let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame {
        code: 4999.into(),
        reason: "".into(),
    };
    odd.close(Some(frame)).await.unwrap();
    drop(odd);
    until(&server, |m| {
        let closed = |code| {
            let name = format!("valtronics_connections_closed_total{{code=\"{code}\"}}");
            m.get(&name).copied().unwrap_or_default()
        };
        closed("1006") == 3.0 && closed("1005") == 1.0 && closed("other") == 1.0
    })
    .await;
    let metrics = metrics(&server).await;
    for endpoint in ["ws", "uplink"] {
        let of =
            |name| metrics[&format!("valtronics_connections_{name}{{endpoint=\"{endpoint}\"}}")];
        assert_eq!((of("open"), of("authenticated")), (0.0, 0.0));
        assert_eq!(of("accepted_total"), if endpoint == "ws" { 4.0 } else { 1.0 });
    }
    assert_eq!(metrics[r#"valtronics_messages_received_total{endpoint="ws"}"#], 2.0);
    let listed = connections(&server, "").await;
    assert_eq!(listed["connections"], json!([]));
    assert_eq!(listed["stats"]["totalConnections"], 2);
    assert_eq!(listed["stats"]["activeConnections"], 0);
    assert_eq!(listed["stats"]["averageConnectionDuration"], 0.0);
}
