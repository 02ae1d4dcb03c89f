//! What happened in the last minute: counted by time, remembered by name, bounded in both.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    time::{Duration, Instant},
};

use super::MINUTE;

/// How many names a map remembers, of some hundred bytes each. Beyond, a new name is not counted:
/// refusing it instead would let whoever has that many addresses shut everybody out, and the
/// connections in all are limited anyway.
const MOST_REMEMBERED: usize = 100_000;
/// How often a full map looks for what it may forget: each look walks all of it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The moments of the last minute.
#[derive(Debug, Default)]
pub(super) struct Moments(VecDeque<Instant>);

impl Moments {
    /// Returns how many there are; the caller keeps that below a limit of the configuration.
    pub(super) fn count(&mut self, now: Instant) -> usize {
        while self.0.front().is_some_and(|at| *at + MINUTE <= now) {
            self.0.pop_front();
        }
        self.0.len()
    }

    pub(super) fn push(&mut self, now: Instant) {
        self.0.push_back(now);
    }

    /// Forgets the last one: it came to something.
    pub(super) fn pop(&mut self) {
        self.0.pop_back();
    }

    /// Returns in how many seconds the oldest leaves.
    pub(super) fn retry_after(&self, now: Instant) -> u64 {
        self.0.front().map_or(1, |at| seconds_until(*at + MINUTE, now))
    }

    pub(super) fn is_live(&self, now: Instant) -> bool {
        self.0.back().is_some_and(|at| *at + MINUTE > now)
    }
}

/// Returns the whole seconds until a moment, at least one: who comes back then is not too early.
pub(super) fn seconds_until(moment: Instant, now: Instant) -> u64 {
    let left = moment.saturating_duration_since(now);
    (left.as_secs() + u64::from(left.subsec_nanos() > 0)).max(1)
}

/// What forgets itself when nothing of it matters any more.
pub(super) trait Fading {
    /// Tells whether something of it still matters.
    fn is_live(&self, now: Instant) -> bool;
}

/// A map that forgets what has faded when it is full.
#[derive(Debug)]
pub(super) struct Remembered<K, V> {
    entries: HashMap<K, V>,
    most: usize,
    looked_at: Option<Instant>,
}

impl<K: Hash + Eq, V: Fading + Default> Remembered<K, V> {
    pub(super) fn new() -> Self {
        Self { entries: HashMap::new(), most: MOST_REMEMBERED, looked_at: None }
    }

    #[cfg(test)]
    pub(super) fn with_most(most: usize) -> Self {
        Self { most, ..Self::new() }
    }

    pub(super) fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, name: &Q) -> Option<&mut V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.entries.get_mut(name)
    }

    /// Returns what is known by a name, which is new if it was not known; none when there is no
    /// room for a new one.
    pub(super) fn entry(&mut self, name: K, now: Instant) -> Option<&mut V> {
        let rested = self.looked_at.is_none_or(|at| at + LOOK_EVERY <= now);
        if self.entries.len() >= self.most && rested {
            self.entries.retain(|_, value| value.is_live(now));
            self.looked_at = Some(now);
        }
        if self.entries.len() >= self.most {
            return self.entries.get_mut(&name);
        }
        Some(self.entries.entry(name).or_default())
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}
