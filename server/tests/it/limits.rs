//! What limits connections and `auth` (WebSocket API, section 6), each row over sockets.

use std::{net::Ipv4Addr, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{
    client_async,
    tungstenite::{Error, Message, client::IntoClientRequest},
};

use valtronics_server::clock;

use crate::{
    provider::{now, sign_with},
    server::{Client, DEADLINE, Server},
};

/// Where nobody else's test counts against ours: each of them starts a server of its own.
const HERE: [u8; 4] = [127, 0, 0, 1];
/// Another address of this machine.
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

/// Shakes hands from an address; a refusal is its status and `Retry-After`.
async fn knock(server: &Server, from: [u8; 4], path: &str) -> Result<Client, (u16, u64)> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::from(from), 0).into()).unwrap();
    let stream = socket.connect(server.address.parse().unwrap()).await.unwrap();
    let request = format!("ws://{}{path}", server.address).into_client_request().unwrap();
    match timeout(DEADLINE, client_async(request, stream)).await.expect("the server answers") {
        Ok((socket, _)) => Ok(Client::over(socket)),
        Err(Error::Http(answer)) => {
            let after = answer.headers().get("retry-after").expect("Retry-After comes along");
            Err((answer.status().as_u16(), after.to_str().unwrap().parse().unwrap()))
        }
        Err(error) => panic!("instead of an answer came {error}"),
    }
}

/// Shakes hands until it works: what others close the server notices a moment later.
async fn knock_until_let_in(server: &Server) -> Client {
    let knocking = async {
        loop {
            match knock(server, HERE, "/ws").await {
                Ok(client) => return client,
                Err((status, _)) => assert!(status == 503 || status == 429, "{status}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, knocking).await.expect("there is room again")
}

fn auth(token: &str) -> Json {
    json!({"type": "auth", "token": token})
}

/// Brings a token that is refused by a limit; returns the error and after how long to come back.
async fn limited(server: &Server, token: &str) -> (String, u64) {
    let mut client = server.connect("/ws").await;
    let answer = client.ask(auth(token)).await;
    assert_eq!((&answer["type"], &answer["success"]), (&json!("auth_response"), &json!(false)));
    let after = answer["retry_after"].as_u64().unwrap();
    let (code, reason) = client.closed().await;
    assert_eq!(code, 4429);
    assert!(reason.ends_with(&format!("retry_after={after}")), "{reason}");
    (answer["error"].as_str().unwrap().to_owned(), after)
}

#[tokio::test]
async fn a_full_server_says_so_until_somebody_leaves() {
    let server = Server::with("[limits]\nconnections = 2").await;
    let first = server.connect("/ws").await;
    let _second = server.connect("/uplink").await;
    for path in ["/ws", "/ws/alerts", "/uplink"] {
        let (status, after) = knock(&server, HERE, path).await.err().unwrap();
        assert!(status == 503 && after >= 1, "{status} {after}");
    }
    drop(first);
    let mut third = knock_until_let_in(&server).await;
    third.authenticate(&server.token("ops", None, None).await).await;
}

#[tokio::test]
async fn a_handshake_that_cannot_be_upgraded_takes_no_place() {
    let server = Server::with("[limits]\nconnections = 1").await;
    for path in ["/ws", "/uplink"] {
        let request = format!(
            "GET {path} HTTP/1.0\r\nHost: {}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
            server.address
        );
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.contains(" 400 "), "{answer}");
    }
    assert!(knock(&server, HERE, "/ws").await.is_ok());
}

#[tokio::test]
async fn a_handshake_that_never_ends_is_ended() {
    let server = Server::with("[limits]\nhandshake_within = \"300ms\"").await;
    for begun in ["", "GET /ws HTTP/1.1\r\nHost: "] {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let ended = timeout(DEADLINE, stream.read_to_end(&mut answer)).await;
        ended.expect("the connection ends").unwrap();
        assert!(!answer.starts_with(b"HTTP/1.1 101"));
    }
}

#[tokio::test]
async fn a_user_has_so_many_connections_and_no_more() {
    let server = Server::with("[limits]\nconnections_per_user = 2").await;
    let token = server.token("ops", None, None).await;
    let mut first = server.connect("/ws").await;
    first.authenticate(&token).await;
    let mut second = server.connect("/ws/alerts").await;
    second.authenticate(&token).await;
    assert_eq!(limited(&server, &token).await, ("connection_limit".into(), 60));
    let mut other = server.connect("/ws").await;
    other.authenticate(&server.token("other", None, None).await).await;
    // A new token for a connection that is there is no new connection.
    assert_eq!(first.ask(auth(&token)).await["success"], true);
}

#[tokio::test]
async fn a_user_opens_ten_connections_a_minute() {
    let server = Server::start().await;
    let token = server.token("ops", None, None).await;
    let begin = clock::instant();
    for _ in 0..10 {
        server.connect("/ws").await.authenticate(&token).await;
    }
    let (error, after) = limited(&server, &token).await;
    assert_eq!(error, "rate_limited");
    let passed = begin.elapsed().as_secs();
    assert!((60 - passed.min(59)..=60).contains(&after), "{after} s after {passed} s");
    // The uplink's agents are not counted.
    server.agent("ops", None).await;
}

#[tokio::test]
async fn handshakes_that_come_to_nothing_count_by_address() {
    let server = Server::with("[limits]\nhandshakes_per_minute_per_address = 3").await;
    let token = server.token("ops", None, None).await;
    for _ in 0..4 {
        server.connect("/ws").await.authenticate(&token).await;
        server.agent("site", None).await;
    }
    let mut nothing = Vec::new();
    for path in ["/ws", "/ws/system", "/uplink"] {
        nothing.push(server.connect(path).await);
    }
    for path in ["/ws", "/uplink"] {
        let (status, after) = knock(&server, HERE, path).await.err().unwrap();
        assert!(status == 429 && (1..=60).contains(&after), "{status} {after}");
    }
    assert!(knock(&server, ELSEWHERE, "/ws").await.is_ok());
    // One of them comes to something after all.
    nothing[0].authenticate(&token).await;
    assert!(knock(&server, HERE, "/ws").await.is_ok());
}

#[tokio::test]
async fn who_tries_tokens_is_shut_out_and_nobody_else() {
    let server = Server::start().await;
    let secret = std::fs::read_to_string(server.folder().join("data/secret")).unwrap();
    let expired = |n: i64| {
        let claims = json!({"sub": "ops", "exp": now() - 60 - n});
        sign_with(secret.trim().as_bytes(), &json!({"alg": "HS256"}), &claims)
    };
    let token = server.token("ops", None, None).await;
    let mut client = server.connect("/ws").await;
    client.authenticate(&token).await;
    // On one connection, which stays: what counts is the address.
    for n in 0..30 {
        let (bad, reason) = match n % 3 {
            0 => (expired(n), "expired"),
            1 => (sign_with(&[7; 32], &json!({"alg": "HS256"}), &json!(n)), "signature"),
            _ => (format!("no token {n}"), "malformed"),
        };
        assert_eq!(client.ask(auth(&bad)).await["reason"], reason);
    }
    assert!(knock(&server, HERE, "/ws").await.is_ok(), "20 different ones");
    assert_eq!(client.ask(auth("one more")).await["reason"], "malformed");
    for path in ["/ws", "/ws/alerts"] {
        let (status, after) = knock(&server, HERE, path).await.err().unwrap();
        assert!(status == 429 && (1..=60).contains(&after), "{status} {after}");
    }
    // Who was inside stays; agents and other addresses notice nothing.
    client.subscribe("alerts").await;
    server.agent("site", None).await;
    let mut elsewhere = knock(&server, ELSEWHERE, "/ws").await.ok().unwrap();
    elsewhere.authenticate(&token).await;
}

#[tokio::test]
async fn a_bad_token_that_comes_again_is_answered_later_and_later() {
    // The wait is longer than the time to authenticate, which does not run meanwhile.
    let server = Server::with("[limits]\nauth_within = \"500ms\"").await;
    for (before, wait) in [0, 1, 2].into_iter().enumerate() {
        let mut client = server.connect("/ws").await;
        let asked = clock::instant();
        client.stream().feed(Message::text(auth("stale").to_string())).await.unwrap();
        client.send_frame(Message::Ping("still there?".into())).await;
        if wait > 0 {
            // The connection is served meanwhile.
            let pong = timeout(DEADLINE, client.stream().next()).await.unwrap().unwrap().unwrap();
            assert_eq!(pong, Message::Pong("still there?".into()), "{before} before");
        }
        let answer = client.next().await;
        assert!(asked.elapsed() >= Duration::from_secs(wait), "{before} before");
        assert_eq!(answer["reason"], "malformed");
        assert_eq!(client.closed().await.0, 4401);
    }
    // Another token, and the same one from elsewhere, are answered at once: long before the 4 s
    // that the next repetition takes.
    let asked = clock::instant();
    let mut other = server.connect("/ws").await;
    assert_eq!(other.ask(auth("other")).await["reason"], "malformed");
    let mut elsewhere = knock(&server, ELSEWHERE, "/ws").await.ok().unwrap();
    assert_eq!(elsewhere.ask(auth("stale")).await["reason"], "malformed");
    let mut again = server.connect("/ws").await;
    again.send(auth("stale")).await;
    assert_eq!(again.next().await["reason"], "malformed");
    assert!(asked.elapsed() >= Duration::from_secs(4));
}

#[tokio::test]
async fn what_comes_behind_a_refused_token_comes_too_late() {
    let server = Server::start().await;
    let good = auth(&server.token("ops", None, None).await);
    let bad = |n: usize| auth(&format!("bad {n}"));
    // In one frame, and in frames behind it.
    let mut client = server.connect("/ws").await;
    let batch = json!({"type": "batch", "messages": [bad(0), bad(1), good]});
    client.stream().feed(Message::text(batch.to_string())).await.unwrap();
    client.send(good).await;
    let answer = client.next().await;
    assert_eq!((&answer["success"], &answer["reason"]), (&json!(false), &json!("malformed")));
    let end = timeout(DEADLINE, client.stream().next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(&end, Message::Close(Some(frame)) if u16::from(frame.code) == 4401), "{end}");
}

#[tokio::test]
async fn a_limit_that_is_met_again_is_answered_later() {
    let server = Server::with("[limits]\nconnections_per_user = 1").await;
    let token = server.token("ops", None, None).await;
    let mut inside = server.connect("/ws").await;
    inside.authenticate(&token).await;
    for wait in [0, 1] {
        let asked = clock::instant();
        assert_eq!(limited(&server, &token).await, ("connection_limit".into(), 60));
        assert!(asked.elapsed() >= Duration::from_secs(wait));
    }
}

#[tokio::test]
async fn a_connection_lives_on_while_a_refusal_waits() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    client.subscribe("telemetry").await;
    let mut agent = server.agent("site", None).await;
    // They are answered after 0, 1, 2 and 4 s, one after the other.
    for _ in 0..4 {
        client.send(auth("stale")).await;
    }
    client.send(json!({"type": "ping", "timestamp": "behind"})).await;
    assert_eq!(client.next().await["reason"], "malformed");
    agent.readings(1, "boiler", json!([{"metric": "t", "value": 1}])).await;
    let mut came = Vec::new();
    while came.last() != Some(&"pong".into()) {
        came.push(client.next().await["type"].as_str().unwrap().to_owned());
    }
    let update = came.iter().position(|kind| kind == "telemetry_update").expect("it goes out");
    assert!(update < 3, "before the last answer: {came:?}");
    assert_eq!(came.iter().filter(|kind| *kind == "auth_response").count(), 3);
}

#[tokio::test]
async fn limits_are_read_again() {
    let server = Server::with("[limits]\nconnections = 1\nconnects_per_minute = 1").await;
    let token = server.token("ops", None, None).await;
    let mut first = server.connect("/ws").await;
    first.authenticate(&token).await;
    assert_eq!(knock(&server, HERE, "/ws").await.err().unwrap().0, 503);
    server.reload("[limits]\nconnections = 3\nconnects_per_minute = 2").await;
    let mut second = knock_until_let_in(&server).await;
    second.authenticate(&token).await;
    assert_eq!(limited(&server, &token).await.0, "rate_limited");
    // Nobody is thrown out, and a bad file changes nothing.
    server.reload("[limits]\nconnections = 0").await;
    first.expect_silence().await;
    second.expect_silence().await;
    knock_until_let_in(&server).await;
}

#[tokio::test]
async fn limits_of_names_are_read_again() {
    let server = Server::with("[limits]\ndevices_per_sub = 1").await;
    let token = server.token("site", Some("uplink"), None).await;
    let write = async |device: &str| {
        let body = json!({"device": device, "readings": [{"metric": "t", "value": 1}]});
        server.http("POST", "/api/v1/telemetry", &token, &body.to_string()).await.0
    };
    assert_eq!((write("boiler").await, write("roof").await), (202, 422));
    server.reload("[limits]\ndevices_per_sub = 2").await;
    let taken = async {
        while write("roof").await != 202 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, taken).await.expect("the limit is taken over");
    assert_eq!(write("cellar").await, 422);
}
