//! What one connection counts, and how the figures of many add up.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use valtronics_protocol::filter::Channel;

/// A number that one task adds to and others read.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; for the counter's one writer only, which is why this is a plain addition.
    pub fn add(&self, more: u64) {
        self.0.store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    /// Returns the number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Messages and their payload's bytes; pings, pongs and closes are none.
#[derive(Debug, Default)]
pub struct Count {
    /// How many.
    pub messages: Counter,
    /// Their sizes together.
    pub bytes: Counter,
}

impl Count {
    /// Counts a message.
    pub fn add(&self, bytes: usize) {
        self.messages.add(1);
        self.bytes.add(bytes as u64);
    }

    fn absorb(&self, other: &Self) {
        self.messages.add(other.messages.get());
        self.bytes.add(other.bytes.get());
    }
}

/// The upper bounds of the latency histogram's buckets in seconds: from a fast machine's best to
/// what a reader notices.
pub const LATENCY_BOUNDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// How long something took, how often.
#[derive(Debug, Default)]
pub struct Histogram {
    /// One for each bound, and what is beyond.
    buckets: [Counter; LATENCY_BOUNDS.len() + 1],
    sum_nanos: Counter,
}

impl Histogram {
    /// Counts one that took so long.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let bucket = LATENCY_BOUNDS.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.add(1);
        }
        self.sum_nanos.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Returns how many each bucket holds; the last is what is beyond all bounds.
    pub fn buckets(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().map(Counter::get)
    }

    /// Returns how long all took together, in seconds.
    #[must_use]
    pub fn sum_seconds(&self) -> f64 {
        Duration::from_nanos(self.sum_nanos.get()).as_secs_f64()
    }

    fn absorb(&self, other: &Self) {
        self.buckets.iter().zip(&other.buckets).for_each(|(ours, other)| ours.add(other.get()));
        self.sum_nanos.add(other.sum_nanos.get());
    }
}

/// What one connection counts.
#[derive(Debug, Default)]
pub struct Figures {
    /// Messages from the client.
    pub received: Count,
    /// Messages to the client: by channel, and last what belongs to none.
    sent: [Count; Channel::ALL.len() + 1],
    /// From a frame's arrival at the server to its readings' way into this socket: the oldest of
    /// each flush.
    pub latency: Histogram,
    /// Readings that were taken in.
    pub readings: Counter,
    /// Readings and messages of agents whose number was known already.
    pub duplicates: Counter,
    /// Timestamps of agents that lay far ahead, and were replaced by the time of receipt.
    pub replaced: Counter,
    /// Messages of agents that were refused.
    pub refused: Counter,
}

impl Figures {
    /// Returns what was sent of a channel, or of none.
    #[must_use]
    pub fn sent(&self, channel: Option<Channel>) -> &Count {
        let [telemetry, alerts, devices, system, none] = &self.sent;
        match channel {
            Some(Channel::Telemetry) => telemetry,
            Some(Channel::Alerts) => alerts,
            Some(Channel::Devices) => devices,
            Some(Channel::System) => system,
            None => none,
        }
    }

    /// Returns how many messages were sent in all.
    #[must_use]
    pub fn messages_sent(&self) -> u64 {
        self.sent.iter().map(|count| count.messages.get()).sum()
    }

    /// Adds those of another.
    pub(super) fn absorb(&self, other: &Self) {
        self.received.absorb(&other.received);
        self.sent.iter().zip(&other.sent).for_each(|(ours, other)| ours.absorb(other));
        self.latency.absorb(&other.latency);
        self.readings.add(other.readings.get());
        self.duplicates.add(other.duplicates.get());
        self.replaced.add(other.replaced.get());
        self.refused.add(other.refused.get());
    }
}

impl Clone for Figures {
    fn clone(&self) -> Self {
        let figures = Self::default();
        figures.absorb(self);
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_is_at_most_its_bound() {
        let histogram = Histogram::default();
        for micros in [100, 101, 6_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let filled: Vec<usize> =
            histogram.buckets().enumerate().filter(|(_, n)| *n > 0).map(|(at, _)| at).collect();
        assert_eq!(filled, [0, 1, LATENCY_BOUNDS.len()]);
        assert!((histogram.sum_seconds() - 6.000_201).abs() < 1e-9);
    }

    #[test]
    fn figures_add_up() {
        let (one, two) = (Figures::default(), Figures::default());
        one.sent(Some(Channel::Alerts)).add(10);
        two.sent(Some(Channel::Alerts)).add(5);
        two.sent(None).add(7);
        one.absorb(&two);
        let sum = one.clone();
        assert_eq!((sum.messages_sent(), sum.sent(Some(Channel::Alerts)).bytes.get()), (3, 15));
        assert_eq!(two.messages_sent(), 2);
    }
}
