//! When what waits came in: a mark a minute, so that a backlog of months takes a few KiB.

use std::{collections::VecDeque, time::Duration};

use valtronics_protocol::time::UnixMillis;

/// The least time between two marks.
const APART: Duration = Duration::from_secs(60);
/// The most marks, which are three days; then every second one goes.
const MARKS: usize = 4096;

/// Some numbers, ascending, each with when it came in.
#[derive(Debug, Default)]
pub(super) struct Ages(VecDeque<(u64, UnixMillis)>);

impl Ages {
    /// Notes when `number` came in, which is higher than all before.
    pub(super) fn note(&mut self, number: u64, received: UnixMillis) {
        let is_near =
            |(_, last): &(u64, UnixMillis)| *last <= received && received < last.plus(APART);
        if self.0.back().is_some_and(is_near) {
            return;
        }
        if self.0.len() >= MARKS {
            let mut is_kept = false;
            self.0.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
        self.0.push_back((number, received));
    }

    /// Returns about when `number` came in, rather earlier than later.
    pub(super) fn of(&self, number: u64) -> Option<UnixMillis> {
        let behind = self.0.partition_point(|(first, _)| *first <= number);
        self.0.get(behind.saturating_sub(1)).map(|(_, received)| *received)
    }

    /// Forgets what says nothing of `number` and those above.
    pub(super) fn release(&mut self, number: u64) {
        while self.0.get(1).is_some_and(|(next, _)| *next <= number) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_told_apart_and_memory_is_bounded() {
        let mut ages = Ages::default();
        assert_eq!(ages.of(1), None);
        for second in 0..20_000 {
            ages.note(second, UnixMillis(second as i64 * 1000));
        }
        assert_eq!(ages.of(59), Some(UnixMillis(0)));
        assert_eq!(ages.of(119), Some(UnixMillis(60_000)));
        ages.release(10_000);
        assert_eq!(ages.of(10_000), Some(UnixMillis(9_960_000)));
        assert_eq!(ages.of(3), Some(UnixMillis(9_960_000)), "nothing older is known");
        for minute in 1000..20_000 {
            ages.note(minute * 60, UnixMillis(minute as i64 * 60_000));
        }
        assert!(ages.0.len() <= MARKS);
        let found = ages.of(600_000).unwrap().0;
        assert!((600_000_000 - 16 * 60_000..=600_000_000).contains(&found), "{found}");
    }
}
