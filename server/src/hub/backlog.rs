//! What a connection is still owed, as positions in the state instead of queued messages.
//!
//! Snapshots are walks over the ids of devices or alerts, events are a position in their log, and
//! telemetry that was not read in time is a set of changed metrics. [`Hub::pump`] pays as much as
//! the outbox takes; the session asks again when it has drained.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use valtronics_protocol::{
    event::{Event, Lagged},
    filter::Channel,
    id::DeviceId,
};

use super::{
    Hub, SessionId, Subscriber,
    events::EventsOwed,
    metric_set::MetricSet,
    newest,
    projection::{Mark, Projections},
    subscription::Key,
    walk::Walks,
};
use crate::{commit::MetricIndex, message::TelemetryFrame, outbox::URGENT_BYTES, state::State};

/// How often a connection is told at most that it lags (WebSocket API, section 5).
const LAG_EVERY: Duration = Duration::from_secs(1);

/// What is owed to one connection.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    telemetry: Walks,
    pub(super) alerts: EventsOwed,
    pub(super) status: EventsOwed,
    /// How many urgent messages had gone when an event was last seen waiting in the outbox, and
    /// since when that has not changed.
    pub(super) stuck: Option<(u64, Instant)>,
    /// The connection is to ask again when it has drained.
    promised: bool,
    /// Devices whose newest values are owed, the longest waiting first.
    changed: VecDeque<DeviceId>,
    changed_metrics: HashMap<DeviceId, MetricSet, RandomState>,
    pub(super) merged_telemetry: u64,
    pub(super) merged_system: u64,
    lag_told_at: Option<Instant>,
}

impl Backlog {
    /// Owes the last values of these devices, or of all.
    pub(super) fn owe_telemetry(&mut self, devices: Option<Vec<DeviceId>>) {
        self.telemetry.owe(devices);
    }

    /// Owes no snapshot of these devices' telemetry any more.
    pub(super) fn forget_snapshot(&mut self, keys: Option<&[Key]>) {
        self.telemetry.remove(keys);
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
        let merged = self.backlog.merged_telemetry;
        for (waiting, _) in self.outbox.conflate() {
            self.backlog.change(waiting.device, &waiting.metrics);
        }
        self.backlog.change(frame.device, &frame.metrics);
        self.outbox.note_merged(self.backlog.merged_telemetry - merged);
        self.promise();
    }

    /// Owes no readings any more, unless a subscription to telemetry is left.
    pub(super) fn forget_unsubscribed(&mut self) {
        if self.telemetry.len() == 0 {
            self.backlog.changed.clear();
            self.backlog.changed_metrics.clear();
            self.outbox.resume();
        }
    }

    fn promise(&mut self) {
        self.backlog.promised = true;
        self.outbox.set_more(true);
    }

    /// Tells whether the connection asks for what is owed by itself, once it has drained.
    pub(super) fn is_promised(&self) -> bool {
        self.backlog.promised
    }

    /// Tells the connection what was merged away, at most once in [`LAG_EVERY`].
    fn tell_lag(&mut self, now: Instant) {
        let backlog = &mut self.backlog;
        let lately = |at| now.saturating_duration_since(at) < LAG_EVERY;
        let told_lately = backlog.lag_told_at.is_some_and(lately);
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

    /// Sends the next thing of each kind that is owed, so that none keeps another waiting; returns
    /// whether there was one.
    fn pay_one(
        &mut self,
        state: &State,
        projections: &Projections,
        now: Instant,
        drained: bool,
    ) -> bool {
        let snapshot = self.pay_snapshot(state, projections);
        let alert = self.pay_event(Channel::Alerts, state, now);
        let status = self.pay_event(Channel::Devices, state, now);
        snapshot | alert | status | (drained && self.pay_changes(state, projections))
    }

    /// Sends the next part of a snapshot of telemetry.
    fn pay_snapshot(&mut self, state: &State, projections: &Projections) -> bool {
        let Some(walk) = self.backlog.telemetry.front_mut() else {
            return false;
        };
        match walk.next_device(state) {
            None => self.backlog.telemetry.pop_front(),
            Some(id) if walk.is_for(id, &self.telemetry) => {
                self.send_last_values(id, state, projections);
            }
            Some(_) => {}
        }
        true
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
            self.outbox.push_behind(frame.message.clone(), subscription.packing);
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
}

impl Hub {
    /// Sends what is owed to a connection, as far as its outbox takes it.
    pub fn pump(&mut self, session: SessionId, state: &State, now: Instant) {
        self.pay(session, state, now, false);
    }

    /// The same for a connection that has drained its outbox.
    pub fn drained(&mut self, session: SessionId, state: &State, now: Instant) {
        if let Some(subscriber) = self.subscribers.get_mut(&session) {
            subscriber.backlog.promised = false;
            subscriber.tell_lag(now);
        }
        self.pay(session, state, now, true);
    }

    /// Tells those who read too slowly what they missed.
    pub fn tell_lag(&mut self, now: Instant) {
        for subscriber in self.subscribers.values_mut() {
            if subscriber.outbox.urgent_bytes() == 0 {
                subscriber.tell_lag(now);
            }
        }
    }

    fn pay(&mut self, session: SessionId, state: &State, now: Instant, drained: bool) {
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
        if subscriber.outbox.urgent_bytes() < URGENT_BYTES {
            self.ask_pages(session, state);
        }
        if let Some(subscriber) = self.subscribers.get_mut(&session)
            && due(&subscriber.backlog)
        {
            subscriber.promise();
        }
    }
}
