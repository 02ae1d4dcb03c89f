//! What a subscriber asks: each message that comes in, to its answer or to the engine.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
    time::{Duration, Instant},
};

use valtronics_protocol::{
    close::CloseCode,
    error::{ErrorCode, TokenFault},
    format::Format,
    request::{self, Kind, Message, MessageLimits, Request},
    response::{AuthResponse, Failure, Pong, Response},
    time::UnixMillis,
};

use crate::{
    auth::{Claims, Keys},
    clock,
    engine::Command,
    hub::SessionId,
    limits::{Admission, Refused, TokenBucket},
    monitor::Monitor,
    outbox::Outbox,
    socket::Message as Frame,
};

/// What every connection shares at the door.
#[derive(Debug)]
pub struct Gate {
    /// The keys that verify tokens.
    pub keys: Keys,
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
        Self { keys, monitor, limits, admission: Mutex::new(admission) }
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
    /// The connection is to end.
    Close(CloseCode, String),
}

/// The requests of one connection.
pub(super) struct Requests {
    id: SessionId,
    address: IpAddr,
    /// To what the endpoint subscribes by itself at the first `auth`.
    endpoint: Option<request::Subscribe>,
    outbox: Arc<Outbox>,
    gate: Arc<Gate>,
    limits: SessionLimits,
    bucket: TokenBucket,
    claims: Option<Claims>,
    waiting: VecDeque<Message>,
    /// What is to be handed to the engine.
    pub(super) commands: Vec<Command>,
}

/// After how many dropped messages in a minute a connection is ended.
const RETRY_AFTER_FLOOD: u64 = 60;

impl Requests {
    pub(super) fn new(
        id: SessionId,
        address: IpAddr,
        endpoint: Option<request::Subscribe>,
        outbox: Arc<Outbox>,
        gate: Arc<Gate>,
        now: Instant,
    ) -> Self {
        let limits = gate.limits();
        Self {
            id,
            address,
            endpoint,
            outbox,
            gate,
            limits,
            bucket: TokenBucket::new(limits.messages_per_second, now),
            claims: None,
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

    /// Ends it; returns what the engine is to be told.
    pub(super) fn leave(&mut self) -> Option<Command> {
        let user = self.claims.take().map(|claims| claims.sub);
        self.gate.admission().close(user.as_deref());
        user.map(|_| Command::Detach(self.id))
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

    /// Takes in a frame.
    pub(super) fn receive(&mut self, frame: &Frame) {
        let limits = &self.limits.message;
        match (self.outbox.format(), frame) {
            (Format::Json, Frame::Text(text)) => self.waiting.extend(request::parse(text, limits)),
            (Format::Cbor, Frame::Binary(bytes)) => {
                self.waiting.extend(request::parse_cbor(bytes, limits));
            }
            (format, _) => self.waiting.push_back(request::misplaced(format)),
        }
    }

    /// Counts a control frame; says why to end, if it is one too many.
    pub(super) fn count_control(&mut self, now: Instant) -> Option<(CloseCode, String)> {
        if self.bucket.take(now) { None } else { self.flooded() }
    }

    fn flooded(&self) -> Option<(CloseCode, String)> {
        let reason = format!("too many messages; retry_after={RETRY_AFTER_FLOOD}");
        self.bucket.is_flooded().then_some((CloseCode::Limited, reason))
    }

    /// Handles the message that has waited longest.
    pub(super) fn handle_next(&mut self, now: Instant) -> Option<Step> {
        let mut message = self.waiting.pop_front()?;
        if !self.bucket.take(now) {
            let why = format!(
                "at most {} messages a second: this one was dropped, send it again later",
                self.limits.messages_per_second
            );
            self.fail(&message, Failure::new(ErrorCode::RateLimited, why));
            let close = self.flooded();
            return Some(close.map_or(Step::Answered, |(code, why)| Step::Close(code, why)));
        }
        let nothing = Err((ErrorCode::Internal, String::new()));
        let request = match std::mem::replace(&mut message.request, nothing) {
            Ok(request) => request,
            Err((code, why)) => {
                self.fail(&message, Failure::new(code, why));
                return Some(Step::Answered);
            }
        };
        Some(self.handle(message, request))
    }

    fn handle(&mut self, message: Message, request: Request) -> Step {
        match request {
            Request::Auth(token) => return self.authenticate(&message, token),
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
    fn fail(&self, message: &Message, failure: Failure) {
        let failure =
            Failure { channel: message.channel.clone(), id: message.id.clone(), ..failure };
        self.outbox.push(&Response::failed(message.kind, failure));
    }

    fn authenticate(&mut self, message: &Message, token: Result<String, TokenFault>) -> Step {
        let verified = token.and_then(|token| self.gate.keys.verify(&token, clock::now()));
        let claims = match verified {
            Ok(claims) => claims,
            Err(fault) => return self.refuse_token(message, fault),
        };
        if let Some(known) = &self.claims {
            if known.sub != claims.sub {
                let (sub, code) = (Some(&*claims.sub), ErrorCode::Forbidden);
                self.gate.monitor.refusals.auth(self.address, sub, code);
                let why = "the new token is another user's: open a new connection for it";
                self.fail(message, Failure::new(ErrorCode::Forbidden, why));
                return Step::Answered;
            }
            let regrant = Command::Regrant { session: self.id, claims: claims.clone() };
            self.commands.push(regrant);
        } else {
            let admitted =
                self.gate.admission().authenticated(self.address, &claims.sub, clock::instant());
            if let Err(refused) = admitted {
                return self.refuse_user(message, refused, &claims.sub);
            }
            let outbox = Arc::clone(&self.outbox);
            self.commands.push(Command::Attach {
                session: self.id,
                outbox,
                claims: claims.clone(),
            });
            if let Some(subscribe) = self.endpoint.clone() {
                self.commands.push(Command::Subscribe { session: self.id, subscribe, id: None });
            }
        }
        let response = AuthResponse {
            success: true,
            user: Some(claims.sub.to_string()),
            expires_at: Some(claims.expires_at),
            scopes: Some(claims.scopes.names()),
            failure: None,
            id: message.id.clone(),
        };
        self.outbox.push(&Response::AuthResponse(response));
        let expires_at = claims.expires_at;
        self.claims = Some(claims);
        Step::Authenticated { expires_at }
    }

    fn refuse_user(&self, message: &Message, refused: Refused, user: &str) -> Step {
        let retry_after = refused.retry_after_seconds();
        let code = match refused {
            Refused::UserFull | Refused::Full => ErrorCode::ConnectionLimit,
            Refused::UserRate { .. } | Refused::Address { .. } => ErrorCode::RateLimited,
        };
        self.gate.monitor.refusals.auth(self.address, Some(user), code);
        let failure = Failure::new(code, refused.to_string());
        self.fail(message, Failure { retry_after: Some(retry_after), ..failure });
        Step::Close(CloseCode::Limited, format!("{refused}; retry_after={retry_after}"))
    }

    fn refuse_token(&self, message: &Message, fault: TokenFault) -> Step {
        self.gate.monitor.refusals.auth(self.address, None, fault);
        let why = match fault {
            TokenFault::Missing => "auth needs a token",
            TokenFault::Expired => "the token has expired: get a new one",
            TokenFault::NotYetValid => "the token is not valid yet: check the clocks",
            _ => "the token is not valid here: get one from this server's operator",
        };
        let reason = Some(fault);
        self.fail(message, Failure { reason, ..Failure::new(ErrorCode::InvalidToken, why) });
        if self.claims.is_some() {
            return Step::Answered;
        }
        Step::Close(CloseCode::InvalidToken, "no valid token".into())
    }
}
