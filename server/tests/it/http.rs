//! Our own API beside the WebSocket.

use serde_json::{Value as Json, json};

use crate::server::{PROGRAM, Server};

#[tokio::test]
async fn readings_come_in_over_http_and_are_durable() {
    let mut server = Server::start().await;
    let uplink = server.token("site", Some("uplink"), None).await;
    let body = r#"[{"device":"a","readings":[{"metric":"t","value":1.0}]},
        {"device":"b","readings":[{"metric":"t","value":2,"unit":"C"}],"historical":true}]"#;
    assert_eq!(server.http("POST", "/api/v1/telemetry", &uplink, body).await.0, 202);
    server.crash_and_restart().await;
    let reader = server.token("ops", None, None).await;
    let (status, body) = server.http("GET", "/api/v1/devices?limit=1", &reader, "").await;
    assert_eq!(status, 200);
    let page: Json = serde_json::from_str(&body).unwrap();
    assert_eq!(page["devices"][0]["key"], "site/a");
    assert_eq!(page["devices"][0]["status"], "online");
    assert_eq!(page["devices"][0]["metrics"]["t"]["value"], json!(1.0));
    let next = format!("/api/v1/devices?cursor={}", page["next"].as_str().unwrap());
    let (_, body) = server.http("GET", &next, &reader, "").await;
    let page: Json = serde_json::from_str(&body).unwrap();
    assert_eq!((&page["devices"][0]["name"], &page["next"]), (&json!("b"), &json!(null)));
}

#[tokio::test]
async fn a_unit_may_be_spelled_in_two_ways_at_once() {
    let server = Server::start().await;
    let uplink = server.token("site", Some("uplink"), None).await;
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    let readings = json!([{"metric": "t", "value": 1, "unit": "C"},
        {"metric": "t", "value": 2, "unit": "°C"}]);
    let body = json!({"device": "a", "readings": readings}).to_string();
    assert_eq!(server.http("POST", "/api/v1/telemetry", &uplink, &body).await.0, 202);
    let mut agent = server.agent("site", Some("q")).await;
    agent.readings(1, "b", readings).await;
    for value in [1, 2, 1, 2] {
        let metric = &client.next().await["telemetry"]["t"];
        assert_eq!((&metric["value"], &metric["unit"]), (&json!(value), &json!("°C")));
    }
}

#[tokio::test]
async fn errors_are_problems_with_the_status_that_fits() {
    let server = Server::start().await;
    let (uplink, reader) =
        (server.token("site", Some("uplink"), None).await, server.token("ops", None, None).await);
    let bad =
        r#"[{"device":"a","readings":[{"metric":"t","value":1}]},{"device":"b","readings":[{}]}]"#;
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(1024 * 1024));
    for (method, path, token, body, expected) in [
        ("GET", "/api/v1/devices", "", "", 401),
        ("GET", "/api/v1/devices", "nonsense", "", 401),
        ("GET", "/api/v1/devices", uplink.as_str(), "", 403),
        ("GET", "/api/v1/devices/1", reader.as_str(), "", 404),
        ("GET", "/api/v1/devices/x", reader.as_str(), "", 404),
        ("GET", "/api/v1/devices?limit=0", reader.as_str(), "", 400),
        ("GET", "/api/v1/nothing", reader.as_str(), "", 404),
        ("DELETE", "/api/v1/devices", reader.as_str(), "", 405),
        ("POST", "/api/v1/telemetry", reader.as_str(), "{}", 403),
        ("POST", "/api/v1/telemetry", uplink.as_str(), "nonsense", 400),
        ("POST", "/api/v1/telemetry", uplink.as_str(), bad, 422),
        ("POST", "/api/v1/telemetry", uplink.as_str(), &large, 413),
        ("PUT", "/api/v1/rules/x", reader.as_str(), "{}", 403),
    ] {
        let (status, answer) = server.http(method, path, token, body).await;
        assert_eq!(status, expected, "{method} {path} {answer}");
        let problem: Json = serde_json::from_str(&answer).unwrap();
        assert_eq!(problem["status"], expected, "{answer}");
    }
    let (_, devices) = server.http("GET", "/api/v1/devices", &reader, "").await;
    assert_eq!(devices, r#"{"devices":[],"next":null}"#, "nothing of a bad body is stored");
}

#[tokio::test]
async fn what_cannot_even_be_read_is_a_problem_too() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    let large = "y".repeat(1024 * 1024 + 1).into_bytes();
    for (method, path, body, expected) in [
        ("PUT", "/api/v1/rules/x", &b"\xff"[..], 400),
        ("PUT", "/api/v1/rules/x", &large, 413),
        ("GET", "/api/v1/rules/%ff", b"", 400),
        ("PUT", "/api/v1/rules/%ff", b"{}", 400),
        ("DELETE", "/api/v1/rules/%ff", b"", 400),
        ("PUT", "/api/v1/connections/1/log", b"\xff", 400),
        ("PUT", "/api/v1/connections/1/log", &large, 413),
        ("PUT", "/api/v1/connections/%ff/log", b"{}", 400),
        ("POST", "/api/v1/telemetry", b"\xff", 400),
        ("GET", "/api/v1/devices/%ff", b"", 400),
        ("GET", "/api/v1/devices?limit=x", b"", 400),
        ("GET", "/api/v1/alerts?limit=1001", b"", 400),
        ("GET", "/api/v1/connections?limit=0", b"", 400),
        ("GET", "/api/v1/connections?cursor=x", b"", 400),
        ("GET", "/api/v1/devices?page=2", b"", 400),
        ("GET", "/ws/%ff", b"", 400),
    ] {
        let headers = format!("Authorization: Bearer {admin}\r\n");
        let (head, answer) = server.exchange(method, path, &headers, body).await;
        assert!(head.starts_with(&format!("HTTP/1.1 {expected} ")), "{method} {path} {head}");
        let head = head.to_ascii_lowercase();
        assert!(head.contains("content-type: application/problem+json"), "{method} {path} {head}");
        let problem: Json = serde_json::from_str(&answer).unwrap();
        assert_eq!(problem["status"], expected, "{answer}");
    }
}

#[tokio::test]
async fn rules_are_written_read_and_deleted() {
    let server = Server::start().await;
    let admin = server.token("ops", Some("admin"), None).await;
    let rule = r#"{"metric":"t","kind":"threshold","above":30.0}"#;
    let (status, stored) = server.http("PUT", "/api/v1/rules/hot", &admin, rule).await;
    assert_eq!(status, 200);
    let stored: Json = serde_json::from_str(&stored).unwrap();
    assert_eq!((&stored["name"], &stored["device"]), (&json!("hot"), &json!("*")));
    assert_eq!((&stored["severity"], &stored["above"]), (&json!("warning"), &json!(30.0)));
    let (status, answer) = server
        .http("PUT", "/api/v1/rules/hot", &admin, r#"{"metric":"t","kind":"threshold"}"#)
        .await;
    assert_eq!(status, 422, "{answer}");
    assert_eq!(server.http("GET", "/api/v1/rules/hot", &admin, "").await.0, 200);
    assert_eq!(server.http("DELETE", "/api/v1/rules/hot", &admin, "").await.0, 204);
    assert_eq!(server.http("DELETE", "/api/v1/rules/hot", &admin, "").await.0, 404);
    assert_eq!(server.http("GET", "/api/v1/rules/hot", &admin, "").await.0, 404);
}

#[tokio::test]
async fn health_needs_no_token() {
    let server = Server::start().await;
    assert_eq!(server.raw("GET", "/healthz", "", "").await.0, 200);
    assert_eq!(server.raw("GET", "/readyz", "", "").await.0, 200);
}

#[test]
fn a_mistake_in_the_configuration_names_file_line_and_key() {
    let dir = tempfile::tempdir().unwrap();
    for (text, expected) in [
        ("listen = \"nowhere\"", ":1: "),
        ("\n[limits]\nconections = 1", ":3: unknown field `conections`"),
        ("[history]\nkeep = \"soon\"", ":2: "),
        ("[websocket]\ncoalesce = \"5s\"", ":2: coalesce: is at most 1s"),
        ("[origins]\nallow = [\"example.com\"]", ":2: allow: "),
        ("[http]\ntrusted_proxies = [\"10.0.0.0/33\"]", ":2: \"10.0.0.0/33\" is no range"),
        ("[tls]\ncert = \"server.crt\"", ":1: missing field `key`"),
        ("[tls]\nkey = \"none\"\ncert = \"none\"", ":3: cert: "),
    ] {
        let path = dir.path().join("server.toml");
        std::fs::write(&path, text).unwrap();
        let output = std::process::Command::new(PROGRAM)
            .args(["check", "--config"])
            .arg(&path)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(expected) && said.contains("server.toml"), "{text}: {said}");
    }
    let output = std::process::Command::new(PROGRAM)
        .args(["token", "--sub", "x", "--data"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2), "there is no secret to sign with");
}

#[test]
fn a_configuration_may_be_named_from_its_own_folder() {
    let dir = tempfile::tempdir().unwrap();
    let rule = "[[rule]]\nname = \"hot\"\nmetric = \"t\"\nkind = \"threshold\"\nabove = 1\n";
    std::fs::write(dir.path().join("one.rules.toml"), rule).unwrap();
    std::fs::write(dir.path().join("server.toml"), "[rules]\nfiles = [\"*.rules.toml\"]").unwrap();
    let mut check = std::process::Command::new(PROGRAM);
    check.current_dir(dir.path()).args(["check", "--config", "server.toml"]);
    let output = check.output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}
