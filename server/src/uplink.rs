//! `/uplink`: an agent's connection, from its token to its acknowledgements.
//!
//! Both dialects share everything but the form of readings: our agent's come in binary frames, those
//! of agents that others write in JSON. A frame becomes one batch; it is acknowledged when the
//! store has committed it. Who sends more than his window is not read on; nobody else notices.

use std::{net::IpAddr, panic::AssertUnwindSafe, pin::pin, sync::Arc};

use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use valtronics_protocol::{
    close::CloseCode,
    error::ErrorCode,
    format::Format,
    uplink::{Ack, MAX_FRAME_BYTES, Refusal, ServerMessage, Welcome},
};

use crate::{
    auth::{Claims, Scope, refused_sub},
    clock,
    engine::{EngineHandle, Input, NotOpened},
    ingest::{Batch, OpenQueue},
    message::to_message,
    session::{Entry, Gate},
    socket::{Broken, Incoming, Message, Socket},
    store_task::StoreHandle,
    tally::AgentId,
    timing::{Due, Timing},
};

mod acks;
mod agent;
mod frames;
mod introduce;
mod names;

use acks::Acks;
use frames::Frames;

/// How much may be under way for one connection: a second of a fast agent, and no more than that is
/// lost from sight when the store is slow.
const WINDOW_BYTES: usize = 1024 * 1024;

/// Which dialect a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Our agent's.
    Agent,
    /// That of agents that others write.
    Json,
}

/// What every uplink shares.
pub struct Uplinks {
    /// The door.
    pub gate: Arc<Gate>,
    /// The way to the engine.
    pub engine: EngineHandle,
    /// The way to the registry.
    pub store: StoreHandle,
    /// The server stops.
    pub stop: CancellationToken,
}

/// An agent's connection.
pub struct Uplink {
    socket: Socket,
    entry: Entry,
    address: IpAddr,
    /// Under which it is counted, once it is known.
    agent: Option<AgentId>,
    dialect: Dialect,
    shared: Arc<Uplinks>,
    window: Arc<Semaphore>,
    /// Taken by the preview that the engine has not yet handled: nobody has two waiting there.
    preview: Arc<Semaphore>,
    /// A batch that waits for its share of the window; until it has it, no frame is read.
    waiting: Option<Waiting>,
}

struct Waiting {
    batch: Batch,
    permits: u32,
}

/// Why a connection ends.
enum End {
    /// It is gone.
    Gone,
    /// It is to be closed.
    Close(CloseCode, String),
}

impl From<Broken> for End {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Gone => Self::Gone,
            Broken::Violation(code) => Self::Close(code, String::new()),
        }
    }
}

fn stopping() -> End {
    End::Close(CloseCode::GoingAway, "the server stops".into())
}

/// An authenticated connection.
struct Admitted {
    address: IpAddr,
    claims: Claims,
    gateway: Option<Arc<str>>,
    queue: Option<OpenQueue>,
    /// The numbers that were taken in so far.
    accepted: Ack,
    /// The committed numbers that the other side knows.
    told: Ack,
    progress: Arc<watch::Sender<Ack>>,
    taken_over: watch::Receiver<bool>,
}

impl Uplink {
    /// Takes over a connection whose handshake is done.
    #[must_use]
    pub fn new(
        socket: Socket,
        entry: Entry,
        address: IpAddr,
        dialect: Dialect,
        shared: Arc<Uplinks>,
    ) -> Self {
        let window = Arc::new(Semaphore::new(WINDOW_BYTES));
        let preview = Arc::new(Semaphore::new(1));
        Self {
            socket,
            entry,
            address,
            agent: None,
            dialect,
            shared,
            window,
            preview,
            waiting: None,
        }
    }

    /// Serves the connection until it ends.
    pub async fn run(mut self, token: Option<String>) {
        let end = match self.admit(token).await {
            Ok(admitted) => {
                let (sub, gateway) = (Arc::clone(&admitted.claims.sub), admitted.gateway.clone());
                let (gateway_name, jti) = (gateway.as_deref(), admitted.claims.jti.as_deref());
                let clock_offset_ms = self.socket.watched().clock_offset_ms();
                tracing::info!(%sub, gateway = gateway_name, jti, address = %self.address, clock_offset_ms, "an agent is connected");
                // A panic ends this connection alone; the engine must still hear of its end.
                let served = AssertUnwindSafe(self.serve(admitted)).catch_unwind().await;
                let internal = |_| End::Close(CloseCode::Internal, String::new());
                let end = served.unwrap_or_else(internal);
                self.gone().await;
                if let Some(name) = gateway.clone() {
                    let gone = Input::Gateway { sub: Arc::clone(&sub), name, connected: false };
                    // Without an engine the server is stopping.
                    let _ = self.shared.engine.send(gone).await;
                }
                tracing::info!(%sub, gateway = gateway.as_deref(), "an agent is gone");
                end
            }
            Err(end) => end,
        };
        let mut last = match end {
            End::Close(code, reason) => Some(Message::close(code, &reason)),
            End::Gone => None,
        };
        // Now: the goodbye may take a while, and its place is free.
        drop(self.entry);
        self.socket.end(|| last.take()).await;
    }

    /// Waits for a good token and opens the numbering.
    async fn admit(&mut self, token: Option<String>) -> Result<Admitted, End> {
        let within = self.shared.gate.limits().auth_within;
        let hello = tokio::time::timeout(within, self.hello(token)).await.map_err(|_| {
            End::Close(CloseCode::TimedOut, "no auth within the time: send it first".into())
        })??;
        if let Some(gateway) = &hello.gateway {
            self.socket.watched().read_clock(gateway.time);
        }
        let claims = self.verify(&hello.token).await?;
        self.socket.watched().authenticated(&claims.sub);
        self.shared.gate.admission().succeeded(self.address);
        let mut admitted = match self.open(claims, &hello).await? {
            Ok(admitted) => admitted,
            Err(NotOpened::TooMany(full)) => return Err(self.refuse(full).await),
            Err(copied @ NotOpened::Copied) => return Err(self.refuse_copy(copied).await),
        };
        let (committed, named) = (admitted.told, admitted.queue.is_some());
        let ours = self.dialect == Dialect::Agent;
        let welcome = Welcome {
            success: true,
            user: Some(admitted.claims.sub.to_string()),
            expires_at: Some(admitted.claims.expires_at),
            scopes: Some(admitted.claims.scopes.names().into_iter().map(str::to_owned).collect()),
            last_seq: named.then_some(committed.seq),
            last_event: (named && ours).then_some(committed.event),
            window: ours.then_some(WINDOW_BYTES as u64),
            time: ours.then(clock::now),
            ..Welcome::default()
        };
        self.socket.send(to_message(&ServerMessage::AuthResponse(welcome), Format::Json)).await?;
        if let Some(name) = &admitted.gateway {
            let (sub, name) = (Arc::clone(&admitted.claims.sub), Arc::clone(name));
            let here = Input::Gateway { sub, name, connected: true };
            self.shared.engine.send(here).await.map_err(|_| stopping())?;
        }
        self.introduce(&admitted, &hello).await?;
        admitted.taken_over.mark_unchanged();
        Ok(admitted)
    }

    /// Verifies a token; a bad one is answered.
    async fn verify(&mut self, token: &str) -> Result<Claims, End> {
        let (refusal, end) = match self.shared.gate.keys.verify(token).await {
            Ok(claims) if claims.scopes.contains(Scope::Uplink) => return Ok(claims),
            Ok(claims) => {
                let (sub, code) = (Some(&*claims.sub), ErrorCode::Forbidden);
                self.shared.gate.monitor.refusals.auth(self.address, sub, code);
                let why = "the token has no scope uplink: get one that has";
                let refusal = Welcome { error: Some(ErrorCode::Forbidden), ..Welcome::default() };
                (refusal, End::Close(CloseCode::Forbidden, why.into()))
            }
            Err(fault) => {
                let now = clock::instant();
                // The address may be shut out of `/ws`; agents notice nothing of it.
                self.shared.gate.admission().refused_token(self.address, token, fault, now);
                let sub = refused_sub(token, fault);
                self.shared.gate.monitor.refusals.auth(self.address, sub.as_deref(), fault);
                let reason = serde_json::to_value(fault).ok();
                let reason = reason.and_then(|reason| reason.as_str().map(str::to_owned));
                let error = Some(ErrorCode::InvalidToken);
                let refusal = Welcome { error, reason, ..Welcome::default() };
                (refusal, End::Close(CloseCode::InvalidToken, "the token is not valid here".into()))
            }
        };
        let message = match &end {
            End::Close(_, why) => Some(why.clone()),
            End::Gone => None,
        };
        let refusal = ServerMessage::AuthResponse(Welcome { message, ..refusal });
        self.socket.send(to_message(&refusal, Format::Json)).await?;
        Err(end)
    }

    /// Takes in frames and sends acknowledgements until the connection ends.
    async fn serve(&mut self, admitted: Admitted) -> End {
        let mut acks = Acks::new(&admitted);
        let mut taken_over = admitted.taken_over.clone();
        let mut timing = Timing::new(clock::instant(), &self.shared.gate.limits());
        timing.authenticated(admitted.claims.expires_at, clock::now(), clock::instant());
        let mut frames = Frames::new(self.dialect, admitted, Arc::clone(&self.shared));
        let stop = self.shared.stop.clone();
        let mut stopped = pin!(stop.cancelled());
        let mut alarm = pin!(tokio::time::sleep_until(timing.deadline().into()));
        loop {
            let owed = acks.deadline(clock::instant());
            let deadline = owed.map_or(timing.deadline(), |at| at.min(timing.deadline())).into();
            // One that rings too early is looked at in vain, once: cheaper than one a message.
            if deadline < alarm.deadline() || alarm.is_elapsed() {
                alarm.as_mut().reset(deadline);
            }
            let permits = self.waiting.as_ref().map_or(0, |waiting| waiting.permits);
            tokio::select! {
                message = self.socket.next(), if self.waiting.is_none() => {
                    timing.heard(clock::instant());
                    match self.receive(message, &mut frames, &mut timing).await {
                        Ok(ack_again) => acks.due |= ack_again,
                        Err(end) => return end,
                    }
                }
                Ok(permit) = Arc::clone(&self.window).acquire_many_owned(permits),
                    if self.waiting.is_some() =>
                {
                    if let Some(Waiting { batch, .. }) = self.waiting.take()
                        && let Err(end) = self.take_in(batch, permit).await
                    {
                        return end;
                    }
                }
                Ok(()) = acks.progress.changed(), if frames.expects_more_than(acks.told) => {
                    acks.due = true;
                }
                Ok(()) = taken_over.changed() => {}
                () = &mut stopped => return stopping(),
                () = &mut alarm => {}
            }
            // Before any acknowledgement: what the newer connection commits is not this one's.
            if *taken_over.borrow() {
                let why = "a newer connection has taken this queue over";
                return End::Close(CloseCode::Forbidden, why.into());
            }
            if let Err(end) = self.send_due(&mut acks, &mut timing).await {
                return end;
            }
        }
    }

    /// Sends what is due although nothing came.
    async fn send_due(&mut self, acks: &mut Acks, timing: &mut Timing) -> Result<(), End> {
        let now = clock::instant();
        if acks.deadline(now).is_some_and(|at| at <= now)
            && let Some(ack) = acks.take(now)
        {
            self.socket.send(to_message(&ServerMessage::Ack(ack), Format::Json)).await?;
        }
        // Who is not read on cannot be heard.
        if self.waiting.is_some() {
            timing.heard(now);
        }
        let message = match timing.due(now) {
            // No answer to an agent is ever held.
            None | Some(Due::Release) => return Ok(()),
            Some(Due::Ping) => Message::ping(),
            Some(Due::TokenExpires(expires_at)) => {
                to_message(&ServerMessage::AuthExpiring { expires_at }, Format::Json)
            }
            Some(Due::End(code, why)) => return Err(End::Close(code, why.into())),
        };
        Ok(self.socket.send(message).await?)
    }

    /// Takes in one frame; returns whether numbers that are known already came again.
    async fn receive(
        &mut self,
        message: Result<Incoming, Broken>,
        frames: &mut Frames,
        timing: &mut Timing,
    ) -> Result<bool, End> {
        let message = message?;
        let arrived_at = Some(clock::instant());
        let bytes = message.payload().len().clamp(1, MAX_FRAME_BYTES);
        let received = match message {
            Incoming::Text(text) => frames.text(text.as_str()).await,
            Incoming::Binary(frame) => frames.binary(&frame).await,
            Incoming::Ping(_) | Incoming::Pong | Incoming::Close(_) => return Ok(false),
        };
        let received = received?;
        received.count(&self.socket.watched().figures);
        if let Some(expires_at) = received.renewed {
            timing.authenticated(expires_at, clock::now(), clock::instant());
        }
        if received.batch.preview {
            // It waits for no room, for it is there for when there is none, but for the one before.
            let permit = Arc::clone(&self.preview).acquire_owned().await.ok();
            let batch = Batch { arrived_at, permit, ..received.batch };
            self.shared.engine.send(Input::Batch(batch)).await.map_err(|_| stopping())?;
        } else if !received.batch.is_empty() {
            let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
            let batch = Batch { arrived_at, agent: self.agent, ..received.batch };
            match Arc::clone(&self.window).try_acquire_many_owned(permits) {
                Ok(permit) => self.take_in(batch, permit).await?,
                Err(_) => self.waiting = Some(Waiting { batch, permits }),
            }
        }
        for answer in received.answers {
            self.socket.send(answer).await?;
        }
        Ok(received.ack_again)
    }

    /// Hands a batch to the engine with its share of the window.
    async fn take_in(&self, batch: Batch, permit: OwnedSemaphorePermit) -> Result<(), End> {
        let batch = Batch { permit: Some(permit), ..batch };
        self.shared.engine.send(Input::Batch(batch)).await.map_err(|_| stopping())
    }
}

/// Makes the answer to a message that was refused.
fn refusal(error: ErrorCode, message: impl Into<String>, seq: Option<u64>) -> Message {
    to_message(&ServerMessage::Error(Refusal { error, message: message.into(), seq }), Format::Json)
}
