//! Who reads slowly: what he misses, what he does not, and that nobody else notices.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value as Json, json};
use tokio::time::sleep;
use valtronics_server::clock;

use crate::server::{Client, Server};

/// How many messages go out before the reader who keeps up has read them: less than may wait for
/// him, so that only who sleeps is slow.
const BURST: u64 = 400;

/// What one reader has got.
#[derive(Default)]
pub(crate) struct Got {
    /// The newest value of each metric of each device.
    pub newest: HashMap<(u64, String), u64>,
    pub updates: u64,
    pub dropped: u64,
    /// The positions of alerts and of status changes.
    pub alerts: Vec<u64>,
    changes: Vec<u64>,
}

impl Got {
    pub(crate) fn take(&mut self, message: &Json) {
        let seq = || message["seq"].as_u64().unwrap();
        match message["type"].as_str().unwrap() {
            "telemetry_update" => {
                self.updates += 1;
                let device = message["device_id"].as_u64().unwrap();
                for (metric, reading) in message["telemetry"].as_object().unwrap() {
                    let Some(value) = reading["value"].as_u64() else { continue };
                    let before = self.newest.insert((device, metric.clone()), value);
                    assert!(before.is_none_or(|before| before < value), "time goes backwards");
                }
            }
            "alert" | "alert_update" => self.alerts.push(seq()),
            "device_status_update" => self.changes.push(seq()),
            "lagged" => {
                assert_eq!(message["channel"], "telemetry", "nothing else is merged");
                self.dropped += message["dropped"].as_u64().unwrap();
            }
            other => panic!("{other} was not asked for"),
        }
    }

    pub(crate) async fn read_until(&mut self, client: &mut Client, enough: impl Fn(&Self) -> bool) {
        while !enough(self) {
            self.take(&client.next().await);
        }
    }
}

/// Sends a burst of readings of three devices, with alerts that come and go and changes of status
/// in between; returns how many updates that makes.
async fn burst(agent: &mut Client, first: u64) -> u64 {
    let padding = "x".repeat(1000);
    for number in first..first + BURST {
        let device = format!("d{}", number % 3);
        let odd = if number % 40 == 0 { 1.5 } else { 0.5 };
        let readings = json!([{"metric": format!("m{}", number % 20), "value": number},
            {"metric": "text", "value": padding}, {"metric": "odd", "value": odd}]);
        agent.send(json!({"type": "readings", "device": device, "readings": readings})).await;
        if number % 50 == 0 {
            let status = if number % 100 == 0 { "warning" } else { "online" };
            let report =
                json!({"type": "status", "device": "d0", "status": status, "reason": "so"});
            agent.send(report).await;
        }
    }
    BURST
}

#[tokio::test]
async fn who_sleeps_gets_what_counts_and_nobody_else_notices() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    let rule = r#"{"metric":"odd","kind":"threshold","above":1,"severity":"warning"}"#;
    // Several, since what flaps is held: one alone would soon have nothing more to say.
    for number in 0..5 {
        let path = format!("/api/v1/rules/odd{number}");
        assert_eq!(server.http("PUT", &path, &admin, rule).await.0, 200);
    }
    let mut agent = server.agent("site", None).await;
    let (mut awake, mut asleep) = (server.subscriber().await, server.narrow_subscriber().await);
    let mut got = [Got::default(), Got::default()];
    // The first bursts, with both awake, show what memory the work itself takes.
    let (mut produced, mut before) = (0, 0);
    for client in [&mut awake, &mut asleep] {
        for channel in ["telemetry", "alerts", "devices"] {
            client.subscribe(channel).await;
        }
    }
    for round in 0..20 {
        produced += burst(&mut agent, 1 + produced).await;
        got[0].read_until(&mut awake, |got| got.updates == produced).await;
        if round < 5 {
            got[1].read_until(&mut asleep, |got| got.updates == produced).await;
            before = server.resident_bytes();
        }
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 4 * 1024 * 1024, "6 MB went by, and {grown} bytes were kept");
    agent.readings(1, "end", json!([{"metric": "text", "value": "end"}])).await;
    produced += 1;
    let mut last = [0, 0];
    for (channel, last) in ["alerts", "devices"].into_iter().zip(&mut last) {
        let answer = server.subscriber().await.subscribe(channel).await;
        *last = usize::try_from(answer["seq"].as_u64().unwrap()).unwrap();
    }
    for (client, got) in [&mut awake, &mut asleep].into_iter().zip(&mut got) {
        got.read_until(client, |got| {
            let seen = [got.alerts.len(), got.changes.len()];
            got.updates + got.dropped == produced && seen == last
        })
        .await;
        client.expect_silence().await;
    }
    let [awake, asleep] = &got;
    assert_eq!((awake.updates, awake.dropped), (produced, 0));
    assert!(asleep.dropped > 1000, "{}", asleep.dropped);
    assert_eq!(asleep.newest, awake.newest);
    for (seqs, others) in [(&asleep.alerts, &awake.alerts), (&asleep.changes, &awake.changes)] {
        assert_eq!(seqs, others);
        assert!(seqs.len() > 100, "something happens");
        assert!(seqs.iter().zip(1..).all(|(seq, expected)| *seq == expected), "{seqs:?}");
    }
}

#[tokio::test]
async fn who_lags_is_told_once_a_second_at_most() {
    let server = Server::with("[limits]\nqueue_bytes = \"16KiB\"").await;
    let mut client = server.narrow_subscriber().await;
    client.subscribe("telemetry").await;
    let mut agent = server.agent("site", None).await;
    let begun = clock::instant();
    let padding = "x".repeat(1000);
    let sending = async {
        let mut number = 0;
        while begun.elapsed() < Duration::from_secs(4) {
            number += 1;
            let readings =
                json!([{"metric": "n", "value": number}, {"metric": "p", "value": padding}]);
            agent.send(json!({"type": "readings", "device": "a", "readings": readings})).await;
            sleep(Duration::from_millis(1)).await;
        }
        number
    };
    let reading = async {
        let (mut told, mut got) = (0, Got::default());
        while begun.elapsed() < Duration::from_secs(4) {
            let message = client.next().await;
            told += u64::from(message["type"] == "lagged");
            got.take(&message);
            // Much slower than it comes.
            sleep(Duration::from_millis(20)).await;
        }
        (told, begun.elapsed().as_secs(), got)
    };
    let (number, (told, seconds, mut got)) = tokio::join!(sending, reading);
    assert!((1..=seconds + 1).contains(&told), "{told} times in {seconds} s");
    got.read_until(&mut client, |got| got.updates + got.dropped == number).await;
}

#[tokio::test]
async fn late_readings_are_marked_or_counted_and_change_nothing() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    let rule = r#"{"metric":"t","kind":"threshold","above":1000}"#;
    assert_eq!(server.http("PUT", "/api/v1/rules/hot", &admin, rule).await.0, 200);
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "d", json!([{"metric": "t", "value": 1}])).await;
    let (mut plain, mut alerts) = (server.subscriber().await, server.subscriber().await);
    plain.subscribe("telemetry").await;
    alerts.subscribe("alerts").await;
    let (mut reader, mut asleep) = (server.subscriber().await, server.narrow_subscriber().await);
    let request = json!({"type": "subscribe", "channel": "telemetry", "historical": true,
        "snapshot": false});
    for client in [&mut reader, &mut asleep] {
        assert_eq!(client.ask(request.clone()).await["success"], true);
    }
    let padding = "x".repeat(1000);
    let produced = 4000;
    for burst in 0..produced / 100 {
        for number in burst * 100..(burst + 1) * 100 {
            let readings = json!([{"metric": "t", "value": 2000 + number},
                {"metric": "text", "value": padding}]);
            let seq = (number % 100 == 99).then_some(2 + number);
            agent
                .send(json!({"type": "readings", "device": "d", "seq": seq, "historical": true,
                    "readings": readings}))
                .await;
        }
        for number in burst * 100..(burst + 1) * 100 {
            let update = reader.next().await;
            assert_eq!(update["historical"], true, "{update}");
            assert_eq!(update["telemetry"]["t"]["value"], 2000 + number);
        }
        assert_eq!(agent.next().await["seq"], 101 + burst * 100);
    }
    agent.readings(produced + 2, "d", json!([{"metric": "t", "value": 3}])).await;
    let (mut late, mut dropped, mut live) = (Vec::new(), 0, Vec::new());
    while late.len() as u64 + dropped < produced || live.is_empty() {
        let message = asleep.next().await;
        dropped += message["dropped"].as_u64().unwrap_or_default();
        let value = message["telemetry"]["t"]["value"].as_u64();
        if message["historical"] == true { late.extend(value) } else { live.extend(value) }
    }
    assert!(dropped > 100 && late.is_sorted(), "{dropped}");
    assert_eq!(late.len() as u64 + dropped, produced);
    assert_eq!(live, [3]);
    asleep.expect_silence().await;
    assert_eq!(plain.next().await["telemetry"]["t"]["value"], 3, "live ones alone");
    plain.expect_silence().await;
    alerts.expect_silence().await;
    let device = server.http("GET", "/api/v1/devices/1", &admin, "").await.1;
    assert!(device.contains(r#""value":3"#), "{device}");
}
