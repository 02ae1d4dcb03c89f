//! From messages to the kernel: many in one system call.
//!
//! They are gathered in a buffer of the thread, so that a connection holds none of its own; only what
//! the kernel has no room for is kept for the connection.

use std::{
    cell::Cell,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, BytesMut};
use tokio::io::AsyncWrite as _;

use super::{Broken, Message, Opcode};
use crate::{monitor::Registered, stream::Stream};

/// When no further message is gathered: system calls are cheap by then, and it is one record of TLS.
const GATHERED_BYTES: usize = 16 * 1024;

thread_local! {
    static GATHERED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Writes messages.
#[derive(Debug, Default)]
pub(super) struct Writer {
    /// What the kernel had no room for.
    unwritten: BytesMut,
    unflushed: bool,
    /// The answer to the newest ping: who pings and never reads costs no more than that.
    pub(super) pong: Option<Message>,
    /// The answer to the other side's close; nothing else is sent any more.
    pub(super) close_answer: Option<Message>,
    /// A close was sent: nothing may follow it (RFC 6455, section 5.5.1).
    closed: bool,
}

impl Writer {
    /// Writes these messages, and what is owed without them; ready when there are no more, and all
    /// has gone.
    pub(super) fn poll<M: AsRef<Message>>(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
        mut next: impl FnMut() -> Option<M>,
        watched: &Registered,
    ) -> Poll<Result<(), Broken>> {
        loop {
            ready!(self.poll_unwritten(stream, cx))?;
            let mut bytes = GATHERED.take();
            bytes.clear();
            self.gather(&mut bytes, &mut next, watched);
            let is_done = bytes.is_empty();
            let written = if is_done { Ok(()) } else { self.write(&bytes, stream, cx) };
            GATHERED.set(bytes);
            written?;
            if is_done {
                return self.poll_flush(stream, cx);
            }
        }
    }

    /// Gathers messages, until it is enough.
    fn gather<M: AsRef<Message>>(
        &mut self,
        bytes: &mut Vec<u8>,
        mut next: impl FnMut() -> Option<M>,
        watched: &Registered,
    ) {
        let mut add = |message: &Message| {
            watched.sent(message);
            bytes.extend_from_slice(message.frame());
            (bytes.len() >= GATHERED_BYTES, message.opcode() == Opcode::Close)
        };
        let mut enough = false;
        for message in self.pong.take().into_iter().chain(self.close_answer.take()) {
            if self.closed {
                return;
            }
            (enough, self.closed) = add(&message);
        }
        while !enough && !self.closed {
            let Some(message) = next() else { return };
            (enough, self.closed) = add(message.as_ref());
        }
    }

    /// Writes what the kernel has room for, and keeps the rest.
    fn write(
        &mut self,
        bytes: &[u8],
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Result<(), Broken> {
        self.unflushed = true;
        let count = match Pin::new(stream).poll_write(cx, bytes) {
            Poll::Pending => 0,
            Poll::Ready(Ok(count)) if count > 0 => count,
            Poll::Ready(_) => return Err(Broken::Gone),
        };
        self.unwritten = bytes.get(count..).unwrap_or_default().into();
        Ok(())
    }

    fn poll_unwritten(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        while !self.unwritten.is_empty() {
            match ready!(Pin::new(&mut *stream).poll_write(cx, &self.unwritten)) {
                Ok(count) if count > 0 => self.unwritten.advance(count),
                _ => return Poll::Ready(Err(Broken::Gone)),
            }
            if self.unwritten.is_empty() {
                // Its memory goes, too.
                self.unwritten = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Broken>> {
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx)).map_err(|_| Broken::Gone)?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
