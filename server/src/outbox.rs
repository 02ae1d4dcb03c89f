//! What waits for one connection: between the hub, which fills it, and the session, which drains it.
//!
//! Two lanes and a slot. **Urgent**: answers, events and snapshots, in order; the hub puts no more in
//! than [`URGENT_BYTES`] and keeps the rest as positions in its own state. **Telemetry**: frames
//! that all subscribers of a projection share; when they take more than the limit, or nothing of
//! them has moved for [`STALL`], the hub takes them back and remembers which metrics changed.
//! **System**: the newest system status, replaced while it waits.
//!
//! Neither side ever waits for the other: the hub wakes the session when something comes into an
//! empty outbox, and the session asks the hub for more when it has drained one that is `more`.

use std::{
    collections::VecDeque,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::{Duration, Instant},
};

use serde::Serialize;
use valtronics_protocol::{close::CloseCode, format::Format, id::DeviceId};

use crate::{
    commit::MetricIndex,
    message::{Outgoing, Packing, to_message},
    socket::Message,
};

/// How much the hub puts into the urgent lane before it waits for the connection to drain: some
/// flushes' worth, so that the hub is asked seldom and memory stays small.
pub const URGENT_BYTES: usize = 32 * 1024;
/// How long telemetry may wait without any of it moving before it is conflated.
pub const STALL: Duration = Duration::from_secs(5);

/// One encoded `telemetry_update`, shared by everybody who gets it.
#[derive(Debug)]
pub struct TelemetryFrame {
    /// The message on the wire.
    pub message: Message,
    /// Whose readings it holds.
    pub device: DeviceId,
    /// Which metrics it holds.
    pub metrics: Box<[MetricIndex]>,
}

/// Why a connection is to be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The code.
    pub code: CloseCode,
    /// The reason, for people (and `retry_after=SECONDS` for programs).
    pub reason: String,
}

/// What became of a frame that was pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It waits in the outbox.
    Queued,
    /// It waits, and the session sleeps on: [`Outbox::wake`] is to be called when the coalescing
    /// period ends.
    Asleep,
    /// It was not taken: the connection reads too slowly, and its changes are to be conflated.
    Conflate,
    /// The session has ended.
    Gone,
}

/// What waits for one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    format: Format,
    lanes: Mutex<Lanes>,
}

#[derive(Debug, Default)]
struct Lanes {
    urgent: VecDeque<Outgoing>,
    urgent_bytes: usize,
    telemetry: VecDeque<(Arc<TelemetryFrame>, Packing)>,
    telemetry_bytes: usize,
    /// When something of the telemetry lane last moved, or came into the empty lane.
    moved_at: Option<Instant>,
    /// When the session last took telemetry.
    taken_at: Option<Instant>,
    system: Option<Outgoing>,
    close: Option<Close>,
    /// The hub conflates for this connection until it says otherwise.
    conflating: bool,
    /// The hub holds more for this connection.
    more: bool,
    /// How many requests the engine has answered.
    answered: u64,
    gone: bool,
    waker: Option<Waker>,
}

/// What a session got out of its outbox.
#[derive(Debug, Default)]
pub struct Taken {
    /// How many requests the engine has answered so far.
    pub answered: u64,
    /// The outbox is empty, and the hub holds more.
    pub more: bool,
    /// When everything before it is sent: end.
    pub close: Option<Close>,
}

impl Outbox {
    /// Makes the outbox of a connection whose messages are written in this format.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format, lanes: Mutex::default() }
    }

    /// Returns how messages of this connection are written.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        // A panic while the lock is held leaves queues that are still queues.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an answer, or something else about the connection itself.
    pub fn push(&self, message: &impl Serialize) {
        self.push_update(to_message(message, self.format), Packing::Alone);
    }

    /// Adds an event or a part of a snapshot.
    pub fn push_update(&self, message: Message, packing: Packing) {
        let mut lanes = self.lanes();
        lanes.push(Outgoing { message, packing });
        lanes.wake();
    }

    /// Adds the answer to a request that was handed to the engine, behind all telemetry that waits:
    /// what a client gets after it is what the answer promises.
    pub fn answer(&self, message: &impl Serialize) {
        let message = to_message(message, self.format);
        let mut lanes = self.lanes();
        lanes.telemetry_bytes = 0;
        for (frame, packing) in mem::take(&mut lanes.telemetry) {
            lanes.push(Outgoing { message: frame.message.clone(), packing });
        }
        lanes.push(Outgoing { message, packing: Packing::Alone });
        lanes.answered += 1;
        lanes.wake();
    }

    /// Notes that a request which has no answer of its own is done.
    pub fn done(&self) {
        let mut lanes = self.lanes();
        lanes.answered += 1;
        lanes.wake();
    }

    /// Adds readings, unless more than `limit_bytes` already wait or nothing has moved for long.
    ///
    /// A connection that has sent telemetry within `coalesce` is busy: it is not woken for this.
    pub fn push_telemetry(
        &self,
        frame: &Arc<TelemetryFrame>,
        packing: Packing,
        limit_bytes: usize,
        now: Instant,
        coalesce: Duration,
    ) -> Pushed {
        let mut lanes = self.lanes();
        if lanes.gone {
            return Pushed::Gone;
        }
        let bytes = lanes.telemetry_bytes + frame.message.len();
        let stalled = lanes.moved_at.is_some_and(|at| now.saturating_duration_since(at) > STALL);
        if lanes.conflating || bytes > limit_bytes || (stalled && !lanes.telemetry.is_empty()) {
            return Pushed::Conflate;
        }
        if lanes.telemetry.is_empty() {
            lanes.moved_at = Some(now);
        }
        lanes.telemetry_bytes = bytes;
        lanes.telemetry.push_back((Arc::clone(frame), packing));
        let busy = |at| now.saturating_duration_since(at) < coalesce;
        if lanes.waker.is_some() && lanes.taken_at.is_some_and(busy) {
            return Pushed::Asleep;
        }
        lanes.wake();
        Pushed::Queued
    }

    /// Sets the newest system status; returns whether one was waiting that nobody will see now.
    pub fn push_system(&self, message: &impl Serialize, packing: Packing) -> bool {
        let message = to_message(message, self.format);
        let mut lanes = self.lanes();
        let superseded = lanes.system.replace(Outgoing { message, packing }).is_some();
        lanes.wake();
        superseded
    }

    /// Wakes the session.
    pub fn wake(&self) {
        self.lanes().wake();
    }

    /// Takes the waiting telemetry back and refuses more of it until [`Outbox::resume`].
    pub fn conflate(&self) -> VecDeque<(Arc<TelemetryFrame>, Packing)> {
        let mut lanes = self.lanes();
        lanes.conflating = true;
        lanes.telemetry_bytes = 0;
        mem::take(&mut lanes.telemetry)
    }

    /// Takes telemetry again.
    pub fn resume(&self) {
        self.lanes().conflating = false;
    }

    /// Tells the session whether to ask for more once it has drained.
    pub fn set_more(&self, more: bool) {
        let mut lanes = self.lanes();
        lanes.more = more;
        lanes.wake();
    }

    /// Returns how many bytes of answers, events and snapshots wait.
    #[must_use]
    pub fn urgent_bytes(&self) -> usize {
        self.lanes().urgent_bytes
    }

    /// Returns how many bytes wait in all.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        let lanes = self.lanes();
        let system = lanes.system.as_ref().map_or(0, |waiting| waiting.message.len());
        lanes.urgent_bytes + lanes.telemetry_bytes + system
    }

    /// Ends the connection after what waits in the urgent lane.
    pub fn close(&self, close: Close) {
        let mut lanes = self.lanes();
        lanes.telemetry.clear();
        lanes.telemetry_bytes = 0;
        lanes.close.get_or_insert(close);
        lanes.wake();
    }

    /// Marks the session as ended and lets go of all that waits.
    pub fn end(&self) {
        *self.lanes() = Lanes { gone: true, ..Lanes::default() };
    }

    /// Moves up to `most_bytes` (and at least one message, where there is one) into `messages`.
    ///
    /// When nothing is left, `waker` is woken by the next thing that comes.
    pub fn take(
        &self,
        most_bytes: usize,
        messages: &mut Vec<Outgoing>,
        waker: &Waker,
        now: Instant,
    ) -> Taken {
        let mut lanes = self.lanes();
        let mut bytes = 0;
        while bytes < most_bytes {
            let Some(outgoing) = lanes.pop(now) else { break };
            bytes += outgoing.message.len();
            messages.push(outgoing);
        }
        let empty = lanes.is_empty();
        let close = if empty { lanes.close.take() } else { None };
        let more = empty && lanes.more;
        if more {
            lanes.more = false;
        }
        if empty && !lanes.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            lanes.waker = Some(waker.clone());
        }
        Taken { answered: lanes.answered, more, close }
    }
}

impl Lanes {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn push(&mut self, outgoing: Outgoing) {
        self.urgent_bytes += outgoing.message.len();
        self.urgent.push_back(outgoing);
    }

    fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.telemetry.is_empty() && self.system.is_none()
    }

    fn pop(&mut self, now: Instant) -> Option<Outgoing> {
        if let Some(outgoing) = self.urgent.pop_front() {
            self.urgent_bytes -= outgoing.message.len();
            return Some(outgoing);
        }
        if let Some((frame, packing)) = self.telemetry.pop_front() {
            self.telemetry_bytes -= frame.message.len();
            self.moved_at = Some(now);
            self.taken_at = Some(now);
            return Some(Outgoing { message: frame.message.clone(), packing });
        }
        self.system.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Arc<TelemetryFrame> {
        Arc::new(TelemetryFrame {
            message: Message::text(text),
            device: DeviceId(1),
            metrics: Box::new([MetricIndex(0)]),
        })
    }

    fn push(outbox: &Outbox, text: &str, limit_bytes: usize, now: Instant) -> Pushed {
        outbox.push_telemetry(&frame(text), Packing::Alone, limit_bytes, now, Duration::ZERO)
    }

    fn take(outbox: &Outbox, now: Instant) -> Vec<String> {
        let mut messages = Vec::new();
        outbox.take(usize::MAX, &mut messages, Waker::noop(), now);
        messages.iter().map(|taken| taken.message.to_text().unwrap().to_owned()).collect()
    }

    #[test]
    fn answers_come_before_later_and_after_earlier_telemetry() {
        let (outbox, now) = (Outbox::default(), crate::clock::instant());
        push(&outbox, "old", 100, now);
        outbox.answer(&"answer");
        push(&outbox, "new", 100, now);
        outbox.push(&"event");
        assert_eq!(take(&outbox, now), ["old", "\"answer\"", "\"event\"", "new"]);
        assert_eq!(outbox.queued_bytes(), 0);
    }

    #[test]
    fn telemetry_is_bounded_in_bytes_and_in_age() {
        let (outbox, now) = (Outbox::default(), crate::clock::instant());
        assert_eq!(push(&outbox, "12345", 8, now), Pushed::Queued);
        assert_eq!(push(&outbox, "6789", 8, now), Pushed::Conflate);
        let later = now + STALL + Duration::from_millis(1);
        assert_eq!(push(&outbox, "6", 8, later), Pushed::Conflate);
        assert_eq!(outbox.conflate().len(), 1);
        assert_eq!(push(&outbox, "6", 8, now), Pushed::Conflate);
        outbox.resume();
        assert_eq!(push(&outbox, "6", 8, later), Pushed::Queued);
        assert_eq!(take(&outbox, now), ["6"]);
        outbox.end();
        assert_eq!(push(&outbox, "6", 8, now), Pushed::Gone);
    }

    #[test]
    fn the_newest_system_status_replaces_the_one_that_waits() {
        let (outbox, now) = (Outbox::default(), crate::clock::instant());
        assert!(!outbox.push_system(&"1", Packing::Alone));
        assert!(outbox.push_system(&"2", Packing::Alone));
        assert_eq!(take(&outbox, now), ["\"2\""]);
    }
}
