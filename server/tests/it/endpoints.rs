//! The paths of WebSocket, their query strings, and handshakes that are refused.

use serde_json::{Value as Json, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::server::{Server, drip};

pub(crate) const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
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
async fn the_first_subscribe_takes_the_place_of_what_the_path_subscribed_to() {
    let server = Server::with("[limits]\nsubscriptions = 2").await;
    let mut agent = server.agent("site", None).await;
    let token = server.token("ops", None, None).await;
    let mut clients = Vec::new();
    for (query, wanted) in [("", json!(2)), ("&device_id=1,2", json!([2, 3]))] {
        let mut client = server.connect(&format!("/ws/telemetry?snapshot=false{query}")).await;
        client.authenticate(&token).await;
        assert_eq!(client.next().await["success"], true);
        let subscribe = |devices: Json| {
            json!({"type": "subscribe", "channel": "telemetry", "device_id": devices,
                "snapshot": false})
        };
        // What is refused takes no place.
        let refused = client.ask(subscribe(json!([4, 5, 6]))).await;
        assert_eq!(refused["error"], "subscription_limit");
        clients.push((client, subscribe(wanted)));
    }
    for (seq, device) in (1..).zip(["a", "b", "c"]) {
        agent.readings(seq, device, json!([{"metric": "t", "value": 1}])).await;
    }
    for ((client, request), before) in clients.iter_mut().zip([&[1, 2, 3][..], &[1, 2]]) {
        for device in before {
            assert_eq!(client.next().await["device_id"], *device);
        }
        assert_eq!(client.ask(request.clone()).await["success"], true);
    }
    for (seq, device) in (4..).zip(["a", "b", "c"]) {
        agent.readings(seq, device, json!([{"metric": "t", "value": 2}])).await;
    }
    for ((client, _), after) in clients.iter_mut().zip([&[2][..], &[2, 3]]) {
        for device in after {
            assert_eq!(client.next().await["device_id"], *device);
        }
        client.expect_silence().await;
    }
    // The next one comes beside the first.
    let (client, _) = &mut clients[0];
    let request = json!({"type": "subscribe", "channel": "telemetry", "device_id": 3});
    assert_eq!(client.ask(request).await["success"], true);
    assert_eq!(client.next().await["snapshot"], true);
    agent.readings(7, "b", json!([{"metric": "t", "value": 3}])).await;
    assert_eq!(client.next().await["device_id"], 2);

    let mut client = server.connect("/ws/devices?snapshot=false").await;
    client.authenticate(&token).await;
    assert_eq!(client.next().await["success"], true);
    let request = json!({"type": "subscribe", "channel": "devices", "device_id": 5});
    assert_eq!(client.ask(request).await["success"], true);
    for (seq, device) in (8..).zip(["d", "e"]) {
        agent.readings(seq, device, json!([{"metric": "t", "value": 1}])).await;
    }
    assert_eq!(client.next().await["device_id"], 5, "device 4 has come online, too");
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
        ("/ws/telemetry?device_id=%2B1", UPGRADE, 400),
        ("/ws/telemetry?device_id=1,", UPGRADE, 400),
        ("/ws/alerts?since=%2B1", UPGRADE, 400),
        ("/ws/telemetry?metrics=", UPGRADE, 400),
        ("/ws/telemetry?metrics=a,,b", UPGRADE, 400),
        ("/ws/alerts?alert_type", UPGRADE, 400),
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
        let (head, body) = server.exchange("GET", path, headers, "").await;
        assert!(head.contains(&format!(" {expected} ")), "{path} {headers} {head}");
        assert!(!body.contains("secret"), "{body}");
        if expected != 101 {
            assert!(head.contains("content-type: application/problem+json\r\n"), "{head}");
            let problem: Json = serde_json::from_str(&body).unwrap();
            assert_eq!(problem["status"], expected, "{body}");
        }
        assert_eq!(head.contains("upgrade: websocket"), [101, 426].contains(&expected), "{head}");
    }
}

#[tokio::test]
async fn a_full_server_says_when_to_come_back() {
    let server = Server::with("[limits]\nconnections = 1").await;
    let _inside = server.connect("/ws").await;
    let (status, body) = server.raw("GET", "/ws", UPGRADE, "").await;
    assert_eq!(status, 503, "{body}");
}

#[tokio::test]
async fn a_trusted_proxy_says_who_the_client_is() {
    let limits = "[limits]\nhandshakes_per_minute_per_address = 1\n[http]\ntrusted_proxies = ";
    let mut server = Server::with(&format!("{limits}[\"127.0.0.1\", \"10.0.0.0/8\"]")).await;
    for (heard, expected) in [
        ("198.51.100.1", 101),
        ("198.51.100.1", 429),
        ("198.51.100.2", 101),
        ("6.6.6.6, 198.51.100.2, 10.1.1.1", 429),
        ("2001:db8:0:1::1", 101),
        ("2001:db8:0:1::2", 429),
        ("2001:db8:0:2::1", 101),
    ] {
        let headers = format!("{UPGRADE}X-Forwarded-For: {heard}\r\n");
        let (status, body) = server.raw("GET", "/ws", &headers, "").await;
        assert_eq!(status, expected, "{heard} {body}");
    }
    server.has_said("\"198.51.100.2\"", 1).await;
    let page =
        format!("{UPGRADE}X-Forwarded-For: 198.51.100.9\r\nOrigin: https://dash.example\r\n");
    assert_eq!(server.raw("GET", "/ws", &page, "").await.0, 403);
    let page = format!("{page}X-Forwarded-Host: dash.example\r\n");
    assert_eq!(server.raw("GET", "/ws", &page, "").await.0, 101);

    let server = Server::with(&format!("{limits}[\"10.0.0.0/8\"]")).await;
    let mut headers = format!("{UPGRADE}X-Forwarded-For: 198.51.100.1\r\n");
    assert_eq!(server.raw("GET", "/ws", &headers, "").await.0, 101);
    headers = format!("{UPGRADE}X-Forwarded-For: 198.51.100.2\r\n");
    assert_eq!(server.raw("GET", "/ws", &headers, "").await.0, 429, "anybody can write that");
    assert_eq!(server.raw("GET", "/ws", &page, "").await.0, 403, "and that");
}

#[tokio::test]
async fn pages_of_allowed_origins_may_use_the_api_and_others_may_not() {
    let server = Server::with("[origins]\nallow = [\"https://dash.example\"]").await;
    let token = server.token("ops", None, None).await;
    let good = format!("Authorization: Bearer {token}\r\n");
    let ask = "Access-Control-Request-Method: PUT\r\n";
    for (method, path, origin, headers, expected, allowed) in [
        ("GET", "/api/v1/devices", "https://dash.example", good.as_str(), 200, true),
        ("GET", "/api/v1/devices", "http://localhost:3000", &good, 200, true),
        ("GET", "/api/v1/devices", "https://dash.example", "", 401, true),
        ("GET", "/api/v1/nothing", "https://dash.example", "", 404, true),
        ("OPTIONS", "/api/v1/rules/hot", "https://dash.example", ask, 204, true),
        ("OPTIONS", "/api/v1/rules/hot", "https://dash.example.evil", ask, 403, false),
        ("OPTIONS", "/api/v1/rules/hot", "https://dash.example", "", 405, true),
        ("GET", "/api/v1/devices", "http://dash.example", &good, 403, false),
        ("GET", "/api/v1/devices", "https://dash.example:8443", &good, 403, false),
        ("GET", "/api/v1/devices", "null", &good, 403, false),
        ("GET", "/healthz", "https://dash.example", "", 200, false),
        ("GET", "/healthz", "https://evil.example", "", 200, false),
    ] {
        let headers = format!("Origin: {origin}\r\n{headers}");
        let (head, _) = server.exchange(method, path, &headers, "").await;
        assert!(head.contains(&format!(" {expected} ")), "{method} {path} {origin} {head}");
        let told = head.contains(&format!("access-control-allow-origin: {origin}\r\n"));
        assert_eq!(told, allowed, "{method} {path} {head}");
        assert_eq!(head.contains("access-control-"), allowed, "{method} {path} {head}");
        let preflight = head.contains("access-control-allow-headers: Authorization, Content-Type");
        assert_eq!(preflight, expected == 204, "{head}");
    }
    let (head, _) = server.exchange("GET", "/api/v1/devices", &good, "").await;
    assert!(head.contains(" 200 ") && !head.contains("access-control-"), "no page asks: {head}");
}

#[tokio::test]
async fn a_byte_now_and_then_is_no_handshake() {
    let server = Server::with("[limits]\nhandshake_within = \"1s\"").await;
    let stream = TcpStream::connect(&server.address).await.unwrap();
    drip(stream, b"GET /ws HTTP/1.1\r\nX: y").await;
}

#[tokio::test]
async fn five_hundred_half_open_requests_hold_nobody_up() {
    let server = Server::with("[limits]\nhandshake_within = \"60s\"").await;
    let mut half_open = Vec::new();
    for _ in 0..500 {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(b"GET /ws HTTP/1.1\r\nHost: ").await.unwrap();
        half_open.push(stream);
    }
    let mut client = server.subscriber().await;
    client.expect_silence().await;
    for stream in half_open {
        let read = stream.try_read(&mut [0; 8]);
        assert_eq!(read.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "still half-open");
    }
}
