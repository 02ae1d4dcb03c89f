//! `/api/v1/agents`: what the server has counted of each agent balances, whatever happens.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
use valtronics_protocol::{
    batch::Encoder,
    counters::Counters,
    reading::{Reading, TimeSource},
    time::UnixMillis,
    uplink::{AgentMessage, FrameHeader, SUBPROTOCOL_AGENT},
    value::Value,
};
use valtronics_server::clock;

use crate::server::{Client, DEADLINE, Server};

async fn agents(server: &Server) -> Vec<Json> {
    let token = server.token("ops", Some("system:read"), None).await;
    let (status, body) = server.http("GET", "/api/v1/agents", &token, "").await;
    assert_eq!(status, 200, "{body}");
    let list: Json = serde_json::from_str(&body).unwrap();
    assert_eq!(list["next"], Json::Null);
    list["agents"].as_array().unwrap().clone()
}

fn number(json: &Json, name: &str) -> u64 {
    json[name].as_u64().unwrap_or_else(|| panic!("{name} of {json}"))
}

/// Adds up on our own what the server says of an agent, and returns it.
fn balanced(agent: &Json) -> &Json {
    let counters = &agent["counters"];
    let refused = counters["refused"].as_object().unwrap();
    let refused: u64 = refused.values().map(|count| count.as_u64().unwrap()).sum();
    let parts = ["stored", "duplicated", "expired", "pending"].map(|part| number(counters, part));
    assert_eq!(number(counters, "received"), parts.iter().sum::<u64>() + refused, "{agent}");
    counters
}

/// Waits until the last commit holds everything that came.
async fn settled(server: &Server) -> Json {
    let asking = async {
        loop {
            let agents = agents(server).await;
            if number(balanced(&agents[0]), "pending") == 0 {
                return agents[0].clone();
            }
        }
    };
    timeout(DEADLINE, asking).await.expect("all is committed")
}

#[tokio::test]
async fn what_an_agent_sends_is_accounted_for() {
    let mut server = Server::start().await;
    let mut agent = server.agent("site", Some("q")).await;
    let readings = |seq: u64, values: &[i64]| {
        let readings: Vec<Json> =
            values.iter().map(|value| json!({"metric": "t", "value": value})).collect();
        json!({"type": "readings", "seq": seq, "device": "d", "readings": readings})
    };
    let bad = json!({"type": "readings", "seq": 3, "device": "d"});
    let old = json!({"type": "readings", "seq": 4, "device": "d",
        "readings": [{"metric": "t", "value": 1, "timestamp": "2001-01-01T00:00:00Z"}]});
    let status = json!({"type": "status", "seq": 5, "device": "d", "status": "online"});
    agent.send(json!([readings(1, &[1, 2, 3]), readings(2, &[4])])).await;
    assert_eq!(agent.next().await["seq"], 2);
    agent.send(json!([readings(1, &[1, 2, 3]), bad, old, status])).await;
    assert_eq!(agent.next_of("ack").await["seq"], 5);
    agent.send_frame(Message::text("nonsense")).await;
    assert_eq!(agent.next().await["type"], "error");
    // All of a frame that is known already.
    agent.send(readings(2, &[4])).await;
    assert_eq!(agent.next().await["seq"], 5);

    let counted = settled(&server).await;
    assert_eq!(counted["connected"], true);
    assert_eq!((&counted["sub"], &counted["queue"]), (&json!("site"), &json!("q")));
    assert_eq!((&counted["name"], &counted["version"]), (&Json::Null, &Json::Null));
    let expected = json!({
        "received": 11, "stored": 4, "duplicated": 4, "expired": 1,
        "refused": {"invalid_message": 1, "invalid_json": 1},
        "lost": 0, "events_received": 1, "events_duplicated": 0, "pending": 0,
    });
    assert_eq!(counted["counters"], expected);

    // It is as durable as the readings are.
    server.crash_and_restart().await;
    let counted = settled(&server).await;
    assert_eq!((&counted["counters"], &counted["connected"]), (&expected, &json!(false)));
    let mut agent = server.agent("site", Some("q")).await;
    agent.readings(6, "d", json!([{"metric": "t", "value": 6}])).await;
    assert_eq!(number(&settled(&server).await["counters"], "stored"), 5);
    let (status, _) = server
        .http("GET", "/api/v1/agents", &server.token("a", Some("uplink"), None).await, "")
        .await;
    assert_eq!(status, 403);
}

#[tokio::test]
async fn a_killed_server_has_stored_exactly_what_it_says() {
    let mut server = Server::start().await;
    let message = |seq: u64| {
        let readings = json!([{"metric": "t", "value": seq}]);
        json!({"type": "readings", "seq": seq, "device": "d", "readings": readings})
    };
    for round in 0..5_u64 {
        let mut agent = server.agent("site", Some("q")).await;
        let first = round * 100 + 1;
        // Sent without waiting; some of it is committed when the server dies.
        for seq in first..first + 100 {
            agent.send(message(seq)).await;
        }
        let acked = agent.next_of("ack").await["seq"].as_u64().unwrap();
        server.crash_and_restart().await;
        let token = server.token("site", Some("uplink"), None).await;
        let mut agent = server.connect("/uplink").await;
        let answer = agent.ask(json!({"type": "auth", "token": token, "queue": "q"})).await;
        // What it says to have stored is how far the numbering has come, no more and no less.
        let mut last = answer["last_seq"].as_u64().unwrap();
        let counted = settled(&server).await;
        assert_eq!(number(&counted["counters"], "stored"), last, "{counted}");
        assert!(last >= acked, "{last} {acked}");
        for seq in last + 1..first + 100 {
            agent.send(message(seq)).await;
        }
        while last < first + 99 {
            last = agent.next_of("ack").await["seq"].as_u64().unwrap();
        }
        assert_eq!(number(&settled(&server).await["counters"], "stored"), first + 99);
    }
}

/// How far ahead the gateway's clock is.
const HOUR: Duration = Duration::from_secs(3600);

async fn gateway(server: &Server, queue: &str) -> Client {
    let mut request = format!("ws://{}/uplink", server.address).into_client_request().unwrap();
    let protocol = SUBPROTOCOL_AGENT.parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocol);
    let mut agent = server.connect_with(request).await;
    let gateway = json!({"name": "gw", "version": "1.2.3", "boot_id": "", "machine_id": "",
        "time": clock::now().plus(HOUR)});
    let token = server.token("site", Some("uplink"), None).await;
    let auth = json!({"type": "auth", "token": token, "queue": queue, "gateway": gateway});
    assert_eq!(agent.ask(auth).await["success"], true);
    agent
}

fn frame(first: u64, count: i64) -> Message {
    let reading = |value| Reading {
        device: "d".into(),
        metric: "t".into(),
        value: Value::Int(value),
        unit: None,
        timestamp: UnixMillis(clock::now().0 + value),
        time_source: TimeSource::Receive,
    };
    let mut frame = Vec::new();
    FrameHeader::Numbered { historical: false, first }.write(&mut frame);
    let readings: Vec<Reading> = (0..count).map(reading).collect();
    Encoder::default().encode_self_contained(&readings, &mut frame);
    Message::binary(frame)
}

#[tokio::test]
async fn a_gateway_reports_what_it_has_counted_itself() {
    let server = Server::start().await;
    let mut agent = gateway(&server, "q").await;
    let counters = Counters { read: 12, queued: 12, waiting: 7, evicted: 5, ..Counters::default() };
    let report = serde_json::to_value(AgentMessage::Counters(counters)).unwrap();
    agent.send(report).await;
    // Five were evicted before they were sent, and two of the frame come again.
    agent.send_frame(frame(6, 4)).await;
    assert_eq!(agent.next().await["seq"], 9);
    agent.send_frame(frame(8, 5)).await;
    assert_eq!(agent.next_of("ack").await["type"], "ack");
    let counted = settled(&server).await;
    assert_eq!((&counted["name"], &counted["version"]), (&json!("gw"), &json!("1.2.3")));
    assert_eq!((&counted["queue_depth"], &counted["reported"]["evicted"]), (&json!(7), &json!(5)));
    assert_eq!(counted["address"], "127.0.0.1");
    // Its message took a moment.
    let offset = HOUR.as_millis() as i64 - counted["clock_offset_ms"].as_i64().unwrap();
    assert!((0..DEADLINE.as_millis() as i64).contains(&offset), "{counted}");
    let counters = &counted["counters"];
    let of = |name| number(counters, name);
    assert_eq!((of("received"), of("stored"), of("duplicated"), of("lost")), (9, 7, 2, 5));
    // The same gateway with another queue is the same agent.
    drop(gateway(&server, "other").await);
    assert_eq!(agents(&server).await.len(), 1);
}

#[tokio::test]
async fn agents_come_in_pages() {
    let server = Server::start().await;
    for queue in ["a", "b", "c"] {
        drop(server.agent("site", Some(queue)).await);
    }
    let token = server.token("ops", Some("system:read"), None).await;
    let mut path = "/api/v1/agents?limit=2".to_owned();
    let mut queues = Vec::new();
    loop {
        let (_, body) = server.http("GET", &path, &token, "").await;
        let page: Json = serde_json::from_str(&body).unwrap();
        let page_queues = page["agents"].as_array().unwrap().iter();
        queues.extend(page_queues.map(|agent| agent["queue"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/agents?limit=2&cursor={next}");
    }
    assert_eq!(queues, ["a", "b", "c"]);
}
