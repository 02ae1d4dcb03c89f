//! What a subscriber asks: each message that comes in, to its answer or to the engine.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use valtronics_protocol::{
    close::CloseCode,
    error::ErrorCode,
    format::Format,
    request::{self, Kind, Message, MessageLimits, Request},
    response::{Failure, Pong, Response},
    time::UnixMillis,
};

use super::{authenticate::Held, entry::Entry};
use crate::{
    auth::{Claims, KeyRing, Keys},
    clock,
    engine::Command,
    hub::SessionId,
    limits::{Admission, TokenBucket},
    monitor::Monitor,
    outbox::Outbox,
    socket::Incoming,
};

/// What every connection shares at the door.
#[derive(Debug)]
pub struct Gate {
    /// The keys that verify tokens.
    pub keys: KeyRing,
    /// What watches the connections, and who was refused.
    pub monitor: Arc<Monitor>,
    limits: RwLock<SessionLimits>,
    admission: Mutex<Admission>,
}

/// What limits one connection (WebSocket API, section 6).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SessionLimits {
    /// Sizes of messages.
    pub message: MessageLimits,
    /// How many messages a second, and in a burst.
    pub messages_per_second: u32,
    /// How long `auth` may take.
    pub auth_within: Duration,
    /// After how much silence the server pings.
    pub ping_after: Duration,
    /// After how much silence the server ends the connection.
    pub silence: Duration,
}

impl SessionLimits {
    /// The documented limits.
    pub const DEFAULT: Self = Self {
        message: MessageLimits::DEFAULT,
        messages_per_second: 100,
        auth_within: Duration::from_secs(10),
        ping_after: Duration::from_secs(30),
        silence: Duration::from_secs(75),
    };
}

impl Gate {
    /// Makes the door.
    #[must_use]
    pub fn new(keys: Keys, limits: SessionLimits, admission: Admission) -> Self {
        let (monitor, limits) = (Arc::default(), RwLock::new(limits));
        Self { keys: KeyRing::new(keys), monitor, limits, admission: Mutex::new(admission) }
    }

    /// Returns the limits as they are now.
    #[must_use]
    pub fn limits(&self) -> SessionLimits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the limits of connections that come from now on.
    pub fn set_limits(&self, limits: SessionLimits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// Returns who may come in.
    pub fn admission(&self) -> MutexGuard<'_, Admission> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What came of one request.
#[derive(Debug)]
pub(super) enum Step {
    /// It is answered, or handed to the engine.
    Answered,
    /// A token was taken.
    Authenticated { expires_at: UnixMillis },
    /// The answer waits, and so does all that came behind it.
    Held { until: Instant },
    /// The connection is to end.
    Close(CloseCode, String),
}

/// What becomes of a control frame.
#[derive(Debug)]
pub(super) enum Control {
    /// It is within the rate.
    Within,
    /// It is over the rate, and not answered.
    Dropped,
    /// It is one too many: the connection is to end, for this reason.
    Flooded(String),
}

/// Who has come, and by which door.
pub(super) struct Arrived {
    pub(super) id: SessionId,
    pub(super) entry: Entry,
    pub(super) address: IpAddr,
    pub(super) endpoint: Option<request::Subscribe>,
}

/// The requests of one connection.
pub(super) struct Requests {
    pub(super) id: SessionId,
    pub(super) address: IpAddr,
    /// To what the endpoint subscribes by itself at the first `auth`.
    pub(super) endpoint: Option<Box<request::Subscribe>>,
    /// Until it leaves.
    pub(super) entry: Option<Entry>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) gate: Arc<Gate>,
    limits: SessionLimits,
    bucket: TokenBucket,
    pub(super) claims: Option<Claims>,
    /// What is answered later, before all that waits.
    pub(super) held: Option<Box<Held>>,
    /// The connection is to end: nothing more is handled.
    ended: bool,
    waiting: VecDeque<Message>,
    /// What is to be handed to the engine.
    pub(super) commands: Vec<Command>,
}

/// After how many seconds one who was ended for a flood may come back: the minute in which dropped
/// messages are counted.
const RETRY_AFTER_FLOOD: u64 = 60;

impl Requests {
    pub(super) fn new(
        arrived: Arrived,
        outbox: Arc<Outbox>,
        gate: Arc<Gate>,
        now: Instant,
    ) -> Self {
        let Arrived { id, entry, address, endpoint } = arrived;
        let limits = gate.limits();
        Self {
            id,
            address,
            endpoint: endpoint.map(Box::new),
            entry: Some(entry),
            outbox,
            gate,
            limits,
            bucket: TokenBucket::new(limits.messages_per_second, now),
            claims: None,
            held: None,
            ended: false,
            waiting: VecDeque::new(),
            commands: Vec::new(),
        }
    }

    pub(super) fn id(&self) -> SessionId {
        self.id
    }

    pub(super) fn is_authenticated(&self) -> bool {
        self.claims.is_some()
    }

    pub(super) fn user(&self) -> Option<&Arc<str>> {
        self.claims.as_ref().map(|claims| &claims.sub)
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Ends it; returns whom the engine is to let go of.
    pub(super) fn leave(&mut self) -> Option<SessionId> {
        // Now: the goodbye may take a while, and its place is free.
        drop(self.entry.take());
        self.claims.take().map(|_| self.id)
    }

    /// Takes in a token that came with the handshake, as if it had come first.
    pub(super) fn authenticate_from_header(&mut self, token: String) {
        self.waiting.push_back(Message {
            id: None,
            kind: Kind::Auth,
            channel: None,
            request: Ok(Request::Auth(Ok(token))),
        });
    }

    /// Takes in what came.
    pub(super) fn receive(&mut self, message: &Incoming) {
        let limits = &self.limits.message;
        match (self.outbox.format(), message) {
            (Format::Json, Incoming::Text(text)) => {
                self.waiting.extend(request::parse(text, limits))
            }
            (Format::Cbor, Incoming::Binary(bytes)) => {
                self.waiting.extend(request::parse_cbor(bytes, limits));
            }
            (format, _) => self.waiting.push_back(request::misplaced(format)),
        }
    }

    /// Counts a control frame.
    pub(super) fn count_control(&mut self, now: Instant) -> Control {
        if self.bucket.take(now) {
            return Control::Within;
        }
        self.flooded().map_or(Control::Dropped, Control::Flooded)
    }

    fn flooded(&self) -> Option<String> {
        let reason = || format!("too many messages; retry_after={RETRY_AFTER_FLOOD}");
        self.bucket.is_flooded().then(reason)
    }

    /// Handles nothing any more: what came behind a token that was refused comes too late.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Handles the message that has waited longest, unless an answer is held.
    pub(super) fn handle_next(&mut self, now: Instant) -> Option<Step> {
        if self.held.is_some() || self.ended {
            return None;
        }
        let mut message = self.waiting.pop_front()?;
        if self.waiting.is_empty() {
            // A connection that is idle keeps no room for what it asked once.
            self.waiting.shrink_to_fit();
        }
        if !self.bucket.take(now) {
            let why = format!(
                "at most {} messages a second: this one was dropped, send it again later",
                self.limits.messages_per_second
            );
            self.fail(&message, Failure::new(ErrorCode::RateLimited, why));
            let close = |why| Step::Close(CloseCode::Limited, why);
            return Some(self.flooded().map_or(Step::Answered, close));
        }
        let nothing = Err((ErrorCode::Internal, String::new()));
        let request = match std::mem::replace(&mut message.request, nothing) {
            Ok(request) => request,
            Err((code, why)) => {
                self.fail(&message, Failure::new(code, why));
                return Some(Step::Answered);
            }
        };
        Some(self.handle(message, request, now))
    }

    fn handle(&mut self, message: Message, request: Request, now: Instant) -> Step {
        match request {
            Request::Auth(token) => return self.authenticate(message, token, now),
            Request::Ping { timestamp } => {
                let pong = Pong { timestamp, server_time: clock::now(), id: message.id };
                self.outbox.push(&Response::Pong(pong));
            }
            _ if self.claims.is_none() => {
                let why = "authenticate first: {\"type\":\"auth\",\"token\":\"...\"}";
                self.fail(&message, Failure::new(ErrorCode::AuthRequired, why));
            }
            Request::Subscribe(subscribe) => {
                if self.carries(subscribe.channel) {
                    let (session, id) = (self.id, message.id);
                    self.commands.push(Command::Subscribe { session, subscribe, id });
                } else {
                    self.fail(&message, self.elsewhere());
                }
            }
            Request::Unsubscribe(unsubscribe) => {
                let (session, id) = (self.id, message.id);
                self.commands.push(Command::Unsubscribe { session, unsubscribe, id });
            }
            Request::ErrorReport(error) => {
                tracing::info!(connection = self.id.0, error, "the client reports an error");
            }
        }
        Step::Answered
    }

    fn carries(&self, channel: valtronics_protocol::filter::Channel) -> bool {
        self.endpoint.as_ref().is_none_or(|endpoint| endpoint.channel == channel)
    }

    fn elsewhere(&self) -> Failure {
        let here = self.endpoint.as_ref().map_or("", |endpoint| endpoint.channel.as_str());
        let why = format!("/ws/{here} carries {here} only: connect to /ws for more");
        Failure::new(ErrorCode::ChannelNotAvailable, why)
    }

    /// Answers a message that failed.
    pub(super) fn fail(&self, message: &Message, failure: Failure) {
        let channel = match message.kind {
            Kind::Subscribe | Kind::Unsubscribe => message.channel.clone(),
            Kind::Auth | Kind::Other => None,
        };
        let failure = Failure { channel, id: message.id.clone(), ..failure };
        self.outbox.push(&Response::failed(message.kind, failure));
    }
}
