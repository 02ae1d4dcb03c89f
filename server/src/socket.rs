//! A WebSocket connection: the one type behind which the codec stands.
//!
//! Reads and writes are polled, never awaited alone: a client that reads without sending, or sends
//! without reading, must not stop the other direction.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{Sink, Stream as _};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Error,
        error::CapacityError,
        protocol::{CloseFrame, Role, WebSocketConfig},
    },
};
use valtronics_protocol::close::CloseCode;

use crate::{monitor::Registered, stream::Stream};

/// What a connection carries. It is the codec's own type, so that a message for thousands of
/// connections is encoded once and shared by all of them; nobody names it but through here.
pub use tungstenite::Message;
/// What the handshake answers to a client's key (RFC 6455, section 4.2.2).
pub use tungstenite::handshake::derive_accept_key as accept_key;

/// What one kind of endpoint is tuned to.
#[derive(Debug, Clone, Copy)]
pub struct SocketConfig {
    /// The read buffer, held by each connection for as long as it lives.
    pub read_buffer_bytes: usize,
    /// The largest frame or fragmented message that is taken in.
    pub max_message_bytes: usize,
    /// What may wait inside of the codec: the largest message that is sent and some pongs. A client
    /// that pings and never reads costs no more than this.
    pub max_write_buffer_bytes: usize,
}

impl SocketConfig {
    /// Dashboards: thousands of them, mostly silent, with small requests.
    pub const SUBSCRIBER: Self = Self {
        read_buffer_bytes: 1024,
        max_message_bytes: 64 * 1024,
        max_write_buffer_bytes: 320 * 1024,
    };
    /// Agents: few of them, with much to say.
    pub const UPLINK: Self = Self {
        read_buffer_bytes: 4 * 1024,
        max_message_bytes: valtronics_protocol::uplink::MAX_FRAME_BYTES,
        max_write_buffer_bytes: 320 * 1024,
    };
}

/// How much is written at once: enough to make system calls cheap.
const WRITE_BUFFER_BYTES: usize = 8 * 1024;
/// How long the other side may leave unread what was sent: as long as it may be silent by default. It
/// would otherwise hold its connection, whose deadlines nobody looks at in the meantime, for ever.
const UNREAD: Duration = Duration::from_secs(75);
/// How long a connection that ends may take: a round trip over the worst link, and no longer than
/// the whole server may wait for it.
const GOODBYE: Duration = Duration::from_secs(2);
/// How much of what nobody wants any more is thrown away at once.
const DISCARD_BYTES: usize = 4 * 1024;

/// A WebSocket connection in the role of the server.
#[derive(Debug)]
pub struct Socket {
    codec: WebSocketStream<Stream>,
    /// What did not fit, since pongs have filled the codec's buffer: it goes out after them.
    held: Option<Message>,
    watched: Registered,
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
    pub async fn new(
        stream: Stream,
        already_read: Vec<u8>,
        config: SocketConfig,
        watched: Registered,
    ) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(config.read_buffer_bytes)
            .write_buffer_size(WRITE_BUFFER_BYTES)
            .max_write_buffer_size(config.max_write_buffer_bytes)
            .max_message_size(Some(config.max_message_bytes))
            .max_frame_size(Some(config.max_message_bytes));
        let codec =
            WebSocketStream::from_partially_read(stream, already_read, Role::Server, Some(config));
        Self { codec: codec.await, held: None, watched }
    }

    /// Returns what others see of this connection.
    pub fn watched(&self) -> &Registered {
        &self.watched
    }

    /// Reads the next message, control frames included; at the end it is [`Broken::Gone`].
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, Broken>> {
        Pin::new(&mut self.codec).poll_next(cx).map(|next| match next {
            Some(Ok(message)) => {
                self.watched.received(&message);
                Ok(message)
            }
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
                self.hand_over(message)?;
            }
        }
        Pin::new(&mut self.codec).poll_ready(cx).map_err(|error| broken(&error))
    }

    /// Hands a message over; it goes out with the next flush.
    pub fn start_send(&mut self, message: Message) -> Result<(), Broken> {
        self.watched.sent(&message);
        self.hand_over(message)
    }

    fn hand_over(&mut self, message: Message) -> Result<(), Broken> {
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
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Sends a message; who does not read for too long is gone.
    pub async fn send(&mut self, message: Message) -> Result<(), Broken> {
        let sent = async {
            poll_fn(|cx| self.poll_ready(cx)).await?;
            self.start_send(message)?;
            poll_fn(|cx| self.poll_flush(cx)).await
        };
        tokio::time::timeout(UNREAD, sent).await.unwrap_or(Err(Broken::Gone))
    }

    /// Ends the connection: sends these last messages, then half-closes it and waits, for a bounded
    /// time, until the other side has ended it too.
    ///
    /// Whatever still comes is read and thrown away: a socket that is closed with bytes unread is
    /// reset (RFC 1122, section 4.2.2.13), and then the other side may never see why it ended.
    pub async fn end(mut self, mut last: VecDeque<Message>) {
        // Who takes longer is left alone.
        let _ = tokio::time::timeout(GOODBYE, poll_fn(|cx| self.poll_end(cx, &mut last))).await;
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, last: &mut VecDeque<Message>) -> Poll<()> {
        let sent = self.poll_send_all(cx, last);
        // The codec reads until both sides have said close, or one has broken a rule.
        while ready!(Pin::new(&mut self.codec).poll_next(cx)).is_some() {}
        let mut stream = Pin::new(self.codec.get_mut());
        if sent.is_ready() {
            // A connection that is gone already needs no end.
            let _ = ready!(stream.as_mut().poll_shutdown(cx));
        }
        let mut space = [0; DISCARD_BYTES];
        loop {
            let mut space = ReadBuf::new(&mut space);
            match ready!(stream.as_mut().poll_read(cx, &mut space)) {
                Ok(()) if !space.filled().is_empty() => {}
                Ok(()) | Err(_) => return sent,
            }
        }
    }

    /// Sends as many of the messages as can be; ready when no more is to be done.
    fn poll_send_all(&mut self, cx: &mut Context<'_>, last: &mut VecDeque<Message>) -> Poll<()> {
        while !last.is_empty() {
            if ready!(self.poll_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            let sent = last.pop_front().map(|message| self.start_send(message));
            if matches!(sent, Some(Err(_))) {
                last.clear();
            }
        }
        self.poll_flush(cx).map(|_| ())
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

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, sync::Arc};

    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::{
        hub::SessionId,
        monitor::{Monitor, Role as Watched},
    };

    #[tokio::test(start_paused = true)]
    async fn who_sends_and_never_reads_is_gone_at_some_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let monitor = Arc::new(Monitor::default());
        let watched = monitor.register(SessionId(1), Ipv4Addr::LOCALHOST.into(), Watched::Uplink);
        let stream = Stream::Plain(stream);
        let mut socket = Socket::new(stream, Vec::new(), SocketConfig::UPLINK, watched).await;
        let sending = async {
            loop {
                if let Err(broken) = socket.send(Message::text("x".repeat(60_000))).await {
                    return broken;
                }
            }
        };
        let ended = tokio::time::timeout(2 * UNREAD, sending).await;
        assert!(matches!(ended, Ok(Broken::Gone)), "{ended:?}");
    }
}
