//! How often nodes are asked for their births: they may be many, and their links slow.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::time::Instant;

/// How long a node has for its births, which a slow link takes seconds for.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// The longest wait for a node that does not answer; it may not be allowed to hear.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// When each node may be asked again: as many as `describe::sparkplug` remembers.
#[derive(Debug, Default)]
pub(super) struct Asking(HashMap<Arc<str>, Turn>);

#[derive(Debug)]
struct Turn {
    at: Instant,
    wait: Duration,
}

impl Asking {
    /// Tells whether a node may be asked now, and counts that as done: at once, and then more and
    /// more rarely, until it has not been necessary for as long as the last wait.
    pub(super) fn may_ask(&mut self, node: &Arc<str>, now: Instant) -> bool {
        let first = Turn { at: now, wait: FIRST_WAIT };
        let turn = self.0.entry(Arc::clone(node)).or_insert(first);
        if now < turn.at {
            return false;
        }
        if now > turn.at + turn.wait {
            turn.wait = FIRST_WAIT;
        }
        turn.at = now + turn.wait;
        turn.wait = LONGEST_WAIT.min(2 * turn.wait);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_node_that_does_not_answer_is_asked_more_and_more_rarely() {
        let (mut asking, begin) = (Asking::default(), clock::monotonic());
        let mut asked =
            |node: &str, second| asking.may_ask(&node.into(), begin + Duration::from_secs(second));
        let seconds: Vec<u64> = (0..2000).filter(|second| asked("a/b", *second)).collect();
        assert_eq!(seconds, [0, 5, 15, 35, 75, 155, 315, 635, 1235, 1835]);
        assert!(asked("a/c", 1900), "another one is asked at once");
        // What was answered is forgotten.
        assert_eq!([4000, 4004, 4005].map(|second| asked("a/b", second)), [true, false, true]);
    }
}
