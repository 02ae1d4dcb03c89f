//! What an outbox holds, and in which order it goes.

use std::{collections::VecDeque, mem, sync::Arc, task::Waker, time::Instant};

use super::{Close, Depth};
use crate::message::{Outgoing, Packing, TelemetryFrame};

/// The lanes, the slot, and how the two sides wake each other.
///
/// In this order: what each live reading touches stands in as few cache lines as it can, since a
/// burst visits thousands of these in turn.
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Lanes {
    pub(super) gone: bool,
    /// The hub conflates for this connection until it says otherwise.
    pub(super) conflating: bool,
    /// The hub holds more for this connection.
    pub(super) more: bool,
    /// Late readings have the next turn.
    pub(super) historical_next: bool,
    /// Nothing waits, and the session sleeps: the next thing that comes wakes it.
    pub(super) asleep: bool,
    pub(super) waker: Option<Waker>,
    pub(super) telemetry: VecDeque<(Arc<TelemetryFrame>, Packing)>,
    pub(super) telemetry_bytes: usize,
    pub(super) urgent_bytes: usize,
    /// When something of the telemetry lane last moved, or came into the empty lane.
    pub(super) moved_at: Option<Instant>,
    /// When the session last took telemetry.
    pub(super) taken_at: Option<Instant>,
    /// When the oldest readings came in of those that the session takes now.
    pub(super) arrived_at: Option<Instant>,
    pub(super) urgent: VecDeque<Outgoing>,
    pub(super) historical: VecDeque<(Arc<TelemetryFrame>, Packing)>,
    pub(super) system: Option<Outgoing>,
    /// How many requests the engine has answered.
    pub(super) answered: u64,
    pub(super) close: Option<Close>,
    /// How many urgent messages ever came and went, and the number of the last event among them.
    pub(super) urgent_pushed: u64,
    pub(super) urgent_popped: u64,
    pub(super) last_event: u64,
    pub(super) historical_bytes: usize,
    pub(super) noted: Depth,
}

impl Lanes {
    /// Wakes the session, if it sleeps.
    pub(super) fn wake(&mut self) {
        if mem::take(&mut self.asleep) {
            self.wake_anyway();
        }
    }

    /// Wakes the session, even if it waits for room to write.
    pub(super) fn wake_anyway(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Adds an urgent message.
    pub(super) fn push(&mut self, outgoing: Outgoing) {
        self.urgent_bytes += outgoing.message().size();
        self.urgent_pushed += 1;
        self.urgent.push_back(outgoing);
    }

    /// Adds an urgent message behind all telemetry that waits.
    pub(super) fn push_behind(&mut self, outgoing: Outgoing) {
        let waiting = mem::take(&mut self.telemetry).into_iter();
        let late = mem::take(&mut self.historical).into_iter();
        (self.telemetry_bytes, self.historical_bytes) = (0, 0);
        for (frame, packing) in waiting.chain(late) {
            self.push(Outgoing::telemetry(frame, packing));
        }
        self.push(outgoing);
    }

    /// Lets go of all telemetry that waits.
    pub(super) fn drop_telemetry(&mut self) {
        self.telemetry.clear();
        self.historical.clear();
        (self.telemetry_bytes, self.historical_bytes) = (0, 0);
    }

    /// Tells whether nothing waits but readings that came late anyway.
    pub(super) fn is_up_to_date(&self) -> bool {
        self.urgent.is_empty() && self.telemetry.is_empty() && self.system.is_none()
    }

    /// Tells whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.is_up_to_date() && self.historical.is_empty()
    }

    /// Takes telemetry, if nothing else waits and it is no more than so many bytes: what nearly
    /// always is the case, at the price of little more than moving it.
    pub(super) fn take_telemetry(
        &mut self,
        most_bytes: usize,
        messages: &mut VecDeque<Outgoing>,
        now: Instant,
    ) {
        let alone = self.urgent.is_empty() && self.system.is_none() && self.historical.is_empty();
        if !alone || self.telemetry.is_empty() || self.telemetry_bytes > most_bytes {
            return;
        }
        self.telemetry_bytes = 0;
        self.historical_next = true;
        self.moved_at = Some(now);
        self.taken_at = Some(now);
        for (frame, packing) in self.telemetry.drain(..) {
            self.arrived_at = self.arrived_at.or(frame.arrived_at);
            messages.push_back(Outgoing::telemetry(frame, packing));
        }
    }

    /// Takes the message whose turn it is.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Outgoing> {
        if let Some(outgoing) = self.urgent.pop_front() {
            self.urgent_bytes -= outgoing.message().size();
            self.urgent_popped += 1;
            return Some(outgoing);
        }
        if let Some(outgoing) = self.system.take() {
            return Some(outgoing);
        }
        // By turns, so that neither keeps the other waiting.
        let late = self.historical_next || self.telemetry.is_empty();
        self.historical_next = !late;
        if late && let Some((frame, packing)) = self.historical.pop_front() {
            self.historical_bytes -= frame.message.size();
            return Some(Outgoing::telemetry(frame, packing));
        }
        let (frame, packing) = self.telemetry.pop_front()?;
        self.telemetry_bytes -= frame.message.size();
        self.moved_at = Some(now);
        self.taken_at = Some(now);
        self.arrived_at = self.arrived_at.or(frame.arrived_at);
        Some(Outgoing::telemetry(frame, packing))
    }
}
