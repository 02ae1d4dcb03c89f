//! Names that several things may claim: whoever has one for itself is called by it.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

/// Who claims which name, and how often.
#[derive(Debug)]
pub(super) struct Claims<N, O>(HashMap<N, BTreeMap<O, usize>>);

impl<N, O> Default for Claims<N, O> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<N: Hash + Eq, O: Ord> Claims<N, O> {
    /// Notes a claim.
    pub(super) fn claim(&mut self, name: N, owner: O) {
        *self.0.entry(name).or_default().entry(owner).or_default() += 1;
    }

    /// Takes a claim back.
    pub(super) fn release(&mut self, name: &N, owner: &O) {
        let Some(owners) = self.0.get_mut(name) else { return };
        if let Some(count) = owners.get_mut(owner) {
            *count -= 1;
            if *count == 0 {
                owners.remove(owner);
            }
        }
        if owners.is_empty() {
            self.0.remove(name);
        }
    }

    /// Tells whether several claim the name.
    pub(super) fn is_shared(&self, name: &N) -> bool {
        self.0.get(name).is_some_and(|owners| owners.len() > 1)
    }
}
