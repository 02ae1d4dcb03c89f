//! Which readings of a commit do not count from the moment at which they were measured.
//!
//! Nearly all do, so most commits have no marks at all.

use std::ops::Range;

use valtronics_protocol::time::UnixMillis;

/// How else a reading counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// It is a backlog's and never was a last value.
    Historical,
    /// It is of a clock that runs ahead, and counts from this moment at the latest.
    Until(UnixMillis),
}

/// The marks of readings that stand one after the other.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Marks(Vec<Run>);

/// Readings with one mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Where they stand.
    pub places: Range<usize>,
    /// Their mark.
    pub mark: Mark,
}

impl Mark {
    /// Returns from when on a reading counts as the last value; `None`: never.
    #[must_use]
    pub fn effective(mark: Option<Self>, at: UnixMillis) -> Option<UnixMillis> {
        match mark {
            None => Some(at),
            Some(Self::Until(latest)) => Some(at.min(latest)),
            Some(Self::Historical) => None,
        }
    }
}

impl Marks {
    /// Marks the reading at a place behind all that are marked, if it has a mark.
    pub fn push(&mut self, place: usize, mark: Option<Mark>) {
        let Some(mark) = mark else { return };
        match self.0.last_mut() {
            Some(last) if last.places.end == place && last.mark == mark => {
                last.places.end = place + 1;
            }
            Some(_) | None => self.0.push(Run { places: place..place + 1, mark }),
        }
    }

    /// Returns the runs in their order.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.0
    }

    /// Returns the marks of all places, one after the other, without an end.
    pub fn into_places(self) -> impl Iterator<Item = Option<Mark>> {
        let mut runs = self.0.into_iter().peekable();
        (0..).map(move |place| {
            runs.next_if(|run| run.places.end <= place);
            runs.peek().filter(|run| run.places.start <= place).map(|run| run.mark)
        })
    }
}

impl FromIterator<Run> for Marks {
    fn from_iter<T: IntoIterator<Item = Run>>(runs: T) -> Self {
        Self(runs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_has_its_own_mark() {
        use Mark::{Historical, Until};
        let given = [
            None,
            Some(Historical),
            Some(Historical),
            Some(Until(UnixMillis(5))),
            Some(Until(UnixMillis(6))),
            None,
            Some(Historical),
            None,
        ];
        let mut marks = Marks::default();
        for (place, mark) in given.iter().enumerate() {
            marks.push(place, *mark);
        }
        assert_eq!(marks.runs().len(), 4);
        assert_eq!(marks.into_places().take(given.len()).collect::<Vec<_>>(), given);
    }
}
