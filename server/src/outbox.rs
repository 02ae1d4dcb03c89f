//! What waits for one connection: between the hub, which fills it, and the session, which drains it.
//!
//! Three lanes and a slot. **Urgent**: answers, events and snapshots, in order, and the telemetry
//! that an answer comes behind. The hub adds events and snapshots while less than [`URGENT_BYTES`]
//! wait, and keeps the rest as positions in its own state; the session reads no more requests while
//! twice as much waits, so answers pile up no further. **Telemetry**: frames
//! that all subscribers of a projection share; when they take more than the limit, or nothing of
//! them has moved for [`STALL`], the hub takes them back and remembers which metrics changed.
//! **Historical**: readings that came late; nothing newer says what they say, so they are never
//! conflated, and what finds no room is dropped and counted: the past is read from history.
//! **System**: the newest system status, replaced while it waits.
//!
//! Neither side ever waits for the other: the hub wakes the session when something comes into an
//! empty outbox, and the session asks the hub for more when it has drained one that is `more`.

use std::{
    collections::VecDeque,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Waker,
    time::{Duration, Instant},
};

use serde::Serialize;
use valtronics_protocol::{close::CloseCode, filter::Channel, format::Format, id::DeviceId};

use crate::{
    message::{Outgoing, Packing, TelemetryFrame, to_message},
    socket::Message,
};

mod lanes;

use lanes::Lanes;

/// How much the hub puts into the urgent lane before it waits for the connection to drain: some
/// flushes' worth, so that the hub is asked seldom and memory stays small.
pub const URGENT_BYTES: usize = 32 * 1024;
/// How long telemetry may wait without any of it moving before it is conflated.
pub const STALL: Duration = Duration::from_secs(5);
/// How many bytes of late readings wait for one connection: some seconds of an agent's backlog on a
/// slow line. More is dropped, and counted as `lagged`.
pub const HISTORICAL_BYTES: usize = 256 * 1024;

/// Why a connection is to be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    /// The code.
    pub code: CloseCode,
    /// The reason, for people (and `retry_after=SECONDS` for programs).
    pub reason: String,
}

/// What became of frames that were pushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// They wait in the outbox.
    Queued,
    /// They wait, and the session sleeps on: [`Outbox::wake`] is to be called when the coalescing
    /// period ends.
    Asleep,
    /// Only the first so many were taken, and there are more: the connection reads too slowly, and
    /// its changes are to be conflated.
    Conflate {
        /// How many.
        taken: usize,
    },
    /// The session has ended.
    Gone,
}

/// What waits for one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    format: Format,
    /// The end does not wait for what waits. Beside the lock, since it is asked each time.
    cut: AtomicBool,
    lanes: Mutex<Lanes>,
}

/// How deep an outbox is, for those who watch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// How many bytes wait.
    pub queued_bytes: usize,
    /// How many keys the connection has subscribed to.
    pub subscriptions: usize,
    /// How many telemetry updates were merged away or found no room, ever.
    pub merged_telemetry: u64,
    /// How many system updates were merged away, ever.
    pub merged_system: u64,
}

/// What a session got out of its outbox.
#[derive(Debug, Default)]
pub struct Taken {
    /// How many requests the engine has answered so far.
    pub answered: u64,
    /// The outbox is empty: whatever comes next wakes the session.
    pub drained: bool,
    /// The outbox is empty, and the hub holds more.
    pub more: bool,
    /// When everything before it is sent: end.
    pub close: Option<Close>,
    /// When the oldest of the live readings came in.
    pub arrived_at: Option<Instant>,
}

impl Outbox {
    /// Makes the outbox of a connection whose messages are written in this format.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format, ..Self::default() }
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

    /// Adds newest values.
    pub fn push_update(&self, message: Message, packing: Packing) {
        let mut lanes = self.lanes();
        lanes.push(Outgoing::new(message, packing));
        lanes.wake();
    }

    /// Adds an event.
    pub fn push_event(&self, message: Message, packing: Packing) {
        let mut lanes = self.lanes();
        lanes.push(Outgoing::new(message, packing));
        lanes.last_event = lanes.urgent_pushed;
        lanes.wake();
    }

    /// Adds last values, behind all telemetry that waits: time does not go backwards.
    pub fn push_behind(&self, message: Message, packing: Packing) {
        let mut lanes = self.lanes();
        lanes.push_behind(Outgoing::new(message, packing));
        lanes.wake();
    }

    /// Adds the answer to a request that was handed to the engine, behind all telemetry that waits:
    /// what a client gets after it is what the answer promises.
    pub fn answer(&self, message: &impl Serialize) {
        let message = to_message(message, self.format);
        let mut lanes = self.lanes();
        lanes.push_behind(message.into());
        lanes.answered += 1;
        lanes.wake();
    }

    /// Notes that a request which has no answer of its own is done.
    pub fn done(&self) {
        let mut lanes = self.lanes();
        lanes.answered += 1;
        lanes.wake();
    }

    /// Adds readings, as long as no more than `limit_bytes` wait, unless nothing has moved for long.
    ///
    /// A connection that has sent telemetry within `coalesce` is busy: it is not woken for this.
    pub fn push_telemetry<'a>(
        &self,
        frames: impl Iterator<Item = &'a Arc<TelemetryFrame>>,
        packing: Packing,
        limit_bytes: usize,
        now: Instant,
        coalesce: Duration,
    ) -> Pushed {
        let mut lanes = self.lanes();
        if lanes.gone {
            return Pushed::Gone;
        }
        if lanes.telemetry.is_empty() {
            lanes.moved_at = Some(now);
        }
        let stalled = lanes.moved_at.is_some_and(|at| now.saturating_duration_since(at) > STALL);
        // What went ahead with an answer still waits.
        let moved = lanes.urgent_bytes.saturating_sub(URGENT_BYTES);
        for (taken, frame) in frames.enumerate() {
            let bytes = lanes.telemetry_bytes + frame.message.size();
            if lanes.conflating || stalled || bytes + moved > limit_bytes {
                return Pushed::Conflate { taken };
            }
            lanes.telemetry_bytes = bytes;
            lanes.telemetry.push_back((Arc::clone(frame), packing));
        }
        let busy = |at| now.saturating_duration_since(at) < coalesce;
        if lanes.asleep && lanes.taken_at.is_some_and(busy) {
            return Pushed::Asleep;
        }
        lanes.wake();
        Pushed::Queued
    }

    /// Adds readings that came late; returns whether they found room.
    pub fn push_historical(&self, frame: &Arc<TelemetryFrame>, packing: Packing) -> bool {
        let mut lanes = self.lanes();
        let bytes = lanes.historical_bytes + frame.message.size();
        if lanes.gone || bytes > HISTORICAL_BYTES {
            return lanes.gone;
        }
        lanes.historical_bytes = bytes;
        lanes.historical.push_back((Arc::clone(frame), packing));
        lanes.wake();
        true
    }

    /// Sets the newest system status; returns whether one was waiting that nobody will see now.
    pub fn push_system(&self, message: &impl Serialize, packing: Packing) -> bool {
        let message = to_message(message, self.format).of(Channel::System);
        let mut lanes = self.lanes();
        let superseded = lanes.system.replace(Outgoing::new(message, packing)).is_some();
        lanes.noted.merged_system += u64::from(superseded);
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

    /// Lets go of the waiting telemetry of other devices than these.
    pub fn keep_telemetry(&self, is_kept: impl Fn(DeviceId) -> bool) {
        let mut lanes = self.lanes();
        lanes.telemetry.retain(|(frame, _)| is_kept(frame.device));
        lanes.historical.retain(|(frame, _)| is_kept(frame.device));
        let bytes = |lane: &VecDeque<(Arc<TelemetryFrame>, Packing)>| {
            lane.iter().map(|(frame, _)| frame.message.size()).sum()
        };
        lanes.telemetry_bytes = bytes(&lanes.telemetry);
        lanes.historical_bytes = bytes(&lanes.historical);
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

    /// Returns how deep it is.
    #[must_use]
    pub fn depth(&self) -> Depth {
        let lanes = self.lanes();
        let system = lanes.system.as_ref().map_or(0, |waiting| waiting.message().size());
        let queued_bytes =
            lanes.urgent_bytes + lanes.telemetry_bytes + lanes.historical_bytes + system;
        Depth { queued_bytes, ..lanes.noted }
    }

    /// Notes how many telemetry updates were merged away, or found no room, just now.
    pub fn note_merged(&self, more: u64) {
        self.lanes().noted.merged_telemetry += more;
    }

    /// Notes how many keys the connection has subscribed to.
    pub fn note_subscriptions(&self, keys: usize) {
        self.lanes().noted.subscriptions = keys;
    }

    /// Returns how many urgent messages went, while an event waits.
    #[must_use]
    pub fn moved_before_event(&self) -> Option<u64> {
        let lanes = self.lanes();
        (lanes.last_event > lanes.urgent_popped).then_some(lanes.urgent_popped)
    }

    /// Ends the connection when all that waits has gone, but for telemetry, which is let go of.
    pub fn close(&self, close: Close) {
        let mut lanes = self.lanes();
        lanes.drop_telemetry();
        lanes.close.get_or_insert(close);
        lanes.wake();
    }

    /// Ends the connection without waiting for what waits.
    pub fn cut(&self, close: Close) {
        let mut lanes = self.lanes();
        lanes.drop_telemetry();
        lanes.close.get_or_insert(close);
        self.cut.store(true, Ordering::Release);
        lanes.wake_anyway();
    }

    /// Returns why the connection is to be cut short; who has taken from it is woken when it is.
    #[must_use]
    pub fn cut_short(&self) -> Option<Close> {
        let cut = self.cut.load(Ordering::Acquire);
        if cut { self.lanes().close.take() } else { None }
    }

    /// Marks the session as ended and lets go of all that waits.
    pub fn end(&self) {
        let mut lanes = self.lanes();
        let noted = lanes.noted;
        *lanes = Lanes { gone: true, noted, ..Lanes::default() };
    }

    /// Moves up to `most_bytes` (and at least one message, where there is one) into `messages`.
    ///
    /// When nothing is left, `waker` is woken by the next thing that comes.
    pub fn take(
        &self,
        most_bytes: usize,
        messages: &mut VecDeque<Outgoing>,
        waker: &Waker,
        now: Instant,
    ) -> Taken {
        let mut lanes = self.lanes();
        lanes.take_telemetry(most_bytes, messages, now);
        let mut bytes = 0;
        while bytes < most_bytes {
            let Some(outgoing) = lanes.pop(now) else { break };
            bytes += outgoing.message().size();
            messages.push_back(outgoing);
        }
        let empty = lanes.is_empty();
        let close = if empty { lanes.close.take() } else { None };
        // Late readings do not keep newer ones waiting.
        let more = lanes.is_up_to_date() && lanes.more;
        if more {
            lanes.more = false;
        }
        lanes.asleep = empty;
        if !lanes.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            lanes.waker = Some(waker.clone());
        }
        let arrived_at = lanes.arrived_at.take();
        Taken { answered: lanes.answered, drained: empty, more, close, arrived_at }
    }
}

#[cfg(test)]
mod tests;
