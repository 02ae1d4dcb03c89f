//! What a connection is still owed of alerts and status changes: a position in their log.
//!
//! Live delivery, `since` and slow readers are one path: send what comes after the position. The
//! newest events are at hand; older ones come from the store in pages. A page is paid at once and
//! never kept: what of it the outbox does not take is read again when the connection has drained.

use std::{collections::HashMap, sync::Arc, time::Instant};

use foldhash::fast::RandomState;
use valtronics_protocol::{
    close::CloseCode,
    filter::{Channel, Filters, Options},
    format::Format,
    id::{AlertId, DeviceId, Seq},
};

use super::{
    EVENT_PATIENCE, Hub, SessionId, Subscriber,
    subscribe::keys_of,
    subscription::{EventSubscription, Key, Keyed},
    walk::{Walk, Walks},
};
use crate::{
    commit::CommittedEvent,
    message::Packing,
    outbox::{Close, URGENT_BYTES},
    socket::Message,
    state::{EventLog, State, encode},
};

/// Events that a connection is owed and that only the store has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageRequest {
    /// For whom.
    pub session: SessionId,
    /// Of which channel.
    pub channel: Channel,
    /// What comes after this position.
    pub after: Seq,
}

/// What the store has of them.
#[derive(Debug)]
pub struct Page {
    /// What was asked for.
    pub request: PageRequest,
    /// The first of these events, in order; `None` when the store could not read.
    pub events: Option<Vec<CommittedEvent>>,
}

/// What is owed of a channel of events.
#[derive(Debug, Default)]
pub(super) struct EventsOwed {
    /// Everything up to here is done; `None` without a subscription.
    position: Option<Seq>,
    walks: Walks,
    /// What snapshots have shown as it will be only after an event that is still owed: of which
    /// device, and after which event. Those up to there are not told again. At most one for each of
    /// these events; it is gone once they are told.
    shown: HashMap<u64, (DeviceId, Seq), RandomState>,
    /// When something of this channel was last sent, or began to be owed.
    moved_at: Option<Instant>,
    /// A page is asked for: until it comes nothing else follows the position.
    asked: bool,
}

impl EventsOwed {
    /// Owes what comes from now on.
    pub(super) fn follow(&mut self, last: Seq, now: Instant) {
        if self.position.is_none() {
            (self.position, self.moved_at) = (Some(last), Some(now));
        }
    }

    /// Owes the present state, then what comes from now on.
    pub(super) fn snapshot(&mut self, devices: Option<Vec<DeviceId>>, last: Seq, now: Instant) {
        self.follow(last, now);
        self.walks.owe(devices);
    }

    /// Owes everything after `since` of the devices that are `meant`, whatever was shown of them;
    /// returns up to where everything was done before.
    pub(super) fn replay(
        &mut self,
        since: Seq,
        meant: impl Fn(DeviceId) -> bool,
        now: Instant,
    ) -> Option<Seq> {
        let before = self.position;
        self.position = Some(before.map_or(since, |position| position.min(since)));
        self.moved_at = Some(now);
        self.shown.retain(|_, (device, _)| !meant(*device));
        before
    }

    /// Owes no snapshot of these keys any more.
    pub(super) fn forget(&mut self, keys: Option<&[Key]>) {
        self.walks.remove(keys);
    }

    /// Owes nothing any more; a page that is asked for comes in vain.
    pub(super) fn end(&mut self) {
        *self = Self { asked: self.asked, ..Self::default() };
    }

    pub(super) fn is_due(&self, log: &EventLog) -> bool {
        let behind = self.position.is_some_and(|position| position < log.last());
        !self.walks.is_empty() || (behind && !self.asked)
    }

    /// Notes what a snapshot has shown.
    fn show(&mut self, event: &CommittedEvent) {
        if self.position.is_some_and(|position| event.seq() > position) {
            let (device, id) = about(event);
            self.shown.insert(id, (device, event.seq()));
        }
    }

    /// Moves past an event; returns whether a snapshot has shown what it says.
    fn pass(&mut self, event: &CommittedEvent, now: Instant) -> bool {
        (self.position, self.moved_at) = (Some(event.seq()), Some(now));
        let (_, id) = about(event);
        let shown = self.shown.get(&id).map(|(_, seq)| *seq);
        if shown == Some(event.seq()) {
            self.shown.remove(&id);
        }
        shown.is_some_and(|shown| event.seq() <= shown)
    }

    /// Returns after which position a page of the store is needed, and counts it as asked for.
    fn ask(&mut self, log: &EventLog) -> Option<Seq> {
        let position = self.position.filter(|position| *position < log.last())?;
        if self.asked || !self.walks.is_empty() || log.after(position).is_some() {
            return None;
        }
        self.asked = true;
        Some(position)
    }

    /// Returns since when the oldest event waits that was not taken.
    fn waits_since(&self, log: &EventLog) -> Option<Instant> {
        let position = self.position.filter(|position| *position < log.last())?;
        let logged_at = log.after(position).map(|logged| logged.logged_at);
        // While the store reads nobody waits for the connection.
        logged_at.max(self.moved_at).filter(|_| !self.asked)
    }
}

/// Returns the log of a channel of events.
pub(super) fn log_of(channel: Channel, state: &State) -> &EventLog {
    if channel == Channel::Alerts { &state.alert_log } else { &state.device_log }
}

impl Subscriber {
    /// Tells whether an event has waited too long while none moved, in the outbox or behind it.
    pub(super) fn is_stuck(&mut self, state: &State, now: Instant) -> bool {
        let moved = self.outbox.moved_before_event();
        let known = self.backlog.stuck.filter(|(at, _)| Some(*at) == moved);
        self.backlog.stuck = moved.map(|moved| known.unwrap_or((moved, now)));
        let since = self.backlog.stuck.map(|(_, since)| since).or_else(|| {
            let alerts = self.backlog.alerts.waits_since(&state.alert_log);
            let status = self.backlog.status.waits_since(&state.device_log);
            [alerts, status].into_iter().flatten().min()
        });
        since.is_some_and(|since| now.saturating_duration_since(since) > EVENT_PATIENCE)
    }

    /// Sends the next part of a snapshot of events, or the next event; both may turn out to be
    /// nothing that this connection wants.
    pub(super) fn pay_event(&mut self, channel: Channel, state: &State, now: Instant) -> bool {
        let log = log_of(channel, state);
        let keyed = if channel == Channel::Alerts { &self.alerts } else { &self.status };
        let owed = self.backlog.events_mut(channel);
        if let Some(walk) = owed.walks.front_mut() {
            match next_shown(channel, walk, keyed, state) {
                None => owed.walks.pop_front(),
                Some(event) => self.show(channel, &event, state),
            }
            return true;
        }
        let next = owed.position.filter(|_| !owed.asked).and_then(|position| log.after(position));
        let Some(logged) = next else {
            return false;
        };
        self.tell(channel, &logged.event, |format| logged.message(format), state, now);
        true
    }

    /// Sends a part of a snapshot if this connection wants it.
    fn show(&mut self, channel: Channel, event: &CommittedEvent, state: &State) {
        if let Some(subscription) = self.wants(channel, event, state) {
            let message = encode(event, true, self.outbox.format());
            self.outbox.push_event(message, subscription.packing);
            self.backlog.events_mut(channel).show(event);
        }
    }

    /// Moves past an event, and sends it if this connection wants it.
    fn tell(
        &mut self,
        channel: Channel,
        event: &CommittedEvent,
        message: impl FnOnce(Format) -> Message,
        state: &State,
        now: Instant,
    ) {
        let seen = self.backlog.events_mut(channel).pass(event, now);
        let wanted = self.wants(channel, event, state).filter(|subscription| {
            // What a snapshot has shown, or was not asked for, is passed over.
            !seen && subscription.follows(event.seq())
        });
        if let Some(subscription) = wanted {
            self.outbox.push_event(message(self.outbox.format()), subscription.packing);
        }
    }

    /// Sends of a page as much as the outbox takes.
    fn pay_page(&mut self, page: Page, state: &State, now: Instant) {
        let PageRequest { channel, after, .. } = page.request;
        let owed = self.backlog.events_mut(channel);
        owed.asked = false;
        if owed.position != Some(after) || !owed.walks.is_empty() {
            // The connection asked for something else meanwhile, which comes first.
            return;
        }
        let failed = match &page.events {
            None => Some((CloseCode::Internal, "the event log cannot be read now")),
            Some(events) if events.first().map(CommittedEvent::seq) != Some(after.next()) => {
                Some((CloseCode::TooSlow, "the server has let go of what comes next"))
            }
            Some(_) => None,
        };
        if let Some((code, reason)) = failed {
            owed.end();
            self.outbox.close(Close { code, reason: reason.into() });
            return;
        }
        for event in page.events.iter().flatten() {
            if self.outbox.urgent_bytes() >= URGENT_BYTES {
                break;
            }
            self.tell(channel, event, |format| encode(event, false, format), state, now);
        }
    }

    fn keyed(&self, channel: Channel) -> &Keyed<EventSubscription> {
        if channel == Channel::Alerts { &self.alerts } else { &self.status }
    }

    /// Finds the subscription that wants an event.
    fn wants(
        &self,
        channel: Channel,
        event: &CommittedEvent,
        state: &State,
    ) -> Option<&EventSubscription> {
        let (device, _) = about(event);
        let subscription = self.keyed(channel).for_device(device).filter(|s| s.wants(event))?;
        self.may_see(state.device(device)?).then_some(subscription)
    }
}

/// Returns the device of an event, and the id by which a snapshot walks past it.
pub(super) fn about(event: &CommittedEvent) -> (DeviceId, u64) {
    match event {
        CommittedEvent::Status(update) => (update.device_id, update.device_id.0),
        CommittedEvent::Alert(committed) => (committed.alert.device_id, committed.alert.alert_id.0),
    }
}

/// Moves a walk on to the next thing that it is to show.
fn next_shown(
    channel: Channel,
    walk: &mut Walk,
    keyed: &Keyed<EventSubscription>,
    state: &State,
) -> Option<CommittedEvent> {
    if channel == Channel::Alerts {
        let mut open = state.open_alerts.range(AlertId(walk.next)..);
        let (id, alert) = open.find(|(_, open)| walk.is_for(open.alert.device_id, keyed))?;
        walk.next = id.0 + 1;
        return Some(CommittedEvent::Alert(alert.clone()));
    }
    loop {
        let id = walk.next_device(state)?;
        // Of a device whose status never changed there is no `seq`, time or reason to show.
        let status = state.device(id).and_then(|device| device.status.as_ref());
        if let Some(status) = status.filter(|_| walk.is_for(id, keyed)) {
            return Some(CommittedEvent::Status(status.clone()));
        }
    }
}

impl Hub {
    /// Sets the keys of a subscription, and owes what it asks for.
    pub(super) fn subscribe_events(
        &mut self,
        session: SessionId,
        channel: Channel,
        filters: Filters,
        options: &Options,
        since: Option<Seq>,
        (state, now): (&State, Instant),
    ) {
        let Some(subscriber) = self.subscribers.get_mut(&session) else {
            return;
        };
        let devices = filters.device_id.clone();
        let keyed = match channel {
            Channel::Alerts => &mut subscriber.alerts,
            Channel::Devices => &mut subscriber.status,
            Channel::Telemetry | Channel::System => unreachable!("these have no events"),
        };
        let last = log_of(channel, state).last();
        let keys = keys_of(devices.as_deref());
        let owed = subscriber.backlog.events_mut(channel);
        owed.forget(Some(&keys));
        if let Some(since) = since {
            let meant = |device| {
                let of_all = keys.contains(&None) && !keyed.has(Some(device));
                of_all || keys.contains(&Some(device))
            };
            let told = owed.replay(since, meant, now);
            keyed.values_mut().for_each(|other| told.map_or((), |upto| other.was_told(upto)));
        } else if options.snapshot {
            owed.snapshot(devices, last, now);
        } else {
            owed.follow(last, now);
        }
        let filters = Arc::new(filters);
        for key in keys {
            // What was owed to the subscription that counted so far stays owed.
            let before = key.map_or_else(|| keyed.get(None), |device| keyed.for_device(device));
            let after = since.or(before.map(EventSubscription::after)).unwrap_or(last);
            keyed.insert(
                key,
                EventSubscription::new(Arc::clone(&filters), after, Packing::of(options)),
            );
        }
    }

    /// Returns the next page that the store is to read: one a connection and channel at most.
    pub fn next_page(&self) -> Option<PageRequest> {
        self.pages.front().copied()
    }

    /// Notes that the store was asked for the page that is next.
    pub fn page_asked(&mut self) {
        self.pages.pop_front();
    }

    /// Sends what the store has read.
    pub fn page_read(&mut self, page: Page, state: &State, now: Instant) {
        let session = page.request.session;
        if let Some(subscriber) = self.subscribers.get_mut(&session) {
            subscriber.pay_page(page, state, now);
        }
        self.pump(session, state, now);
    }

    /// Asks for the events that a connection with an empty outbox is owed and that are not at hand.
    pub(super) fn ask_pages(&mut self, session: SessionId, state: &State) {
        let Some(subscriber) = self.subscribers.get_mut(&session) else {
            return;
        };
        for channel in [Channel::Alerts, Channel::Devices] {
            let after = subscriber.backlog.events_mut(channel).ask(log_of(channel, state));
            self.pages.extend(after.map(|after| PageRequest { session, channel, after }));
        }
    }
}
