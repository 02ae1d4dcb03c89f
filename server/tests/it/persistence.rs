//! What a restart does not change.

use serde_json::json;

use crate::server::Server;

#[tokio::test]
async fn ids_positions_and_values_survive_a_crash() {
    let mut server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    let rule = r#"{"metric":"t","kind":"threshold","above":30}"#;
    server.http("PUT", "/api/v1/rules/hot", &admin, rule).await;
    let mut agent = server.agent("site", Some("q")).await;
    agent.readings(1, "a", json!([{"metric": "t", "value": 1}])).await;
    agent.readings(2, "b", json!([{"metric": "t", "value": 31.5, "unit": "C"}])).await;
    let mut client = server.subscriber().await;
    let before = client.subscribe("devices").await;
    server.crash_and_restart().await;

    let mut client = server.subscriber().await;
    let after = client.subscribe("devices").await;
    assert_eq!((&after["seq"], &after["log"]), (&before["seq"], &before["log"]));
    assert_eq!(after["seq"], 2);
    client.send(json!({"type": "subscribe", "channel": "telemetry", "device_id": 2})).await;
    assert_eq!(client.next().await["success"], true);
    let values = client.next().await;
    assert_eq!(values["telemetry"]["t"]["value"], 31.5);
    assert_eq!(values["telemetry"]["t"]["unit"], "°C");
    client.send(json!({"type": "subscribe", "channel": "alerts"})).await;
    assert_eq!(client.next().await["seq"], 1);
    let open = client.next().await;
    assert_eq!(
        (&open["alert_id"], &open["device_id"], &open["snapshot"]),
        (&json!(1), &json!(2), &json!(true))
    );

    let mut agent = server.agent("site", Some("q")).await;
    agent.readings(3, "c", json!([{"metric": "t", "value": 1}])).await;
    let status = client.next_of("device_status_update").await;
    assert_eq!((&status["device_id"], &status["seq"]), (&json!(3), &json!(3)));
    agent.readings(4, "b", json!([{"metric": "t", "value": 20}])).await;
    let end = client.next_of("alert_update").await;
    assert_eq!((&end["alert_id"], &end["seq"]), (&json!(1), &json!(2)));
}

#[tokio::test]
async fn a_stop_tells_subscribers_and_keeps_everything() {
    let mut server = Server::start().await;
    let mut agent = server.agent("site", Some("q")).await;
    agent.readings(1, "a", json!([{"metric": "t", "value": 7}])).await;
    let mut client = server.subscriber().await;
    let stopping = server.stop();
    let (code, (close, _)) = tokio::join!(stopping, client.closed());
    assert_eq!((code, close), (Some(0), 1001));
    assert_eq!(agent.closed().await.0, 1001);
}

#[tokio::test]
async fn a_second_server_on_the_same_data_does_not_start() {
    let server = Server::start().await;
    let output = tokio::process::Command::new(crate::server::PROGRAM)
        .args(["--listen", "127.0.0.1:0", "--data"])
        .arg(server.folder().join("data"))
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("another server uses this data directory"), "{said}");
}

#[tokio::test]
async fn rules_of_files_are_read_again_on_a_signal() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    let rule = "[[rule]]\nname = \"cold\"\nmetric = \"t\"\nkind = \"threshold\"\nbelow = 5\n";
    std::fs::write(server.folder().join("rules.toml"), rule).unwrap();
    server.reload("[rules]\nfiles = [\"rules.toml\"]").await;
    let listed = async || server.http("GET", "/api/v1/rules", &admin, "").await.1;
    let taken_over = async {
        while !listed().await.contains("cold") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::server::DEADLINE, taken_over)
        .await
        .expect("the rule is taken over");
    let (status, _) = server.http("DELETE", "/api/v1/rules/cold", &admin, "").await;
    assert_eq!(status, 409, "a rule of a file is read-only");
    server.reload("nonsense = 1").await;
    assert!(listed().await.contains("cold"), "a bad file changes nothing");
}
