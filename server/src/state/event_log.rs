//! The newest committed events of one channel, in order and without holes.
//!
//! Subscribers hold positions in it instead of queues of their own: live delivery, `since`, and slow
//! readers are all "send what comes after this position". What is older than the ring is read from
//! the store, which holds everything from [`EventLog::oldest`] on.

use std::{cell::OnceCell, collections::VecDeque, time::Instant};

use valtronics_protocol::{event::Event, filter::Channel, format::Format, id::Seq};

use crate::{commit::CommittedEvent, message::to_message, socket::Message};

/// How many events of a channel are at hand: hours of a busy site in about 5 MiB for each format that
/// somebody wants.
pub const RING: usize = 16_384;

/// The newest events of one channel.
#[derive(Debug)]
pub struct EventLog {
    oldest: Seq,
    last: Seq,
    events: VecDeque<LoggedEvent>,
    capacity: usize,
}

/// An event in the log.
#[derive(Debug)]
pub struct LoggedEvent {
    /// The event.
    pub event: CommittedEvent,
    /// When it was committed, or the server started.
    pub logged_at: Instant,
    json: OnceCell<Message>,
    cbor: OnceCell<Message>,
}

impl EventLog {
    /// Begins a log of which the store holds everything from `oldest` to `last`, with the newest of
    /// these events at hand.
    #[must_use]
    pub fn restore(oldest: Seq, last: Seq, events: Vec<CommittedEvent>, now: Instant) -> Self {
        let mut log = Self { oldest, last, events: VecDeque::new(), capacity: RING };
        log.last = events.first().map_or(last, |event| Seq(event.seq().0.saturating_sub(1)));
        for event in events {
            log.append(event, now);
        }
        log
    }

    /// Adds the event that follows the newest one.
    pub fn append(&mut self, event: CommittedEvent, now: Instant) {
        assert_eq!(event.seq(), self.last.next(), "the store numbers without holes");
        self.last = event.seq();
        if self.events.len() >= self.capacity {
            self.events.pop_front();
        }
        let (json, cbor) = (OnceCell::new(), OnceCell::new());
        self.events.push_back(LoggedEvent { event, logged_at: now, json, cbor });
    }

    /// Returns the position of the newest event.
    #[must_use]
    pub fn last(&self) -> Seq {
        self.last
    }

    /// Returns the event that follows a position, if it is at hand.
    #[must_use]
    pub fn after(&self, position: Seq) -> Option<&LoggedEvent> {
        let behind = self.last.0.checked_sub(position.0)?;
        let index = self.events.len().checked_sub(usize::try_from(behind).ok()?)?;
        self.events.get(index)
    }

    /// Returns the oldest position that the store holds, or will give to the first event.
    #[must_use]
    pub fn oldest(&self) -> Seq {
        self.oldest
    }

    /// Notes that the store has let go of everything before a position.
    pub fn forget_before(&mut self, oldest: Seq) {
        self.oldest = self.oldest.max(oldest);
    }

    /// Tells whether every event after a position is still held, here or in the store.
    #[must_use]
    pub fn holds_all_after(&self, position: Seq) -> bool {
        position <= self.last && position.next() >= self.oldest
    }

    /// Keeps fewer events at hand than [`RING`].
    #[cfg(test)]
    pub fn with_capacity(mut self, capacity: usize) -> Self {
        self.capacity = capacity;
        self
    }
}

impl LoggedEvent {
    /// Returns the event as a message, encoded once in each format that somebody wants.
    pub fn message(&self, format: Format) -> Message {
        let encoded = match format {
            Format::Json => &self.json,
            Format::Cbor => &self.cbor,
        };
        encoded.get_or_init(|| encode(&self.event, false, format)).clone()
    }
}

/// Writes an event as a message.
#[must_use]
pub fn encode(event: &CommittedEvent, snapshot: bool, format: Format) -> Message {
    let (channel, event) = match event.clone() {
        CommittedEvent::Status(mut update) => {
            if snapshot {
                update.old_status = update.new_status;
                update.snapshot = true;
            }
            (Channel::Devices, Event::DeviceStatusUpdate(update))
        }
        CommittedEvent::Alert(committed) => {
            let announces = if snapshot {
                committed.alert.status == valtronics_protocol::event::AlertStatus::Active
            } else {
                committed.announces
            };
            let mut alert = committed.alert;
            alert.snapshot = snapshot;
            let event = if announces { Event::Alert(alert) } else { Event::AlertUpdate(alert) };
            (Channel::Alerts, event)
        }
    };
    to_message(&event, format).of(channel)
}
