//! What an agent has counted: the proof that all it read has arrived, or what became of it.
//!
//! Readings only, and two sums that hold at any moment:
//!
//! ```text
//! read                  = queued + held_back (each cause)
//! carried_over + queued = acknowledged + evicted + waiting
//! ```

use serde::{Deserialize, Serialize};

use crate::time::UnixMillis;

/// Values that were read and became no readings, by cause.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeldBack {
    /// `keep` and `skip` leave the metric out.
    pub skip: u64,
    /// They came sooner than `every` allows.
    pub every: u64,
    /// They moved less than `deadband`.
    pub deadband: u64,
    /// Their name, text or number is none that a message may hold.
    pub unfit: u64,
    /// The broker kept them from before, and they have no time of their own.
    pub retained: u64,
}

impl HeldBack {
    /// Returns how many of all causes.
    #[must_use]
    pub fn sum(&self) -> u64 {
        let Self { skip, every, deadband, unfit, retained } = self;
        skip + every + deadband + unfit + retained
    }
}

impl std::ops::AddAssign for HeldBack {
    fn add_assign(&mut self, other: Self) {
        self.skip += other.skip;
        self.every += other.every;
        self.deadband += other.deadband;
        self.unfit += other.unfit;
        self.retained += other.retained;
    }
}

/// All that an agent has counted since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// When the agent started.
    pub since: UnixMillis,
    /// Lines or messages that were damaged.
    pub damaged: u64,
    /// Those that are something else, such as a boot banner.
    pub foreign: u64,
    /// Values that were understood.
    pub read: u64,
    /// Values that the rules of their source held back.
    pub held_back: HeldBack,
    /// Readings that went into the queue.
    pub queued: u64,
    /// Readings that the queue had taken in before this start.
    pub carried_over: u64,
    /// Readings that were sent at least once.
    pub sent: u64,
    /// Readings that were sent again.
    pub sent_again: u64,
    /// Readings that the server has committed.
    pub acknowledged: u64,
    /// Readings that went because the queue was full.
    pub evicted: u64,
    /// Readings that wait in the queue.
    pub waiting: u64,
    /// When the oldest of those came in.
    pub oldest: Option<UnixMillis>,
    /// Status events that wait in the queue.
    pub events_waiting: u64,
    /// Status events that went because there were too many.
    pub events_evicted: u64,
}

impl Counters {
    /// Tells whether both sums hold: then nothing has vanished.
    #[must_use]
    pub fn balance(&self) -> bool {
        self.read == self.queued + self.held_back.sum()
            && self.carried_over + self.queued == self.acknowledged + self.evicted + self.waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_vanishes_is_noticed() {
        let held_back = HeldBack { every: 1, retained: 1, ..HeldBack::default() };
        let good = Counters {
            read: 12,
            held_back,
            queued: 10,
            carried_over: 3,
            acknowledged: 8,
            evicted: 1,
            waiting: 4,
            ..Counters::default()
        };
        assert!(good.balance());
        assert!(!Counters { read: 13, ..good }.balance());
        assert!(!Counters { waiting: 3, ..good }.balance());
    }

    #[test]
    fn another_version_may_count_other_things() {
        let counters = r#"{"read":2,"queued":2,"waiting":2,"held_back":{"other":1},"new":7}"#;
        let counters: Counters = serde_json::from_str(counters).unwrap();
        assert!(counters.balance());
    }
}
