//! From the frames of one connection to batches, whatever the dialect.

use std::sync::Arc;

use valtronics_protocol::{
    close::CloseCode,
    error::ErrorCode,
    time::UnixMillis,
    uplink::{Ack, Gateway},
};

use super::{Admitted, Dialect, End, Uplink, Uplinks, agent, refusal};
use crate::{
    auth::{Scope, refused_sub},
    clock,
    ingest::{
        Batch, Ticket,
        json::{self, Content, Fault},
        names::Names,
        resolve::{merge, take, take_learned, unknown},
    },
    monitor::Figures,
    socket::{Incoming, Message},
    store_task::{RegisterError, Registrant},
    tally::Tally,
};

/// The first message of a connection.
pub(super) struct Hello {
    pub(super) token: String,
    pub(super) queue: Option<String>,
    pub(super) gateway: Option<Gateway>,
}

/// What came of one frame.
#[derive(Default)]
pub(super) struct Received {
    pub(super) batch: Batch,
    pub(super) answers: Vec<Message>,
    /// Numbers that are known already came again: they are acknowledged again.
    pub(super) ack_again: bool,
    /// How many readings and messages came again.
    pub(super) duplicates: usize,
    /// A new token was taken: when it expires.
    pub(super) renewed: Option<UnixMillis>,
}

impl Received {
    /// Adds it to the figures of its connection.
    pub(super) fn count(&self, figures: &Figures) {
        // A preview's readings come again, with their numbers.
        let readings = if self.batch.preview { 0 } else { self.batch.rows.len() };
        figures.readings.add(readings as u64);
        figures.duplicates.add(self.duplicates as u64);
        figures.replaced.add(self.batch.replaced);
        // Only what is refused is answered at once.
        figures.refused.add(self.answers.len() as u64);
    }

    /// Answers a message of so many readings that it is not taken.
    fn refuse(&mut self, code: ErrorCode, why: String, seq: Option<u64>, readings: u64) {
        self.batch.tally.refuse(code, readings);
        self.answers.push(refusal(code, why, seq));
    }

    /// Notes a message of so many readings that came before.
    fn duplicated(&mut self, content: Option<&Content<'_>>, readings: u64) {
        self.duplicates += 1;
        self.ack_again = true;
        match content {
            Some(Content::Status { .. }) => self.batch.tally.events_duplicated += 1,
            Some(Content::Readings { .. } | Content::Auth { .. }) | None => {
                self.batch.tally.duplicated += readings;
            }
        }
    }
}

/// Counts what a message brings; returns how many readings. One that cannot be read counts as one.
fn count(content: Option<&Content<'_>>, tally: &mut Tally) -> u64 {
    let count = match content {
        Some(Content::Readings { readings, .. }) => readings.len() as u64,
        Some(Content::Auth { .. }) => 0,
        Some(Content::Status { .. }) => {
            tally.events_received += 1;
            0
        }
        None => 1,
    };
    tally.received += count;
    count
}

/// The frames of one connection.
pub(super) struct Frames {
    pub(super) admitted: Admitted,
    pub(super) names: Names,
    pub(super) shared: Arc<Uplinks>,
    dialect: Dialect,
    decoder: agent::Decoder,
}

impl Frames {
    pub(super) fn new(dialect: Dialect, admitted: Admitted, shared: Arc<Uplinks>) -> Self {
        let registrant = Registrant {
            sub: Arc::clone(&admitted.claims.sub),
            gateway: admitted.gateway.clone(),
            devices: admitted.claims.devices.clone(),
        };
        let names = Names::new(registrant, shared.store.clone());
        Self { admitted, names, shared, dialect, decoder: agent::Decoder::default() }
    }

    /// Takes in a text frame.
    pub(super) async fn text(&mut self, frame: &str) -> Result<Received, End> {
        self.names.make_room();
        match self.dialect {
            Dialect::Agent => self.control(frame).await,
            Dialect::Json => self.json(frame).await,
        }
    }

    /// Takes in a binary frame.
    pub(super) async fn binary(&mut self, frame: &[u8]) -> Result<Received, End> {
        if self.dialect == Dialect::Json {
            let why = "a binary frame is not JSON: send text frames";
            let answers = vec![refusal(ErrorCode::InvalidJson, why, None)];
            return Ok(Received { answers, ..Received::default() });
        }
        self.names.make_room();
        let mut decoder = std::mem::take(&mut self.decoder);
        let received = decoder.receive(frame, self).await;
        self.decoder = decoder;
        received
    }

    async fn json(&mut self, frame: &str) -> Result<Received, End> {
        let mut received = Received::default();
        let parsed = match json::parse(frame, false) {
            Ok(parsed) => parsed,
            Err(error) => {
                let why = format!("the frame cannot be read: {error}");
                received.batch.tally.received += 1;
                received.refuse(ErrorCode::InvalidJson, why, None, 1);
                return Ok(received);
            }
        };
        received.batch.received_at = clock::now();
        received.batch.rows.reserve(parsed.readings.len());
        received.batch.items.reserve(parsed.messages.len());
        let (mut reached, mut learned) = (Ack::default(), false);
        for message in &parsed.messages {
            let count = count(message.content.as_ref().ok(), &mut received.batch.tally);
            if self.is_known(message.seq) {
                received.duplicated(message.content.as_ref().ok(), count);
                continue;
            }
            let taken = match &message.content {
                Err(fault) => Err((code_of(*fault), fault.to_string())),
                Ok(Content::Auth { token, .. }) => self.renew(token, &mut received).await,
                Ok(content) => {
                    let known = take(&self.names, content, &parsed.readings, &mut received.batch);
                    if known.is_none() && !std::mem::replace(&mut learned, true) {
                        self.learn_all(&parsed).await?;
                    }
                    let refused = |error: RegisterError| (code_of_names(&error), error.to_string());
                    match known {
                        Some(()) => Ok(()),
                        None => self.take_new(content, &parsed, &mut received.batch).await?,
                    }
                    .map_err(refused)
                }
            };
            match taken {
                Ok(()) => {
                    reached.seq = message.seq.max(reached.seq);
                    // A frame may say the same number twice.
                    self.note(reached);
                }
                Err((code, why)) => {
                    received.refuse(code, why, message.seq, count);
                }
            }
        }
        self.reach(reached, &mut received.batch);
        Ok(received)
    }

    /// Tells whether a number was taken in before.
    pub(super) fn is_known(&self, seq: Option<u64>) -> bool {
        let numbered = self.admitted.queue.is_some();
        numbered && seq.is_some_and(|seq| Some(seq) <= self.admitted.accepted.seq)
    }

    /// Tells whether a commit may bring numbers that the agent has not been told.
    pub(super) fn expects_more_than(&self, told: Ack) -> bool {
        // Where nothing is remembered, what comes again is stored and acknowledged again.
        self.admitted.queue.is_none() || self.admitted.accepted != told
    }

    /// Notes the numbers that a batch reaches.
    pub(super) fn reach(&mut self, reached: Ack, batch: &mut Batch) {
        self.note(reached);
        batch.ticket = (reached != Ack::default()).then(|| Ticket {
            progress: Arc::clone(&self.admitted.progress),
            reached,
            queue: self.admitted.queue.clone(),
        });
    }

    fn note(&mut self, reached: Ack) {
        let accepted = &mut self.admitted.accepted;
        accepted.seq = accepted.seq.max(reached.seq);
        accepted.event = accepted.event.max(reached.event);
    }

    /// Has all new names of a frame brought into being at once, unless one of them may not.
    async fn learn_all(&mut self, frame: &json::Frame<'_>) -> Result<(), End> {
        let messages = frame.messages.iter().filter(|message| !self.is_known(message.seq));
        let contents = messages.filter_map(|message| message.content.as_ref().ok());
        let wanted = contents.filter_map(|content| unknown(&self.names, content, &frame.readings));
        match self.names.learn(merge(wanted.collect())).await {
            Ok(()) | Err(RegisterError::Full(_) | RegisterError::Forbidden(_)) => Ok(()),
            Err(RegisterError::Unavailable) => Err(unavailable()),
        }
    }

    /// Takes a message whose names may be new: where not all of a frame fit or may be written, each is
    /// tried alone.
    async fn take_new(
        &mut self,
        content: &Content<'_>,
        frame: &json::Frame<'_>,
        batch: &mut Batch,
    ) -> Result<Result<(), RegisterError>, End> {
        if take(&self.names, content, &frame.readings, batch).is_some() {
            return Ok(Ok(()));
        }
        let wanted = unknown(&self.names, content, &frame.readings);
        match self.names.learn(wanted.into_iter().collect()).await {
            Ok(()) => {
                let taken = take_learned(&self.names, content, &frame.readings, batch);
                taken.map(Ok).ok_or_else(unavailable)
            }
            Err(RegisterError::Unavailable) => Err(unavailable()),
            refused => Ok(refused),
        }
    }

    /// Takes a new token of the same subject.
    pub(super) async fn renew(
        &mut self,
        token: &str,
        received: &mut Received,
    ) -> Result<(), (ErrorCode, String)> {
        let claims = self.shared.gate.keys.verify(token).await;
        let (address, refusals) = (self.admitted.address, &self.shared.gate.monitor.refusals);
        let claims = claims.map_err(|fault| {
            let now = clock::instant();
            self.shared.gate.admission().refused_token(address, token, fault, now);
            refusals.auth(address, refused_sub(token, fault).as_deref(), fault);
            (ErrorCode::InvalidToken, "the new token is not valid here".to_owned())
        })?;
        if claims.sub != self.admitted.claims.sub {
            refusals.auth(address, Some(&claims.sub), ErrorCode::Forbidden);
            return Err((ErrorCode::Forbidden, "the new token is another subject's".into()));
        }
        if !claims.scopes.contains(Scope::Uplink) {
            refusals.auth(address, Some(&claims.sub), ErrorCode::Forbidden);
            return Err((ErrorCode::Forbidden, "the new token has no scope uplink".into()));
        }
        received.renewed = Some(claims.expires_at);
        if claims.devices != self.admitted.claims.devices {
            self.names.regrant(claims.devices.clone());
            self.decoder.forget_ids();
        }
        self.admitted.claims = claims;
        Ok(())
    }
}

pub(super) fn unavailable() -> End {
    End::Close(CloseCode::Internal, "the store cannot take new names now: come back later".into())
}

fn code_of_names(error: &RegisterError) -> ErrorCode {
    match error {
        RegisterError::Forbidden(_) => ErrorCode::Forbidden,
        RegisterError::Full(_) => ErrorCode::InvalidMessage,
        RegisterError::Unavailable => ErrorCode::Internal,
    }
}

fn code_of(fault: Fault) -> ErrorCode {
    match fault {
        Fault::MissingType => ErrorCode::MissingType,
        Fault::UnknownType => ErrorCode::UnknownType,
        Fault::Field(_) => ErrorCode::InvalidMessage,
    }
}

impl Uplink {
    /// Waits for the first message, which has to be a token; or takes that of the handshake.
    pub(super) async fn hello(&mut self, token: Option<String>) -> Result<Hello, End> {
        if let Some(token) = token {
            return Ok(Hello { token, queue: None, gateway: None });
        }
        loop {
            let text = match self.socket.next().await? {
                Incoming::Text(text) => text,
                Incoming::Binary(_) => return Err(first_auth()),
                Incoming::Ping(_) | Incoming::Pong | Incoming::Close(_) => continue,
            };
            if self.dialect == Dialect::Agent {
                return agent::hello(text.as_str()).ok_or_else(first_auth);
            }
            let parsed = json::parse(text.as_str(), false);
            let first = parsed.ok().and_then(|mut parsed| {
                (!parsed.messages.is_empty()).then(|| parsed.messages.remove(0))
            });
            if let Some(Ok(Content::Auth { token, queue })) = first.map(|first| first.content) {
                let queue = queue.map(std::borrow::Cow::into_owned);
                return Ok(Hello { token: token.into_owned(), queue, gateway: None });
            }
            let why = "authenticate first: {\"type\":\"auth\",\"token\":\"...\"}";
            self.socket.send(refusal(ErrorCode::AuthRequired, why, None)).await?;
        }
    }
}

fn first_auth() -> End {
    End::Close(CloseCode::InvalidToken, "the first message is auth".into())
}
