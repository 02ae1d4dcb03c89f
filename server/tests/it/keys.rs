//! The keys that a connection holds, and what a new token leaves of them.

use serde_json::{Value as Json, json};

use crate::server::{Client, Server};

async fn subscribe(client: &mut Client, channel: &str, devices: Json) -> Json {
    let request = json!({"type": "subscribe", "channel": channel, "device_id": devices,
        "snapshot": false});
    client.ask(request).await
}

#[tokio::test]
async fn a_subscribe_is_done_whole_or_not_at_all() {
    let server = Server::with("[limits]\nsubscriptions = 5").await;
    let mut agent = server.agent("site", None).await;
    for device in 1..=6_u64 {
        agent.readings(device, &format!("d{device}"), json!([{"metric": "t", "value": 1}])).await;
    }
    let mut client = server.connect("/ws").await;
    client.authenticate(&server.token("ops", None, Some("1,2,3,4,5")).await).await;
    assert_eq!(subscribe(&mut client, "telemetry", json!([1, 2, 3])).await["success"], true);
    let answer = subscribe(&mut client, "telemetry", json!([4, 6])).await;
    assert_eq!((&answer["success"], &answer["error"]), (&json!(false), &json!("forbidden")));
    assert_eq!(subscribe(&mut client, "alerts", json!(1)).await["success"], true);
    let answer = subscribe(&mut client, "telemetry", json!([3, 4, 5])).await;
    assert_eq!(
        (&answer["success"], &answer["error"]),
        (&json!(false), &json!("subscription_limit"))
    );
    for (seq, device) in (10..).zip(["d4", "d5", "d6", "d3"]) {
        agent.readings(seq, device, json!([{"metric": "t", "value": 2}])).await;
    }
    assert_eq!(client.next().await["device_id"], 3, "of what was refused nothing is done");
    client.expect_silence().await;
    assert_eq!(subscribe(&mut client, "telemetry", json!([3, 4])).await["success"], true);
    // What is there already can be replaced, however many there are.
    assert_eq!(subscribe(&mut client, "telemetry", json!([1, 4, 2, 3])).await["success"], true);
    assert_eq!(subscribe(&mut client, "devices", json!(1)).await["error"], "subscription_limit");
    client.ask(json!({"type": "unsubscribe", "channel": "telemetry", "device_id": [4]})).await;
    client.subscribe("telemetry").await;
    client.subscribe("telemetry").await;
    assert_eq!(subscribe(&mut client, "devices", json!(1)).await["error"], "subscription_limit");
}

#[tokio::test]
async fn a_connection_holds_a_thousand_keys() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    for first in (0..1000).step_by(125) {
        let devices: Vec<u64> = (first + 1..=first + 125).collect();
        assert_eq!(subscribe(&mut client, "alerts", json!(devices)).await["success"], true);
    }
    let answer = subscribe(&mut client, "alerts", json!(1001)).await;
    assert_eq!(answer["error"], "subscription_limit");
    assert_eq!(subscribe(&mut client, "alerts", json!(1000)).await["success"], true);
    let system = client.ask(json!({"type": "subscribe", "channel": "system"})).await;
    assert_eq!(system["error"], "subscription_limit");
    client.ask(json!({"type": "unsubscribe", "channel": "alerts", "device_id": 7})).await;
    assert_eq!(subscribe(&mut client, "alerts", json!(1001)).await["success"], true);
}

#[tokio::test]
async fn a_new_token_narrows_snapshot_live_and_replay() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    let rule = r#"{"metric":"t","kind":"threshold","above":30}"#;
    assert_eq!(server.http("PUT", "/api/v1/rules/hot", &admin, rule).await.0, 200);
    let mut agent = server.agent("site", None).await;
    for (seq, device) in (1..).zip(["roof", "boiler"]) {
        agent.readings(seq, device, json!([{"metric": "t", "value": 31}])).await;
    }
    let mut client = server.subscriber().await;
    for channel in ["telemetry", "alerts", "devices"] {
        client.subscribe(channel).await;
        assert_eq!(subscribe(&mut client, channel, json!(1)).await["success"], true);
    }
    let narrow = ["--scope", "telemetry:read alerts:read", "--devices", "boiler*"];
    client.authenticate(&server.token_with("ops", narrow).await).await;
    // The keys of the other device, and the whole of a channel without its scope.
    let mut ended = Vec::new();
    for _ in 0..4 {
        let answer = client.next().await;
        assert_eq!((&answer["success"], &answer["error"]), (&json!(false), &json!("forbidden")));
        ended.push(answer["channel"].as_str().unwrap().to_owned());
    }
    ended.sort();
    assert_eq!(ended, ["alerts", "devices", "devices", "telemetry"]);
    for (seq, device) in (3..).zip(["roof", "boiler"]) {
        agent.readings(seq, device, json!([{"metric": "t", "value": 1}])).await;
    }
    let live = [client.next().await, client.next().await];
    assert!(live.iter().all(|message| message["device_id"] == 2), "{live:?}");
    client.expect_silence().await;
    for (channel, messages) in [("telemetry", 1), ("alerts", 2)] {
        let mut request = json!({"type": "subscribe", "channel": channel});
        if channel == "alerts" {
            request["since"] = json!(0);
        }
        assert_eq!(client.ask(request).await["success"], true);
        for _ in 0..messages {
            let message = client.next().await;
            assert_eq!(message["device_id"], 2, "{message}");
        }
        client.expect_silence().await;
    }
    assert_eq!(subscribe(&mut client, "telemetry", json!(1)).await["error"], "forbidden");
    let devices = client.ask(json!({"type": "subscribe", "channel": "devices"})).await;
    assert_eq!(devices["error"], "forbidden");
}
