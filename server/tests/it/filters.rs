//! What a `subscribe` may say and what it means (WebSocket API, section 3), where no other of these
//! files shows it.

use std::{collections::HashMap, time::Duration};

use serde_json::{Value as Json, json};
use valtronics_server::clock;

use crate::server::{Client, Server};

async fn subscribe(client: &mut Client, channel: &str, with: Json) -> Json {
    let mut request = json!({"type": "subscribe", "channel": channel});
    request.as_object_mut().unwrap().extend(with.as_object().unwrap().clone());
    client.send(request).await;
    client.next_of("subscribe_response").await
}

#[tokio::test]
async fn filters_wins_where_a_key_stands_twice() {
    let server = Server::start().await;
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "a", json!([{"metric": "t", "value": 1}])).await;
    let mut client = server.subscriber().await;
    let with = json!({"device_id": "nonsense", "metrics": "h", "snapshot": true,
        "filters": {"device_id": 1, "snapshot": false, "batch": true}});
    let answer = subscribe(&mut client, "telemetry", with).await;
    assert_eq!(answer["filters"], json!({"device_id": [1], "metrics": ["h"]}), "{answer}");
    client.expect_silence().await;
    for with in [
        json!({"filters": []}),
        json!({"filters": null}),
        json!({"filters": {"filters": {}}}),
        json!({"filters": {"type": "subscribe"}}),
        json!({"filters": {"colour": "blue"}}),
        json!({"Metrics": "t"}),
    ] {
        let answer = subscribe(&mut client, "telemetry", with.clone()).await;
        assert_eq!(answer["error"], "invalid_filter", "{with}: {answer}");
    }
}

#[tokio::test]
async fn a_filter_is_understood_or_refused() {
    let server = Server::with("[limits]\nmessages_per_second = 1000").await;
    let mut client = server.subscriber().await;
    for (channel, key, values) in [
        (
            "telemetry",
            "device_id",
            json!([[], null, 1.0, "1", -1, [1, 1.0], [1, null], [[1]], {}, true]),
        ),
        ("telemetry", "metrics", json!([[], null, 1, ["t", 1], {}])),
        (
            "telemetry",
            "frequency",
            json!(["99ms", "25h", "1d1s", "", "fast", 30, null, ["1s"], "-1s", "1e9s"]),
        ),
        ("telemetry", "historical", json!(["true", 1, null])),
        ("telemetry", "snapshot", json!(["no", 0, null])),
        ("telemetry", "batch", json!(["yes", 1, null])),
        ("telemetry", "severity", json!(["critical"])),
        ("telemetry", "since", json!([0])),
        ("alerts", "severity", json!([[], null, "fatal", ["critical", "fatal"], "Critical", 1])),
        ("alerts", "alert_type", json!([[], null, 1])),
        ("alerts", "since", json!([-1, 1.0, "1", null, [1]])),
        ("alerts", "log", json!([1, null])),
        ("alerts", "metrics", json!(["t"])),
        ("alerts", "frequency", json!(["1s"])),
        ("alerts", "historical", json!([true])),
        ("devices", "status_types", json!([[], null, "gone", ["online", "gone"], 1])),
        ("devices", "alert_type", json!(["threshold"])),
        ("system", "metrics", json!([[], null, "swap", ["cpu_usage", "swap"], "*", "cpu*"])),
        ("system", "frequency", json!(["999ms", "25h", "never"])),
        ("system", "device_id", json!([1])),
    ] {
        for value in values.as_array().unwrap() {
            let answer = subscribe(&mut client, channel, json!({key: value})).await;
            assert_eq!(answer["error"], "invalid_filter", "{channel} {key} {value}: {answer}");
            assert_eq!(answer["channel"], channel);
        }
    }
}

#[tokio::test]
async fn the_answer_says_what_was_understood() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    for (channel, with, understood) in [
        ("telemetry", json!({}), json!({})),
        (
            "telemetry",
            json!({"device_id": 77, "metrics": "soon"}),
            json!({"device_id": [77], "metrics": ["soon"]}),
        ),
        ("telemetry", json!({"metrics": ["a", "*"]}), json!({})),
        ("telemetry", json!({"frequency": "real-time"}), json!({"frequency": "real-time"})),
        ("telemetry", json!({"frequency": "100ms"}), json!({"frequency": "100ms"})),
        (
            "telemetry",
            json!({"frequency": "24h", "historical": true, "batch": true}),
            json!({"frequency": "24h"}),
        ),
        ("alerts", json!({"alert_type": "soon"}), json!({"alert_type": ["soon"]})),
        ("alerts", json!({"severity": ["info", "critical", "warning"]}), json!({})),
        ("devices", json!({"status_types": "offline"}), json!({"status_types": ["offline"]})),
        ("devices", json!({"status_types": ["warning", "offline", "online"]}), json!({})),
        (
            "system",
            json!({"metrics": "cpu_usage", "frequency": "5m"}),
            json!({"metrics": ["cpu_usage"], "frequency": "5m"}),
        ),
    ] {
        let answer = subscribe(&mut client, channel, with.clone()).await;
        assert_eq!((&answer["success"], &answer["filters"]), (&json!(true), &understood), "{with}");
    }
}

#[tokio::test]
async fn a_star_at_the_end_is_a_wildcard_and_elsewhere_a_star() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    let metrics = json!(["battery.*", "a*b", "c\\*"]);
    assert_eq!(
        subscribe(&mut client, "telemetry", json!({"metrics": metrics})).await["success"],
        true
    );
    let mut agent = server.agent("site", None).await;
    let names = ["battery.level", "battery.", "battery", "a*b", "axb", "a*bc", "c*", "cd", "c\\*"];
    let readings: Vec<Json> =
        names.iter().map(|name| json!({"metric": name, "value": 1})).collect();
    agent.readings(1, "d", json!(readings)).await;
    let update = client.next().await;
    let told: Vec<_> = update["telemetry"].as_object().unwrap().keys().collect();
    assert_eq!(told, ["battery.level", "battery.", "a*b", "c*"]);
}

#[tokio::test]
async fn a_device_that_appears_is_judged_then() {
    let server = Server::start().await;
    let mut client = server.connect("/ws").await;
    client.authenticate(&server.token("ops", None, Some("boiler*")).await).await;
    for channel in ["telemetry", "devices"] {
        let answer = subscribe(&mut client, channel, json!({"device_id": [1, 2]})).await;
        assert_eq!(answer["success"], true, "{answer}");
    }
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "roof", json!([{"metric": "t", "value": 1}])).await;
    agent.readings(2, "boiler", json!([{"metric": "t", "value": 1}])).await;
    let mut told = [client.next().await, client.next().await];
    told.sort_by_key(|message| message["type"].to_string());
    assert_eq!(told[0]["type"], "device_status_update");
    assert_eq!(told[1]["type"], "telemetry_update");
    assert!(told.iter().all(|message| message["device_id"] == 2), "{told:?}");
    client.expect_silence().await;
}

#[tokio::test]
async fn however_many_keys_overlap_a_live_event_comes_once() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    let rule = r#"{"metric":"t","kind":"threshold","above":30}"#;
    assert_eq!(server.http("PUT", "/api/v1/rules/hot", &admin, rule).await.0, 200);
    let mut client = server.subscriber().await;
    for channel in ["telemetry", "alerts", "devices"] {
        for with in [json!({}), json!({"device_id": [1, 2]}), json!({"device_id": 1}), json!({})] {
            assert_eq!(subscribe(&mut client, channel, with).await["success"], true);
        }
    }
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "d", json!([{"metric": "t", "value": 31}])).await;
    let mut kinds = Vec::new();
    for _ in 0..3 {
        kinds.push(client.next().await["type"].as_str().unwrap().to_owned());
    }
    kinds.sort();
    assert_eq!(kinds, ["alert", "device_status_update", "telemetry_update"]);
    client.expect_silence().await;
}

#[tokio::test]
async fn a_subscribe_with_the_same_key_takes_the_place_of_the_old() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    for metrics in ["t", "h"] {
        subscribe(&mut client, "telemetry", json!({"metrics": metrics})).await;
        subscribe(&mut client, "telemetry", json!({"metrics": metrics, "device_id": 2})).await;
    }
    let mut agent = server.agent("site", None).await;
    let both = json!([{"metric": "t", "value": 1}, {"metric": "h", "value": 1}]);
    for (seq, device) in (1..).zip(["a", "b"]) {
        agent.readings(seq, device, both.clone()).await;
        let update = client.next().await;
        let metrics: Vec<_> = update["telemetry"].as_object().unwrap().keys().collect();
        assert_eq!(metrics, ["h"], "{update}");
    }
    client.expect_silence().await;
}

#[tokio::test]
async fn a_period_is_kept_for_each_device_and_nothing_starves() {
    const PERIOD: Duration = Duration::from_millis(300);
    const DEVICES: usize = 3;
    const LAST: u64 = 200;
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    let begun = clock::instant();
    assert_eq!(
        subscribe(&mut client, "telemetry", json!({"frequency": "300ms"})).await["success"],
        true
    );
    let mut agent = server.agent("site", None).await;
    let sending = async {
        for value in 1..=LAST {
            for device in 0..DEVICES {
                // Each metric but one in few: what is rare must not be left out for what is not.
                let rare = if value % 50 == 0 { "rare" } else { "often" };
                let readings = json!([{"metric": rare, "value": value}]);
                let device = format!("d{device}");
                agent
                    .send(json!({"type": "readings", "device": device, "readings": readings}))
                    .await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reading = async {
        let mut newest = HashMap::<(u64, String), u64>::new();
        let mut messages = HashMap::<u64, u128>::new();
        let done = |newest: &HashMap<(u64, String), u64>| {
            let told = |value| newest.values().filter(|newest| **newest == value).count();
            told(LAST) == DEVICES && told(LAST - 1) == DEVICES
        };
        while !done(&newest) {
            let update = client.next_of("telemetry_update").await;
            let device = update["device_id"].as_u64().unwrap();
            *messages.entry(device).or_default() += 1;
            for (metric, reading) in update["telemetry"].as_object().unwrap() {
                let value = reading["value"].as_u64().unwrap();
                let before = newest.insert((device, metric.clone()), value);
                assert!(before.is_none_or(|before| before < value), "{update}");
            }
            // One at once, and one at each end of a period.
            let most = 1 + begun.elapsed().as_millis() / PERIOD.as_millis();
            assert!(messages[&device] <= most, "{messages:?} in {:?}", begun.elapsed());
        }
        assert!(messages.values().all(|count| *count > 1), "{messages:?}");
    };
    tokio::join!(sending, reading);
    client.expect_silence().await;
}

#[tokio::test]
async fn system_status_comes_every_five_seconds_or_every_second_at_most() {
    let server = Server::start().await;
    for (with, period) in [
        (json!({}), Duration::from_secs(5)),
        (json!({"frequency": "real-time"}), Duration::from_secs(1)),
        (json!({"frequency": "1s"}), Duration::from_secs(1)),
    ] {
        let mut client = server.subscriber().await;
        assert_eq!(subscribe(&mut client, "system", with.clone()).await["success"], true);
        // The server's own times: what comes late here was sampled in time.
        let mut moments = Vec::new();
        for _ in 0..2 {
            let update = client.next().await;
            let at = update["timestamp"].as_str().unwrap().to_owned();
            moments.push(at.parse::<valtronics_protocol::time::UnixMillis>().unwrap());
        }
        let passed = moments[1].since(moments[0]);
        assert!(passed + Duration::from_millis(100) >= period, "{with}: {passed:?}");
        assert!(passed < period + Duration::from_secs(3), "{with}: {passed:?}");
    }
}
