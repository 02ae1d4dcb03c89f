//! A WebSocket connection in the role of the server (RFC 6455).
//!
//! The codec is our own, for three reasons: a message for thousands of connections is framed once
//! and shared; many messages go out in one system call; and a connection that is silent holds no
//! buffer. What both directions need in passing belongs to the thread.
//!
//! Reads and writes are polled, never awaited alone: a client that reads without sending, or sends
//! without reading, must not stop the other direction.

use std::{
    cell::Cell,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
/// What the handshake answers to a client's key (RFC 6455, section 4.2.2).
pub use tokio_tungstenite::tungstenite::handshake::derive_accept_key as accept_key;
use valtronics_protocol::close::CloseCode;

use crate::{monitor::Registered, stream::Stream};

mod frame;
mod message;
mod read;
mod write;

pub use frame::Opcode;
pub use message::{Incoming, Message};
use read::Reader;
use write::Writer;

/// How much is read at once: some frames of an agent.
const READ_BYTES: usize = 16 * 1024;
/// How long the other side may leave unread what was sent: as long as it may be silent by default. It
/// would otherwise hold its connection, whose deadlines nobody looks at in the meantime, for ever.
const UNREAD: Duration = Duration::from_secs(75);
/// How long a connection that ends may take: a round trip over the worst link, and no longer than
/// the whole server may wait for it.
const GOODBYE: Duration = Duration::from_secs(2);

thread_local! {
    /// What was just read: a connection has no buffer of its own.
    static READ: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A WebSocket connection.
#[derive(Debug)]
pub struct Socket {
    stream: Stream,
    reader: Reader,
    /// The other side has ended the connection, or broken a rule: nothing more is understood.
    ended: bool,
    writer: Writer,
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
    /// Takes over a stream whose handshake is done, and what was read beyond it. A frame or
    /// fragmented message of more than `max_message_bytes` is a violation, by what its header says.
    #[must_use]
    pub fn new(
        stream: Stream,
        already_read: &[u8],
        max_message_bytes: usize,
        watched: Registered,
    ) -> Self {
        let reader = Reader::new(already_read, max_message_bytes);
        Self { stream, reader, ended: false, writer: Writer::default(), watched }
    }

    /// Returns what others see of this connection.
    pub fn watched(&self) -> &Registered {
        &self.watched
    }

    /// Changes how large the messages may be that come behind the last one returned.
    pub fn set_max_message_bytes(&mut self, max_message_bytes: usize) {
        self.reader.set_max_message_bytes(max_message_bytes);
    }

    /// Reads the next message, control frames included; at the end it is [`Broken::Gone`].
    ///
    /// Pings are the caller's to answer, by [`Socket::pong`]; a close is answered with what is sent
    /// next, and nothing else is sent then.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Incoming, Broken>> {
        if self.ended {
            return Poll::Ready(Err(Broken::Gone));
        }
        let mut taken = self.reader.take_in(&[]);
        while let Ok(None) = taken {
            let read = ready!(poll_read(&mut self.stream, cx, |bytes| self.reader.take_in(bytes)));
            let Some(read) = read else { break };
            taken = read;
        }
        self.ended = !matches!(&taken, Ok(Some(message)) if message.opcode() != Opcode::Close);
        let message = taken.map_err(Broken::Violation)?.ok_or(Broken::Gone)?;
        self.watched.received(&message);
        if let Incoming::Close(payload) = &message {
            self.writer.close_answer = Some(Message::close_answer(payload));
        }
        Poll::Ready(Ok(message))
    }

    /// Answers a ping with what is sent next; of several only the newest.
    pub fn pong(&mut self, payload: &[u8]) {
        self.writer.pong = Some(Message::pong(payload));
    }

    /// Sends these messages, and what is owed without them; ready when there are no more, and all
    /// has gone.
    pub fn poll_send<M: AsRef<Message>>(
        &mut self,
        cx: &mut Context<'_>,
        next: impl FnMut() -> Option<M>,
    ) -> Poll<Result<(), Broken>> {
        self.writer.poll(&mut self.stream, cx, next, &self.watched)
    }

    /// Reads the next message; pings are answered.
    pub async fn next(&mut self) -> Result<Incoming, Broken> {
        poll_fn(|cx| {
            let message = self.poll_next(cx);
            if let Poll::Ready(Ok(Incoming::Ping(payload))) = &message {
                self.pong(payload);
            }
            match (message, self.poll_send(cx, || None::<Message>)) {
                (Poll::Pending, Poll::Ready(Err(broken))) => Poll::Ready(Err(broken)),
                (message, _) => message,
            }
        })
        .await
    }

    /// Sends a message; who does not read for too long is gone.
    pub async fn send(&mut self, message: Message) -> Result<(), Broken> {
        let mut message = Some(message);
        let sent = poll_fn(|cx| self.poll_send(cx, || message.take()));
        tokio::time::timeout(UNREAD, sent).await.unwrap_or(Err(Broken::Gone))
    }

    /// Ends the connection: sends these last messages, then half-closes it and waits, for a bounded
    /// time, until the other side has ended it too.
    ///
    /// Whatever still comes is read and thrown away: a socket that is closed with bytes unread is
    /// reset (RFC 1122, section 4.2.2.13), and then the other side may never see why it ended.
    pub async fn end<M: AsRef<Message>>(mut self, mut last: impl FnMut() -> Option<M>) {
        // Who takes longer is left alone.
        let _ = tokio::time::timeout(GOODBYE, poll_fn(|cx| self.poll_end(cx, &mut last))).await;
    }

    fn poll_end<M: AsRef<Message>>(
        &mut self,
        cx: &mut Context<'_>,
        mut last: impl FnMut() -> Option<M>,
    ) -> Poll<()> {
        let mut sent = self.poll_send(cx, &mut last);
        while !self.ended {
            let _ = ready!(self.poll_next(cx));
        }
        if sent.is_ready() {
            // The other side may have said close before it heard ours: that is answered.
            sent = self.poll_send(cx, last);
        }
        if sent.is_ready() {
            // A connection that is gone already needs no end.
            let _ = ready!(Pin::new(&mut self.stream).poll_shutdown(cx));
        }
        while ready!(poll_read(&mut self.stream, cx, |_| ())).is_some() {}
        sent.map(|_| ())
    }
}

/// Reads some bytes and does something with them; nothing at the end.
fn poll_read<T>(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    with: impl FnOnce(&[u8]) -> T,
) -> Poll<Option<T>> {
    let mut space = READ.take();
    space.resize(READ_BYTES, 0);
    let mut bytes = ReadBuf::new(&mut space);
    let read = Pin::new(stream).poll_read(cx, &mut bytes);
    let read = read.map(|read| match (read, bytes.filled()) {
        (Err(_), _) | (Ok(()), []) => None,
        (Ok(()), filled) => Some(with(filled)),
    });
    READ.set(space);
    read
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
        let mut socket = Socket::new(Stream::Plain(stream), &[], 1024, watched);
        let sending = async {
            loop {
                if let Err(broken) = socket.send(Message::text(&"x".repeat(60_000))).await {
                    return broken;
                }
            }
        };
        let ended = tokio::time::timeout(2 * UNREAD, sending).await;
        assert!(matches!(ended, Ok(Broken::Gone)), "{ended:?}");
    }
}
