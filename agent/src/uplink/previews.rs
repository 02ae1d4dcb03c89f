//! When the newest values go ahead of the queue: plain values in and out.
//!
//! While readings wait longer than they should, a preview shows the newest value of each series.
//! What a preview has passed is a backlog from then on, also for later connections. One is under way
//! at a time: a ping behind it comes back when the server has read it. So a slow link makes previews
//! rare, never late.

use std::time::Duration;

use tokio::time::Instant;

/// For how long live readings may wait for the link before a preview passes them: shorter breaks
/// are sent in order.
const PATIENCE: Duration = Duration::from_millis(250);

/// The previews of one agent.
#[derive(Debug, Default)]
pub struct Previews {
    /// Readings up to this number were passed; of all connections.
    passed: u64,
    /// Up to this number nothing is new any more on this connection.
    shown: u64,
    behind_since: Option<Instant>,
    sent_at: Option<Instant>,
    under_way: bool,
    /// The least time between two.
    pause: Duration,
}

impl Previews {
    /// Begins with a connection; what was shown on others may not have come through.
    pub fn connected(&mut self) {
        *self = Self { passed: self.passed, ..Self::default() };
    }

    /// Returns up to which number readings are a backlog.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.passed
    }

    /// Returns after which number values are new, when so much was sent.
    #[must_use]
    pub fn after(&self, sent: u64) -> u64 {
        self.shown.max(sent)
    }

    /// Notes what a flush has left: nothing, live readings, or a backlog.
    pub fn left(&mut self, waiting: bool, historical: bool, now: Instant) {
        let since = if historical { now.checked_sub(PATIENCE) } else { None };
        self.behind_since = waiting.then(|| since.or(self.behind_since).unwrap_or(now));
    }

    /// Returns when the next preview may go, if there is anything to show: `last` is the last number
    /// that was given, `sent` the last that was sent.
    #[must_use]
    pub fn due(&self, last: u64, sent: u64, flush: Duration) -> Option<Instant> {
        let since = self.behind_since.filter(|_| !self.under_way && last > self.after(sent))?;
        let again = self.sent_at.map(|at| at + self.pause.max(flush));
        Some(again.map_or(since + PATIENCE, |at| at.max(since + PATIENCE)))
    }

    /// Notes that there was nothing to show up to `through`.
    pub fn showed(&mut self, through: u64) {
        (self.passed, self.shown) = (self.passed.max(through), through);
    }

    /// Notes a preview that showed everything up to `through`, for which the link needs so long: as
    /// much of a slow one is the queue's.
    pub fn sent(&mut self, through: u64, needs: Duration, now: Instant) {
        self.showed(through);
        (self.sent_at, self.under_way, self.pause) = (Some(now), true, needs * 2);
    }

    /// Notes that the server has read the preview.
    pub fn arrived(&mut self) {
        self.under_way = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLUSH: Duration = Duration::from_millis(100);

    #[test]
    fn a_short_wait_needs_no_preview() {
        let (mut previews, now) = (Previews::default(), crate::clock::monotonic());
        assert_eq!(previews.due(5, 0, FLUSH), None);
        previews.left(true, false, now);
        assert_eq!(previews.due(5, 0, FLUSH), Some(now + PATIENCE));
        previews.left(true, false, now + FLUSH);
        assert_eq!(previews.due(5, 0, FLUSH), Some(now + PATIENCE), "it waits all the time");
        previews.left(false, false, now + FLUSH);
        assert_eq!(previews.due(5, 5, FLUSH), None);
    }

    #[test]
    fn a_backlog_is_passed_at_once_and_then_at_each_flush_that_has_news() {
        let (mut previews, now) = (Previews::default(), crate::clock::monotonic());
        previews.left(true, true, now);
        assert_eq!(previews.due(9, 2, FLUSH), Some(now));
        assert_eq!(previews.after(2), 2);
        previews.sent(9, Duration::from_millis(10), now);
        assert_eq!((previews.passed(), previews.after(4)), (9, 9));
        assert_eq!(previews.due(10, 4, FLUSH), None, "one is under way");
        previews.arrived();
        assert_eq!(previews.due(9, 4, FLUSH), None, "nothing is new");
        assert_eq!(previews.due(10, 4, FLUSH), Some(now + FLUSH));
    }

    #[test]
    fn a_slow_link_sees_few_previews_and_a_new_one_all_again() {
        let (mut previews, now) = (Previews::default(), crate::clock::monotonic());
        previews.left(true, true, now);
        previews.sent(9, Duration::from_secs(1), now);
        previews.arrived();
        assert_eq!(previews.due(10, 4, FLUSH), Some(now + Duration::from_secs(2)));
        previews.connected();
        assert_eq!((previews.passed(), previews.after(4)), (9, 4));
    }
}
