//! `/uplink` for agents that others write: numbers, acknowledgements, refusals.

use std::time::Duration;

use serde_json::json;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};
use valtronics_protocol::uplink::SUBPROTOCOL_AGENT;
use valtronics_server::clock;

use crate::server::{DEADLINE, Server};

#[tokio::test]
async fn a_numbering_goes_on_where_it_was() {
    let mut server = Server::start().await;
    let token = server.token("site", Some("uplink"), None).await;
    let auth = json!({"type": "auth", "token": token, "queue": "q1"});
    let mut agent = server.connect("/uplink").await;
    let answer = agent.ask(auth.clone()).await;
    assert_eq!((&answer["success"], &answer["last_seq"]), (&json!(true), &json!(null)));
    assert!(answer.as_object().unwrap().contains_key("last_seq"));
    agent.readings(17, "boiler", json!([{"metric": "t", "value": 1}])).await;
    server.crash_and_restart().await;
    let mut agent = server.connect("/uplink").await;
    assert_eq!(agent.ask(auth.clone()).await["last_seq"], 17);
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    agent.readings(17, "boiler", json!([{"metric": "t", "value": 2}])).await;
    agent.readings(18, "boiler", json!([{"metric": "t", "value": 3}])).await;
    let update = client.next().await;
    assert_eq!(update["telemetry"]["t"]["value"], 3, "17 was known");

    let mut newer = server.connect("/uplink").await;
    assert_eq!(newer.ask(auth).await["last_seq"], 18);
    assert_eq!(agent.closed().await.0, 4403);
    let fresh = json!({"type": "auth", "token": token, "queue": "q2"});
    assert_eq!(server.connect("/uplink").await.ask(fresh).await["last_seq"], json!(null));
}

#[tokio::test]
async fn without_a_queue_every_number_comes_back() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    let mut agent = server.agent("site", None).await;
    for (value, seq) in (1..).zip([5, 5, 3, 0, 0, 7]) {
        agent.readings(seq, "boiler", json!([{"metric": "t", "value": value}])).await;
        assert_eq!(client.next().await["telemetry"]["t"]["value"], value, "it is taken, too");
    }
}

#[tokio::test]
async fn a_bad_message_is_refused_alone() {
    let server = Server::start().await;
    let mut agent = server.agent("site", Some("q")).await;
    let good = |seq: u64| {
        json!({"type": "readings", "seq": seq, "device": "d",
        "readings": [{"metric": "t", "value": seq}]})
    };
    let bad = json!({"type": "readings", "seq": 2, "device": "d", "readings": [{"metric": "t", "value": null}]});
    agent.send(json!([good(1), bad, good(3)])).await;
    let refusal = agent.next().await;
    assert_eq!((&refusal["type"], &refusal["seq"]), (&json!("error"), &json!(2)));
    assert_eq!(refusal["error"], "invalid_message");
    assert_eq!(agent.next().await, json!({"type": "ack", "seq": 3}));
    for frame in ["nonsense", "[1]", "{}", r#"{"type":"shout","seq":4}"#] {
        agent.send_frame(Message::text(frame)).await;
        assert_eq!(agent.next().await["type"], "error", "{frame}");
    }
    agent.send_frame(Message::binary(vec![1])).await;
    assert_eq!(agent.next().await["error"], "invalid_json");
    agent.readings(5, "d", json!([{"metric": "t", "value": 5}])).await;
}

#[tokio::test]
async fn a_token_without_the_scope_may_not_send() {
    let server = Server::start().await;
    let mut agent = server.connect("/uplink").await;
    let token = server.token("ops", Some("admin"), None).await;
    let answer = agent.ask(json!({"type": "auth", "token": token})).await;
    assert_eq!((&answer["success"], &answer["error"]), (&json!(false), &json!("forbidden")));
    assert_eq!(agent.closed().await.0, 4403);
    let mut agent = server.connect("/uplink").await;
    let answer = agent.ask(json!({"type": "auth", "token": "x"})).await;
    assert_eq!(
        (&answer["error"], &answer["reason"]),
        (&json!("invalid_token"), &json!("malformed"))
    );
    assert_eq!(agent.closed().await.0, 4401);
}

#[tokio::test]
async fn a_new_token_without_the_scope_is_refused_and_the_old_one_counts_on() {
    let server = Server::start().await;
    let mut agent = server.agent("site", None).await;
    let token = server.token("site", Some("admin"), None).await;
    let answer = agent.ask(json!({"type": "auth", "token": token})).await;
    assert_eq!((&answer["type"], &answer["error"]), (&json!("error"), &json!("forbidden")));
    assert!(answer["message"].as_str().unwrap().contains("uplink"), "{answer}");
    agent.readings(1, "d", json!([{"metric": "t", "value": 1}])).await;
}

#[tokio::test]
async fn equal_names_under_two_subjects_are_two_devices() {
    let server = Server::start().await;
    let (mut one, mut other) = (server.agent("one", None).await, server.agent("other", None).await);
    one.readings(1, "boiler", json!([{"metric": "t", "value": 1}])).await;
    other.readings(1, "boiler", json!([{"metric": "t", "value": 2}])).await;
    let token = server.token("ops", None, None).await;
    let (_, body) = server.http("GET", "/api/v1/devices", &token, "").await;
    assert!(
        body.contains(r#""key":"one/boiler""#) && body.contains(r#""key":"other/boiler""#),
        "{body}"
    );
}

#[tokio::test]
async fn a_subject_has_so_many_devices() {
    let server = Server::with("[limits]\ndevices_per_sub = 2\nmetrics_per_device = 2").await;
    let mut agent = server.agent("site", Some("q")).await;
    let of = |seq: u64, device: &str, metric: &str| {
        json!({"type": "readings", "seq": seq,
        "device": device, "readings": [{"metric": metric, "value": 1}]})
    };
    agent.send(json!([of(1, "a", "t"), of(2, "b", "t"), of(3, "c", "t"), of(4, "a", "h")])).await;
    let refusal = agent.next().await;
    assert_eq!((&refusal["seq"], &refusal["error"]), (&json!(3), &json!("invalid_message")));
    assert!(refusal["message"].as_str().unwrap().contains("\"c\""), "{refusal}");
    assert_eq!(agent.next().await, json!({"type": "ack", "seq": 4}));
    assert_eq!(agent.ask(of(5, "a", "x")).await["seq"], 5);
    agent.readings(6, "b", json!([{"metric": "t", "value": 1}])).await;
}

#[tokio::test]
async fn a_subject_has_so_many_queues_however_often_the_server_starts() {
    let mut server = Server::with("[limits]\nqueues_per_sub = 2").await;
    let token = server.token("site", Some("uplink"), None).await;
    let auth = |queue: &str| json!({"type": "auth", "token": token, "queue": queue});
    let value = json!([{"metric": "t", "value": 1}]);
    for queue in ["one", "two"] {
        server.agent("site", Some(queue)).await.readings(1, "a", value.clone()).await;
    }
    for _ in 0..2 {
        let mut third = server.connect("/uplink").await;
        let answer = third.ask(auth("three")).await;
        assert_eq!(
            (&answer["success"], &answer["error"]),
            (&json!(false), &json!("connection_limit"))
        );
        assert!(answer["message"].as_str().unwrap().contains("this queue is new"), "{answer}");
        assert_eq!(answer["retry_after"], 600);
        let (code, reason) = third.closed().await;
        assert!(code == 4429 && reason.ends_with("retry_after=600"), "{code} {reason}");
        assert_eq!(server.connect("/uplink").await.ask(auth("two")).await["last_seq"], 1);
        server.agent("other", Some("three")).await;
        server.crash_and_restart().await;
    }
}

#[tokio::test]
async fn a_queue_in_which_nothing_was_numbered_makes_room() {
    let server = Server::with("[limits]\nqueues_per_sub = 1").await;
    let token = server.token("site", Some("uplink"), None).await;
    let mut agent = server.agent("site", Some("held")).await;
    let auth = json!({"type": "auth", "token": token, "queue": "other"});
    assert_eq!(server.connect("/uplink").await.ask(auth.clone()).await["success"], false);
    agent.stream().close(None).await.unwrap();
    let begun = clock::instant();
    while server.connect("/uplink").await.ask(auth.clone()).await["success"] == false {
        assert!(begun.elapsed() < DEADLINE, "the queue makes room");
    }
}

#[tokio::test]
async fn a_subject_has_so_many_gateways() {
    let server = Server::with("[limits]\ngateways_per_sub = 1").await;
    let token = server.token("site", Some("uplink"), None).await;
    let other = server.token("other", Some("uplink"), None).await;
    let connect = async |token: &str, name: &str| {
        let mut request = format!("ws://{}/uplink", server.address).into_client_request().unwrap();
        let protocol = SUBPROTOCOL_AGENT.parse().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        let mut agent = server.connect_with(request).await;
        let gateway = json!({"name": name, "version": "1", "boot_id": "", "machine_id": "", "time": clock::now()});
        let auth = json!({"type": "auth", "token": token, "gateway": gateway});
        (agent.ask(auth).await, agent)
    };
    let (first, _first) = connect(&token, "one").await;
    let (again, _again) = connect(&token, "one").await;
    let (others, _others) = connect(&other, "two").await;
    assert!([first, again, others].iter().all(|answer| answer["success"] == true));
    let (refused, mut agent) = connect(&token, "two").await;
    assert_eq!(
        (&refused["success"], &refused["error"]),
        (&json!(false), &json!("connection_limit"))
    );
    assert!(refused["message"].as_str().unwrap().contains("this gateway is new"), "{refused}");
    assert_eq!(agent.closed().await.0, 4429);
}

#[tokio::test]
async fn a_takeover_is_noticed_while_the_store_cannot_commit() {
    let server = Server::start().await;
    let mut agent = server.agent("site", Some("q")).await;
    agent.readings(1, "d", json!([{"metric": "t", "value": "known"}])).await;
    let store =
        rusqlite::Connection::open(server.folder().join("data").join("valtronics.db")).unwrap();
    store.execute_batch("BEGIN IMMEDIATE").unwrap();
    // Two of these are more than may be under way.
    let readings = vec![json!({"metric": "t", "value": "x".repeat(1000)}); 700];
    for seq in 2..4 {
        agent
            .send(json!({"type": "readings", "seq": seq, "device": "d", "readings": readings}))
            .await;
    }
    let begun = clock::instant();
    let has_both = r#"messages_received_total{endpoint="uplink"} 4"#;
    while !server.raw("GET", "/metrics", "", "").await.1.contains(has_both) {
        assert!(begun.elapsed() < DEADLINE, "both frames come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut newer = server.agent("site", Some("q")).await;
    assert_eq!(agent.closed().await.0, 4403);
    store.execute_batch("ROLLBACK").unwrap();
    let later = json!([{"metric": "t", "value": "later"}]);
    newer.send(json!({"type": "readings", "seq": 4, "device": "d", "readings": later})).await;
    while newer.next_of("ack").await["seq"] != 4 {}
}

#[tokio::test]
async fn a_clock_far_ahead_freezes_nothing() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    let mut agent = server.agent("site", None).await;
    let far = json!([{"metric": "t", "value": 1, "timestamp": "2124-01-01T00:00:00Z"}]);
    agent.readings(1, "d", far).await;
    let update = client.next().await;
    let at = update["telemetry"]["t"]["timestamp"].as_str().unwrap();
    assert!(at < "2124", "the receipt replaces it: {at}");
    agent.readings(2, "d", json!([{"metric": "t", "value": 2}])).await;
    assert_eq!(client.next().await["telemetry"]["t"]["value"], 2);
}

#[tokio::test]
async fn a_frame_too_big_ends_the_connection() {
    let server = Server::start().await;
    let mut agent = server.agent("site", None).await;
    let text = format!("\"{}\"", "x".repeat(1024 * 1024));
    agent.send_frame(Message::text(text)).await;
    assert_eq!(agent.closed().await.0, 1009);
}

#[tokio::test]
async fn who_has_little_time_left_is_told_at_once_until_when() {
    let server = Server::start().await;
    let arguments = ["--scope", "admin uplink", "--ttl", "20s"];
    let token = server.token_with("site", arguments).await;
    for path in ["/uplink", "/ws"] {
        let mut client = server.connect(path).await;
        let answer = client.authenticate(&token).await;
        let warning = client.next().await;
        assert_eq!(warning["type"], "auth_expiring", "{path}");
        assert_eq!(warning["expires_at"], answer["expires_at"], "{path}");
    }
}
