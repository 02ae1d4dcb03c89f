//! What a start takes for the present: last values, and the rules under which alerts were raised.

use std::time::Duration;

use serde_json::{Value as Json, json};
use valtronics_server::clock;

use crate::server::{PROGRAM, Server};

/// Returns the last values of the first device as a new subscriber is shown them.
async fn last_values(server: &Server) -> Json {
    let mut client = server.subscriber().await;
    let answer = client.ask(json!({"type": "subscribe", "channel": "telemetry"})).await;
    assert_eq!(answer["success"], true, "{answer}");
    let mut values = client.next().await["telemetry"].take();
    for value in values.as_object_mut().unwrap().values_mut() {
        *value = value["value"].take();
    }
    values
}

#[tokio::test]
async fn a_backlog_is_no_last_value_after_a_crash() {
    let mut server = Server::start().await;
    let mut agent = server.agent("site", Some("q")).await;
    let before = clock::now().minus(Duration::from_secs(10));
    agent.readings(1, "a", json!([{"metric": "t", "value": 20, "timestamp": before}])).await;
    let backlog = json!({"type": "readings", "seq": 2, "device": "a", "historical": true,
        "readings": [{"metric": "t", "value": 99}, {"metric": "late", "value": 7}]});
    assert_eq!(agent.ask(backlog).await["type"], "ack");
    assert_eq!(last_values(&server).await, json!({"t": 20}));
    server.crash_and_restart().await;
    assert_eq!(last_values(&server).await, json!({"t": 20}));

    let rules = "[[rule]]\nname = \"hot\"\nmetric = \"t\"\nkind = \"threshold\"\nabove = 10\n";
    std::fs::write(server.folder().join("new.toml"), rules).unwrap();
    let mut command = std::process::Command::new(PROGRAM);
    command.args(["rules", "test", "new.toml", "--data", "data"]).current_dir(server.folder());
    let told = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let expected = format!("{before}\thot\tsite/a\twarning\tactive\t20\n");
    assert_eq!(told, expected, "nor do rules see it");
}

#[tokio::test]
async fn a_clock_that_runs_ahead_freezes_nothing_after_a_crash() {
    let mut server = Server::start().await;
    let mut agent = server.agent("site", Some("q")).await;
    for (seq, ahead) in [(1, 50), (2, 5)] {
        let at = clock::now().plus(Duration::from_secs(ahead));
        agent.readings(seq, "a", json!([{"metric": "t", "value": seq, "timestamp": at}])).await;
    }
    assert_eq!(last_values(&server).await, json!({"t": 2}));
    for _ in 0..2 {
        server.crash_and_restart().await;
        assert_eq!(last_values(&server).await, json!({"t": 2}));
    }
    server.restart().await;
    assert_eq!(last_values(&server).await, json!({"t": 2}), "it was written down as it was");
    let mut agent = server.agent("site", Some("q")).await;
    agent.readings(3, "a", json!([{"metric": "t", "value": 3}])).await;
    assert_eq!(last_values(&server).await, json!({"t": 3}));
}

/// Writes the rules' file: names and bounds.
fn write_rules(server: &Server, rules: &[(&str, u32)]) {
    let rule = |(name, above): &(&str, u32)| {
        format!(
            "[[rule]]\nname = \"{name}\"\nmetric = \"t\"\nkind = \"threshold\"\nabove = {above}\n"
        )
    };
    let text: String = rules.iter().map(rule).collect();
    std::fs::write(server.folder().join("rules.toml"), text).unwrap();
}

/// Returns rule, status and message of every alert, oldest first.
async fn alerts(server: &Server) -> Vec<(String, String, String)> {
    let token = server.token("ops", Some("admin"), None).await;
    let (_, answer) = server.http("GET", "/api/v1/alerts", &token, "").await;
    let answer: Json = serde_json::from_str(&answer).unwrap();
    let text = |json: &Json| json.as_str().unwrap().to_owned();
    let shown = |alert: &Json| {
        (text(&alert["metadata"]["rule"]), text(&alert["status"]), text(&alert["message"]))
    };
    answer["alerts"].as_array().unwrap().iter().rev().map(shown).collect()
}

#[tokio::test]
async fn rules_that_changed_in_a_file_while_the_server_was_down_end_their_alerts() {
    let mut server =
        Server::with_files("[rules]\nfiles = [\"rules.toml\"]", &[("rules.toml", "")]).await;
    write_rules(&server, &[("changed", 30), ("gone", 30), ("same", 30)]);
    server.crash_and_restart().await;
    let mut agent = server.agent("site", Some("q")).await;
    agent.readings(1, "a", json!([{"metric": "t", "value": 31}])).await;
    let active = |rule: &str| (rule.to_owned(), "active".to_owned(), "t is 31, above 30".into());
    assert_eq!(alerts(&server).await, [active("changed"), active("gone"), active("same")]);

    write_rules(&server, &[("same", 30), ("changed", 40)]);
    server.crash_and_restart().await;
    let ended = |rule: &str, how: &str| {
        (rule.to_owned(), "resolved".to_owned(), format!("Rule {rule} was {how}"))
    };
    let expected = [ended("changed", "changed"), ended("gone", "deleted"), active("same")];
    let deadline = clock::instant() + crate::server::DEADLINE;
    while alerts(&server).await != expected {
        assert!(clock::instant() < deadline, "{:?}", alerts(&server).await);
    }
    let mut client = server.subscriber().await;
    assert_eq!(client.subscribe("alerts").await["seq"], 5);
    server.crash_and_restart().await;
    let mut client = server.subscriber().await;
    assert_eq!(client.subscribe("alerts").await["seq"], 5, "it is told once");
    let mut agent = server.agent("site", Some("q")).await;
    agent.readings(2, "a", json!([{"metric": "t", "value": 41}])).await;
    let alert = client.next_of("alert").await;
    assert_eq!((&alert["seq"], &alert["metadata"]["rule"]), (&json!(6), &json!("changed")));
}
