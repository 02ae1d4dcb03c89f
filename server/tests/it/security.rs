//! The security checklist: what no other file of these tests shows of it, and where the rest stands.
//!
//! | what | tests, by file |
//! | --- | --- |
//! | origins | `security::pages_of_other_origins_…`, `endpoints::a_bad_handshake_…`, `endpoints::pages_of_allowed_…` |
//! | time of a handshake | `security::the_times_of_…` (5 s), `endpoints::a_byte_now_and_then_…`, `endpoints::five_hundred_half_open_…`, `tls::a_handshake_that_never_ends_…` |
//! | time without `auth` | `security::the_times_of_…` (10 s, 4408), `security::signs_of_life_…`, `limits::handshakes_that_come_to_nothing_…` |
//! | no token in a URL | `endpoints::a_bad_handshake_…`, `logs::no_token_is_ever_logged_…` |
//! | sizes and fragments | `bounds::a_message_has_1024_…`, `bounds::fragments_without_end_…`, `bad_input::what_is_declared_…`, `bad_input::fragments_without_end_…`, `bad_input::empty_fragments_…` |
//! | control frames | `frames::who_pings_and_never_reads_…`, `frames::control_frames_count_…` |
//! | decompression | does not apply to subscribers, nothing is agreed on: `frames::compression_is_not_…`; agents: `bad_input::a_damaged_batch_…` |
//! | message rate | `requests::a_flood_…`, `bounds::items_of_a_batch_…` |
//! | connections | `limits::*`, `bounds::two_thousand_who_vanish_…` (as a process that is killed, or a machine that resets; ten thousand take too long here) |
//! | subscriptions | `bounds::subscriptions_that_come_and_go_…`, `bounds::huge_filters_…`, `keys::a_connection_holds_…` |
//! | algorithms, headers of tokens | `tokens::the_configuration_says_…`, `tokens::a_header_points_nowhere`, `jwks::*` |
//! | claims | `tokens::a_refusal_says_…` |
//! | expiry | `security::a_connection_ends_with_its_token_…`, `uplink::who_has_little_time_…` |
//! | revocation | does not apply: single tokens are not revoked in this version |
//! | rights by message | `security::a_token_of_one_device_…`, `auth::a_token_of_some_devices_…`, `auth::a_new_token_keeps_…`, `keys::a_new_token_narrows_…` |
//! | close codes | 1000 `security::who_leaves_politely_…`; 1001 `security::a_stop_…`; 1002, 1007, 1009 `bad_input::who_breaks_…`; 1011 `security::a_store_…`; 4401 `auth::a_bad_token_…`; 4403 `uplink::a_token_without_…`; 4408 `auth::who_says_nothing_…`; 4413 `security::who_does_not_read_…` (takes a minute: `--ignored`) and unit tests of `hub`; 4429 `requests::a_flood_…` |
//! | slow readers | `subscriptions::who_does_not_read_…`, `slow::*` |
//! | secrets | `security::no_answer_repeats_a_token`, `logs::no_token_is_ever_logged_…`, `connections::a_raised_level_…` |
//! | certificates | `tls::a_new_certificate_…`, `tls::a_changed_file_…` |
//! | guessing tokens | `limits::who_tries_tokens_…`, `limits::a_bad_token_that_comes_again_…` |
//! | stopping | `security::a_stop_…`, `persistence::a_stop_tells_…` |

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use ring::hmac;
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};
use valtronics_server::clock;

use crate::{
    bad_input::{OPEN_DOOR, frame},
    bounds::ends_although_it_sends,
    endpoints::UPGRADE,
    server::{DEADLINE, Server},
};

/// Signs a token of a user, good until so many seconds from now.
fn sign(server: &Server, sub: &str, expires_in: i64) -> String {
    let secret = std::fs::read_to_string(server.folder().join("data/secret")).unwrap();
    let claims = json!({"sub": sub, "exp": clock::now().0 / 1000 + expires_in,
        "scope": "admin uplink"});
    let part = |part: Json| URL_SAFE_NO_PAD.encode(part.to_string());
    let message = format!("{}.{}", part(json!({"alg": "HS256"})), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.trim().as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, message.as_bytes())))
}

#[tokio::test]
async fn pages_of_other_origins_do_not_connect() {
    let config = format!("{OPEN_DOOR}\n[origins]\nallow = [\"https://good.example\"]");
    let server = Server::with(&config).await;
    for (origin, expected) in [
        (None, 101),
        (Some("https://good.example"), 101),
        (Some("http://good.example"), 403),
        (Some("https://good.example:8443"), 403),
        (Some("https://good.example.evil"), 403),
        (Some("https://good.evil"), 403),
        (Some("https://evil.example"), 403),
        (Some("https://evil@good.example"), 403),
        (Some("https://good.example https://evil.example"), 403),
        (Some("null"), 403),
        (Some(""), 403),
    ] {
        let origin = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
        for path in ["/ws", "/ws/alerts", "/uplink"] {
            let headers = format!("{UPGRADE}{origin}");
            let (status, body) = server.raw("GET", path, &headers, "").await;
            assert_eq!(status, expected, "{path} {origin} {body}");
        }
    }
}

#[tokio::test]
async fn the_times_of_the_contract_are_the_defaults() {
    let server = Server::start().await;
    let begun = clock::instant();
    let half = async {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(b"GET /ws HTTP/1.1\r\nHost: ").await.unwrap();
        let ended = timeout(DEADLINE, stream.read_to_end(&mut Vec::new())).await;
        ended.expect("half a handshake ends").unwrap();
        begun.elapsed()
    };
    let silent = async {
        let mut client = server.connect("/ws").await;
        assert_eq!(client.closed().await.0, 4408);
        begun.elapsed()
    };
    let (half, silent) = tokio::join!(half, silent);
    assert!(half >= Duration::from_secs(5) && silent >= Duration::from_secs(10));
    assert!(half < silent, "{half:?} {silent:?}");
}

#[tokio::test]
async fn signs_of_life_are_no_auth() {
    let server = Server::with("[limits]\nauth_within = \"1s\"").await;
    let (ping, pong) = (frame(0x89, b""), frame(0x8a, b""));
    let asked = frame(0x81, br#"{"type":"ping"}"#);
    let mut all = Vec::new();
    for (path, bytes) in
        [("/ws", &ping), ("/ws", &pong), ("/ws", &asked), ("/uplink", &ping), ("/uplink", &pong)]
    {
        all.push(ends_although_it_sends(server.connect(path).await, bytes));
    }
    assert_eq!(join_all(all).await, [4408; 5]);
}

#[tokio::test]
async fn a_connection_ends_with_its_token_unless_it_gets_a_new_one() {
    let server = Server::start().await;
    // Good for the rest of the leeway of 30 s.
    let begun = clock::now();
    let short = sign(&server, "ops", -22);
    let mut clients = Vec::new();
    for path in ["/ws", "/ws/alerts", "/uplink", "/ws", "/uplink"] {
        let mut client = server.connect(path).await;
        client.authenticate(&short).await;
        clients.push(client);
    }
    for client in &mut clients[3..] {
        assert_eq!(client.next().await["type"], "auth_expiring");
        // A bad one changes nothing, neither for the worse nor for the better.
        let answer = client.ask(json!({"type": "auth", "token": "stale"})).await;
        assert_eq!(answer["error"], "invalid_token");
        let answer = client.ask(json!({"type": "auth", "token": sign(&server, "eve", 600)})).await;
        assert_eq!(answer["error"], "forbidden");
    }
    let new = json!({"type": "auth", "token": sign(&server, "ops", 600)});
    assert_eq!(clients[3].ask(new.clone()).await["success"], true);
    // The uplink says nothing when all is well.
    clients[4].send(new).await;
    for client in &mut clients[..3] {
        assert_eq!(client.closed().await.0, 4401);
        let lived = clock::now().since(begun);
        assert!(lived > Duration::from_secs(7), "{lived:?}");
    }
    let mut late = server.connect("/ws").await;
    let answer = late.ask(json!({"type": "auth", "token": short})).await;
    assert_eq!(answer["reason"], "expired");
    clients[3].expect_silence().await;
    clients[4].readings(1, "d", json!([{"metric": "t", "value": 1}])).await;
}

#[tokio::test]
async fn a_token_of_one_device_opens_no_other_by_any_name() {
    let server = Server::with("[limits]\nmessages_per_second = 1000").await;
    let mut agent = server.agent("site", None).await;
    for (seq, device) in (1..).zip(["boiler", "roof"]) {
        agent.readings(seq, device, json!([{"metric": "t", "value": seq}])).await;
    }
    let token = server.token("ops", None, Some("1")).await;
    let mut client = server.connect("/ws").await;
    client.authenticate(&token).await;
    for channel in ["telemetry", "alerts", "devices"] {
        for (devices, error) in [
            (json!(2), "forbidden"),
            (json!([2]), "forbidden"),
            (json!([1, 2]), "forbidden"),
            (json!(99), "forbidden"),
            (json!(0), "forbidden"),
            (json!(u64::MAX), "forbidden"),
            (json!(-1), "invalid_filter"),
            (json!(1.0), "invalid_filter"),
            (json!("1"), "invalid_filter"),
            (json!("*"), "invalid_filter"),
            (json!("boiler"), "invalid_filter"),
            (json!([1, "*"]), "invalid_filter"),
            (json!([[2]]), "invalid_filter"),
            (json!({"id": 2}), "invalid_filter"),
            (json!(true), "invalid_filter"),
            (json!(null), "invalid_filter"),
            (json!([]), "invalid_filter"),
        ] {
            for request in [
                json!({"type": "subscribe", "channel": channel, "device_id": devices}),
                json!({"type": "subscribe", "channel": channel, "filters": {"device_id": devices}}),
            ] {
                let answer = client.ask(request).await;
                let refused = (&answer["success"], &answer["error"]);
                assert_eq!(refused, (&json!(false), &json!(error)), "{channel} {devices}");
            }
        }
    }
    // All devices are all that the token may see, on every way.
    client.send(json!({"type": "subscribe", "channel": "telemetry"})).await;
    assert_eq!(client.next().await["success"], true);
    assert_eq!(client.next().await["device_id"], 1);
    agent.readings(3, "roof", json!([{"metric": "t", "value": 3}])).await;
    client.expect_silence().await;
    let mut narrow = server.connect("/ws/telemetry?device_id=2").await;
    narrow.authenticate(&token).await;
    assert_eq!(narrow.next().await["error"], "forbidden");
    let (_, listed) = server.http("GET", "/api/v1/devices", &token, "").await;
    assert!(listed.contains("boiler") && !listed.contains("roof"), "{listed}");
    for path in ["/api/v1/devices/2", "/api/v1/devices/99"] {
        let (status, answer) = server.http("GET", path, &token, "").await;
        assert!([403, 404].contains(&status) && !answer.contains("roof"), "{status} {answer}");
    }
}

#[tokio::test]
async fn no_answer_repeats_a_token() {
    let server = Server::with(OPEN_DOOR).await;
    let good = server.token("ops", Some("telemetry:read"), None).await;
    let bad = format!("{good}x");
    let silent = |answer: &str| {
        for part in good.split('.') {
            assert!(!answer.contains(part), "{answer}");
        }
    };
    let mut client = server.connect("/ws").await;
    client.authenticate(&good).await;
    for text in [
        json!({"type": "auth", "token": bad}).to_string(),
        json!({"type": "auth", "token": [bad]}).to_string(),
        json!({"type": "auth", "token": {"token": bad}}).to_string(),
        json!({"type": "auth", "Token": bad}).to_string(),
        json!({"token": bad}).to_string(),
        json!({"type": bad}).to_string(),
        json!({"type": [bad]}).to_string(),
        json!({"type": "subscribe", "channel": [bad]}).to_string(),
        json!({"type": "subscribe", "channel": "alerts", "token": bad}).to_string(),
        json!({"type": "subscribe", "channel": "telemetry", "device_id": bad}).to_string(),
        json!({"type": "subscribe", "channel": "telemetry", "frequency": bad}).to_string(),
        json!({"type": "subscribe", "channel": "alerts", "severity": bad}).to_string(),
        json!({"type": "batch", "messages": bad}).to_string(),
        json!({"type": "ping", "timestamp": bad}).to_string(),
        json!({"type": "ping", "id": bad}).to_string(),
        format!("{{\"type\":\"auth\",\"token\":\"{bad}\"}}}}"),
        format!("{{\"type\":\"auth\",\"token\":\"{bad}"),
        format!("{{\"type\":\"auth\",\"token\":\"{bad}\",\"token\":\"{bad}\"}}"),
        bad.clone(),
    ] {
        client.send_frame(Message::text(text.clone())).await;
        let answer = client.next_text().await;
        assert!(answer.contains("\"error\":"), "{text} {answer}");
        silent(&answer);
    }
    let mut stranger = server.connect("/ws").await;
    stranger.send(json!({"type": "auth", "token": bad})).await;
    silent(&stranger.next_text().await);
    silent(&stranger.closed().await.1);
    let mut agent = server.connect("/uplink").await;
    agent.send(json!({"type": "auth", "token": bad})).await;
    silent(&agent.next_text().await);
    silent(&agent.closed().await.1);
    for (method, path, authorization) in [
        ("GET", "/api/v1/devices", format!("Bearer {bad}")),
        ("GET", "/api/v1/devices", format!("Basic {bad}")),
        ("GET", "/api/v1/devices", bad.clone()),
        ("GET", "/api/v1/connections", format!("Bearer {good}")),
        ("POST", "/api/v1/telemetry", format!("Bearer {good}")),
        ("GET", &format!("/api/v1/devices?token={good}"), format!("Bearer {good}")),
        ("GET", &format!("/api/v1/devices?limit={good}"), format!("Bearer {good}")),
        ("GET", &format!("/api/v1/devices/{good}"), format!("Bearer {good}")),
        ("GET", &format!("/{good}"), String::new()),
        ("GET", &format!("/ws?token={good}"), String::new()),
        ("GET", &format!("/ws/telemetry?device_id={good}"), String::new()),
    ] {
        let headers = format!("{UPGRADE}Authorization: {authorization}\r\n");
        let (head, body) = server.exchange(method, path, &headers, "").await;
        assert!(head.starts_with("HTTP/1.1 4"), "{method} {path} {head}");
        silent(&head);
        silent(&body);
    }
}

#[tokio::test]
async fn a_stop_tells_all_alerts_and_ends_one_after_the_other() {
    let mut server = Server::with("[limits]\nconnects_per_minute = 100").await;
    let admin = server.token("ops", Some("admin"), None).await;
    let rule = r#"{"metric":"t","kind":"threshold","above":30}"#;
    assert_eq!(server.http("PUT", "/api/v1/rules/hot", &admin, rule).await.0, 200);
    let mut clients = Vec::new();
    for _ in 0..30 {
        let mut client = server.connect("/ws").await;
        client.authenticate(&admin).await;
        client.subscribe("alerts").await;
        clients.push(client);
    }
    let mut agent = server.agent("site", Some("q")).await;
    for seq in 1..=20 {
        let reading = json!([{"metric": "t", "value": 31}]);
        agent.readings(seq, &format!("d{seq}"), reading).await;
    }
    let begun = clock::instant();
    let told = clients.iter_mut().map(async |client| {
        for seq in 1..=20 {
            assert_eq!(client.next().await["seq"], seq);
        }
        assert_eq!(client.closed().await.0, 1001);
        begun.elapsed()
    });
    let told = join_all(told.collect::<Vec<_>>());
    let (code, ends) = tokio::join!(server.stop(), told);
    assert_eq!(code, Some(0));
    // Over a second, says the server; a busy machine hears it in less.
    let spread = *ends.iter().max().unwrap() - *ends.iter().min().unwrap();
    assert!(spread > Duration::from_millis(200), "{spread:?}");
    assert!(TcpStream::connect(&server.address).await.is_err(), "nobody comes in any more");
}

#[tokio::test]
async fn who_leaves_politely_is_answered_so() {
    let server = Server::start().await;
    for mut client in [server.subscriber().await, server.agent("site", None).await] {
        let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        client.stream().close(Some(normal)).await.unwrap();
        assert_eq!(client.closed().await.0, 1000);
    }
}

#[tokio::test]
async fn a_store_that_takes_nothing_new_ends_an_uplink_with_1011() {
    let server = Server::start().await;
    let mut agent = server.agent("site", Some("q")).await;
    agent.readings(1, "known", json!([{"metric": "t", "value": 1}])).await;
    let mut client = server.subscriber().await;
    let store = rusqlite::Connection::open(server.folder().join("data/valtronics.db")).unwrap();
    store.execute_batch("BEGIN IMMEDIATE").unwrap();
    let reading = json!([{"metric": "t", "value": 2}]);
    agent.send(json!({"type": "readings", "seq": 2, "device": "new", "readings": reading})).await;
    assert_eq!(agent.closed().await.0, 1011);
    client.expect_silence().await;
    store.execute_batch("ROLLBACK").unwrap();
    let mut agent = server.agent("site", Some("q")).await;
    agent.readings(2, "new", reading).await;
}

#[tokio::test]
#[ignore = "takes more than a minute"]
async fn who_does_not_read_what_happens_for_a_minute_is_ended() {
    let server = Server::start().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let stream = socket.connect(server.address.parse().unwrap()).await.unwrap();
    let mut asleep = server.connect_over("/ws", stream).await;
    asleep.authenticate(&server.token("ops", None, None).await).await;
    let mut awake = server.subscriber().await;
    let mut agent = server.agent("site", None).await;
    asleep.subscribe("devices").await;
    awake.subscribe("devices").await;
    // More than the kernel's buffers hold.
    let reason = "x".repeat(500);
    for number in 0..4_000 {
        let status = if number % 2 == 0 { "warning" } else { "online" };
        let report = json!({"type": "status", "device": "d", "status": status, "reason": reason});
        agent.send(report).await;
        if number % 100 == 99 {
            for _ in 0..100 {
                awake.next().await;
            }
        }
    }
    let ended = async {
        while !server.raw("GET", "/metrics", "", "").await.1.contains("code=\"4413\"} 1") {
            sleep(Duration::from_secs(1)).await;
        }
    };
    // Before silence of 75 s ends it with another code.
    timeout(Duration::from_secs(60) + DEADLINE, ended).await.expect("the server ends it");
}
