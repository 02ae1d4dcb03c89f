//! The one task that owns what the server knows.
//!
//! It takes one input after the other and applies it to the [`State`] and the [`Hub`]; what has to
//! become durable is gathered while the store is busy, and handed over as one commit when it is
//! not. It awaits neither the store nor a subscriber.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, mpsc};
use valtronics_protocol::{event::Status, time::UnixMillis};

use crate::{
    clock,
    commit::{AlertDraft, Commit, QueueKey, QueueMachine},
    domain::alerts::Alerts,
    hub::{Hub, HubLimits, PageRequest, SystemSample},
    ingest::Ticket,
    state::State,
    tally::{AgentId, AgentKey, AgentRecord},
    used_key::UsedKey,
};

mod agents;
mod alerts;
mod apply;
mod commits;
mod gateways;
mod handle;
mod input;
mod keys;
mod queues;
mod rules;
mod schedule;
#[cfg(test)]
mod tests;

use agents::Agents;
pub use agents::{AgentCame, AgentView, ListAgents};
pub use alerts::{AlertChange, Behind};
pub use apply::LEAD;
pub use gateways::AdmitGateway;
use gateways::Gateways;
pub use handle::{EngineGone, EngineHandle, Look};
pub use input::{Command, Input};
use keys::Keys;
use queues::Queues;
pub use queues::{NotOpened, OpenRequest, Opened, TooManyNames};
pub use rules::{NotEdited, RuleEdit, Rules};
use schedule::Schedule;

/// What the engine needs.
pub struct Parts {
    /// The state as the store restored it.
    pub state: State,
    /// The alert engine with its rules and open alerts.
    pub alerts: Alerts,
    /// What became of alerts at the start, such as the end of those whose rules are gone.
    pub drafts: Vec<AlertDraft>,
    /// The alert rules by where they come from.
    pub rules: Rules,
    /// The rules of files, as a JSON array, if they changed while the server was stopped.
    pub file_rules: Option<Arc<str>>,
    /// The numberings of agents.
    pub queues: Vec<(QueueKey, u64)>,
    /// What was counted of agents.
    pub agents: Vec<(AgentId, AgentKey, AgentRecord)>,
    /// The idempotency keys of the last day.
    pub keys: Vec<UsedKey>,
    /// On which machines they are.
    pub machines: Vec<QueueMachine>,
    /// The subscribers' limits.
    pub limits: HubLimits,
    /// For how long readings are kept.
    pub keep: Duration,
    /// After how much silence a device counts as offline, where nothing else is said.
    pub offline_after: Option<Duration>,
    /// Where commits go.
    pub store: mpsc::Sender<Commit>,
    /// Where the store is asked for events that are not at hand.
    pub pages: mpsc::Sender<PageRequest>,
    /// Wakes the sampler of the host.
    pub sample: Arc<Notify>,
}

/// How many inputs are handled before others have their turn: enough to spread the price of a walk
/// through all targets, and too few to be noticed as a delay.
const TURN_INPUTS: usize = 32;
/// How often silence, gateways and slow readers are looked at.
const TICK: Duration = Duration::from_secs(1);

/// The task that owns the state.
pub struct Engine {
    state: State,
    hub: Hub,
    alerts: Alerts,
    rules: Rules,
    queues: Queues,
    agents: Agents,
    keys: Keys,
    gateways: Gateways,
    schedule: Schedule,
    keep: Duration,
    offline_after: Option<Duration>,
    store: mpsc::Sender<Commit>,
    pages: mpsc::Sender<PageRequest>,
    sample: Arc<Notify>,
    inputs: mpsc::Receiver<Input>,
    commands: mpsc::Receiver<Command>,
    /// What is gathered for the next commit, and who waits for it.
    pending: Commit,
    pending_tickets: Vec<Waiter>,
    /// How many requests over HTTP are among them.
    requests: usize,
    /// Somebody waits to be told of the next commit.
    is_awaited: bool,
    /// Who waits for the commit that the store works at.
    committing: Option<Vec<Waiter>>,
    /// When the last commit was handed over.
    committed_at: Instant,
    tick_at: Instant,
    stopping: bool,
    counted: u64,
    per_second: u64,
}

/// Who waits for a commit, and how much of what may be under way it takes.
type Waiter = (Option<Ticket>, Option<tokio::sync::OwnedSemaphorePermit>);

enum Event {
    Input(Input),
    Command(Command),
    Time,
    Gone,
}

impl Engine {
    /// Makes the engine and the handle to it.
    #[must_use]
    pub fn new(parts: Parts) -> (Self, EngineHandle) {
        let (inputs, inputs_rx) = mpsc::channel(handle::INPUTS);
        let (commands, commands_rx) = mpsc::channel(handle::COMMANDS);
        let (instant, now) = (clock::instant(), clock::now());
        let gateways = Gateways::restore(parts.state.devices(), now);
        let schedule = Schedule::of(parts.state.devices(), now);
        let mut engine = Self {
            state: parts.state,
            hub: Hub::new(parts.limits),
            alerts: parts.alerts,
            rules: parts.rules,
            queues: Queues::restore(parts.queues, parts.machines),
            agents: Agents::restore(parts.agents),
            keys: Keys::restore(parts.keys),
            gateways,
            schedule,
            keep: parts.keep,
            offline_after: parts.offline_after,
            store: parts.store,
            pages: parts.pages,
            sample: parts.sample,
            inputs: inputs_rx,
            commands: commands_rx,
            pending: Commit { file_rules: parts.file_rules, ..Commit::default() },
            pending_tickets: Vec::new(),
            requests: 0,
            is_awaited: false,
            committing: None,
            committed_at: instant,
            tick_at: instant + TICK,
            stopping: false,
            counted: 0,
            per_second: 0,
        };
        engine.draft(parts.drafts);
        (engine, EngineHandle::new(inputs, commands))
    }

    /// Serves until it is told to stop and everything is committed.
    pub async fn run(mut self) -> State {
        loop {
            let event = self.next().await;
            let (now, instant) = (clock::now(), clock::instant());
            match event {
                Event::Input(input) => self.turn(input, now, instant),
                Event::Command(command) => self.command(command, instant),
                Event::Time => self.time(now, instant),
                Event::Gone => self.stopping = true,
            }
            self.commit_if_due(instant);
            self.ask_pages();
            if self.stopping && self.committing.is_none() && self.is_committed() {
                return self.state;
            }
        }
    }

    async fn next(&mut self) -> Event {
        let deadline = self.deadline();
        tokio::select! {
            Some(command) = self.commands.recv() => Event::Command(command),
            input = self.inputs.recv() => input.map_or(Event::Gone, Event::Input),
            () = tokio::time::sleep_until(deadline.into()) => Event::Time,
        }
    }

    /// Handles what has come in, and what is there behind it: readings that come one after the other
    /// are delivered together.
    fn turn(&mut self, first: Input, now: UnixMillis, instant: Instant) {
        let (mut next, mut left) = (Some(first), TURN_INPUTS);
        while let Some(input) = next {
            if !matches!(input, Input::Batch(_)) || !self.commands.is_empty() {
                self.hub.deliver(instant);
                self.commands_before(instant);
            }
            self.input(input, now, instant);
            left -= 1;
            next = if left > 0 { self.inputs.try_recv().ok() } else { None };
        }
        self.hub.deliver(instant);
    }

    fn deadline(&self) -> Instant {
        let waits = self.committing.is_none() && !self.is_committed();
        let commit = waits.then(|| self.commit_at());
        [commit, self.hub.deadline()].into_iter().flatten().fold(self.tick_at, Instant::min)
    }

    fn time(&mut self, now: UnixMillis, instant: Instant) {
        self.hub.tick(&self.state, instant);
        if self.tick_at <= instant {
            self.tick_at = instant + TICK;
            self.per_second = std::mem::take(&mut self.counted);
            self.look_around(now);
            self.keys.forget_old(now);
            self.hub.end_stuck(&self.state, instant);
            self.hub.tell_lag(instant);
            self.want_system(instant);
        }
    }

    fn want_system(&self, now: Instant) {
        if self.hub.wants_system(now) {
            self.sample.notify_one();
        }
    }

    /// Handles the commands that are there: what a token no longer allows must not go out because
    /// the readings were looked at first.
    fn commands_before(&mut self, now: Instant) {
        for _ in 0..self.commands.len() {
            if let Ok(command) = self.commands.try_recv() {
                self.command(command, now);
            }
        }
    }

    fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Attach { session, outbox, claims } => {
                self.hub.attach(session, outbox, &claims, &self.state);
            }
            Command::Regrant { session, claims } => self.hub.regrant(session, &claims, &self.state),
            Command::Subscribe { session, subscribe, id } => {
                self.hub.subscribe(session, subscribe, id, &self.state, now);
                self.want_system(now);
            }
            Command::SubscribeEndpoint { session, subscribe } => {
                self.hub.subscribe_endpoint(session, subscribe, &self.state, now);
                self.want_system(now);
            }
            Command::Unsubscribe { session, unsubscribe, id } => {
                self.hub.unsubscribe(session, &unsubscribe, id);
            }
            Command::Drained(session) => self.hub.drained(session, &self.state, now),
            Command::Detach(session) => self.hub.detach(session),
        }
    }

    fn input(&mut self, input: Input, now: UnixMillis, instant: Instant) {
        match input {
            Input::Batch(batch) => self.batch(batch, now, instant),
            Input::Registered(changes) => self.registered(changes, now),
            Input::Committed(committed) => self.committed(committed, instant),
            Input::Page(page) => self.hub.page_read(page, &self.state, instant),
            Input::Pruned(oldest) => self.state.forget_before(oldest),
            Input::AdmitGateway(request) => self.gateways.admit(request, now),
            Input::Gateway { sub, name, connected } => {
                if let Some(gateway) = self.gateways.set(sub, name, connected, now) {
                    self.gateway_changed(&gateway, connected, now);
                }
            }
            Input::AgentCame(came) => self.agents.came(came, now),
            Input::AgentGone(id) => self.agents.gone(id, now),
            Input::LookAtKey(once) => self.keys.look(once),
            Input::Agents(request) => self.agents.list(request),
            Input::OpenQueue(request) => self.queues.open(request),
            Input::System(sample) => {
                let online =
                    |device: &&crate::state::Device| device.published_status() != Status::Offline;
                let devices_online = self.state.devices().iter().filter(online).count() as u64;
                let messages_per_second = self.per_second;
                let sample = SystemSample { devices_online, messages_per_second, ..sample };
                self.hub.publish_system(&sample, now, instant);
            }
            Input::Limits(limits) => self.hub.set_limits(limits),
            Input::Rules(edit) => self.edit_rules(edit, now),
            Input::Alert(wanted) => self.change_alert(wanted, now),
            Input::Read(look) => look(&self.state, &self.alerts),
            Input::Goodbye { part, parts } => self.hub.say_goodbye(part, parts),
            Input::Stop => self.stopping = true,
        }
    }
}
