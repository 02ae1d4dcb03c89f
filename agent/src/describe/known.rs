//! What is known of one device: whether it is there, and how long it may be silent.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    announcement::Device,
    availability::{Availability, Rule},
    template::{Engine, Payload},
};

/// A device with entities.
#[derive(Debug)]
pub(super) struct Known {
    /// As it was announced last.
    pub(super) device: Device,
    /// How many entities are gone after how many seconds of silence.
    expiries: BTreeMap<Option<u64>, usize>,
    declared: Option<Duration>,
    /// What is said of its entities, and how many have that rule.
    availabilities: Vec<(Availability, usize)>,
}

impl Known {
    /// Begins with no entities.
    pub(super) fn new(device: Device) -> Self {
        Self { device, expiries: BTreeMap::new(), declared: None, availabilities: Vec::new() }
    }

    /// Counts an entity.
    pub(super) fn add(&mut self, expire_after: Option<u64>) {
        *self.expiries.entry(expire_after).or_default() += 1;
    }

    /// Counts an entity less; tells whether it was the last one.
    pub(super) fn remove(&mut self, expire_after: Option<u64>, rule: Option<&Arc<Rule>>) -> bool {
        count_down(&mut self.expiries, &expire_after);
        if let Some((_, users)) = rule.and_then(|rule| self.availability(rule)) {
            *users -= 1;
            self.availabilities.retain(|(_, users)| *users > 0);
        }
        self.expiries.is_empty()
    }

    /// Watches as a rule says; tells whether it is a new one, to which `availability` was made.
    pub(super) fn watch(
        &mut self,
        rule: &Arc<Rule>,
        availability: impl FnOnce() -> Availability,
    ) -> bool {
        if let Some((_, users)) = self.availability(rule) {
            *users += 1;
            return false;
        }
        self.availabilities.push((availability(), 1));
        true
    }

    /// Takes what a topic says of it.
    pub(super) fn hear(&mut self, topic: &str, payload: &Payload<'_>, engine: &Engine) {
        for (availability, _) in &mut self.availabilities {
            availability.hear(topic, payload, engine);
        }
    }

    /// Tells whether any of its entities is there; `None` while that is not known.
    pub(super) fn is_there(&self) -> Option<bool> {
        let (mut is_there, mut is_known) = (false, !self.availabilities.is_empty());
        for (availability, _) in &self.availabilities {
            match availability.is_available() {
                Some(said) => is_there |= said,
                None => is_known = false,
            }
        }
        (is_there || is_known).then_some(is_there)
    }

    /// Returns how long it may be silent, if that has changed: as long as the most patient of its
    /// entities.
    pub(super) fn silence(&mut self) -> Option<Option<Duration>> {
        let is_endless = self.expiries.contains_key(&None);
        let longest = self.expiries.keys().next_back().copied().flatten();
        let silence =
            longest.filter(|seconds| *seconds > 0 && !is_endless).map(Duration::from_secs);
        let has_changed = silence != self.declared;
        self.declared = silence;
        has_changed.then_some(silence)
    }

    fn availability(&mut self, rule: &Arc<Rule>) -> Option<&mut (Availability, usize)> {
        self.availabilities.iter_mut().find(|(availability, _)| availability.rule() == rule)
    }
}

/// Counts one less of something.
pub(super) fn count_down<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
