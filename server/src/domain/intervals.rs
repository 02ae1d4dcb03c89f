//! How often something usually comes: the median of its last intervals.

use std::time::Duration;

/// How many intervals count: one or three odd ones do not move their median, and a new rhythm is
/// learned after five.
const REMEMBERED: usize = 8;

/// The last intervals between two of a kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Intervals {
    /// A ring in milliseconds; 49 days is as good as never.
    millis: [u32; REMEMBERED],
    seen: usize,
}

impl Intervals {
    /// Notes an interval; what comes in one go says nothing about how often it comes.
    pub(super) fn note(&mut self, interval: Duration) {
        let millis = u32::try_from(interval.as_millis()).unwrap_or(u32::MAX);
        if millis == 0 {
            return;
        }
        if let Some(place) = self.millis.get_mut(self.seen % REMEMBERED) {
            *place = millis;
        }
        self.seen += 1;
    }

    /// Returns the median, of two in the middle the longer; `None` before `enough` are known.
    pub(super) fn median(&self, enough: usize) -> Option<Duration> {
        let mut sorted = self.millis;
        let known = sorted.get_mut(..self.seen.min(REMEMBERED))?;
        known.sort_unstable();
        let middle = known.get(known.len() / 2).filter(|_| self.seen >= enough)?;
        Some(Duration::from_millis(u64::from(*middle)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(intervals: &[u64], enough: usize, expected: Option<u64>) {
        let mut known = Intervals::default();
        intervals.iter().for_each(|millis| known.note(Duration::from_millis(*millis)));
        assert_eq!(known.median(enough), expected.map(Duration::from_millis), "{intervals:?}");
    }

    #[test]
    fn odd_intervals_do_not_count_and_old_ones_are_forgotten() {
        check(&[], 0, None);
        check(&[5, 7], 3, None);
        check(&[5, 7], 2, Some(7));
        check(&[5, 0, 7, 0, 6], 3, Some(6));
        check(&[10, 10, 10, 10, 10, 90_000, 90_000, 90_000], 3, Some(10));
        check(&[9, 9, 9, 9, 9, 9, 9, 9, 2, 2, 2, 2, 2], 3, Some(2));
        check(&[u64::MAX], 1, Some(u64::from(u32::MAX)));
    }
}
