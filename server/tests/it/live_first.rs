//! Our agent's uplink while it is behind: previews, backlogs, gaps, copied queues.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
use valtronics_protocol::{
    batch::Encoder,
    reading::{Reading, TimeSource},
    time::UnixMillis,
    uplink::{FrameHeader, SUBPROTOCOL_AGENT},
    value::Value,
};
use valtronics_server::clock;

use crate::server::{Client, DEADLINE, Server};

/// Connects as our agent does, from this machine.
async fn connect(server: &Server, queue: &str, machine: &str) -> (Client, Json) {
    let mut request = format!("ws://{}/uplink", server.address).into_client_request().unwrap();
    let protocol = SUBPROTOCOL_AGENT.parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let mut agent = server.connect_with(request).await;
    let token = server.token("site", Some("uplink"), None).await;
    let hour_ago = clock::now().minus(Duration::from_secs(3600));
    let gateway = json!({"name": "gw", "version": "1", "boot_id": "b", "machine_id": machine,
        "time": hour_ago});
    let auth = json!({"type": "auth", "token": token, "queue": queue, "gateway": gateway});
    let answer = agent.ask(auth).await;
    (agent, answer)
}

fn reading(at: UnixMillis, value: i64) -> Reading {
    Reading {
        device: "boiler".into(),
        metric: "t".into(),
        unit: None,
        timestamp: at,
        time_source: TimeSource::Receive,
        value: Value::Int(value),
    }
}

fn preview(encoder: &mut Encoder, reading: &Reading) -> Message {
    let mut frame = Vec::new();
    FrameHeader::Preview.write(&mut frame);
    encoder.encode([reading], &mut frame);
    Message::binary(frame)
}

fn live(encoder: &mut Encoder, first: u64, readings: &[Reading]) -> Message {
    let mut frame = Vec::new();
    FrameHeader::Numbered { historical: false, first }.write(&mut frame);
    encoder.encode(readings, &mut frame);
    Message::binary(frame)
}

fn backlog(first: u64, readings: &[Reading]) -> Message {
    let mut frame = Vec::new();
    FrameHeader::Numbered { historical: true, first }.write(&mut frame);
    Encoder::default().encode_self_contained(readings, &mut frame);
    Message::binary(frame)
}

fn database(server: &Server) -> rusqlite::Connection {
    rusqlite::Connection::open(server.folder().join("data").join("valtronics.db")).unwrap()
}

fn stored(server: &Server) -> i64 {
    let sql = "SELECT ifnull(sum(count), 0) FROM journal";
    database(server).query_row(sql, [], |row| row.get(0)).unwrap()
}

async fn acknowledged(agent: &mut Client, seq: u64) {
    while agent.next_of("ack").await["seq"] != seq {}
}

/// A subscriber to everything, late readings included.
async fn subscriber(server: &Server) -> Client {
    let mut client = server.subscriber().await;
    let all =
        json!({"type": "subscribe", "channel": "telemetry", "snapshot": false, "historical": true});
    assert_eq!(client.ask(all).await["success"], true);
    client
}

async fn shown(client: &mut Client) -> (Json, Json) {
    let update = client.next_of("telemetry_update").await;
    (update["telemetry"]["t"]["value"].clone(), update["historical"].clone())
}

#[tokio::test]
async fn a_preview_is_live_and_its_reading_is_stored_once_and_not_shown_again() {
    let server = Server::start().await;
    let mut client = subscriber(&server).await;
    let (mut agent, answer) = connect(&server, "q", "m").await;
    let server_time = answer["time"].as_str().unwrap().parse::<UnixMillis>().unwrap();
    assert!(clock::now().since(server_time) < DEADLINE, "{answer}");
    let now = clock::now();
    let at = |ago: u64| now.minus(Duration::from_millis(ago));
    let (one, two, three) = (reading(at(30), 1), reading(at(20), 2), reading(at(10), 3));

    let mut encoder = Encoder::default();
    agent.send_frame(live(&mut encoder, 1, std::slice::from_ref(&one))).await;
    assert_eq!(shown(&mut client).await, (json!(1), Json::Null));
    acknowledged(&mut agent, 1).await;
    agent.send_frame(preview(&mut encoder, &three)).await;
    assert_eq!(shown(&mut client).await, (json!(3), Json::Null));
    agent.send_frame(preview(&mut encoder, &three)).await;
    assert_eq!(stored(&server), 1);

    agent.send_frame(backlog(2, &[two, three])).await;
    assert_eq!(shown(&mut client).await, (json!(2), json!(true)));
    acknowledged(&mut agent, 3).await;
    assert_eq!(stored(&server), 3);
    // The tables of what is live stand as they were; a preview that is late is nothing new.
    agent.send_frame(preview(&mut encoder, &one)).await;
    agent.send_frame(live(&mut encoder, 4, &[reading(now, 4)])).await;
    assert_eq!(shown(&mut client).await, (json!(4), Json::Null));
    client.expect_silence().await;
}

#[tokio::test]
async fn previews_go_on_while_the_store_cannot_commit() {
    let server = Server::start().await;
    let mut client = subscriber(&server).await;
    let (mut agent, _) = connect(&server, "q", "m").await;
    let mut encoder = Encoder::default();
    let now = clock::now();
    agent.send_frame(live(&mut encoder, 1, &[reading(now, 1)])).await;
    acknowledged(&mut agent, 1).await;
    shown(&mut client).await;
    let store = database(&server);
    store.execute_batch("BEGIN IMMEDIATE").unwrap();
    agent.send_frame(live(&mut encoder, 2, &[reading(now, 2)])).await;
    assert_eq!(shown(&mut client).await.0, 2);
    for value in 3..30 {
        agent.send_frame(preview(&mut encoder, &reading(now, value))).await;
        assert_eq!(shown(&mut client).await.0, value);
    }
    store.execute_batch("ROLLBACK").unwrap();
    acknowledged(&mut agent, 2).await;
    assert_eq!(stored(&server), 2);
}

#[tokio::test]
async fn a_backlog_moves_no_last_value_and_raises_no_alert() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    let rule = r#"{"device": "*", "metric": "t", "kind": "threshold", "above": 90, "severity": "critical"}"#;
    assert_eq!(server.http("PUT", "/api/v1/rules/hot", &admin, rule).await.0, 200);
    let mut client = server.subscriber().await;
    client.subscribe("alerts").await;
    let (mut agent, _) = connect(&server, "q", "m").await;
    let now = clock::now();
    let ago = now.minus(Duration::from_secs(3600));
    let mut encoder = Encoder::default();
    agent.send_frame(preview(&mut encoder, &reading(now, 20))).await;
    agent.send_frame(backlog(1, &[reading(ago, 99), reading(now, 20)])).await;
    acknowledged(&mut agent, 2).await;
    client.expect_silence().await;
    let all = json!({"type": "subscribe", "channel": "telemetry"});
    client.send(all).await;
    assert_eq!(shown(&mut client).await.0, 20);
    // Live, the same value does raise it.
    agent.send_frame(preview(&mut encoder, &reading(now.plus(Duration::from_millis(1)), 98))).await;
    assert_eq!(client.next_of("alert").await["severity"], "critical");
}

#[tokio::test]
async fn a_gap_is_stored_once_and_moves_the_cursor() {
    let mut server = Server::start().await;
    let (mut agent, _) = connect(&server, "q", "m").await;
    let gap = json!({"type": "gap", "first": 1, "last": 120, "reason": "evicted", "devices": [
        {"device": "boiler", "from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:01:00Z", "readings": 70},
        {"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T00:02:00Z", "readings": 50}]});
    for _ in 0..2 {
        agent.send(gap.clone()).await;
        acknowledged(&mut agent, 120).await;
    }
    agent.send_frame(live(&mut Encoder::default(), 121, &[reading(clock::now(), 1)])).await;
    acknowledged(&mut agent, 121).await;
    let sql = "SELECT name || ':' || lost || ':' || reason || ':' || (last_at - first_at)
               FROM gaps JOIN devices ON devices.id = device ORDER BY gaps.id";
    let database = database(&server);
    let mut statement = database.prepare(sql).unwrap();
    let found = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
    let found: Vec<String> = found.map(Result::unwrap).collect();
    assert_eq!(found, ["boiler:70:evicted:60000", "gw:50:evicted:120000"]);
    server.crash_and_restart().await;
    let (mut agent, answer) = connect(&server, "q", "m").await;
    assert_eq!(answer["last_seq"], 121);
    // One of which nothing is known but the numbers.
    agent.send(json!({"type": "gap", "first": 122, "last": 125, "reason": "corrupt"})).await;
    acknowledged(&mut agent, 125).await;
}

#[tokio::test]
async fn a_gap_is_seen_in_history_once() {
    let server = Server::start().await;
    let (mut agent, _) = connect(&server, "q", "m").await;
    let now = clock::now();
    let at = |ago: u64| now.minus(Duration::from_secs(ago));
    let readings = [reading(at(60), 1), reading(at(50), 2)];
    let mut encoder = Encoder::default();
    agent.send_frame(live(&mut encoder, 1, &readings)).await;
    let gap = json!({"type": "gap", "first": 3, "last": 122, "reason": "evicted",
        "devices": [{"device": "boiler", "from": at(45), "to": at(15), "readings": 120}]});
    agent.send(gap).await;
    agent.send_frame(live(&mut encoder, 123, &[reading(at(10), 3)])).await;
    acknowledged(&mut agent, 123).await;

    let token = server.token("ops", Some("telemetry:read"), None).await;
    let page = async |query: &str| -> Json {
        let path = format!("/api/v1/devices/1/telemetry?metric=t{query}");
        let (status, body) = server.http("GET", &path, &token, "").await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    };
    let lost = json!([{"from": at(45), "to": at(15), "lost": 120}]);
    let whole = page("").await;
    assert_eq!((whole["points"].as_array().unwrap().len(), &whole["gaps"]), (3, &lost));
    assert_eq!(page("&step=1m").await["gaps"], lost);
    assert_eq!(page(&format!("&to={}", at(45))).await["gaps"], json!([]));
    assert_eq!(page(&format!("&from={}", at(14))).await["gaps"], json!([]));
    // One page tells it: the one in which it ends, or after which.
    let first = page("&limit=2").await;
    assert_eq!((first["points"].as_array().unwrap().len(), &first["gaps"]), (2, &lost));
    let rest = page(&format!("&limit=2&cursor={}", first["next"].as_str().unwrap())).await;
    assert_eq!((rest["points"].as_array().unwrap().len(), &rest["gaps"]), (1, &json!([])));
    let since = format!("&arrived_from={}", whole["as_of"].as_str().unwrap());
    assert_eq!(page(&since).await["gaps"], json!([]), "it was told before");
}

#[tokio::test]
async fn a_flood_of_previews_delays_nobody() {
    // The engine has far more to do with a preview than who sends and decodes it.
    let rule = |n| {
        format!("[[rule]]\nname = \"{n}\"\nmetric = \"busy\"\nkind = \"threshold\"\nabove = 1e9\n")
    };
    let rules: String = (0..50).map(rule).collect();
    let files = [("rules.toml", &*rules)];
    let server = Server::with_files("[rules]\nfiles = [\"rules.toml\"]", &files).await;
    let (hostile, _) = connect(&server, "hostile", "m").await;
    let mut good = server.agent("site", Some("good")).await;
    let mut client = server.subscriber().await;
    let wanted = json!({"type": "subscribe", "channel": "telemetry", "metrics": ["t"]});
    assert_eq!(client.ask(wanted).await["success"], true);
    let mut flood = tokio::task::JoinSet::new();
    flood.spawn(async move {
        let (mut hostile, mut encoder) = (hostile, Encoder::default());
        for n in 0.. {
            let at = |millis| clock::now().plus(Duration::from_millis(millis));
            let busy = |millis| Reading { metric: "busy".into(), ..reading(at(millis), n) };
            // One is watched, and counts them.
            let readings: Vec<_> =
                std::iter::once(reading(at(0), n)).chain((0..200).map(busy)).collect();
            let mut frame = Vec::new();
            FrameHeader::Preview.write(&mut frame);
            encoder.encode(&readings, &mut frame);
            hostile.send_frame(Message::binary(frame)).await;
        }
    });
    let number = async |client: &mut Client| {
        let update = client.next_of("telemetry_update").await;
        update["telemetry"]["t"]["value"].as_i64()
    };
    while number(&mut client).await != Some(10) {}
    let message = json!({"type": "readings", "device": "good",
        "readings": [{"metric": "t", "value": "here"}]});
    good.send(message).await;
    let mut passed = 0;
    while number(&mut client).await.is_some() {
        passed += 1;
    }
    assert!(passed < 100, "{passed} previews went before it");
}

#[tokio::test]
async fn a_copy_of_a_queue_is_refused_and_its_owner_goes_on() {
    let mut server = Server::start().await;
    let (mut owner, _) = connect(&server, "q", "original").await;
    owner.send_frame(live(&mut Encoder::default(), 1, &[reading(clock::now(), 1)])).await;
    acknowledged(&mut owner, 1).await;
    for _ in 0..2 {
        let (mut copy, answer) = connect(&server, "q", "copy").await;
        assert_eq!((&answer["success"], &answer["error"]), (&json!(false), &json!("forbidden")));
        assert!(answer["message"].as_str().unwrap().contains("queue"), "{answer}");
        let (code, reason) = copy.closed().await;
        assert!(code == 4403 && reason.contains("queue"), "{code} {reason}");
        assert_eq!(connect(&server, "another", "copy").await.1["success"], true);
        server.crash_and_restart().await;
    }
    let (_owner, answer) = connect(&server, "q", "original").await;
    assert_eq!((&answer["success"], &answer["last_seq"]), (&json!(true), &json!(1)));
}

#[tokio::test]
async fn a_gateway_whose_clock_is_wrong_is_noticed() {
    let mut server = Server::start().await;
    let (_agent, _) = connect(&server, "q", "m").await;
    // An hour behind, and a little for the way.
    server.has_said(r#""clock_offset_ms":-36"#, 1).await;
}
