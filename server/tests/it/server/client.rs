//! One side of a WebSocket, which waits for what has to come.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::DEADLINE;

/// One side of a WebSocket.
pub(crate) struct Client<S = TcpStream>(WebSocketStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Takes over a socket whose handshake is done.
    pub(crate) fn over(socket: WebSocketStream<S>) -> Self {
        Self(socket)
    }

    /// Returns the next frame, whatever it is.
    pub(crate) async fn next_frame(&mut self) -> Message {
        self.0.next().await.expect("the connection lives").unwrap()
    }

    /// Sends a message.
    pub(crate) async fn send(&mut self, message: Json) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    /// Sends a frame as it is.
    pub(crate) async fn send_frame(&mut self, frame: Message) {
        self.0.send(frame).await.unwrap();
    }

    /// Returns the next message as it stands on the wire.
    pub(crate) async fn next_text(&mut self) -> String {
        loop {
            let next = timeout(DEADLINE, self.0.next()).await.expect("a message comes");
            match next {
                Some(Ok(Message::Text(text))) => return text.as_str().to_owned(),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                other => panic!("instead of a message came {other:?}"),
            }
        }
    }

    /// Returns the next message.
    pub(crate) async fn next(&mut self) -> Json {
        serde_json::from_str(&self.next_text().await).unwrap()
    }

    /// Returns the next message of a type; others are passed over.
    pub(crate) async fn next_of(&mut self, kind: &str) -> Json {
        loop {
            let message = self.next().await;
            if message["type"] == kind {
                return message;
            }
        }
    }

    /// Sends a message and returns the next one.
    pub(crate) async fn ask(&mut self, message: Json) -> Json {
        self.send(message).await;
        self.next().await
    }

    /// Authenticates; returns the answer.
    pub(crate) async fn authenticate(&mut self, token: &str) -> Json {
        let answer = self.ask(json!({"type": "auth", "token": token})).await;
        assert_eq!(answer["success"], true, "{answer}");
        answer
    }

    /// Subscribes without a snapshot; returns the answer.
    pub(crate) async fn subscribe(&mut self, channel: &str) -> Json {
        let request = json!({"type": "subscribe", "channel": channel, "snapshot": false});
        let answer = self.ask(request).await;
        assert_eq!(answer["success"], true, "{answer}");
        answer
    }

    /// Checks that everything sent so far has been handled, and nothing came of it.
    pub(crate) async fn expect_silence(&mut self) {
        let answer = self.ask(json!({"type": "ping", "timestamp": "silence"})).await;
        assert_eq!(answer["timestamp"], "silence", "{answer}");
    }

    /// Sends readings and waits until they are acknowledged.
    pub(crate) async fn readings(&mut self, seq: u64, device: &str, readings: Json) {
        let message =
            json!({"type": "readings", "seq": seq, "device": device, "readings": readings});
        let answer = self.ask(message).await;
        assert_eq!(answer, json!({"type": "ack", "seq": seq}));
    }

    /// Waits for the end; returns the close code and the reason.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            let next = timeout(DEADLINE, self.0.next()).await.expect("the connection ends");
            match next {
                Some(Ok(Message::Close(Some(frame)))) => {
                    return (frame.code.into(), frame.reason.as_str().to_owned());
                }
                Some(Ok(_)) => {}
                other => panic!("instead of a close came {other:?}"),
            }
        }
    }
}

impl<S> Client<S> {
    /// The frames as they come.
    pub(crate) fn stream(&mut self) -> &mut WebSocketStream<S> {
        &mut self.0
    }
}
