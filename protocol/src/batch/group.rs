//! Series that are read together, and when to expect them again.

/// A group, as both sides know it.
#[derive(Debug)]
pub(super) struct Group<R> {
    /// Its series, in the order of a row.
    pub(super) members: Box<[u32]>,
    /// The group that followed it last time.
    pub(super) next: u32,
    /// Its rows in the frame at hand.
    pub(super) rows: Vec<R>,
    pace: Option<Pace>,
}

#[derive(Debug, Clone, Copy)]
struct Pace {
    at: i64,
    interval: i64,
}

impl<R> Group<R> {
    /// Makes the group at a position; the one announced after it is a good guess at what follows.
    pub(super) fn new(position: usize, members: Box<[u32]>) -> Self {
        let next = u32::try_from(position + 1).unwrap_or(u32::MAX);
        Self { members, next, rows: Vec::new(), pace: None }
    }

    /// Returns the moment at which the next row is expected: after the usual interval, or, the first
    /// time, at the latest moment of any group.
    pub(super) fn expected(&self, latest: i64) -> i64 {
        self.pace.map_or(latest, |pace| pace.at.wrapping_add(pace.interval))
    }

    /// Notes the moment of a row.
    pub(super) fn saw(&mut self, at: i64) {
        let interval = self.pace.map_or(0, |pace| at.wrapping_sub(pace.at));
        self.pace = Some(Pace { at, interval });
    }
}
