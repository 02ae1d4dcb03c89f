//! What became of everything that was read, counted in one place.
//!
//! A source counts in a [`Tally`] of its own and hands it on together with the readings that it
//! counts. The task that owns the queue adds both in one turn, so the sums of
//! [`Counters`] hold whenever it is asked.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use valtronics_protocol::{
    counters::{Counters, HeldBack},
    time::UnixMillis,
};

use crate::queue;

/// The most sources that are counted each for itself: reloads may bring ever new names. Those
/// beyond share [`OTHERS`].
const SOURCES: usize = 1000;
const OTHERS: &str = "(others)";

/// Why a value that was read becomes no reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// `keep` and `skip` leave its metric out.
    Skip,
    /// It comes sooner than `every` allows.
    Every,
    /// It moved less than `deadband`.
    Deadband,
    /// Its name, text or number is none that a message may hold.
    Unfit,
}

/// What a source has counted; `read` is the sum of `queued` and `held_back`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Lines, messages or frames that were understood.
    pub good: u64,
    /// Those that were damaged.
    pub damaged: u64,
    /// Those that are something else, such as a boot banner.
    pub foreign: u64,
    /// Values that were understood.
    pub read: u64,
    /// Values that became no readings.
    pub held_back: HeldBack,
    /// Readings that went into the queue.
    pub queued: u64,
}

impl Tally {
    /// Counts a value that becomes no reading.
    pub fn hold_back(&mut self, cause: Cause) {
        let HeldBack { skip, every, deadband, unfit, .. } = &mut self.held_back;
        *match cause {
            Cause::Skip => skip,
            Cause::Every => every,
            Cause::Deadband => deadband,
            Cause::Unfit => unfit,
        } += 1;
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.good += other.good;
        self.damaged += other.damaged;
        self.foreign += other.foreign;
        self.read += other.read;
        self.held_back += other.held_back;
        self.queued += other.queued;
    }
}

/// Everything that was counted, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Account {
    /// Of all sources, with what became of it in the queue.
    pub totals: Counters,
    /// By source.
    pub sources: BTreeMap<Arc<str>, Tally>,
}

/// What the queue's task counts beside the queue itself.
#[derive(Debug)]
pub struct Ledger {
    since: UnixMillis,
    carried_over: u64,
    sources: BTreeMap<Arc<str>, Tally>,
    sent: u64,
    sent_again: u64,
    /// The highest number that was sent.
    sent_through: u64,
}

impl Ledger {
    /// Begins at the start of the agent, with what the queue has counted before.
    #[must_use]
    pub fn new(queue: queue::Counters, since: UnixMillis) -> Self {
        Self {
            since,
            carried_over: queue.queued,
            sources: BTreeMap::new(),
            sent: 0,
            sent_again: 0,
            sent_through: 0,
        }
    }

    /// Adds what a source has counted.
    pub fn add(&mut self, source: Arc<str>, tally: Tally) {
        let room = self.sources.len() < SOURCES || self.sources.contains_key(&source);
        *self.sources.entry(if room { source } else { OTHERS.into() }).or_default() += tally;
    }

    /// Notes that `count` readings were sent, numbered from `first` on.
    pub fn sent(&mut self, first: u64, count: u64) {
        let through = (first + count).saturating_sub(1);
        let new = through.saturating_sub(self.sent_through.max(first - 1)).min(count);
        self.sent += new;
        self.sent_again += count - new;
        self.sent_through = self.sent_through.max(through);
    }

    /// Puts everything together.
    #[must_use]
    pub fn account(&self, queue: queue::Counters, oldest: Option<UnixMillis>) -> Account {
        let mut sum = Tally::default();
        for tally in self.sources.values() {
            sum += *tally;
        }
        let totals = Counters {
            since: self.since,
            damaged: sum.damaged,
            foreign: sum.foreign,
            read: sum.read,
            held_back: sum.held_back,
            queued: sum.queued,
            carried_over: self.carried_over,
            sent: self.sent,
            sent_again: self.sent_again,
            acknowledged: queue.acknowledged,
            evicted: queue.evicted,
            waiting: queue.waiting,
            oldest,
            events_waiting: queue.events_waiting,
            events_evicted: queue.events_evicted,
        };
        Account { totals, sources: self.sources.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_again_is_told_from_what_is_new() {
        let mut ledger = Ledger::new(queue::Counters::default(), UnixMillis(0));
        let mut after = |first, count| {
            ledger.sent(first, count);
            (ledger.sent, ledger.sent_again)
        };
        assert_eq!(after(1, 10), (10, 0));
        assert_eq!(after(6, 10), (15, 5));
        assert_eq!(after(1, 3), (15, 8));
        // A hole: what stood there was evicted.
        assert_eq!(after(101, 2), (17, 8));
    }

    #[test]
    fn sources_beyond_the_limit_are_counted_together() {
        let mut ledger = Ledger::new(queue::Counters::default(), UnixMillis(0));
        for n in 0..2 * SOURCES {
            let tally = Tally { read: 1, queued: 1, ..Tally::default() };
            ledger.add(n.to_string().into(), tally);
        }
        let queue = queue::Counters { waiting: 2 * SOURCES as u64, ..Default::default() };
        let account = ledger.account(queue, None);
        assert_eq!(account.sources.len(), SOURCES + 1);
        assert!(account.totals.balance(), "{:?}", account.totals);
    }
}
