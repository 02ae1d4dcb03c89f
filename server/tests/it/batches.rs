//! Several updates in one message, for who asks for it.

use serde_json::{Value as Json, json};

use crate::{
    cbor::Subscriber,
    server::{Client, Server},
};

const DEVICES: u64 = 120;

/// Makes devices `d1`, `d2` and so on, with a last value each.
async fn devices(agent: &mut Client) {
    for id in 1..=DEVICES {
        let readings = json!([{"metric": "t", "value": id}]);
        agent.send(json!({"type": "readings", "device": format!("d{id}"), "seq": id, "readings": readings})).await;
    }
    while agent.next().await["seq"] != DEVICES {}
}

/// Takes a message apart; returns how many came in it.
fn unpack(message: Json, into: &mut Vec<Json>) -> usize {
    if message["type"] != "batch" {
        into.push(message);
        return 1;
    }
    let keys: Vec<_> = message.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["type", "messages"]);
    let messages = message["messages"].as_array().unwrap();
    assert!((2..=50).contains(&messages.len()), "{}", messages.len());
    into.extend(messages.iter().cloned());
    messages.len()
}

#[tokio::test]
async fn a_snapshot_comes_in_batches() {
    let server = Server::start().await;
    devices(&mut server.agent("site", None).await).await;
    let request = |batch| json!({"type": "subscribe", "channel": "telemetry", "batch": batch});
    let mut plain = server.subscriber().await;
    let answer = plain.ask(request(false)).await;
    let mut expected = Vec::new();
    while expected.len() < DEVICES as usize {
        assert_eq!(unpack(plain.next().await, &mut expected), 1);
    }

    let mut json = server.subscriber().await;
    assert_eq!(json.ask(request(true)).await, answer);
    let (mut found, mut most) = (Vec::new(), 0);
    while found.len() < expected.len() {
        let text = json.next_text().await;
        assert!(text.len() <= 64 * 1024);
        most = most.max(unpack(serde_json::from_str(&text).unwrap(), &mut found));
    }
    assert!(most > 1);
    assert_eq!(found, expected);

    let mut cbor = Subscriber::authenticated(&server).await;
    assert_eq!(cbor.ask(request(true)).await, answer);
    let (mut found, mut most) = (Vec::new(), 0);
    while found.len() < expected.len() {
        most = most.max(unpack(cbor.next().await, &mut found));
    }
    assert!(most > 1);
    assert_eq!(found, expected);
}

#[tokio::test]
async fn only_what_was_subscribed_so_is_joined_and_order_is_kept() {
    let server = Server::start().await;
    let mut agent = server.agent("site", None).await;
    let mut client = server.subscriber().await;
    let request = json!({"type": "subscribe", "channel": "telemetry", "batch": true});
    assert_eq!(client.ask(request).await["success"], true);
    client.subscribe("devices").await;
    let many: Vec<_> = (1..=300).map(|value| json!({"metric": "t", "value": value})).collect();
    let burst = json!({"type": "readings", "device": "a", "seq": 1, "readings": many});
    agent.send(burst).await;
    let (mut values, mut most, mut told) = (Vec::new(), 0, 0);
    while values.len() < 300 || told == 0 {
        let mut messages = Vec::new();
        let count = unpack(client.next().await, &mut messages);
        for message in messages {
            if message["type"] == "device_status_update" {
                assert_eq!(count, 1, "the devices were not subscribed so");
                told += 1;
            } else {
                values.push(message["telemetry"]["t"]["value"].as_u64().unwrap());
                most = most.max(count);
            }
        }
    }
    assert!(values.iter().copied().eq(1..=300), "{values:?}");
    assert!(most > 1);

    // One message alone goes as it is, and an answer is no part of a batch.
    assert_eq!(agent.next().await["type"], "ack");
    agent.readings(2, "a", json!([{"metric": "t", "value": 301}])).await;
    assert_eq!(client.next().await["telemetry"]["t"]["value"], 301);
    client.expect_silence().await;
}

#[tokio::test]
async fn events_and_periods_come_in_batches_too() {
    let server = Server::start().await;
    devices(&mut server.agent("site", None).await).await;
    for request in [
        json!({"type": "subscribe", "channel": "devices", "batch": true}),
        json!({"type": "subscribe", "channel": "devices", "filters": {"batch": true}, "since": 0}),
        json!({"type": "subscribe", "channel": "telemetry", "batch": true, "frequency": "1h"}),
    ] {
        let mut client = server.subscriber().await;
        assert_eq!(client.ask(request.clone()).await["success"], true, "{request}");
        let (mut found, mut most) = (Vec::new(), 0);
        while found.len() < DEVICES as usize {
            most = most.max(unpack(client.next().await, &mut found));
        }
        assert!(most > 1, "{request}");
        let ids = found.iter().map(|update| update["device_id"].as_u64().unwrap());
        assert!(ids.eq(1..=DEVICES), "{request}");
    }
    let mut client = server.subscriber().await;
    client.ask(json!({"type": "subscribe", "channel": "system", "batch": true})).await;
    assert_eq!(client.next().await["type"], "system_status_update");
}
