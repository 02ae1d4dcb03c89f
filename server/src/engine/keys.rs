//! The idempotency keys of the last day.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use valtronics_protocol::time::UnixMillis;

use crate::used_key::{Digest, KeyState, Once, UsedKey};

/// For how long a key is kept (programs, `POST /api/v1/telemetry`).
const KEPT: Duration = Duration::from_secs(86_400);
/// The most keys of one subject: a body each two seconds, day and night. Beyond, a new one is
/// refused: one that is forgotten would let a repeat be stored.
const MOST_OF_SUB: usize = 50_000;
/// The most of all subjects, some 25 MiB.
const MOST: usize = 200_000;

#[derive(Debug, Default)]
pub(super) struct Keys {
    known: HashMap<Arc<str>, HashMap<Digest, Known>>,
    /// In the order in which they came.
    order: VecDeque<(UnixMillis, Arc<str>, Digest)>,
    /// What the next commit is to hold.
    pending: Vec<UsedKey>,
    /// What the commit that is under way holds.
    under_way: Vec<UsedKey>,
}

#[derive(Debug)]
struct Known {
    body: Digest,
    committed: bool,
}

impl Keys {
    /// Begins with keys in the order in which they came.
    pub(super) fn restore(stored: Vec<UsedKey>) -> Self {
        let mut keys = Self::default();
        for used in stored {
            keys.remember(&used, true);
        }
        keys
    }

    /// Tells what is known of a key, without using it; one that no commit holds yet counts as new.
    pub(super) fn look(&self, once: Once) {
        let Once { wanted, answer } = once;
        let known = self.find(&wanted);
        let state = match known {
            Some(known) if known.body != wanted.body => KeyState::OtherBody,
            Some(known) if known.committed => KeyState::Repeated,
            Some(_) | None => KeyState::New,
        };
        // Whoever asked may have gone.
        let _ = answer.send(state);
    }

    /// Uses a key, unless it was used before.
    pub(super) fn use_up(&mut self, once: Once) -> KeyState {
        let Once { wanted, answer } = once;
        let of_sub = self.known.get(&wanted.sub).map_or(0, HashMap::len);
        let state = match self.find(&wanted) {
            Some(known) if known.body == wanted.body => KeyState::Repeated,
            Some(_) => KeyState::OtherBody,
            None if of_sub >= MOST_OF_SUB || self.order.len() >= MOST => KeyState::Full,
            None => KeyState::New,
        };
        if state == KeyState::New {
            self.remember(&wanted, false);
            self.pending.push(wanted);
        }
        // Whoever asked may have gone; what he sent counts all the same.
        let _ = answer.send(state);
        state
    }

    /// Takes out what the next commit is to hold.
    pub(super) fn take_pending(&mut self) -> Vec<UsedKey> {
        self.under_way = std::mem::take(&mut self.pending);
        self.under_way.clone()
    }

    /// Notes that what was taken out is committed.
    pub(super) fn committed(&mut self) {
        for used in std::mem::take(&mut self.under_way) {
            let of_sub = self.known.get_mut(&used.sub);
            if let Some(known) = of_sub.and_then(|of_sub| of_sub.get_mut(&used.key)) {
                known.committed = true;
            }
        }
    }

    /// Forgets what is older than it is kept.
    pub(super) fn forget_old(&mut self, now: UnixMillis) {
        let oldest = now.minus(KEPT);
        while let Some((_, sub, key)) = self.order.pop_front_if(|(at, ..)| *at < oldest) {
            let Some(of_sub) = self.known.get_mut(&sub) else { continue };
            of_sub.remove(&key);
            if of_sub.is_empty() {
                self.known.remove(&sub);
            }
        }
    }

    fn find(&self, wanted: &UsedKey) -> Option<&Known> {
        self.known.get(&wanted.sub)?.get(&wanted.key)
    }

    fn remember(&mut self, used: &UsedKey, committed: bool) {
        let known = Known { body: used.body, committed };
        self.known.entry(Arc::clone(&used.sub)).or_default().insert(used.key, known);
        self.order.push_back((used.at, Arc::clone(&used.sub), used.key));
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn key(name: &str, body: &str, at: i64) -> UsedKey {
        let (key, body) = (Digest::of(name), Digest::of(body));
        UsedKey { sub: "site".into(), key, body, at: UnixMillis(at) }
    }

    fn uses(keys: &mut Keys, wanted: UsedKey) -> KeyState {
        keys.use_up(Once { wanted, answer: oneshot::channel().0 })
    }

    fn looks(keys: &Keys, wanted: UsedKey) -> KeyState {
        let (answer, mut answered) = oneshot::channel();
        keys.look(Once { wanted, answer });
        answered.try_recv().unwrap()
    }

    #[test]
    fn a_key_is_used_once_a_day() {
        let mut keys = Keys::default();
        assert_eq!(uses(&mut keys, key("a", "1", 0)), KeyState::New);
        assert_eq!(uses(&mut keys, key("a", "1", 1)), KeyState::Repeated);
        assert_eq!(uses(&mut keys, key("a", "2", 1)), KeyState::OtherBody);
        // What no commit holds yet could still be lost.
        assert_eq!(looks(&keys, key("a", "1", 1)), KeyState::New);
        assert_eq!(keys.take_pending(), [key("a", "1", 0)]);
        keys.committed();
        assert_eq!(looks(&keys, key("a", "1", 1)), KeyState::Repeated);
        assert_eq!(looks(&keys, key("a", "2", 1)), KeyState::OtherBody);
        let day = UnixMillis(0).plus(KEPT);
        keys.forget_old(day);
        assert_eq!(looks(&keys, key("a", "1", 1)), KeyState::Repeated);
        keys.forget_old(day.plus(Duration::from_millis(1)));
        assert_eq!(uses(&mut keys, key("a", "2", day.0 + 1)), KeyState::New);
    }

    #[test]
    fn no_more_keys_are_taken_than_are_remembered() {
        let stored = (0..MOST_OF_SUB).map(|n| key(&n.to_string(), "", 0)).collect();
        let mut keys = Keys::restore(stored);
        assert_eq!(uses(&mut keys, key("new", "", 1)), KeyState::Full);
        assert_eq!(uses(&mut keys, key("7", "", 1)), KeyState::Repeated);
        let other = UsedKey { sub: "other".into(), ..key("new", "", 1) };
        assert_eq!(uses(&mut keys, other), KeyState::New);
    }
}
