//! The numbers of a lane: given once, whatever happens.
//!
//! Readings leave before they are durable, so after a power cut nobody here knows which numbers the
//! server has seen. Therefore numbers are reserved on the disk in advance, and a start begins after
//! all that were.

use super::{cursor::Cursor, store::RESERVE};

/// Numbers of one lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Numbers {
    /// The next to be given.
    pub(super) next: u64,
    /// What is given up to here will not be given again, whatever happens.
    pub(super) reserved: u64,
    /// What is durable.
    pub(super) saved: u64,
    /// What the server has committed.
    pub(super) released: u64,
    /// The last that waited here, or was committed.
    pub(super) last: u64,
}

impl Numbers {
    /// Begins after what was reserved before; the cursor says what that was.
    pub(super) fn of(cursor: &Cursor, lane: usize) -> Self {
        let of = |pair: [u64; 2]| pair.get(lane).copied().unwrap_or(0);
        let (reserved, released) = (of(cursor.reserved), of(cursor.released));
        Self {
            next: reserved + 1,
            reserved: reserved + RESERVE,
            saved: reserved,
            released,
            last: released,
        }
    }

    /// Gives the next number; none while too few are reserved.
    pub(super) fn give(&mut self) -> Option<u64> {
        (self.next <= self.reserved).then(|| {
            self.last = self.next;
            self.next += 1;
            self.last
        })
    }
}
