//! From what is seen live to the transitions of alerts.
//!
//! A rule watches its metric of each device, or the device's status, on its own: there is at most
//! one alert of a rule and a device at a time. What is kept is bounded by rules times devices.
//!
//! `for` runs in the time of the readings. It also runs out when no further reading comes, for the
//! condition holds as far as is known (not of `stuck`); a first reading after more than three usual
//! intervals starts it anew. How long is left is then counted by the server's clock, so a source
//! whose clock is wrong waits as long as any other. `missing` and `status` have the server's time.
//!
//! Decided here: each step of a rule has to hold for `for`; a step is left at its bound, the alert
//! only beyond `clear_above` or `clear_below`. A rise in severity makes an acknowledged alert active
//! again; a shelved one stays shelved. An alert that was resolved by hand keeps its condition quiet
//! until that has been false once. The tenth alert, or rise of one, within ten minutes is held: it
//! ends when its condition has been false for as long.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use foldhash::fast::RandomState;
use valtronics_protocol::{
    event::{AlertStatus, Severity, Status},
    id::DeviceId,
    time::UnixMillis,
    value::Value,
};

use super::rule::{Judged, Kind, Rule};
use crate::commit::{AlertDraft, AlertKey, WatchKey};

mod tell;
mod watch;
#[cfg(test)]
mod tests;

use tell::{draft, ended, orphaned};
pub use watch::Saved;
use watch::{Open, Watch};

/// How long agents have to come back after a start before a metric can be missing.
const COMING_BACK: Duration = Duration::from_secs(30);

/// Names a rule until the rules change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleIndex(usize);

/// The alert rules, and where each device stands under them.
#[derive(Debug, Default)]
pub struct Alerts {
    rules: Vec<Rule>,
    /// Where the rules on each metric stand; under "" those on the status of devices.
    by_metric: HashMap<Arc<str>, Vec<RuleIndex>>,
    watches: HashMap<(RuleIndex, DeviceId), Watch, RandomState>,
    /// When something happens by itself: one entry at most for each watch.
    schedule: BTreeSet<(UnixMillis, RuleIndex, DeviceId)>,
    /// What was open and saved before the start, and waits for the rules.
    restored: Before,
    /// Before this nothing is missing.
    back_at: UnixMillis,
    /// What has to be saved; `None`: forgotten.
    unsaved: BTreeMap<WatchKey, Option<Saved>>,
}

/// What is known of the time before the start.
#[derive(Debug, Default)]
pub struct Before {
    /// Alerts that are not resolved.
    pub open: Vec<OpenBefore>,
    /// What was saved.
    pub saved: HashMap<WatchKey, Saved>,
}

/// An alert from before the start.
#[derive(Debug, Clone)]
pub struct OpenBefore {
    /// What it is about.
    pub key: AlertKey,
    /// The kind of its rule.
    pub alert_type: Arc<str>,
    /// How bad it is.
    pub severity: Severity,
    /// Where it stands.
    pub status: AlertStatus,
}

/// What somebody wants of an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was seen.
    Acknowledge,
    /// It is put aside until then.
    Shelve(UnixMillis),
    /// It is over.
    Resolve,
}

impl Alerts {
    /// Begins at `now` with what was known before; [`Self::set_rules`] follows.
    #[must_use]
    pub fn restore(before: Before, now: UnixMillis) -> Self {
        Self { restored: before, back_at: now.plus(COMING_BACK), ..Self::default() }
    }

    /// Returns the rules.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Tells whether anything has to be saved with the next commit.
    #[must_use]
    pub fn has_unsaved(&self) -> bool {
        !self.unsaved.is_empty()
    }

    /// Takes out what has to be saved with the next commit.
    pub fn take_unsaved(&mut self) -> BTreeMap<WatchKey, Option<Saved>> {
        std::mem::take(&mut self.unsaved)
    }

    /// Replaces the rules: every [`RuleIndex`] is void. The alerts of rules that changed or are gone
    /// end; what stayed as it was goes on.
    pub fn set_rules(&mut self, rules: Vec<Rule>, now: UnixMillis, out: &mut Vec<AlertDraft>) {
        let before = std::mem::replace(&mut self.rules, rules);
        self.by_metric.clear();
        for (place, rule) in self.rules.iter().enumerate() {
            let places = self.by_metric.entry(Arc::clone(&rule.metric)).or_default();
            places.push(RuleIndex(place));
        }
        let place = |name: &str| self.rules.iter().position(|rule| *rule.name == *name);
        let places: Vec<Option<usize>> = before.iter().map(|rule| place(&rule.name)).collect();
        let watches = std::mem::take(&mut self.watches);
        self.schedule.clear();
        let first = out.len();
        for ((index, device), mut watch) in watches {
            let Some(old) = before.get(index.0) else {
                continue;
            };
            let place = places.get(index.0).copied().flatten();
            let new = place.and_then(|place| self.rules.get(place));
            if let Some(place) = place.filter(|_| new == Some(old)) {
                watch.scheduled = None;
                self.insert(RuleIndex(place), device, watch);
                continue;
            }
            if watch.is_saved() {
                self.unsaved.insert((Arc::clone(&old.name), device), None);
            }
            let gone = if new.is_some() { "changed" } else { "deleted" };
            out.extend(ended(old, gone, device, &watch, now));
        }
        // The order of a map means nothing.
        if let Some(ended) = out.get_mut(first..) {
            ended.sort_by(|a, b| (&a.key.rule, a.key.device).cmp(&(&b.key.rule, b.key.device)));
        }
        self.place_restored(now, out);
    }

    fn insert(&mut self, index: RuleIndex, device: DeviceId, mut watch: Watch) {
        schedule(&mut self.schedule, &mut watch, index, device);
        self.watches.insert((index, device), watch);
    }

    /// Gives what is known of the time before the start to its rules.
    fn place_restored(&mut self, now: UnixMillis, out: &mut Vec<AlertDraft>) {
        let Before { open, mut saved } = std::mem::take(&mut self.restored);
        for OpenBefore { key, alert_type, severity, status } in open {
            let watches = |rule: &Rule| {
                (&rule.name, &rule.metric, rule.kind.name())
                    == (&key.rule, &key.metric, &alert_type)
            };
            let Some(place) = self.rules.iter().position(watches) else {
                let of = (Arc::clone(&key.rule), key.device);
                if saved.remove(&of).is_some() {
                    self.unsaved.insert(of, None);
                }
                out.push(orphaned(key, alert_type, severity, now));
                continue;
            };
            let saved = saved.remove(&(key.rule, key.device)).unwrap_or_default();
            let watch = Watch::restored(Some((severity, status)), saved);
            self.insert(RuleIndex(place), key.device, watch);
        }
        for ((name, device), saved) in saved {
            match self.rules.iter().position(|rule| rule.name == name) {
                Some(place) => self.insert(RuleIndex(place), device, Watch::restored(None, saved)),
                None => drop(self.unsaved.insert((name, device), None)),
            }
        }
    }

    /// Finds the rules that watch a metric of a device.
    #[must_use]
    pub fn rules_for(&self, name: &str, key: &str, metric: &str) -> Vec<RuleIndex> {
        let covers =
            |index: &&RuleIndex| self.rules.get(index.0).is_some_and(|rule| rule.covers(name, key));
        self.by_metric.get(metric).into_iter().flatten().filter(covers).copied().collect()
    }

    /// Finds the rules that watch the status of a device.
    #[must_use]
    pub fn rules_for_status(&self, name: &str, key: &str) -> Vec<RuleIndex> {
        self.rules_for(name, key, "")
    }

    /// Begins to watch a metric, of which the last value may be known: from now on it may be missing.
    pub fn watch(
        &mut self,
        index: RuleIndex,
        device: DeviceId,
        last: Option<(&Value, UnixMillis)>,
        now: UnixMillis,
    ) {
        let Some(rule) = self.rules.get(index.0) else {
            return;
        };
        let watch = self.watches.entry((index, device)).or_default();
        watch.prepare(rule, last, now, self.back_at);
        schedule(&mut self.schedule, watch, index, device);
    }

    /// Takes in a live reading that a rule watches: measured at `at`, received at `now`.
    pub fn observe(
        &mut self,
        index: RuleIndex,
        device: DeviceId,
        value: &Value,
        (at, now): (UnixMillis, UnixMillis),
        out: &mut Vec<AlertDraft>,
    ) {
        let Some(rule) = self.rules.get(index.0) else {
            return;
        };
        let at = if rule.kind.by_server_clock() { now } else { at };
        let watch = self.watches.entry((index, device)).or_default();
        if let Some(judged) = rule.kind.judge(value, at, &mut watch.memory) {
            self.judged(index, device, judged, (at, now), out);
        }
    }

    /// Takes in the status of a device that a rule watches, which it has had since `at`.
    pub fn observe_status(
        &mut self,
        index: RuleIndex,
        device: DeviceId,
        status: Status,
        (at, now): (UnixMillis, UnixMillis),
        out: &mut Vec<AlertDraft>,
    ) {
        let judged = self.rules.get(index.0).and_then(|rule| rule.kind.judge_status(status));
        if let Some(judged) = judged {
            self.judged(index, device, judged, (at, now), out);
        }
    }

    fn judged(
        &mut self,
        index: RuleIndex,
        device: DeviceId,
        judged: Judged,
        (at, now): (UnixMillis, UnixMillis),
        out: &mut Vec<AlertDraft>,
    ) {
        let earliest = self.earliest(index);
        self.with(index, device, out, |watch, rule| {
            let cleared = judged.cleared;
            watch.see(judged, rule, at);
            watch.settle(rule, cleared, (at, now), earliest)
        });
    }

    /// Changes a watch, tells what came of it, and notes when it is to be looked at again.
    fn with(
        &mut self,
        index: RuleIndex,
        device: DeviceId,
        out: &mut Vec<AlertDraft>,
        change: impl FnOnce(&mut Watch, &Rule) -> Option<Open>,
    ) {
        let Some(rule) = self.rules.get(index.0) else {
            return;
        };
        let watch = self.watches.entry((index, device)).or_default();
        let moved = change(watch, rule);
        out.extend(moved.map(|open| draft(rule, device, open, watch)));
        schedule(&mut self.schedule, watch, index, device);
        if let Some(saved) = watch.save(&rule.kind) {
            let saved = (*saved != Saved::default()).then(|| saved.clone());
            self.unsaved.insert((Arc::clone(&rule.name), device), saved);
        }
    }

    /// Returns before when a rule raises nothing.
    fn earliest(&self, index: RuleIndex) -> UnixMillis {
        match self.rules.get(index.0).map(|rule| &rule.kind) {
            Some(Kind::Missing(_)) => self.back_at,
            Some(_) | None => UnixMillis::MIN,
        }
    }

    /// Does what somebody asks for; of an alert that is over, or stands so already, nothing comes.
    pub fn change(
        &mut self,
        key: &AlertKey,
        change: Change,
        now: UnixMillis,
        out: &mut Vec<AlertDraft>,
    ) {
        if let Some(place) = self.rules.iter().position(|rule| rule.name == key.rule) {
            self.with(RuleIndex(place), key.device, out, |watch, rule| {
                watch.change(rule, change, now)
            });
        }
    }

    /// Returns when something happens by itself next, or may.
    #[must_use]
    pub fn deadline(&self) -> Option<UnixMillis> {
        self.schedule.first().map(|(due, ..)| *due)
    }

    /// Opens the alerts of conditions that have held for long enough, as far as is known; brings back
    /// what was shelved, and ends what is quiet.
    pub fn tick(&mut self, now: UnixMillis, out: &mut Vec<AlertDraft>) {
        while let Some(entry) = self.schedule.first().copied().filter(|(due, ..)| *due <= now) {
            self.schedule.remove(&entry);
            let (due, index, device) = entry;
            let earliest = self.earliest(index);
            self.with(index, device, out, |watch, rule| {
                watch.scheduled = None;
                watch.ring(rule, due, earliest)
            });
        }
    }
}

/// Puts a watch into the schedule. An entry that comes too early stays: metrics that speak move
/// their deadline with every reading.
fn schedule(
    schedule: &mut BTreeSet<(UnixMillis, RuleIndex, DeviceId)>,
    watch: &mut Watch,
    index: RuleIndex,
    device: DeviceId,
) {
    match (watch.scheduled, watch.deadline()) {
        (Some(known), Some(next)) if known <= next => {}
        (known, next) => {
            known.map(|known| schedule.remove(&(known, index, device)));
            schedule.extend(next.map(|next| (next, index, device)));
            watch.scheduled = next;
        }
    }
}
