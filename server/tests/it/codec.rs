//! Our own codec, as clients meet it: frames cut anyhow, too large by their header, pings too many.

use serde_json::{Value as Json, json};
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Message;

use crate::server::{Client, Server};

/// Makes a client's frame of any size.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let masked = payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    header(first, payload.len()).into_iter().chain(mask).chain(masked).collect()
}

/// Makes the header of one, up to the mask.
fn header(first: u8, length: usize) -> Vec<u8> {
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ ..126), _) => vec![first, 0x80 | short],
        (_, Ok(long)) => [&[first, 0xfe][..], &long.to_be_bytes()].concat(),
        _ => [&[first, 0xff][..], &(length as u64).to_be_bytes()].concat(),
    }
}

#[tokio::test]
async fn pings_over_the_rate_get_no_pong() {
    let server = Server::with("[limits]\nmessages_per_second = 1").await;
    let mut client = server.subscriber().await;
    let began = valtronics_server::clock::instant();
    let pings: Vec<u8> = (0..40).flat_map(|number| frame(0x89, &[number])).collect();
    let end = frame(0x81, br#"{"type":"ping"}"#);
    client.stream().get_mut().write_all(&[pings, end].concat()).await.unwrap();
    let mut pongs = 0;
    while let Message::Pong(_) = client.next_frame().await {
        pongs += 1;
    }
    let most = 1 + began.elapsed().as_secs() + 1;
    assert!(pongs <= most, "{pongs} pongs within {most} s");
    // One that comes in time is answered, with what it said.
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        client.send_frame(Message::Ping("in time".into())).await;
        client.send(json!({"type": "ping"})).await;
        if let Message::Pong(said) = client.next_frame().await {
            assert_eq!(said, "in time");
            break;
        }
    }
}

#[tokio::test]
async fn a_frame_that_is_too_large_ends_the_connection_by_its_header() {
    let server = Server::start().await;
    let mut stranger = server.connect("/ws").await;
    let announced = [header(0x81, 20 * 1024), vec![0; 4]].concat();
    stranger.stream().get_mut().write_all(&announced).await.unwrap();
    assert_eq!(stranger.closed().await, (1009, "authenticate first".to_owned()));

    let mut client = server.subscriber().await;
    let large = format!("{{\"type\":\"ping\",\"x\":\"{}\"}}", "x".repeat(20 * 1024));
    client.stream().get_mut().write_all(&frame(0x81, large.as_bytes())).await.unwrap();
    assert_eq!(client.next().await["error"], "message_too_large");
    let announced = [header(0x82, 64 * 1024 + 1), vec![0; 4]].concat();
    client.stream().get_mut().write_all(&announced).await.unwrap();
    assert_eq!(client.closed().await.0, 1009);
}

#[tokio::test]
async fn frames_that_come_byte_by_byte_say_the_same() {
    let server = Server::start().await;
    let mut client = server.connect("/ws").await;
    let auth = json!({"type": "auth", "token": server.token("ops", None, None).await});
    let auth = frame(0x81, auth.to_string().as_bytes());
    let (first, second) = (r#"{"type":"ping","timestamp":"gr"#.as_bytes(), "ün\"}".as_bytes());
    let (cut, rest) = second.split_at(1);
    let parts = [
        frame(0x01, first),
        frame(0x89, b"between"),
        frame(0x00, cut),
        frame(0x00, b""),
        frame(0x80, rest),
    ];
    for piece in [1, 2, 3, 7] {
        send_in_pieces(&mut client, &auth, piece).await;
        assert_eq!(client.next().await["success"], true);
        send_in_pieces(&mut client, &parts.concat(), piece).await;
        assert_eq!(client.next_frame().await, Message::Pong("between".into()));
        let pong: Json = client.next().await;
        assert_eq!(pong["timestamp"], "grün");
    }
}

async fn send_in_pieces(client: &mut Client, bytes: &[u8], piece: usize) {
    let stream = client.stream().get_mut();
    stream.set_nodelay(true).unwrap();
    for piece in bytes.chunks(piece) {
        stream.write_all(piece).await.unwrap();
        // What was sent has its chance to be read alone.
        tokio::task::yield_now().await;
    }
}
