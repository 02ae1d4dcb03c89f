//! Which numbers wait: a few ranges, for numbers only jump when a queue is opened or has lost some.

use std::{collections::VecDeque, ops::RangeInclusive};

/// Ranges of numbers, ascending, none touching the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges(VecDeque<(u64, u64)>);

impl Ranges {
    /// Adds numbers above all others.
    pub(super) fn push(&mut self, first: u64, last: u64) {
        match self.0.back_mut() {
            Some((_, before)) if *before + 1 == first => *before = last,
            _ if first <= last => self.0.push_back((first, last)),
            _ => {}
        }
    }

    /// Removes `first` to `last`, and returns how many of them were here.
    pub(super) fn remove(&mut self, first: u64, last: u64) -> u64 {
        let mut removed = 0;
        for (begin, end) in std::mem::take(&mut self.0) {
            let (cut_begin, cut_end) = (begin.max(first), end.min(last));
            if cut_begin > cut_end {
                self.push(begin, end);
                continue;
            }
            removed += cut_end - cut_begin + 1;
            if begin < cut_begin {
                self.push(begin, cut_begin - 1);
            }
            if cut_end < end {
                self.push(cut_end + 1, end);
            }
        }
        removed
    }

    /// Returns the first number above `after`, and the last one that follows it without a jump.
    pub(super) fn after(&self, after: u64) -> Option<RangeInclusive<u64>> {
        let (begin, end) = self.0.iter().find(|(_, end)| *end > after)?;
        Some((*begin).max(after + 1)..=*end)
    }

    /// Returns how many there are.
    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|(begin, end)| end - begin + 1).sum()
    }

    /// Returns the highest.
    pub(super) fn last(&self) -> Option<u64> {
        self.0.back().map(|(_, end)| *end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_removed_is_counted_once() {
        let mut ranges = Ranges::default();
        ranges.push(1, 4);
        ranges.push(5, 10);
        ranges.push(21, 30);
        assert_eq!((ranges.count(), ranges.last()), (20, Some(30)));
        assert_eq!((ranges.remove(3, 22), ranges.remove(3, 22)), (10, 0));
        assert_eq!(ranges.after(0), Some(1..=2));
        assert_eq!(ranges.after(2), Some(23..=30));
        assert_eq!(ranges.after(25), Some(26..=30));
        assert_eq!((ranges.after(30), ranges.count()), (None, 10));
    }
}
