//! Bad tokens count wherever they are shown, and shut `/ws` alone.

use serde_json::json;

use crate::server::Server;

const FEW: &str = "[limits]\nbad_tokens_per_minute = 3";
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

async fn shakes_hands(server: &Server, path: &str) -> u16 {
    server.raw("GET", path, UPGRADE, "").await.0
}

#[tokio::test]
async fn bad_tokens_over_http_count() {
    let server = Server::with(FEW).await;
    for n in 0..3 {
        assert_eq!(server.http("GET", "/api/v1/devices", &format!("bad{n}"), "").await.0, 401);
        // The same one again changes nothing.
        assert_eq!(server.http("GET", "/api/v1/devices", &format!("bad{n}"), "").await.0, 401);
    }
    assert_eq!(shakes_hands(&server, "/ws").await, 101);
    assert_eq!(server.http("GET", "/metrics", "bad3", "").await.0, 200, "loopback needs no token");
    assert_eq!(server.http("GET", "/api/v1/rules", "bad3", "").await.0, 401);
    assert_eq!(shakes_hands(&server, "/ws").await, 429);
    assert_eq!(shakes_hands(&server, "/ws/alerts").await, 429);
    assert_eq!(shakes_hands(&server, "/uplink").await, 101);
    let token = server.token("ops", Some("admin"), None).await;
    assert_eq!(server.http("GET", "/api/v1/devices", &token, "").await.0, 200);
}

#[tokio::test]
async fn bad_tokens_on_uplink_count() {
    let server = Server::with(FEW).await;
    for n in 0..4 {
        let mut agent = server.connect("/uplink").await;
        agent.send(json!({"type": "auth", "token": format!("bad{n}")})).await;
        assert_eq!(agent.closed().await.0, 4401);
        assert_eq!(shakes_hands(&server, "/ws").await, if n < 3 { 101 } else { 429 });
    }
    // An agent notices nothing of it.
    server.agent("site", None).await;
}

#[tokio::test]
async fn a_token_in_the_query_is_refused_everywhere() {
    let server = Server::start().await;
    for path in ["/ws?token=t", "/ws/alerts?token=t", "/uplink?token=t", "/uplink?x"] {
        assert_eq!(shakes_hands(&server, path).await, 400, "{path}");
    }
    assert_eq!(shakes_hands(&server, "/uplink?").await, 101);
}
