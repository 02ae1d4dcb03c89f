//! One subscriber's connection, from its handshake to its end.
//!
//! A session reads requests, answers what concerns the connection itself (`auth`, `ping`), hands
//! the rest to the engine, and drains its outbox into the socket: many messages a flush. Requests
//! are handled in order, one at a time. It is one task that waits for whichever comes first: bytes,
//! room to write, something in the outbox, room at the engine, or a deadline.

use std::{
    collections::VecDeque,
    future::poll_fn,
    mem,
    net::IpAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use tokio::time::Sleep;
use tokio_util::sync::PollSender;
use valtronics_protocol::{close::CloseCode, request, response::Response};

use crate::{
    clock,
    engine::Command,
    hub::SessionId,
    message::{Outgoing, next_frame},
    outbox::{Close, Outbox, URGENT_BYTES},
    socket::{Broken, Incoming, Message, Socket},
    timing::{Due, Timing},
};

mod requests;
mod authenticate;
mod entry;

pub use entry::Entry;
use requests::{Arrived, Control, Requests, Step};
pub use requests::{Gate, SessionLimits};

/// How much goes out in one flush: a few TCP segments, so that an answer is never far behind.
const FLUSH_BYTES: usize = 16 * 1024;
/// How much may wait in the urgent lane while the client is read on: twice what the hub puts in.
/// A client that asks without reading the answers is silent then, and ends as one.
const UNREAD_BYTES: usize = 2 * URGENT_BYTES;
/// The largest frame or fragmented message (WebSocket API, section 6).
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// The same before `auth`: with it every connection begins.
pub const MAX_UNAUTHENTICATED_BYTES: usize = 16 * 1024;

/// What a session begins with.
pub struct Opened {
    /// Its name.
    pub id: SessionId,
    /// Its place at the door.
    pub entry: Entry,
    /// The connection.
    pub socket: Socket,
    /// What waits for it.
    pub outbox: Arc<Outbox>,
    /// The client's address.
    pub address: IpAddr,
    /// The channel of the endpoint, and what it subscribes to by itself.
    pub endpoint: Option<request::Subscribe>,
    /// A token that came with the handshake.
    pub token: Option<String>,
}

/// One subscriber's connection.
pub struct Session {
    socket: Socket,
    outbox: Arc<Outbox>,
    engine: PollSender<Command>,
    /// What waits for room at the engine.
    commands: VecDeque<Command>,
    requests: Requests,
    timing: Timing,
    sleep: Pin<Box<Sleep>>,
    /// It knows whom to wake.
    alarmed: bool,
    /// Messages on their way from the outbox to the socket.
    outgoing: VecDeque<Outgoing>,
    /// Some of what was outgoing has not been written out yet.
    unsent: bool,
    /// The outbox was empty just now.
    drained: bool,
    /// More than [`UNREAD_BYTES`] wait: the client is not read on.
    unread: bool,
    /// When the oldest live readings of this flush came in.
    arrived_at: Option<Instant>,
    /// How many requests were handed to the engine, and how many of them it has answered.
    asked: u64,
    answered: u64,
    closing: bool,
}

impl Session {
    /// Makes the session of a connection; [`Session::run`] is then its life.
    ///
    /// In a box: a future holds what it is called with twice.
    #[must_use]
    pub fn new(opened: Opened, gate: Arc<Gate>, engine: PollSender<Command>) -> Box<Self> {
        let now = clock::instant();
        let timing = Timing::new(now, &gate.limits());
        let sleep = Box::pin(tokio::time::sleep_until(timing.deadline().into()));
        let Opened { id, entry, socket, outbox, address, endpoint, token } = opened;
        let arrived = Arrived { id, entry, address, endpoint };
        let requests = Requests::new(arrived, Arc::clone(&outbox), gate, now);
        let mut session = Box::new(Self {
            socket,
            outbox,
            engine,
            commands: VecDeque::new(),
            requests,
            timing,
            sleep,
            alarmed: false,
            outgoing: VecDeque::new(),
            unsent: false,
            drained: false,
            unread: false,
            arrived_at: None,
            asked: 0,
            answered: 0,
            closing: false,
        });
        if let Some(token) = token {
            session.requests.authenticate_from_header(token);
        }
        session
    }

    /// Serves the connection until it ends.
    pub async fn run(mut self: Box<Self>) {
        // A panic ends this connection alone; the engine must still let go of it.
        poll_fn(|cx| {
            let polled = catch_unwind(AssertUnwindSafe(|| self.poll(cx)));
            polled.unwrap_or_else(|_| {
                self.begin_close(CloseCode::Internal, "");
                Poll::Ready(())
            })
        })
        .await;
        self.outbox.end();
        if let Some(session) = self.requests.leave() {
            // When the engine has ended there is nobody to tell.
            if poll_fn(|cx| self.engine.poll_reserve(cx)).await.is_ok() {
                let _ = self.engine.send_item(Command::Detach(session));
            }
        }
        let format = self.outbox.format();
        // In a box of its own, which is there for the goodbye only.
        Box::pin(self.socket.end(|| next_frame(&mut self.outgoing, format))).await;
    }

    /// Does all that can be done now; ready when the connection is to end.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A round that moves something may have made way for something else.
        for _ in 0..MAX_ROUNDS {
            let now = clock::instant();
            let mut moved = self.poll_deadline(cx, now);
            if let Some(Close { code, reason }) = self.outbox.cut_short() {
                self.outgoing.clear();
                self.begin_close(code, &reason);
            }
            moved |= self.handle_requests(now);
            moved |= self.poll_engine(cx);
            match self.poll_write(cx, now) {
                Ok(wrote) => moved |= wrote,
                Err(ended) => return ended,
            }
            match self.poll_read(cx, now) {
                Ok(read) => moved |= read,
                Err(ended) => return ended,
            }
            if self.closing {
                return Poll::Ready(());
            }
            if !moved {
                return Poll::Pending;
            }
        }
        // Others' turn: a connection that never pauses must not hold the thread.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        // Once it knows whom to wake it is only looked at.
        let sleeps = mem::replace(&mut self.alarmed, true) && !self.sleep.is_elapsed();
        if sleeps || self.sleep.as_mut().poll(cx).is_pending() {
            return false;
        }
        match self.timing.due(now) {
            Some(Due::Ping) => self.outgoing.push_back(Message::ping().into()),
            Some(Due::TokenExpires(expires_at)) => {
                self.outbox.push(&Response::AuthExpiring { expires_at });
            }
            Some(Due::Release) => {
                let step = self.requests.release(now);
                self.apply(step, now);
            }
            Some(Due::End(code, reason)) => self.begin_close(code, reason),
            None => {}
        }
        self.set_alarm();
        true
    }

    fn set_alarm(&mut self) {
        self.sleep.as_mut().reset(self.timing.deadline().into());
        self.alarmed = false;
    }

    /// Handles requests that have come in, while none is with the engine.
    fn handle_requests(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while self.asked == self.answered && !self.closing {
            let Some(step) = self.requests.handle_next(now) else {
                break;
            };
            moved = true;
            self.apply(step, now);
        }
        moved
    }

    /// Does what came of a request.
    fn apply(&mut self, step: Step, now: Instant) {
        match step {
            Step::Answered => {}
            Step::Authenticated { expires_at } => {
                self.timing.authenticated(expires_at, clock::now(), now);
                self.socket.set_max_message_bytes(MAX_MESSAGE_BYTES);
                if let Some(user) = self.requests.user() {
                    self.socket.watched().authenticated(user);
                }
                self.set_alarm();
            }
            Step::Held { until } => {
                self.timing.hold(until);
                self.set_alarm();
            }
            Step::Close(code, reason) => {
                self.requests.end();
                self.outbox.close(Close { code, reason });
            }
        }
        for command in mem::take(&mut self.requests.commands) {
            self.asked += u64::from(command.is_answered());
            self.commands.push_back(command);
        }
    }

    fn poll_engine(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while !self.commands.is_empty() {
            match self.engine.poll_reserve(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(())) => {
                    if let Some(command) = self.commands.pop_front() {
                        let _ = self.engine.send_item(command);
                    }
                }
                Poll::Ready(Err(_)) => {
                    self.commands.clear();
                    self.begin_close(CloseCode::GoingAway, "the server stops");
                }
            }
            moved = true;
        }
        if moved && self.commands.is_empty() {
            // They are large and seldom, and most connections ask no more.
            self.commands = VecDeque::new();
        }
        moved
    }

    /// Moves what waits in the outbox to the socket; returns whether anything came out that a
    /// request or the engine waits for. Fails when the connection has ended.
    fn poll_write(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, Poll<()>> {
        let mut freed = false;
        self.drained = false;
        loop {
            self.unsent |= !self.outgoing.is_empty();
            let (outgoing, format) = (&mut self.outgoing, self.outbox.format());
            match self.socket.poll_send(cx, || next_frame(outgoing, format)) {
                Poll::Pending => return Ok(freed),
                Poll::Ready(Err(_)) => return Err(Poll::Ready(())),
                Poll::Ready(Ok(())) => {}
            }
            if mem::take(&mut self.unsent) {
                // Who is not read on is heard by what he takes: who reads, however slowly, stays.
                if self.unread {
                    self.timing.heard(now);
                }
                if let Some(arrived_at) = self.arrived_at.take() {
                    let took = now.saturating_duration_since(arrived_at);
                    self.socket.watched().figures.latency.observe(took);
                }
            }
            if self.closing || self.drained {
                return Ok(freed);
            }
            let taken = self.outbox.take(FLUSH_BYTES, &mut self.outgoing, cx.waker(), now);
            freed |= taken.answered != self.answered || taken.more;
            (self.answered, self.drained) = (taken.answered, taken.drained);
            self.arrived_at = taken.arrived_at;
            if taken.more {
                self.commands.push_back(Command::Drained(self.requests.id()));
            }
            if let Some(Close { code, reason }) = taken.close {
                self.begin_close(code, &reason);
                self.drained = false;
            }
            if self.outgoing.is_empty() {
                return Ok(freed);
            }
        }
    }

    /// Reads what has come in; fails when the connection has ended.
    fn poll_read(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<bool, Poll<()>> {
        // While requests wait, or answers, the client is not read on: what it may queue here is
        // bounded. Writing goes first, and comes back here when there is room.
        self.unread = !self.drained && self.outbox.urgent_bytes() > UNREAD_BYTES;
        if self.closing || self.requests.is_waiting() || self.unread {
            return Ok(false);
        }
        let message = match self.socket.poll_next(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Ok(message)) => message,
            Poll::Ready(Err(Broken::Violation(code))) => {
                let is_early = code == CloseCode::TooBig && !self.requests.is_authenticated();
                self.begin_close(code, if is_early { "authenticate first" } else { "" });
                return Ok(true);
            }
            Poll::Ready(Err(Broken::Gone)) => return Err(Poll::Ready(())),
        };
        self.timing.heard(now);
        match &message {
            Incoming::Text(_) | Incoming::Binary(_) => self.requests.receive(&message),
            Incoming::Ping(_) | Incoming::Pong => match self.requests.count_control(now) {
                Control::Within => {
                    if let Incoming::Ping(payload) = &message {
                        self.socket.pong(payload);
                    }
                }
                Control::Dropped => {}
                Control::Flooded(reason) => self.begin_close(CloseCode::Limited, &reason),
            },
            // The socket answers it.
            Incoming::Close(_) => return Err(Poll::Ready(())),
        }
        Ok(true)
    }

    fn begin_close(&mut self, code: CloseCode, reason: &str) {
        if self.closing {
            return;
        }
        self.closing = true;
        self.outgoing.push_back(Message::close(code, reason).into());
    }
}

/// How often a session goes around before others have their turn.
const MAX_ROUNDS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// There are thousands of them, mostly silent.
    #[test]
    fn an_idle_session_is_small() {
        fn size_of_call<F: Future>(_: fn(Box<Session>) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size_of::<Session>() <= 1088, "{}", size_of::<Session>());
        let life = size_of_call(Session::run);
        assert!(life <= 128, "{life}");
    }
}
