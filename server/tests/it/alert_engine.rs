//! Alerts of every kind, what people do with them, and what a restart leaves of them.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio_tungstenite::tungstenite::Message;
use valtronics_protocol::time::UnixMillis;
use valtronics_server::clock;

use crate::server::{Client, PROGRAM, Server};

/// Writes a rule.
async fn put(server: &Server, admin: &str, name: &str, rule: Json) {
    let (status, answer) =
        server.http("PUT", &format!("/api/v1/rules/{name}"), admin, &rule.to_string()).await;
    assert_eq!(status, 200, "{answer}");
}

async fn post(server: &Server, token: &str, path: &str, body: &str) -> (u16, Json) {
    let (status, answer) =
        server.http("POST", &format!("/api/v1/alerts/{path}"), token, body).await;
    (status, serde_json::from_str(&answer).unwrap())
}

/// Lists alerts; returns their ids.
async fn ids(server: &Server, token: &str, query: &str) -> (Vec<u64>, Json) {
    let (status, answer) = server.http("GET", &format!("/api/v1/alerts?{query}"), token, "").await;
    assert_eq!(status, 200, "{answer}");
    let page: Json = serde_json::from_str(&answer).unwrap();
    let alerts = page["alerts"].as_array().unwrap();
    let ids = alerts.iter().map(|alert| alert["alert_id"].as_u64().unwrap()).collect();
    (ids, page)
}

/// Sends a reading that was measured so long ago.
async fn reading(agent: &mut Client, seq: u64, value: Json, ago: u64) {
    let at = clock::now().minus(Duration::from_secs(ago));
    agent.readings(seq, "a", json!([{"metric": "t", "value": value, "timestamp": at}])).await;
}

/// Returns what matters of the next message about an alert, and checks that none is left out.
async fn told(client: &mut Client, seq: u64) -> (String, String, String) {
    let message = client.next().await;
    assert_eq!(message["seq"], seq, "{message}");
    let text = |key: &str| message[key].as_str().unwrap().to_owned();
    (text("type"), text("alert_type"), text("status"))
}

fn expected(kind: &str, alert_type: &str, status: &str) -> (String, String, String) {
    (kind.to_owned(), alert_type.to_owned(), status.to_owned())
}

async fn alerts(server: &Server) -> Client {
    let mut client = server.subscriber().await;
    client.subscribe("alerts").await;
    client
}

#[tokio::test]
async fn kinds_begin_and_end_alerts() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    let mut client = alerts(&server).await;
    put(&server, &admin, "rate", json!({"metric": "t", "kind": "rate", "above": 10, "per": "1m"}))
        .await;
    put(&server, &admin, "stuck", json!({"metric": "t", "kind": "stuck", "for": "30s"})).await;
    put(&server, &admin, "gone", json!({"kind": "status", "is": "offline"})).await;
    let mut agent = server.agent("site", Some("q")).await;
    reading(&mut agent, 1, json!(20), 300).await;
    reading(&mut agent, 2, json!(40), 240).await;
    assert_eq!(told(&mut client, 1).await, expected("alert", "rate", "active"));
    reading(&mut agent, 3, json!(40), 180).await;
    assert_eq!(told(&mut client, 2).await, expected("alert_update", "rate", "resolved"));
    assert_eq!(told(&mut client, 3).await, expected("alert", "stuck", "active"));
    reading(&mut agent, 4, json!(41), 120).await;
    assert_eq!(told(&mut client, 4).await, expected("alert_update", "stuck", "resolved"));
    let report = json!({"type": "status", "seq": 5, "device": "a", "status": "offline"});
    assert_eq!(agent.ask(report).await["type"], "ack");
    assert_eq!(told(&mut client, 5).await, expected("alert", "status", "active"));
    reading(&mut agent, 6, json!(42), 60).await;
    assert_eq!(told(&mut client, 6).await, expected("alert_update", "status", "resolved"));
    assert_eq!(ids(&server, &admin, "").await.0, [3, 2, 1]);
}

#[tokio::test]
async fn what_is_missing_is_told_after_a_restart_but_not_at_once() {
    let mut server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    let mut agent = server.agent("site", Some("q")).await;
    reading(&mut agent, 1, json!(20), 0).await;
    put(&server, &admin, "quiet", json!({"metric": "t", "kind": "missing", "for": "2s"})).await;
    server.crash_and_restart().await;
    let started = clock::now();
    let mut client = alerts(&server).await;
    let message = async {
        loop {
            // The server pings meanwhile.
            if let Message::Text(text) = client.next_frame().await {
                break serde_json::from_str::<Json>(text.as_str()).unwrap();
            }
        }
    };
    let message = tokio::time::timeout(Duration::from_secs(90), message).await;
    let message = message.expect("the metric is missed");
    assert_eq!((&message["type"], &message["alert_type"]), (&json!("alert"), &json!("missing")));
    let at: UnixMillis = message["timestamp"].as_str().unwrap().parse().unwrap();
    assert!(at.since(started) > Duration::from_secs(25), "agents had time to come back: {at}");
    assert_eq!(message["metadata"]["threshold_value"], 2, "{message}");
    assert!(message["metadata"]["actual_value"].as_f64().unwrap() >= 25.0, "{message}");
    let mut agent = server.agent("site", Some("q")).await;
    reading(&mut agent, 2, json!(20), 0).await;
    assert_eq!(told(&mut client, 2).await, expected("alert_update", "missing", "resolved"));
}

#[tokio::test]
async fn a_condition_goes_on_holding_through_a_crash() {
    let mut server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    put(
        &server,
        &admin,
        "hot",
        json!({"metric": "t", "kind": "threshold", "above": 30, "for": "8s"}),
    )
    .await;
    let mut agent = server.agent("site", Some("q")).await;
    let at = clock::now();
    agent.readings(1, "a", json!([{"metric": "t", "value": 31.5, "timestamp": at}])).await;
    server.crash_and_restart().await;
    let mut client = server.subscriber().await;
    client.send(json!({"type": "subscribe", "channel": "alerts"})).await;
    assert_eq!(client.next().await["success"], true);
    let alert = client.next_of("alert").await;
    assert_eq!(alert["timestamp"], json!(at.plus(Duration::from_secs(8))));
    assert_eq!(alert["message"], "t is 31.5, above 30");
    assert_eq!(alert["seq"], 1);
}

#[tokio::test]
async fn people_acknowledge_shelve_and_resolve() {
    let mut server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    put(&server, &admin, "hot", json!({"metric": "t", "kind": "threshold", "above": 30})).await;
    let mut client = alerts(&server).await;
    let mut agent = server.agent("site", Some("q")).await;
    reading(&mut agent, 1, json!(31), 10).await;
    assert_eq!(told(&mut client, 1).await, expected("alert", "threshold", "active"));
    for _ in 0..2 {
        let (status, alert) = post(&server, &admin, "1/acknowledge", "").await;
        assert_eq!((status, &alert["status"]), (200, &json!("acknowledged")), "{alert}");
        assert_eq!((&alert["seq"], alert.get("channel")), (&json!(2), None));
    }
    assert_eq!(told(&mut client, 2).await, expected("alert_update", "threshold", "acknowledged"));
    let until = clock::now().plus(Duration::from_secs(4));
    let (status, alert) =
        post(&server, &admin, "1/shelve", &json!({"until": until}).to_string()).await;
    assert_eq!((status, &alert["status"]), (200, &json!("shelved")), "{alert}");
    assert_eq!(told(&mut client, 3).await, expected("alert_update", "threshold", "shelved"));

    server.crash_and_restart().await;
    let mut client = server.subscriber().await;
    client.send(json!({"type": "subscribe", "channel": "alerts", "since": 3})).await;
    assert_eq!(client.next().await["resumed"], true);
    assert_eq!(told(&mut client, 4).await, expected("alert_update", "threshold", "active"));
    for _ in 0..2 {
        let (status, alert) = post(&server, &admin, "1/resolve", "").await;
        assert_eq!((status, &alert["status"]), (200, &json!("resolved")), "{alert}");
    }
    assert_eq!(told(&mut client, 5).await, expected("alert_update", "threshold", "resolved"));
    assert_eq!(post(&server, &admin, "1/acknowledge", "").await.0, 409);

    // Through a crash, too: the condition has to be false once.
    server.crash_and_restart().await;
    let mut client = alerts(&server).await;
    let mut agent = server.agent("site", Some("q")).await;
    reading(&mut agent, 2, json!(32), 5).await;
    reading(&mut agent, 3, json!(29), 4).await;
    client.expect_silence().await;
    reading(&mut agent, 4, json!(33), 3).await;
    assert_eq!(told(&mut client, 6).await, expected("alert", "threshold", "active"));
    assert_eq!(ids(&server, &admin, "").await.0, [2, 1]);
}

#[tokio::test]
async fn an_alert_is_changed_by_who_may() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    put(&server, &admin, "hot", json!({"metric": "t", "kind": "threshold", "above": 30})).await;
    let mut agent = server.agent("site", Some("q")).await;
    reading(&mut agent, 1, json!(31), 0).await;
    let reader = server.token("reader", None, None).await;
    let other = server.token("other", Some("alerts:write alerts:read"), Some("b*")).await;
    let later = json!({"until": clock::now().plus(Duration::from_secs(60))}).to_string();
    for (token, path, body, expected) in [
        (&reader, "1/acknowledge", "", 403),
        (&reader, "1/shelve", later.as_str(), 403),
        (&other, "1/acknowledge", "", 404),
        (&other, "1/resolve", "", 404),
        (&other, "1/shelve", &later, 404),
        (&admin, "2/resolve", "", 404),
        (&admin, "x/resolve", "", 404),
        (&admin, "18446744073709551615/resolve", "", 404),
        (&admin, "1/shelve", "", 422),
        (&admin, "1/shelve", r#"{"until":"tomorrow"}"#, 422),
        (&admin, "1/shelve", r#"{"until":"2020-01-01T00:00:00Z"}"#, 422),
    ] {
        let (status, problem) = post(&server, token, path, body).await;
        assert_eq!((status, &problem["status"]), (expected, &json!(expected)), "{path} {body}");
    }
    assert_eq!(ids(&server, &other, "").await.0, [0; 0]);
    assert_eq!(ids(&server, &admin, "status=active").await.0, [1], "nothing has changed it");
}

#[tokio::test]
async fn alerts_are_listed_in_pages_and_by_what_they_are() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    put(
        &server,
        &admin,
        "hot",
        json!({"metric": "t", "kind": "threshold",
        "steps": [{"above": 30, "severity": "warning"}, {"above": 40, "severity": "critical"}]}),
    )
    .await;
    let mut agent = server.agent("site", Some("q")).await;
    for (seq, device, value) in
        [(1, "a", 31), (2, "b", 41), (3, "c", 31), (4, "a", 1), (5, "a", 50)]
    {
        agent.readings(seq, device, json!([{"metric": "t", "value": value}])).await;
    }
    let (all, page) = ids(&server, &admin, "limit=3").await;
    assert_eq!(all, [4, 3, 2]);
    let rest = format!("limit=3&cursor={}", page["next"].as_str().unwrap());
    let (rest, page) = ids(&server, &admin, &rest).await;
    assert_eq!((rest.as_slice(), &page["next"]), (&[1][..], &json!(null)));
    assert_eq!(page["alerts"][0].get("channel"), None);
    for (query, expected) in [
        ("status=resolved", &[1][..]),
        ("status=active&severity=critical", &[4, 2]),
        ("device_id=1", &[4, 1]),
        ("device_id=9", &[]),
        ("from=-1h", &[4, 3, 2, 1]),
        ("to=-1h", &[]),
        ("from=2020-01-01T00:00:00Z&to=2021-01-01T00:00:00Z", &[]),
    ] {
        assert_eq!(ids(&server, &admin, query).await.0, expected, "{query}");
    }
    for parameter in ["status", "severity", "device_id", "from", "to"] {
        let path = format!("/api/v1/alerts?{parameter}=bad");
        let (status, answer) = server.http("GET", &path, &admin, "").await;
        let problem: Json = serde_json::from_str(&answer).unwrap();
        let detail = problem["detail"].as_str().unwrap();
        assert!(status == 422 && detail.starts_with(&format!("{parameter}: ")), "{answer}");
    }
}

#[tokio::test]
async fn a_backlog_raises_and_ends_nothing() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    for (name, rule) in [
        ("hot", json!({"metric": "t", "kind": "threshold", "above": 30})),
        ("rate", json!({"metric": "t", "kind": "rate", "above": 1, "per": "1s"})),
        ("stuck", json!({"metric": "t", "kind": "stuck", "for": "1s"})),
    ] {
        put(&server, &admin, name, rule).await;
    }
    let mut client = alerts(&server).await;
    let mut agent = server.agent("site", Some("q")).await;
    reading(&mut agent, 1, json!(31), 0).await;
    assert_eq!(told(&mut client, 1).await, expected("alert", "threshold", "active"));
    let now = clock::now();
    for seq in 0..10_u64 {
        let readings = (0..1000).map(|n| {
            let at = now.minus(Duration::from_secs(20_000 - seq * 1000 - n));
            json!({"metric": "t", "value": n % 60, "timestamp": at})
        });
        // Half of it is marked, the rest is just older than what is known.
        let message = json!({"type": "readings", "seq": 2 + seq, "device": "a",
            "historical": seq % 2 == 0, "readings": readings.collect::<Vec<_>>()});
        assert_eq!(agent.ask(message).await, json!({"type": "ack", "seq": 2 + seq}));
    }
    client.expect_silence().await;
    assert_eq!(ids(&server, &admin, "").await.0, [1]);
    assert_eq!(ids(&server, &admin, "status=active").await.0, [1]);
}

#[tokio::test]
async fn what_flaps_is_held() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    put(&server, &admin, "hot", json!({"metric": "t", "kind": "threshold", "above": 30})).await;
    let mut client = alerts(&server).await;
    let mut agent = server.agent("site", Some("q")).await;
    for n in 0..40 {
        reading(&mut agent, 1 + n, json!(if n % 2 == 0 { 31 } else { 29 }), 1000 - n).await;
    }
    for seq in 1..20 {
        let status = if seq % 2 == 1 { "active" } else { "resolved" };
        assert_eq!(told(&mut client, seq).await.2, status);
    }
    let held = client.next().await;
    assert_eq!((&held["type"], &held["status"]), (&json!("alert_update"), &json!("active")));
    assert!(
        held["message"].as_str().unwrap().ends_with("held until it has been quiet for 10 min)")
    );
    client.expect_silence().await;
    reading(&mut agent, 41, json!(29), 0).await;
    assert_eq!(told(&mut client, 21).await.2, "resolved");
}

#[tokio::test]
async fn rules_that_cannot_work_name_the_field() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    for (rule, field) in [
        (json!({"metric": "t", "kind": "rate", "above": 1}), "per"),
        (json!({"metric": "t", "kind": "rate", "per": "1m"}), "kind"),
        (json!({"metric": "t", "kind": "missing"}), "for"),
        (json!({"metric": "t", "kind": "stuck", "for": "0s"}), "for"),
        (json!({"kind": "stuck", "for": "5m"}), "metric"),
        (json!({"kind": "status"}), "is"),
        (json!({"kind": "status", "is": "online"}), "is"),
        (json!({"kind": "status", "is": "offline", "metric": "t"}), "metric"),
        (json!({"kind": "nonsense", "metric": "t"}), "kind"),
    ] {
        let (status, answer) =
            server.http("PUT", "/api/v1/rules/x", &admin, &rule.to_string()).await;
        let problem: Json = serde_json::from_str(&answer).unwrap();
        let detail = problem["detail"].as_str().unwrap();
        assert!(status == 422 && detail.starts_with(&format!("{field}: ")), "{rule} {answer}");
    }
}

#[tokio::test]
async fn rules_are_tried_on_what_is_stored() {
    let server = Server::start().await;
    let mut agent = server.agent("site", Some("q")).await;
    let now = clock::now();
    for (seq, value) in [(1, 20), (2, 31), (3, 20), (4, 20)] {
        let at = now.minus(Duration::from_secs(600 - 60 * seq));
        agent.readings(seq, "a", json!([{"metric": "t", "value": value, "timestamp": at}])).await;
    }
    let rules = "[[rule]]\nname = \"hot\"\nmetric = \"t\"\nkind = \"threshold\"\nabove = 30\n\
        [[rule]]\nname = \"still\"\nmetric = \"t\"\nkind = \"stuck\"\nfor = \"30s\"\n";
    std::fs::write(server.folder().join("new.toml"), rules).unwrap();
    std::fs::write(server.folder().join("bad.toml"), "[[rule]]\nname = \"x\"\n").unwrap();
    let test = |file: &str, rest: &[&str]| {
        let mut command = std::process::Command::new(PROGRAM);
        command.args(["rules", "test"]).arg(server.folder().join(file)).args(rest);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let data = server.folder().join("data");
    let data = data.to_str().unwrap();
    let at = |seq: u64| now.minus(Duration::from_secs(600 - 60 * seq));
    let expected = format!(
        "{}\thot\tsite/a\twarning\tactive\t31\n{}\thot\tsite/a\twarning\tresolved\t20\n\
         {}\tstill\tsite/a\twarning\tactive\t60\n",
        at(2),
        at(3),
        at(4)
    );
    assert_eq!(test("new.toml", &["--data", data]), (Some(0), expected.clone()));
    assert_eq!(test("new.toml", &["--data", data, "--from", "-1h"]), (Some(0), expected));
    assert_eq!(test("new.toml", &["--data", data, "--from", "-0s"]), (Some(0), String::new()));
    assert_eq!(test("new.toml", &["--data", data, "--from", "soon"]).0, Some(2));
    assert_eq!(test("bad.toml", &["--data", data]).0, Some(2));
    assert_eq!(test("new.toml", &["--data", "/nowhere/at/all"]).0, Some(1));
}
