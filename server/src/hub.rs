//! Who gets what: from the state's changes to the outboxes of subscribers.
//!
//! An update of a device goes through an index from devices to targets; nothing walks all
//! subscriptions. It is encoded once for each projection that somebody gets, and pushed, never
//! awaited. Whoever reads too slowly, has just subscribed, or resumes is served from the state, and
//! of older events from pages of the store: his `Backlog` says what is still owed, and [`Hub::pump`]
//! pays it as his connection drains.
//!
//! Pure: no socket, no clock; the outboxes are what comes out.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use valtronics_protocol::{close::CloseCode, id::DeviceId};

use crate::{
    auth::{Claims, Scopes},
    commit::MetricIndex,
    message::TelemetryFrame,
    outbox::{Close, Outbox, Pushed},
    state::{Device, State},
};

pub mod projection;
mod backlog;
mod events;
mod index;
mod metric_set;
mod regrant;
mod sight;
mod subscribe;
mod subscription;
mod system;
mod throttle;
mod walk;

use backlog::Backlog;
use index::{Index, Target};
use projection::{Change, Encoded, Mark, ProjectionId, Projections};
use sight::Sight;
use subscription::{EventSubscription, Key, Keyed, SystemSubscription, TelemetrySubscription};
use throttle::Throttles;

pub use events::{Page, PageRequest};
pub use system::SystemSample;

/// Names a session for as long as the server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// What bounds a subscriber.
#[derive(Debug, Clone, Copy)]
pub struct HubLimits {
    /// The most keys of one connection.
    pub subscriptions: usize,
    /// How much telemetry may wait for one connection before it is conflated.
    pub queue_bytes: usize,
    /// How long telemetry may wait for company when a connection is busy.
    pub coalesce: Duration,
}

/// Every subscriber, and the ways from changes to them.
#[derive(Debug)]
pub struct Hub {
    limits: HubLimits,
    /// In boxes: a map has room for twice as many as it holds.
    subscribers: HashMap<SessionId, Box<Subscriber>, RandomState>,
    projections: Projections,
    live: Index,
    historical: Index,
    throttles: Throttles,
    /// Live readings that are to be delivered.
    gathered: Vec<Gathered>,
    /// What the store is to be asked for.
    pages: VecDeque<PageRequest>,
    /// Sessions that got telemetry and sleep on until the coalescing period ends.
    asleep: Vec<Arc<Outbox>>,
    wake_at: Option<Instant>,
}

/// One authenticated connection.
#[derive(Debug)]
struct Subscriber {
    outbox: Arc<Outbox>,
    scopes: Scopes,
    sight: Sight,
    telemetry: Keyed<TelemetrySubscription>,
    alerts: Keyed<EventSubscription>,
    status: Keyed<EventSubscription>,
    system: Option<SystemSubscription>,
    /// To what its endpoint has subscribed, until the client subscribes itself.
    endpoint: Vec<Key>,
    backlog: Backlog,
}

/// How long an event may wait for a connection that reads (WebSocket API, section 6).
const EVENT_PATIENCE: Duration = Duration::from_secs(60);

impl Subscriber {
    fn keys(&self) -> usize {
        let keyed = self.telemetry.len() + self.alerts.len() + self.status.len();
        keyed + usize::from(self.system.is_some())
    }

    fn may_see(&self, device: &Device) -> bool {
        self.sight.sees(device.id())
    }
}

impl Hub {
    /// Makes a hub without subscribers.
    #[must_use]
    pub fn new(limits: HubLimits) -> Self {
        Self {
            limits,
            subscribers: HashMap::default(),
            projections: Projections::default(),
            live: Index::default(),
            historical: Index::default(),
            throttles: Throttles::default(),
            gathered: Vec::new(),
            pages: VecDeque::new(),
            asleep: Vec::new(),
            wake_at: None,
        }
    }

    /// Changes the limits for what comes from now on.
    pub fn set_limits(&mut self, limits: HubLimits) {
        self.limits = limits;
    }

    /// Counts the authenticated connections.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.subscribers.len()
    }

    /// Takes in an authenticated connection.
    pub fn attach(
        &mut self,
        session: SessionId,
        outbox: Arc<Outbox>,
        claims: &Claims,
        state: &State,
    ) {
        let subscriber = Subscriber {
            outbox,
            scopes: claims.scopes,
            sight: Sight::new(claims.devices.clone(), state),
            telemetry: Keyed::default(),
            alerts: Keyed::default(),
            status: Keyed::default(),
            system: None,
            endpoint: Vec::new(),
            backlog: Backlog::default(),
        };
        self.subscribers.insert(session, Box::new(subscriber));
    }

    /// Lets go of a connection.
    pub fn detach(&mut self, session: SessionId) {
        self.remove_telemetry(session, None);
        self.reindex(session);
        self.subscribers.remove(&session);
        self.pages.retain(|page| page.session != session);
    }

    /// Tells whether anybody gets telemetry of a device.
    #[must_use]
    pub fn is_watched(&self, device: DeviceId) -> bool {
        let target = self.live.of(device).chain(self.historical.of(device)).next();
        target.is_some() || self.throttles.has(device)
    }

    /// Takes in live readings of a device, which [`Hub::deliver`] sends in the order in which they
    /// came; those of periods go at once, or when their period ends.
    pub fn publish(&mut self, device: &Device, changes: &[Change<'_>], now: Instant) {
        let mut encoded = Encoded::new(&self.projections, device, changes, Mark::Live);
        for target in self.live.of(device.id()) {
            encoded.frames(target.projection);
        }
        self.gathered.extend(encoded.into_frames());
        self.publish_throttled(device, changes, now);
    }

    /// Sends what was published since, to one target after the other: to visit thousands of them
    /// costs more than what each is given. Nothing else is to happen in between.
    pub fn deliver(&mut self, now: Instant) {
        let mut gathered = mem::take(&mut self.gathered);
        let mut sender = Sender {
            subscribers: &mut self.subscribers,
            asleep: &mut self.asleep,
            limits: self.limits,
            now,
        };
        if !gathered.is_empty() {
            for target in self.live.of_all() {
                sender.send(target, gathered.iter().filter(|one| !target.has_own(one.1.device)));
            }
        }
        // Each device's stay in their order.
        gathered.sort_by_key(|(_, frame)| frame.device);
        for of_device in gathered.chunk_by(|(_, one), (_, next)| one.device == next.device) {
            let device = of_device.first().map(|(_, frame)| frame.device);
            for target in device.into_iter().flat_map(|device| self.live.of_one(device)) {
                sender.send(target, of_device.iter());
            }
        }
        gathered.clear();
        self.gathered = gathered;
        if !self.asleep.is_empty() && self.wake_at.is_none() {
            self.wake_at = Some(now + self.limits.coalesce);
        }
    }

    fn publish_throttled(&mut self, device: &Device, changes: &[Change<'_>], now: Instant) {
        let projections = &self.projections;
        let covered = |id: ProjectionId| {
            let metrics = changes.iter().map(|change| change.metric);
            let shown = |metric: &MetricIndex| {
                device.metric(*metric).is_some_and(|metric| projections.covers(id, &metric.name))
            };
            metrics.filter(shown).collect()
        };
        for due in self.throttles.changed(device.id(), covered, now) {
            self.emit_throttled(&due, device, now);
        }
    }

    /// Sends readings that came late, at once whatever the period.
    pub fn publish_historical(&mut self, device: &Device, changes: &[Change<'_>]) {
        let mut encoded = Encoded::new(&self.projections, device, changes, Mark::Historical);
        for target in self.historical.of(device.id()) {
            for frame in encoded.frames(target.projection) {
                if !target.outbox.push_historical(frame, target.packing)
                    && let Some(subscriber) = self.subscribers.get_mut(&target.session)
                {
                    subscriber.backlog.merged_telemetry += 1;
                    subscriber.outbox.note_merged(1);
                }
            }
        }
    }

    /// Sends the newest values of what changed in a throttled group's period.
    fn emit_throttled(&mut self, due: &throttle::Due, device: &Device, now: Instant) {
        let changes = newest(device, due.metrics.iter());
        let frames = self.projections.encode(due.projection, device, &changes, Mark::Live);
        for target in &due.targets {
            for frame in &frames {
                let limit = self.limits.queue_bytes;
                let pushed = target.push([frame].into_iter(), limit, now, Duration::ZERO);
                if matches!(pushed, Pushed::Conflate { .. })
                    && let Some(subscriber) = self.subscribers.get_mut(&target.session)
                {
                    subscriber.conflate(frame);
                }
            }
        }
    }

    /// Returns when [`Hub::tick`] is to be called next.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        [self.wake_at, self.throttles.deadline()].into_iter().flatten().min()
    }

    /// Does what is due: ends coalescing and throttling periods.
    pub fn tick(&mut self, state: &State, now: Instant) {
        if self.wake_at.is_some_and(|at| at <= now) {
            self.wake_at = None;
            for outbox in self.asleep.drain(..) {
                outbox.wake();
            }
        }
        while let Some((device, due)) = self.throttles.expired(now) {
            if let Some(device) = state.device(device) {
                self.emit_throttled(&due, device, now);
            }
        }
    }

    /// Sends events that have just been published.
    pub fn events_published(&mut self, state: &State, now: Instant) {
        let waiting = self.subscribers.iter().filter(|(_, subscriber)| !subscriber.is_promised());
        let sessions: Vec<SessionId> = waiting.map(|(session, _)| *session).collect();
        for session in sessions {
            self.pump(session, state, now);
        }
    }

    /// Ends every so-and-so-many-th connection: the server goes away.
    pub fn say_goodbye(&mut self, part: u64, parts: u64) {
        for (session, subscriber) in &self.subscribers {
            if session.0 % parts == part {
                subscriber.outbox.close(Close {
                    code: CloseCode::GoingAway,
                    reason: "the server goes away: come back after a random delay".into(),
                });
            }
        }
    }

    /// Ends the connections that do not read their events.
    pub fn end_stuck(&mut self, state: &State, now: Instant) {
        for subscriber in self.subscribers.values_mut() {
            if subscriber.is_stuck(state, now) {
                subscriber.outbox.cut(Close {
                    code: CloseCode::TooSlow,
                    reason: "alerts or status changes waited for 60 s: come back with since".into(),
                });
            }
        }
    }
}

/// An encoded update, and for which projection.
type Gathered = (ProjectionId, Arc<TelemetryFrame>);

/// Sends live readings to their targets.
struct Sender<'a> {
    subscribers: &'a mut HashMap<SessionId, Box<Subscriber>, RandomState>,
    asleep: &'a mut Vec<Arc<Outbox>>,
    limits: HubLimits,
    now: Instant,
}

impl Sender<'_> {
    fn send<'a>(&mut self, target: &Target, gathered: impl Iterator<Item = &'a Gathered> + Clone) {
        let frames = gathered.filter(|(id, _)| *id == target.projection).map(|(_, frame)| frame);
        if frames.clone().next().is_none() {
            return;
        }
        let HubLimits { queue_bytes, coalesce, .. } = self.limits;
        match target.push(frames.clone(), queue_bytes, self.now, coalesce) {
            Pushed::Queued | Pushed::Gone => {}
            Pushed::Asleep => self.asleep.push(Arc::clone(&target.outbox)),
            Pushed::Conflate { taken } => {
                if let Some(subscriber) = self.subscribers.get_mut(&target.session) {
                    frames.skip(taken).for_each(|frame| subscriber.conflate(frame));
                }
            }
        }
    }
}

/// Collects the newest values of some metrics of a device.
fn newest(device: &Device, metrics: impl Iterator<Item = MetricIndex>) -> Vec<Change<'_>> {
    let change = |metric| {
        let last = device.metric(metric)?.last.as_ref()?;
        Some(Change { metric, value: &last.value, at: last.at, arrived_at: None })
    };
    metrics.filter_map(change).collect()
}

#[cfg(test)]
mod tests;
