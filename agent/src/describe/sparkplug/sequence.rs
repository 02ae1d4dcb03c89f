//! The order of a node's messages: `seq` counts them modulo 256 from its birth on.

use std::collections::VecDeque;

/// How many messages are told from repetitions: as many as a broker usually has under way.
const REMEMBERED: usize = 32;

/// Where a node's messages are.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    next: Option<u8>,
    recent: VecDeque<u64>,
}

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// As expected, or nothing is expected.
    Next,
    /// It was there already: at least once may be twice.
    Repeated,
    /// Another one was missed.
    Later,
}

impl Sequence {
    /// Begins with a birth whose content has this hash.
    pub(super) fn after(seq: Option<u64>, hash: u64) -> Self {
        Self { next: seq.map(following), recent: [hash].into() }
    }

    /// Tells whether a message was there already.
    pub(super) fn has(&self, hash: u64) -> bool {
        self.recent.contains(&hash)
    }

    /// Takes a message whose content has this hash.
    pub(super) fn place(&mut self, seq: Option<u64>, hash: u64) -> Place {
        let Some(seq) = seq else { return Place::Next };
        if self.has(hash) {
            return Place::Repeated;
        }
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(hash);
        let is_next = self.next.is_none_or(|next| following(seq) == next.wrapping_add(1));
        self.next = Some(following(seq));
        if is_next { Place::Next } else { Place::Later }
    }
}

/// Returns what comes after a number, modulo 256.
fn following(seq: u64) -> u8 {
    (seq as u8).wrapping_add(1)
}
