//! What no client of ours sends: each is answered or ends its own connection, and nothing else.

use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest};

use crate::server::{Client, DEADLINE, Server};

/// These tests come in more often than any client.
pub(crate) const OPEN_DOOR: &str = "[limits]\nhandshakes_per_minute_per_address = 100000";

/// How much more memory the server may need for all that a test does at once.
const SOME_MEMORY: usize = 8 * 1024 * 1024;

const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
/// Of a frame that is not the last of its message.
const NOT_FINAL: u8 = 0x7f;

/// Makes a frame with this first byte; a client's payload is masked (RFC 6455, section 5.2).
pub(crate) fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = header(first, payload.len() as u64);
    let key = [1, 2, 3, 4];
    frame.extend(key);
    frame.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}

/// Makes the head of a frame, up to its mask.
fn header(first: u8, length: u64) -> Vec<u8> {
    const MASKED: u8 = 0x80;
    match length {
        0..=125 => vec![first, MASKED | length as u8],
        126..=0xffff => [&[first, MASKED | 126], &(length as u16).to_be_bytes()[..]].concat(),
        _ => [&[first, MASKED | 127], &length.to_be_bytes()[..]].concat(),
    }
}

/// A connection of which every byte is ours.
struct Raw(TcpStream);

impl Raw {
    async fn open(server: &Server, path: &str) -> Self {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            server.address
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(timeout(DEADLINE, stream.read_u8()).await.unwrap().unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        Self(stream)
    }

    /// Sends bytes; the server may have ended the connection already.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        timeout(DEADLINE, self.0.write_all(bytes)).await.expect("the server reads on").is_ok()
    }

    /// Waits for the end, which is to be a clean one; returns the close code.
    async fn closed(mut self) -> u16 {
        let mut said = Vec::new();
        let end = timeout(DEADLINE, self.0.read_to_end(&mut said)).await.expect("an end comes");
        end.expect("the connection is not reset");
        let mut rest = said.as_slice();
        loop {
            let [first, length, ..] = *rest else { panic!("no close in {said:?}") };
            let payload = &rest[2..2 + usize::from(length)];
            if first == CLOSE {
                return u16::from_be_bytes([payload[0], payload[1]]);
            }
            rest = &rest[2 + payload.len()..];
        }
    }
}

#[tokio::test]
async fn who_breaks_the_framing_is_told_the_code() {
    let server = Server::with(OPEN_DOOR).await;
    let mut other = server.subscriber().await;
    let ended =
        |first: u8, text: &[u8]| [frame(first & NOT_FINAL, b"{"), frame(0x80, text)].concat();
    for (what, bytes, code) in [
        ("not UTF-8", frame(TEXT, b"\"\xff\""), 1007),
        ("not UTF-8 in fragments", ended(TEXT, b"\xc3("), 1007),
        ("a surrogate", frame(TEXT, b"\xed\xa0\x80"), 1007),
        ("not UTF-8 in a close", frame(CLOSE, b"\x03\xe8\xff"), 1007),
        ("no mask", vec![TEXT, 2, b'{', b'}'], 1002),
        ("a reserved bit", frame(TEXT | 0x40, b"{}"), 1002),
        ("another reserved bit", frame(TEXT | 0x20, b"{}"), 1002),
        ("the last reserved bit", frame(PING | 0x10, b""), 1002),
        ("an unknown kind of data", frame(0x83, b"{}"), 1002),
        ("an unknown kind of control", frame(0x8b, b""), 1002),
        ("a ping in fragments", frame(PING & NOT_FINAL, b""), 1002),
        ("a ping of 126 bytes", frame(PING, &[0; 126]), 1002),
        ("a fragment of nothing", frame(0x80, b"{}"), 1002),
        ("a message in another", [frame(0x01, b"{"), frame(TEXT, b"{}")].concat(), 1002),
        ("half a close code", frame(CLOSE, b"\x03"), 1002),
        ("a close code that is not for the wire", frame(CLOSE, b"\x03\xed"), 1002),
        ("2^63 bytes", header(TEXT, 1 << 63), 1009),
        ("2^63 - 1 bytes", header(BINARY, (1 << 63) - 1), 1009),
        ("2^64 - 1 bytes", header(TEXT, u64::MAX), 1009),
        ("a byte more than a frame may have", header(TEXT, 1024 * 1024 + 1), 1009),
    ] {
        for path in ["/ws", "/ws/alerts", "/uplink"] {
            let mut raw = Raw::open(&server, path).await;
            // What follows must not make the server take back what it has said.
            let bytes = [bytes.as_slice(), &[0xff; 100_000]].concat();
            raw.send(&bytes).await;
            assert_eq!(raw.closed().await, code, "{what} on {path}");
        }
    }
    other.expect_silence().await;
}

#[tokio::test]
async fn what_is_declared_or_never_finished_takes_no_memory() {
    let server = Server::with(OPEN_DOOR).await;
    let mut other = server.subscriber().await;
    let before = server.resident_bytes();
    let mut declared = Vec::new();
    for _ in 0..50 {
        let mut raw = Raw::open(&server, "/ws").await;
        raw.send(&header(TEXT, 1 << 63)).await;
        declared.push(raw);
        // A frame that would be small enough, and never comes.
        let mut raw = Raw::open(&server, "/uplink").await;
        raw.send(&header(BINARY, 1024 * 1024)).await;
        raw.send(&[1, 2, 3, 4, 5]).await;
        declared.push(raw);
    }
    other.expect_silence().await;
    let more = server.resident_bytes().saturating_sub(before);
    assert!(more < SOME_MEMORY, "{more} bytes for 100 connections");
}

#[tokio::test]
async fn fragments_without_end_are_too_big_at_some_time() {
    let server = Server::with(OPEN_DOOR).await;
    let mut other = server.subscriber().await;
    let before = server.resident_bytes();
    for (path, most) in [("/ws", 64 * 1024), ("/uplink", 1024 * 1024)] {
        let mut raw = Raw::open(&server, path).await;
        let fragments = frame(0x00, b"xx").repeat(1000);
        raw.send(&frame(0x01, b"xx")).await;
        let mut sent = 2;
        while raw.send(&fragments).await && sent <= most {
            sent += 2000;
        }
        assert_eq!(raw.closed().await, 1009, "{path}");
    }
    other.expect_silence().await;
    let more = server.resident_bytes().saturating_sub(before);
    assert!(more < SOME_MEMORY, "{more} bytes");
}

#[tokio::test]
async fn empty_fragments_keep_nobody_in_and_disturb_nobody() {
    let config = format!("{OPEN_DOOR}\nauth_within = \"1s\"");
    let server = Server::with(&config).await;
    let mut other = server.subscriber().await;
    let before = server.resident_bytes();
    for path in ["/ws", "/uplink"] {
        let mut raw = Raw::open(&server, path).await;
        let fragments = frame(0x00, b"").repeat(1000);
        raw.send(&frame(0x01, b"")).await;
        // As fast as they are taken; the connection ends although they never do.
        let flood = async {
            while raw.send(&fragments).await {
                tokio::task::yield_now().await;
            }
        };
        let answers = async {
            for _ in 0..10 {
                other.expect_silence().await;
            }
        };
        timeout(DEADLINE, async { tokio::join!(flood, answers) }).await.expect("it is cut off");
    }
    let more = server.resident_bytes().saturating_sub(before);
    assert!(more < SOME_MEMORY, "{more} bytes");
}

/// Sends texts, each of which is to be refused with its code; the connection then still serves.
async fn refused(client: &mut Client, cases: &[(&str, &str)]) {
    for (text, code) in cases {
        client.send_frame(Message::text(*text)).await;
        let answer = client.next().await;
        let start: String = text.chars().take(80).collect();
        assert_eq!(answer["error"], *code, "{start}: {answer}");
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_connection_stays() {
    let server = Server::start().await;
    let mut client = server.subscriber().await;
    let subscribe = |key: &str, value: &str| {
        format!(r#"{{"type":"subscribe","channel":"telemetry","{key}":{value}}}"#)
    };
    let cases = [
        ("hello".to_owned(), "invalid_json"),
        ("{\"type\":\"ping\"".to_owned(), "invalid_json"),
        ("{\"type\":\"ping\"}\0".to_owned(), "invalid_json"),
        ("{\"type\":\"pi\0ng\"}".to_owned(), "invalid_json"),
        (r#"{"type":"\ud800"}"#.to_owned(), "invalid_json"),
        (r#"{"type":"ping","timestamp":1e999}"#.to_owned(), "invalid_json"),
        (r#"{"type":"ping","type":"auth"}"#.to_owned(), "invalid_json"),
        (r#"{"type":"ping","data":[{"a":1,"a":1}]}"#.to_owned(), "invalid_json"),
        ("[".repeat(1000), "invalid_json"),
        ("[".repeat(10_000), "message_too_large"),
        (r#"{"type":"batch","messages":["#.repeat(2_000), "message_too_large"),
        (r#"{"m":"#.repeat(10_000), "message_too_large"),
        (r#"{"type":"ping\u0000"}"#.to_owned(), "unknown_type"),
        (r#"{"type":"ping","id":9223372036854775808}"#.to_owned(), "invalid_message"),
        (r#"{"type":"ping","id":9007199254740993}"#.to_owned(), "invalid_message"),
        (subscribe("device_id", "18446744073709551616"), "invalid_filter"),
        (subscribe("device_id", "-1"), "invalid_filter"),
        (subscribe("device_id", "1.0"), "invalid_filter"),
        (subscribe("device_id\\u0000", "1"), "invalid_filter"),
        (subscribe("frequency", "\"99999999999999999999s\""), "invalid_filter"),
    ];
    let cases: Vec<_> = cases.iter().map(|(text, code)| (text.as_str(), *code)).collect();
    refused(&mut client, &cases).await;
    client.send_frame(Message::binary(b"{\"type\":\"ping\"}".as_slice())).await;
    assert_eq!(client.next().await["error"], "invalid_json");
    // Ten thousand batches, one in the other, are more than a frame may have.
    let deep = r#"{"type":"batch","messages":["#.repeat(10_000);
    let mut deeper = server.subscriber().await;
    deeper.send_frame(Message::text(deep)).await;
    assert_eq!(deeper.closed().await.0, 1009);
    let pong = client.ask(json!({"type": "ping", "id": "a\0b", "timestamp": "\0"})).await;
    assert_eq!((&pong["id"], &pong["timestamp"]), (&json!("a\0b"), &json!("\0")));
}

#[tokio::test]
async fn what_is_no_reading_is_refused_and_the_connection_stays() {
    let server = Server::start().await;
    let mut agent = server.agent("site", None).await;
    let reading = |device: &str, value: &str| {
        format!(
            r#"{{"type":"readings","seq":1,"device":"{device}","readings":[{{"metric":"t","value":{value}}}]}}"#
        )
    };
    let cases = [
        ("hello".to_owned(), "invalid_json"),
        ("[".repeat(10_000), "invalid_json"),
        (format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000)), "invalid_message"),
        (r#"{"a":"#.repeat(10_000), "invalid_json"),
        (reading("d", "1e999"), "invalid_json"),
        (reading("d", "NaN"), "invalid_json"),
        (reading("d\0", "1"), "invalid_json"),
        (reading("d\\u0000", "1"), "invalid_message"),
        (reading("", "1"), "invalid_message"),
        (reading("d", "\"a\\u0000\""), "invalid_message"),
        (reading("d", "null"), "invalid_message"),
        (reading("d", "[1]"), "invalid_message"),
        (
            r#"{"type":"readings","seq":-1,"device":"d","readings":[]}"#.to_owned(),
            "invalid_message",
        ),
    ];
    let cases: Vec<_> = cases.iter().map(|(text, code)| (text.as_str(), *code)).collect();
    refused(&mut agent, &cases).await;
    agent.send_frame(Message::binary(b"{}".as_slice())).await;
    assert_eq!(agent.next().await["error"], "invalid_json");
    agent.readings(2, "d", json!([{"metric": "t", "value": 1}])).await;
}

#[tokio::test]
async fn a_damaged_batch_ends_its_connection_only() {
    let server = Server::with(OPEN_DOOR).await;
    let mut other = server.agent("site", None).await;
    let token = server.token("gw", Some("uplink"), None).await;
    let before = server.resident_bytes();
    // Four gigabytes of zeros, says the head of this packed body.
    let bomb = [b"\x00\x00\x03\x28\xb5\x2f\xfd\xa4".as_slice(), &u32::MAX.to_le_bytes()].concat();
    let much = [b"\x00\x00\x01\x04".as_slice(), &[0xff; 9], b"\x01"].concat();
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("unknown flags", vec![0x80, 0, 1, 0]),
        ("a number without end", vec![0xff; 100]),
        ("2^64 rows", much),
        ("a bomb", bomb),
    ] {
        let mut request = format!("ws://{}/uplink", server.address).into_client_request().unwrap();
        let protocol = "valtronics.uplink.v0".parse().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocol);
        let mut agent = server.connect_with(request).await;
        let answer = agent.ask(json!({"type": "auth", "token": token})).await;
        assert_eq!(answer["success"], Json::Bool(true), "{answer}");
        agent.send_frame(Message::binary(bytes)).await;
        assert_eq!(agent.closed().await.0, 1002, "{what}");
    }
    other.readings(1, "d", json!([{"metric": "t", "value": 1}])).await;
    let more = server.resident_bytes().saturating_sub(before);
    assert!(more < SOME_MEMORY, "{more} bytes");
}

#[tokio::test]
async fn a_frame_of_nothing_but_mistakes_takes_no_memory() {
    let server = Server::start().await;
    let mut agent = server.agent("site", None).await;
    let before = server.resident_bytes();
    let nothing = format!("[{}0]", "0,".repeat(500_000));
    agent.send_frame(Message::text(nothing)).await;
    assert_eq!(agent.next().await["error"], "invalid_json");
    let more = server.resident_bytes().saturating_sub(before);
    assert!(more < SOME_MEMORY, "{more} bytes");
    agent.readings(1, "d", json!([{"metric": "t", "value": 1}])).await;
}
