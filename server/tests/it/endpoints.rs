//! The paths of WebSocket, their query strings, and handshakes that are refused.

use serde_json::json;

use crate::server::Server;

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn a_channel_of_its_own_subscribes_by_itself() {
    let server = Server::start().await;
    let mut agent = server.agent("site", None).await;
    agent.readings(1, "a", json!([{"metric": "t", "value": 1}])).await;
    let mut client = server.connect("/ws/telemetry?device_id=1,2&metrics=t&snapshot=false").await;
    client.authenticate(&server.token("ops", None, None).await).await;
    let answer = client.next().await;
    assert_eq!((&answer["type"], &answer["success"]), (&json!("subscribe_response"), &json!(true)));
    assert_eq!(answer["filters"], json!({"device_id": [1, 2], "metrics": ["t"]}));
    agent.readings(2, "a", json!([{"metric": "t", "value": 2}])).await;
    assert_eq!(client.next().await["telemetry"]["t"]["value"], 2);
    let other = client.ask(json!({"type": "subscribe", "channel": "alerts"})).await;
    assert_eq!(other["error"], "channel_not_available");

    let mut blind = server.connect("/ws/alerts").await;
    blind.authenticate(&server.token("ops", Some("telemetry:read"), None).await).await;
    let answer = blind.next().await;
    assert_eq!((&answer["success"], &answer["error"]), (&json!(false), &json!("forbidden")));
    blind.expect_silence().await;
}

#[tokio::test]
async fn a_token_may_come_with_the_handshake() {
    let server = Server::start().await;
    let token = server.token("ops", None, None).await;
    for (token, success) in [(token.as_str(), true), ("x", false)] {
        let mut request =
            tokio_tungstenite::tungstenite::client::IntoClientRequest::into_client_request(
                format!("ws://{}/ws/devices", server.address),
            )
            .unwrap();
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
        let mut client = server.connect_with(request).await;
        let answer = client.next().await;
        assert_eq!(
            (&answer["type"], &answer["success"]),
            (&json!("auth_response"), &json!(success))
        );
        if success {
            assert_eq!(client.next().await["type"], "subscribe_response");
        } else {
            assert_eq!(client.closed().await.0, 4401);
        }
    }
}

#[tokio::test]
async fn a_bad_handshake_gets_an_answer_of_http() {
    let server = Server::start().await;
    for (path, headers, expected) in [
        ("/ws", "", 426),
        ("/uplink", "", 426),
        ("/ws", UPGRADE, 101),
        ("/ws?token=secret", UPGRADE, 400),
        ("/ws/telemetry?token=secret", UPGRADE, 400),
        ("/ws/telemetry?device_id=x", UPGRADE, 400),
        ("/ws/telemetry?frequency=1ms", UPGRADE, 400),
        ("/ws/telemetry?metrics=a%2Cb,c", UPGRADE, 101),
        ("/ws/news", UPGRADE, 404),
        ("/ws", &UPGRADE.replace("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400),
        ("/ws", &UPGRADE.replace(": 13", ": 8"), 426),
        ("/ws", &format!("{UPGRADE}Sec-WebSocket-Protocol: soap\r\n"), 400),
        ("/ws", &format!("{UPGRADE}Sec-WebSocket-Protocol: soap, valtronics.v1.json\r\n"), 101),
        ("/ws", &format!("{UPGRADE}Origin: http://evil.example\r\n"), 403),
        ("/ws", &format!("{UPGRADE}Origin: null\r\n"), 403),
        ("/ws", &format!("{UPGRADE}Origin: http://localhost:3000\r\n"), 101),
        ("/ws", &format!("{UPGRADE}Origin: http://{}\r\n", server.address), 101),
    ] {
        let (status, body) = server.raw("GET", path, headers, "").await;
        assert_eq!(status, expected, "{path} {headers} {body}");
        assert!(!body.contains("secret"), "{body}");
    }
}

#[tokio::test]
async fn a_full_server_says_when_to_come_back() {
    let server = Server::with("[limits]\nconnections = 1").await;
    let _inside = server.connect("/ws").await;
    let (status, body) = server.raw("GET", "/ws", UPGRADE, "").await;
    assert_eq!(status, 503, "{body}");
}
