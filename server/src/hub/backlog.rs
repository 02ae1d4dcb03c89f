//! What a connection is still owed, as positions in the state instead of queued messages.
//!
//! Snapshots are walks over the ids of devices or alerts, events are a position in their log, and
//! telemetry that was not read in time is a set of changed metrics. [`Hub::pump`] pays as much as
//! the outbox takes; the session asks again when it has drained.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use foldhash::fast::RandomState;
use valtronics_protocol::{
    event::{Event, Lagged},
    filter::Channel,
    id::{DeviceId, Seq},
    time::UnixMillis,
};

use super::{
    Hub, SessionId, Subscriber,
    metric_set::MetricSet,
    newest,
    projection::{Mark, Projections},
    subscription::{EventSubscription, Keyed},
};
use crate::{
    commit::{CommittedEvent, MetricIndex},
    message::Packing,
    outbox::{TelemetryFrame, URGENT_BYTES},
    state::{EventLog, State, encode},
};

/// What is owed to one connection.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    telemetry: VecDeque<Walk>,
    alerts: EventsOwed,
    status: EventsOwed,
    /// Devices whose newest values are owed, the longest waiting first.
    changed: VecDeque<DeviceId>,
    changed_metrics: HashMap<DeviceId, MetricSet, RandomState>,
    pub(super) merged_telemetry: u64,
    pub(super) merged_system: u64,
    lag_told_at: Option<UnixMillis>,
}

/// A snapshot under way: over all ids, or those of some devices.
#[derive(Debug, Clone)]
struct Walk {
    devices: Option<Arc<[DeviceId]>>,
    /// The lowest id that is not done yet.
    next: u64,
    /// Up to which id the snapshot showed the log's state at which position.
    shown: Vec<(u64, Seq)>,
}

/// What is owed of a channel of events.
#[derive(Debug, Default)]
pub(super) struct EventsOwed {
    /// Everything up to here is done; `None` before the first subscription.
    position: Option<Seq>,
    walks: VecDeque<Walk>,
    /// Snapshots that ran while events went on: these must not be told again what they saw.
    walked: Vec<Walk>,
    /// When something of this channel was last sent.
    moved_at: UnixMillis,
}

impl Walk {
    fn new(devices: Option<Vec<DeviceId>>) -> Self {
        let devices = devices.map(|mut devices| {
            devices.sort();
            devices.into()
        });
        Self { devices, next: 1, shown: Vec::new() }
    }

    fn covers(&self, device: DeviceId) -> bool {
        self.devices.as_ref().is_none_or(|devices| devices.binary_search(&device).is_ok())
    }

    /// Moves on to the next device, if there is one.
    fn next_device(&mut self, state: &State) -> Option<DeviceId> {
        let id = match &self.devices {
            None => DeviceId(self.next),
            Some(devices) => {
                *devices.get(devices.partition_point(|device| device.0 < self.next))?
            }
        };
        let last = state.devices().len() as u64;
        if id.0 > last {
            return None;
        }
        self.next = id.0 + 1;
        Some(id)
    }

    fn note(&mut self, upto: u64, position: Seq) {
        match self.shown.last_mut() {
            Some((last, at)) if *at == position => *last = upto,
            Some(_) | None => self.shown.push((upto, position)),
        }
    }

    fn has_shown(&self, device: DeviceId, id: u64, seq: Seq) -> bool {
        let shown = self.shown.iter().find(|(upto, _)| id <= *upto);
        self.covers(device) && shown.is_some_and(|(_, position)| seq <= *position)
    }
}

impl EventsOwed {
    /// Owes what comes from now on.
    pub(super) fn follow(&mut self, last: Seq) {
        self.position.get_or_insert(last);
    }

    /// Owes the present state, then what comes from now on.
    pub(super) fn snapshot(&mut self, devices: Option<Vec<DeviceId>>, last: Seq) {
        self.follow(last);
        self.walks.push_back(Walk::new(devices));
    }

    /// Owes everything after `since`; what this connection had before may come again.
    pub(super) fn replay(&mut self, since: Seq) {
        self.position = Some(self.position.map_or(since, |position| position.min(since)));
        self.walked.clear();
    }

    fn is_due(&self, log: &EventLog) -> bool {
        !self.walks.is_empty() || self.position.is_some_and(|position| position < log.last())
    }

    /// Finishes the walk at the front: events that it has shown are not told again.
    fn end_walk(&mut self, position: Seq) {
        if let Some(mut walk) = self.walks.pop_front() {
            walk.note(u64::MAX, position);
            self.walked.push(walk);
        }
    }
}

impl Backlog {
    /// Owes the last values of these devices, or of all.
    pub(super) fn owe_telemetry(&mut self, devices: Option<Vec<DeviceId>>) {
        self.telemetry.push_back(Walk::new(devices));
    }

    /// Owes no telemetry any more.
    pub(super) fn forget_telemetry(&mut self) {
        self.telemetry.clear();
        self.changed.clear();
        self.changed_metrics.clear();
    }

    pub(super) fn events_mut(&mut self, channel: Channel) -> &mut EventsOwed {
        if channel == Channel::Alerts { &mut self.alerts } else { &mut self.status }
    }

    fn change(&mut self, device: DeviceId, metrics: &[MetricIndex]) {
        let known = self.changed_metrics.entry(device).or_default();
        if known.is_empty() {
            self.changed.push_back(device);
        } else {
            self.merged_telemetry += 1;
        }
        metrics.iter().for_each(|metric| known.insert(*metric));
    }
}

impl Subscriber {
    /// Remembers a frame as changes: the connection reads too slowly for it.
    pub(super) fn conflate(&mut self, frame: &TelemetryFrame) {
        for (waiting, _) in self.outbox.conflate() {
            self.backlog.change(waiting.device, &waiting.metrics);
        }
        self.backlog.change(frame.device, &frame.metrics);
        self.outbox.set_more(true);
    }

    /// Returns since when the oldest event waits that this connection has not taken.
    pub(super) fn oldest_event(&self, state: &State) -> Option<UnixMillis> {
        let waits = |owed: &EventsOwed, log: &EventLog| {
            let waiting = log.after(owed.position?)?;
            Some(waiting.logged_at.max(owed.moved_at))
        };
        let alerts = waits(&self.backlog.alerts, &state.alert_log);
        let status = waits(&self.backlog.status, &state.device_log);
        [alerts, status].into_iter().flatten().min()
    }

    /// Tells the connection what was merged away, at most once a second.
    fn tell_lag(&mut self, now: UnixMillis) {
        let backlog = &mut self.backlog;
        let told_lately = backlog.lag_told_at.is_some_and(|at| now.0 - at.0 < 1000);
        if told_lately || backlog.merged_telemetry + backlog.merged_system == 0 {
            return;
        }
        backlog.lag_told_at = Some(now);
        let telemetry = (Channel::Telemetry, std::mem::take(&mut backlog.merged_telemetry));
        let system = (Channel::System, std::mem::take(&mut backlog.merged_system));
        for (channel, dropped) in [telemetry, system] {
            if dropped > 0 {
                self.outbox.push(&Event::Lagged(Lagged { channel, dropped }));
            }
        }
    }

    /// Sends the next thing that is owed; returns whether there was one.
    fn pay_one(
        &mut self,
        state: &State,
        projections: &Projections,
        now: UnixMillis,
        drained: bool,
    ) -> bool {
        if let Some(walk) = self.backlog.telemetry.front_mut() {
            match walk.next_device(state) {
                None => drop(self.backlog.telemetry.pop_front()),
                Some(id) => self.send_last_values(id, state, projections),
            }
            return true;
        }
        if self.pay_event(Channel::Alerts, state, now)
            || self.pay_event(Channel::Devices, state, now)
        {
            return true;
        }
        drained && self.pay_changes(state, projections)
    }

    /// Sends the part of a snapshot that is about one device.
    fn send_last_values(&mut self, id: DeviceId, state: &State, projections: &Projections) {
        let Some(device) = state.device(id).filter(|device| self.may_see(device)) else {
            return;
        };
        let Some(subscription) = self.telemetry.for_device(id) else {
            return;
        };
        let indices = (0..).map(MetricIndex).take(device.metrics.len());
        let values = newest(device, indices);
        for frame in projections.encode(subscription.projection, device, &values, Mark::Snapshot) {
            self.outbox.push_update(frame.message.clone(), subscription.packing);
        }
    }

    /// Sends the newest values of a device that changed while the connection did not read.
    fn pay_changes(&mut self, state: &State, projections: &Projections) -> bool {
        let Some(id) = self.backlog.changed.pop_front() else {
            return false;
        };
        let metrics = self.backlog.changed_metrics.remove(&id).unwrap_or_default();
        if let Some(device) = state.device(id).filter(|device| self.may_see(device))
            && let Some(subscription) = self.telemetry.for_device(id)
        {
            let values = newest(device, metrics.iter());
            for frame in projections.encode(subscription.projection, device, &values, Mark::Live) {
                self.outbox.push_update(frame.message.clone(), subscription.packing);
            }
        }
        if self.backlog.changed.is_empty() {
            self.outbox.resume();
        }
        true
    }

    /// Sends the next part of a snapshot of events, or the next event; both may turn out to be
    /// nothing that this connection wants.
    fn pay_event(&mut self, channel: Channel, state: &State, now: UnixMillis) -> bool {
        let log = if channel == Channel::Alerts { &state.alert_log } else { &state.device_log };
        if let Some(walk) = self.backlog.events_mut(channel).walks.front_mut() {
            let found = match channel {
                Channel::Alerts => next_open_alert(walk, state),
                _ => walk.next_device(state).map(|id| {
                    let status = state.device(id).and_then(|device| device.status.clone());
                    (id.0, status.map(CommittedEvent::Status))
                }),
            };
            match found {
                None => self.backlog.events_mut(channel).end_walk(log.last()),
                Some((id, event)) => {
                    walk.note(id, log.last());
                    if let Some(event) = event
                        && let Some(packing) = self.wants(channel, &event, state)
                    {
                        let message = encode(&event, true, self.outbox.format());
                        self.outbox.push_update(message, packing);
                    }
                }
            }
            return true;
        }
        let owed = self.backlog.events_mut(channel);
        let Some(position) = owed.position else {
            return false;
        };
        let Some(logged) = log.after(position) else {
            // Only events of a log that has moved on by more than a ring are not at hand.
            owed.position = Some(log.last());
            owed.walked.clear();
            return false;
        };
        owed.position = Some(position.next());
        owed.moved_at = now;
        let (device, id) = about(&logged.event);
        let seen = owed.walked.iter().any(|walk| walk.has_shown(device, id, position.next()));
        if !seen && let Some(packing) = self.wants(channel, &logged.event, state) {
            self.outbox.push_update(logged.message(self.outbox.format()), packing);
        }
        true
    }

    /// Tells whether the connection wants an event, and how it is to go.
    fn wants(&self, channel: Channel, event: &CommittedEvent, state: &State) -> Option<Packing> {
        let keyed: &Keyed<EventSubscription> =
            if channel == Channel::Alerts { &self.alerts } else { &self.status };
        let (device, _) = about(event);
        let subscription = keyed.for_device(device).filter(|s| s.wants(event))?;
        self.may_see(state.device(device)?).then_some(subscription.packing)
    }
}

/// Returns the device of an event, and the id by which a snapshot walks past it.
fn about(event: &CommittedEvent) -> (DeviceId, u64) {
    match event {
        CommittedEvent::Status(update) => (update.device_id, update.device_id.0),
        CommittedEvent::Alert(committed) => (committed.alert.device_id, committed.alert.alert_id.0),
    }
}

fn next_open_alert(walk: &mut Walk, state: &State) -> Option<(u64, Option<CommittedEvent>)> {
    let from = valtronics_protocol::id::AlertId(walk.next);
    let (id, alert) = state.open_alerts.range(from..).next()?;
    walk.next = id.0 + 1;
    let event = walk.covers(alert.alert.device_id).then(|| CommittedEvent::Alert(alert.clone()));
    Some((id.0, event))
}

impl Hub {
    /// Sends what is owed to a connection, as far as its outbox takes it.
    pub fn pump(&mut self, session: SessionId, state: &State, now: UnixMillis) {
        self.pay(session, state, now, false);
    }

    /// The same for a connection that has drained its outbox.
    pub fn drained(&mut self, session: SessionId, state: &State, now: UnixMillis) {
        if let Some(subscriber) = self.subscribers.get_mut(&session) {
            subscriber.tell_lag(now);
        }
        self.pay(session, state, now, true);
    }

    /// Tells those who read too slowly what they missed.
    pub fn tell_lag(&mut self, now: UnixMillis) {
        for subscriber in self.subscribers.values_mut() {
            if subscriber.outbox.urgent_bytes() == 0 {
                subscriber.tell_lag(now);
            }
        }
    }

    fn pay(&mut self, session: SessionId, state: &State, now: UnixMillis, drained: bool) {
        let Some(subscriber) = self.subscribers.get_mut(&session) else {
            return;
        };
        let due = |backlog: &Backlog| {
            !backlog.telemetry.is_empty()
                || backlog.alerts.is_due(&state.alert_log)
                || backlog.status.is_due(&state.device_log)
                || !backlog.changed.is_empty()
        };
        if !due(&subscriber.backlog) {
            return;
        }
        while subscriber.outbox.urgent_bytes() < URGENT_BYTES {
            if !subscriber.pay_one(state, &self.projections, now, drained) {
                break;
            }
        }
        if due(&subscriber.backlog) {
            subscriber.outbox.set_more(true);
        }
    }
}
