//! Resuming: whatever happens in between, every event reaches a subscriber exactly once, in order.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value as Json, json};

use crate::server::{Client, Server};

/// More events than the server has at hand: what is older comes from its store.
const MANY: u64 = 17_000;

/// Sends changes of a device's status, and waits until the last is committed.
async fn change_status(agent: &mut Client, numbers: std::ops::RangeInclusive<u64>, reason: &str) {
    let last = *numbers.end();
    for number in numbers {
        let status = if number % 2 == 0 { "warning" } else { "offline" };
        let seq = (number == last).then_some(number);
        let report = json!({"type": "status", "seq": seq, "device": "d", "status": status,
            "reason": format!("{number}{reason}")});
        agent.send(report).await;
    }
    assert_eq!(agent.next().await, json!({"type": "ack", "seq": last}));
}

/// Reads the events after a position up to another: each once, in order.
async fn expect_events(client: &mut Client, after: u64, last: u64, reason: &str) {
    for seq in after + 1..=last {
        let event = client.next().await;
        assert_eq!((&event["seq"], &event["snapshot"]), (&json!(seq), &json!(null)), "{event}");
        assert_eq!(event["reason"], format!("{seq}{reason}"));
    }
}

#[tokio::test]
async fn a_replay_goes_beyond_what_is_at_hand() {
    let mut server = Server::start().await;
    let mut agent = server.agent("site", None).await;
    change_status(&mut agent, 1..=MANY, "").await;
    let mut client = server.subscriber().await;
    let request = json!({"type": "subscribe", "channel": "devices", "since": 0});
    let answer = client.ask(request.clone()).await;
    assert_eq!((&answer["resumed"], &answer["seq"]), (&json!(true), &json!(MANY)), "{answer}");
    // Live events go on behind what is replayed.
    let live = change_status(&mut agent, MANY + 1..=MANY + 200, "");
    tokio::join!(live, expect_events(&mut client, 0, MANY + 200, ""));
    client.expect_silence().await;

    server.crash_and_restart().await;
    let mut client = server.subscriber().await;
    assert_eq!(client.ask(request).await["resumed"], true);
    expect_events(&mut client, 0, MANY + 200, "").await;
    let other = json!({"type": "subscribe", "channel": "devices", "since": 5, "log": "another"});
    assert_eq!(client.ask(other).await["resumed"], false, "of another log nothing is known");
    assert_eq!(client.next().await["snapshot"], true);
}

#[tokio::test]
async fn who_falls_behind_by_more_than_is_at_hand_misses_nothing() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    client.subscribe("devices").await;
    let mut agent = server.agent("site", None).await;
    // Together more than the kernel's buffers hold, while nobody reads.
    let reason = "x".repeat(500);
    change_status(&mut agent, 1..=MANY + 3000, &reason).await;
    expect_events(&mut client, 0, MANY + 3000, &reason).await;
    client.expect_silence().await;
}

/// A small generator, so that a seed says what happens.
struct Dice(u64);

impl Dice {
    fn throw(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// A subscriber who comes and goes.
struct Fickle {
    channel: &'static str,
    filters: Json,
    client: Option<Client>,
    log: Option<Json>,
    /// The last event that he has read.
    since: u64,
    got: Vec<Json>,
}

impl Fickle {
    fn new(channel: &'static str, filters: Json) -> Self {
        Self { channel, filters, client: None, log: None, since: 0, got: Vec::new() }
    }

    async fn connect(&mut self, server: &Server, token: &str) {
        let mut client = server.connect("/ws").await;
        client.authenticate(token).await;
        let mut request = json!({"type": "subscribe", "channel": self.channel,
            "since": self.since, "filters": self.filters});
        if let Some(log) = &self.log {
            request["log"] = log.clone();
        }
        let answer = client.ask(request).await;
        assert_eq!(answer["resumed"], true, "{answer}");
        self.log = Some(answer["log"].clone());
        self.client = Some(client);
    }

    /// Reads up to so many events.
    async fn read(&mut self, most: u64) {
        let Some(mut client) = self.client.take() else { return };
        client.send(json!({"type": "ping"})).await;
        for _ in 0..most {
            let event = client.next().await;
            if event["type"] == "pong" {
                self.client = Some(client);
                return;
            }
            self.take(event);
        }
        // The rest is lost with the connection.
    }

    fn take(&mut self, event: Json) {
        let seq = event["seq"].as_u64().unwrap_or_else(|| panic!("an event comes, not {event}"));
        assert!(seq > self.since, "{seq} comes after {}", self.since);
        self.since = seq;
        self.got.push(event);
    }

    /// Tells which of all events he is to get.
    fn expects<'a>(&self, all: &'a [Json]) -> Vec<&'a Json> {
        let mut had: HashMap<u64, HashSet<&str>> = HashMap::new();
        let one_of = |key: &str, value: &Json| {
            self.filters[key].as_array().is_none_or(|wanted| wanted.contains(value))
        };
        let wanted = |event: &&'a Json| {
            let severities = had.entry(event["alert_id"].as_u64().unwrap_or_default()).or_default();
            severities.extend(event["severity"].as_str());
            let severe = self.filters["severity"].as_array();
            one_of("device_id", &event["device_id"])
                && one_of("status_types", &event["new_status"])
                && severe.is_none_or(|w| w.iter().any(|s| severities.contains(s.as_str().unwrap())))
        };
        all.iter().filter(wanted).collect()
    }
}

/// Sends readings and reports of four devices at random, and waits until they are committed.
async fn produce(agent: &mut Client, dice: &mut Dice, number: &mut u64) {
    for _ in 0..=dice.throw(12) {
        *number += 1;
        let device = format!("d{}", dice.throw(4));
        let message = match dice.throw(3) {
            0 => json!({"type": "status", "seq": *number, "device": device, "reason": "so",
                "status": (["online", "warning", "offline"][dice.throw(3) as usize])}),
            _ => json!({"type": "readings", "seq": *number, "device": device,
                "readings": [{"metric": "t", "value": dice.throw(45)}]}),
        };
        agent.send(message).await;
    }
    while agent.next().await["seq"] != *number {}
}

/// Every event of a channel, as one who reads everything at the end gets them.
async fn everything(server: &Server, token: &str, channel: &str) -> Vec<Json> {
    let mut client = server.connect("/ws").await;
    client.authenticate(token).await;
    let request = json!({"type": "subscribe", "channel": channel, "since": 0});
    let last = client.ask(request).await["seq"].as_u64().unwrap();
    let mut events = Vec::new();
    for seq in 1..=last {
        events.push(client.next().await);
        assert_eq!(events.last().unwrap()["seq"], seq);
    }
    client.expect_silence().await;
    events
}

async fn come_and_go(seed: u64) {
    let mut dice = Dice(seed);
    let mut server =
        Server::with("[limits]\nconnects_per_minute = 10000\nconnections_per_user = 1000").await;
    let token = server.token("ops", Some("admin"), None).await;
    for (name, above, severity) in [("warm", 20, "warning"), ("hot", 35, "critical")] {
        let rule =
            json!({"metric": "t", "kind": "threshold", "above": above, "severity": severity});
        let path = format!("/api/v1/rules/{name}");
        assert_eq!(server.http("PUT", &path, &token, &rule.to_string()).await.0, 200);
    }
    let mut subscribers = [
        Fickle::new("alerts", json!({})),
        Fickle::new("alerts", json!({"severity": ["critical"]})),
        Fickle::new("alerts", json!({"device_id": [1, 3]})),
        Fickle::new("devices", json!({})),
        Fickle::new("devices", json!({"status_types": ["offline"]})),
        Fickle::new("devices", json!({"device_id": [2, 4]})),
    ];
    let mut agent = server.agent("site", Some("q")).await;
    let mut number = 0;
    for step in 0..50 {
        if step % 20 == 19 {
            server.crash_and_restart().await;
            agent = server.agent("site", Some("q")).await;
            subscribers.iter_mut().for_each(|subscriber| subscriber.client = None);
        }
        produce(&mut agent, &mut dice, &mut number).await;
        for subscriber in &mut subscribers {
            match dice.throw(6) {
                0 => subscriber.client = None,
                1 | 2 if subscriber.client.is_none() => subscriber.connect(&server, &token).await,
                _ => subscriber.read(dice.throw(20)).await,
            }
        }
    }
    let mut all = BTreeMap::new();
    for channel in ["alerts", "devices"] {
        all.insert(channel, everything(&server, &token, channel).await);
    }
    assert!(all.values().all(|events| events.len() > 50), "something happens");
    for mut subscriber in subscribers {
        let expected = subscriber.expects(&all[subscriber.channel]);
        subscriber.connect(&server, &token).await;
        while subscriber.got.len() < expected.len() {
            let event = subscriber.client.as_mut().unwrap().next().await;
            subscriber.take(event);
        }
        subscriber.client.as_mut().unwrap().expect_silence().await;
        let got: Vec<&Json> = subscriber.got.iter().collect();
        assert_eq!(got, expected, "seed {seed}: {} {}", subscriber.channel, subscriber.filters);
    }
}

#[tokio::test]
async fn who_comes_and_goes_gets_every_event_once() {
    // Each seed has a server of its own.
    futures_util::future::join_all((1..=3).map(come_and_go)).await;
}

/// More open alerts than an outbox takes at once.
const OPEN: u64 = 400;

#[tokio::test]
async fn a_snapshot_under_way_takes_nothing_from_since() {
    let server = Server::start().await;
    let token = server.token("ops", Some("admin"), None).await;
    let rule = r#"{"metric": "t", "kind": "threshold", "above": 30.0}"#;
    assert_eq!(server.http("PUT", "/api/v1/rules/hot", &token, rule).await.0, 200);
    let mut agent = server.agent("site", None).await;
    // The first alert is over again at the end.
    for number in 1..=OPEN + 1 {
        let (device, value) = if number > OPEN { (1, 20.0) } else { (number, 40.0) };
        let readings = json!([{"metric": "t", "value": value}]);
        let device = format!("d{device}");
        agent
            .send(
                json!({"type": "readings", "seq": number, "device": device, "readings": readings}),
            )
            .await;
    }
    while agent.next().await["seq"] != OPEN + 1 {}
    let all = everything(&server, &token, "alerts").await;
    assert_eq!(all.len() as u64, OPEN + 1);

    let of_first = json!({"type": "subscribe", "channel": "alerts", "since": 0, "device_id": 1});
    let of_all = json!({"type": "subscribe", "channel": "alerts", "since": 0});
    for (since, told, shown) in [
        (of_first, vec![&all[0], &all[OPEN as usize]], OPEN - 1),
        (of_all, all.iter().collect(), 0),
    ] {
        let mut client = server.subscriber().await;
        let first = json!({"type": "subscribe", "channel": "alerts"});
        client.send(json!({"type": "batch", "messages": [first, since]})).await;
        assert_eq!(client.next().await["success"], true);
        let mut snapshot = HashSet::new();
        let answer = loop {
            let message = client.next().await;
            if message["type"] == "subscribe_response" {
                break message;
            }
            snapshot.insert(message["alert_id"].as_u64());
        };
        assert_eq!(answer["resumed"], true, "{answer}");
        let mut events = Vec::new();
        while events.len() < told.len() || (snapshot.len() as u64) < shown {
            let message = client.next().await;
            if message["snapshot"] == true {
                assert!(shown > 0 && snapshot.insert(message["alert_id"].as_u64()), "{message}");
            } else {
                events.push(message);
            }
        }
        assert!(events.iter().eq(told), "{events:?}");
        client.expect_silence().await;
    }
}
