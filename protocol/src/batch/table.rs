//! Keys and their numbers, in the order of their announcement.

use std::{collections::HashMap, hash::Hash};

use foldhash::fast::RandomState;

/// A table that guesses: what followed a key last time follows it again.
#[derive(Debug)]
pub(super) struct Table<K> {
    entries: Vec<Entry<K>>,
    by_key: HashMap<K, u32, RandomState>,
    last: usize,
}

#[derive(Debug)]
struct Entry<K> {
    key: K,
    next: u32,
}

/// Where a key stands.
pub(super) enum Found {
    /// It was there.
    Known(u32),
    /// It is there now.
    New(u32),
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { entries: Vec::new(), by_key: HashMap::default(), last: 0 }
    }
}

impl<K: Clone + Eq + Hash> Table<K> {
    /// Looks up a key, which need not be made when the guess is right.
    pub(super) fn find(&mut self, is: impl Fn(&K) -> bool, key: impl FnOnce() -> K) -> Found {
        let guess = self.entries.get(self.last).map(|entry| entry.next);
        if let Some(guess) = guess
            && self.entries.get(guess as usize).is_some_and(|entry| is(&entry.key))
        {
            self.last = guess as usize;
            return Found::Known(guess);
        }
        let key = key();
        let known = self.by_key.get(&key).copied();
        let position = known.unwrap_or_else(|| {
            let position = u32::try_from(self.entries.len()).expect("a frame's readings are few");
            self.entries.push(Entry { key: key.clone(), next: position + 1 });
            self.by_key.insert(key, position);
            position
        });
        if let Some(entry) = self.entries.get_mut(self.last) {
            entry.next = position;
        }
        self.last = position as usize;
        known.map_or(Found::New(position), Found::Known)
    }

    /// Returns the key before this position.
    pub(super) fn before(&self, position: u32) -> Option<&K> {
        let entry = self.entries.get((position as usize).checked_sub(1)?)?;
        Some(&entry.key)
    }
}
