//! A WebSocket connection: the one type behind which the codec stands.
//!
//! Reads and writes are polled, never awaited alone: a client that reads without sending, or sends
//! without reading, must not stop the other direction.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::{Sink, Stream as _};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Error,
        error::CapacityError,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};
use valtronics_protocol::close::CloseCode;

/// What a connection carries. It is the codec's own type, so that a message for thousands of
/// connections is encoded once and shared by all of them; nobody names it but through here.
pub use tungstenite::Message;
/// What the handshake answers to a client's key (RFC 6455, section 4.2.2).
pub use tungstenite::handshake::derive_accept_key as accept_key;

/// What a connection runs on.
pub type Stream = TcpStream;

/// What one kind of endpoint is tuned to.
#[derive(Debug, Clone, Copy)]
pub struct SocketConfig {
    /// The read buffer, held by each connection for as long as it lives.
    pub read_buffer_bytes: usize,
    /// The largest frame or fragmented message that is taken in.
    pub max_message_bytes: usize,
}

impl SocketConfig {
    /// Dashboards: thousands of them, mostly silent, with small requests.
    pub const SUBSCRIBER: Self = Self { read_buffer_bytes: 1024, max_message_bytes: 64 * 1024 };
    /// Agents: few of them, with much to say.
    pub const UPLINK: Self = Self {
        read_buffer_bytes: 16 * 1024,
        max_message_bytes: valtronics_protocol::uplink::MAX_FRAME_BYTES,
    };
}

/// How much is written at once: enough to make system calls cheap.
const WRITE_BUFFER_BYTES: usize = 8 * 1024;
/// What may wait inside of the codec: the largest message and some pongs. A client that pings and
/// never reads costs no more than this.
const MAX_WRITE_BUFFER_BYTES: usize = 320 * 1024;

/// A WebSocket connection in the role of the server.
#[derive(Debug)]
pub struct Socket {
    codec: WebSocketStream<Stream>,
    /// What did not fit, since pongs have filled the codec's buffer: it goes out after them.
    held: Option<Message>,
}

/// Why a connection cannot go on.
#[derive(Debug)]
pub enum Broken {
    /// The other side has gone, or never spoke WebSocket.
    Gone,
    /// The other side broke a rule: it is to be told by this code.
    Violation(CloseCode),
}

impl Socket {
    /// Takes over a stream whose handshake is done, and what was read beyond it.
    pub async fn new(stream: Stream, already_read: Vec<u8>, config: SocketConfig) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(config.read_buffer_bytes)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_write_buffer_size(MAX_WRITE_BUFFER_BYTES)
            .max_message_size(Some(config.max_message_bytes))
            .max_frame_size(Some(config.max_message_bytes));
        let socket =
            WebSocketStream::from_partially_read(stream, already_read, Role::Server, Some(config));
        Self { codec: socket.await, held: None }
    }

    /// Reads the next message, control frames included; `None` at the end.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Broken>> {
        Pin::new(&mut self.codec).poll_next(cx).map(|next| match next {
            Some(Ok(message)) => Ok(message),
            Some(Err(error)) => Err(broken(&error)),
            None => Err(Broken::Gone),
        })
    }

    /// Waits until a message can be handed over.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.held.is_some() {
            let flushed = ready!(Pin::new(&mut self.codec).poll_flush(cx));
            flushed.map_err(|error| broken(&error))?;
            if let Some(message) = self.held.take() {
                self.start_send(message)?;
            }
        }
        Pin::new(&mut self.codec).poll_ready(cx).map_err(|error| broken(&error))
    }

    /// Hands a message over; it goes out with the next flush.
    pub fn start_send(&mut self, message: Message) -> Result<(), Broken> {
        match Pin::new(&mut self.codec).start_send(message) {
            Err(Error::WriteBufferFull(message)) => self.held = Some(*message),
            sent => sent.map_err(|error| broken(&error))?,
        }
        Ok(())
    }

    /// Writes out what was handed over.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        ready!(self.poll_ready(cx))?;
        Pin::new(&mut self.codec).poll_flush(cx).map_err(|error| broken(&error))
    }

    /// Reads the next message.
    pub async fn next(&mut self) -> Result<Message, Broken> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Sends a message.
    pub async fn send(&mut self, message: Message) -> Result<(), Broken> {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await?;
        self.start_send(message)?;
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }
}

/// Makes the message that ends a connection.
#[must_use]
pub fn close_message(code: CloseCode, reason: &str) -> Message {
    // A control frame holds 125 bytes, two of them the code (RFC 6455, section 5.5).
    let end = reason.floor_char_boundary(123);
    let reason = reason.get(..end).unwrap_or_default();
    Message::Close(Some(CloseFrame { code: code.as_u16().into(), reason: reason.into() }))
}

fn broken(error: &tungstenite::Error) -> Broken {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            Broken::Violation(CloseCode::TooBig)
        }
        Error::Utf8(_) => Broken::Violation(CloseCode::NotUtf8),
        Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            Broken::Gone
        }
        Error::Protocol(_) => Broken::Violation(CloseCode::Protocol),
        _ => Broken::Gone,
    }
}
