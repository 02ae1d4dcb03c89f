//! What changes the state: readings, status reports, names, and time.

use std::{ops::Range, time::Instant};

use valtronics_protocol::time::UnixMillis;

use super::{Engine, TICK, gateways};
use crate::{
    commit::{Mark, Marks, RegistryChange, Row},
    hub::projection::Change,
    ingest::{Batch, Item, StatusReport},
    state::LastValue,
    used_key::KeyState,
};

/// What the sender says of readings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// They are news.
    Live,
    /// They are a backlog.
    Historical,
    /// They go ahead of their numbered ones.
    Preview,
}

impl Engine {
    /// Takes in what one frame held.
    pub(super) fn batch(&mut self, batch: Batch, now: UnixMillis, instant: Instant) {
        let Batch { received_at, arrived_at, items, rows, ticket, permit, agent, .. } = batch;
        let Batch { mut tally, reported, once, preview, .. } = batch;
        let came_in = (received_at, arrived_at);
        if let Some(ticket) = &ticket
            && !self.queues.accept(ticket, &mut self.pending)
        {
            // A newer connection of the same numbering sends all this again.
            return;
        }
        match once.map_or(KeyState::New, |once| self.keys.use_up(*once)) {
            KeyState::New => {}
            // The first one is in this commit or in one before.
            KeyState::Repeated => return self.wait(ticket, permit),
            KeyState::OtherBody | KeyState::Full => return,
        }
        self.pending.received_at = received_at;
        self.counted += rows.len() as u64;
        let (oldest, mut marks) = (now.minus(self.keep), Marks::default());
        for (at, item) in items.into_iter().enumerate() {
            match item {
                Item::Update { rows: range, historical } => {
                    if at % AHEAD == 0 {
                        self.look_ahead(&rows, range.start);
                    }
                    let kind = match (preview, historical) {
                        (true, _) => Kind::Preview,
                        (false, true) => Kind::Historical,
                        (false, false) => Kind::Live,
                    };
                    self.update(&rows, range, kind, came_in, instant, &mut marks);
                }
                Item::Lost(lost) => self.pending.lost.push(lost),
                Item::Status(report) => self.report(report, now),
                Item::OfflineAfter(device, period) => {
                    if let Some(device) = self.state.device_mut(device) {
                        device.health.declare_offline_after(period);
                    }
                    self.schedule.look_by(device, now);
                }
            }
        }
        if preview {
            return;
        }
        // What is older than history reaches is shown to who asked for it, but not stored.
        let (count, before) = (rows.len(), self.pending.readings.len());
        self.pending.readings.reserve(count);
        for (row, mark) in rows.into_iter().zip(marks.into_places()) {
            if row.at >= oldest {
                self.pending.marks.push(self.pending.readings.len(), mark);
                self.pending.readings.push(row);
            }
        }
        tally.stored = (self.pending.readings.len() - before) as u64;
        tally.expired = count as u64 - tally.stored;
        if let Some(id) = agent {
            self.agents.count(id, &tally, reported, received_at);
        }
        self.wait(ticket, permit);
    }

    /// Looks at what the next updates are about. It lies all over memory, and so the processor fetches
    /// many at once that it would otherwise wait for one by one.
    fn look_ahead(&self, rows: &[Row], from: usize) {
        // One of each line of a cache that an update needs.
        let touch = |row: &Row| {
            let device = self.state.device(row.device)?;
            let metric = device.metric(row.metric)?;
            let seen_at = device.health.last_seen().unwrap_or_default();
            let heard_at = metric.freshness.heard_at().unwrap_or_default();
            Some(metric.last.as_ref()?.at.0 ^ heard_at.0 ^ seen_at.0)
        };
        let ahead = rows.iter().skip(from).take(2 * AHEAD);
        std::hint::black_box(ahead.filter_map(touch).fold(0, i64::wrapping_add));
    }

    fn update(
        &mut self,
        rows: &[Row],
        range: Range<usize>,
        kind: Kind,
        (received_at, arrived_at): (UnixMillis, Option<Instant>),
        instant: Instant,
        marks: &mut Marks,
    ) {
        let (rows, is_full) = (rows.get(range.clone()).unwrap_or_default(), self.is_full());
        let Some(id) = rows.first().map(|row| row.device) else {
            return;
        };
        let Some(device) = self.state.device_mut(id) else {
            return;
        };
        // Most devices are watched by nobody most of the time.
        let is_watched = self.hub.is_watched(id);
        let (mut live, mut late) = (Vec::new(), Vec::new());
        let (mut is_heard, mut returned, mut drafts) = (false, false, Vec::new());
        let latest = received_at.plus(LEAD);
        for (place, row) in range.zip(rows) {
            let change = Change { metric: row.metric, value: &row.value, at: row.at, arrived_at };
            let Some(metric) = device.metric_mut(row.metric) else {
                continue;
            };
            let effective_at = row.at.min(latest);
            let last = metric.last.as_ref();
            let shown = last.filter(|last| last.at == row.at && last.value == row.value);
            marks.push(place, mark(row, kind, shown, latest));
            if shown.is_some() && kind != Kind::Live {
                continue;
            }
            let is_older = last.is_some_and(|last| effective_at < last.effective_at);
            let is_late = is_older || kind == Kind::Historical;
            if is_watched {
                if is_late { &mut late } else { &mut live }.push(change);
            }
            if is_late {
                continue;
            }
            is_heard = true;
            let value = row.value.clone();
            metric.last = Some(LastValue { value, at: row.at, effective_at });
            returned |= metric.freshness.heard(received_at);
            // What they would say now they say with a later reading.
            for rule in metric.rules.iter().filter(|_| !is_full) {
                let times = (row.at, received_at);
                self.alerts.observe(*rule, id, &row.value, times, &mut drafts);
            }
        }
        if is_heard {
            device.health.heard(received_at);
            if returned {
                device.miss_metric(received_at);
            }
            self.announce(id, received_at);
        }
        self.draft(drafts);
        let Some(device) = self.state.device(id) else {
            return;
        };
        if !live.is_empty() {
            self.hub.publish(device, &live, instant);
        }
        // Of a preview they come again, with their numbers.
        if !late.is_empty() && kind != Kind::Preview {
            self.hub.publish_historical(device, &late);
        }
    }

    fn report(&mut self, report: StatusReport, now: UnixMillis) {
        let StatusReport { device: id, status, reason, at } = report;
        let Some(device) = self.state.device_mut(id) else {
            return;
        };
        device.health.reported(status, &reason, at);
        self.announce(id, now);
    }

    /// Takes over names that have come into being.
    pub(super) fn registered(&mut self, changes: Vec<RegistryChange>, now: UnixMillis) {
        for change in changes {
            let metric = match &change {
                RegistryChange::Metric(metric) => Some((metric.device, metric.index)),
                RegistryChange::Device(_) => None,
            };
            if let Some(id) = self.state.register(change) {
                let offline_after = self.offline_after;
                if let Some(device) = self.state.device_mut(id) {
                    device.health.configure_offline_after(offline_after);
                    let (name, key) = (&device.registered.name, &device.key);
                    device.rules = self.alerts.rules_for_status(name, key);
                }
                if let Some(device) = self.state.device(id) {
                    self.hub.device_added(device);
                }
            }
            if let Some((id, index)) = metric
                && let Some(device) = self.state.device_mut(id)
            {
                device.watch_metric(index, &mut self.alerts, now);
            }
        }
    }

    /// Looks for what happens by itself as time goes by.
    pub(super) fn look_around(&mut self, now: UnixMillis) {
        for (sub, name) in self.gateways.newly_gone(self.state.devices(), now) {
            let reason = format!("Gateway {name} offline");
            self.each_of_gateway(&(sub, name), now, |device| {
                device.health.gateway_lost(&reason, now);
            });
        }
        while let Some(id) = self.schedule.take_due(now) {
            let Some(device) = self.state.device_mut(id) else { continue };
            let next = device.look_around(now);
            self.schedule.look_by(id, next.max(now.plus(TICK)));
            self.announce(id, now);
        }
        let mut drafts = Vec::new();
        if self.alerts.deadline().is_some_and(|at| at <= now) && !self.is_full() {
            self.alerts.tick(now, &mut drafts);
        }
        self.draft(drafts);
    }

    /// Tells a gateway's devices that it has come or gone.
    pub(super) fn gateway_changed(
        &mut self,
        gateway: &gateways::GatewayKey,
        connected: bool,
        now: UnixMillis,
    ) {
        self.each_of_gateway(gateway, now, |device| match connected {
            true => device.health.gateway_back(now),
            false => device.health.gateway_away(now),
        });
    }

    fn each_of_gateway(
        &mut self,
        (sub, name): &gateways::GatewayKey,
        now: UnixMillis,
        change: impl Fn(&mut crate::state::Device),
    ) {
        let mut changed = Vec::new();
        for device in self.state.devices_mut() {
            if device.registered.sub == *sub && device.registered.gateway.as_ref() == Some(name) {
                change(device);
                changed.push(device.id());
            }
        }
        for id in changed {
            self.schedule.look_by(id, now);
            self.announce(id, now);
        }
    }
}

/// Says how a reading counts, if not from when it was measured. What a preview has shown before counts
/// as it did then.
fn mark(row: &Row, kind: Kind, shown: Option<&LastValue>, latest: UnixMillis) -> Option<Mark> {
    let latest = match (kind, shown) {
        (Kind::Historical, None) => return Some(Mark::Historical),
        (Kind::Historical, Some(shown)) => shown.effective_at,
        (Kind::Live | Kind::Preview, _) => latest,
    };
    (row.at > latest).then_some(Mark::Until(latest))
}

/// How many updates ahead the engine looks: what they touch has room in a small cache.
const AHEAD: usize = 32;
/// How far beyond its receipt a reading may count when last values move: a clock that runs ahead
/// freezes nothing (WebSocket API, section 5).
pub const LEAD: std::time::Duration = std::time::Duration::from_secs(1);
