//! From live readings to the transitions of alerts.
//!
//! A rule watches its metric of each device on its own: there is at most one alert of a rule and a
//! device at a time. What is kept is bounded by rules times devices.
//!
//! `for` runs in the time of the readings. It also runs out when no further reading comes, for the
//! condition holds as far as is known; a first reading after more than three usual intervals starts
//! it anew. How long is left is then counted by the server's clock, so a source whose clock is wrong
//! waits as long as any other.
//!
//! Decided here: each step of a rule has to hold for `for`; a step is left at its bound, the alert
//! only beyond `clear_above` or `clear_below`. A rise in severity makes an acknowledged alert active
//! again; a shelved one stays shelved. An alert that was resolved by hand is restored as
//! [`AlertStatus::Resolved`] and keeps its condition quiet until that has been false once.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use foldhash::fast::RandomState;
use valtronics_protocol::{
    event::{AlertStatus, Severity},
    id::DeviceId,
    time::UnixMillis,
    value::Value,
};

use super::rule::Rule;
use crate::commit::{AlertDraft, AlertKey};

mod watch;
#[cfg(test)]
mod tests;

use watch::{Open, Watch};

/// Names a rule until the rules change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RuleIndex(usize);

/// The alert rules, and where each device stands under them.
#[derive(Debug, Default)]
pub struct Alerts {
    rules: Vec<Rule>,
    watches: HashMap<(RuleIndex, DeviceId), Watch, RandomState>,
    /// When a `for` runs out by the server's clock: one entry for each watch with `due`.
    schedule: BTreeSet<(UnixMillis, RuleIndex, DeviceId)>,
    /// Alerts from before the start that wait for the rules.
    restored: Vec<(AlertKey, Open)>,
}

impl Alerts {
    /// Begins with the alerts that were open when the server stopped; [`Self::set_rules`] follows.
    #[must_use]
    pub fn restore(open_alerts: Vec<(AlertKey, Severity, AlertStatus)>) -> Self {
        let at = UnixMillis::MIN;
        let open = |(key, severity, status)| (key, Open { severity, status, at });
        Self { restored: open_alerts.into_iter().map(open).collect(), ..Self::default() }
    }

    /// Returns the rules.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Replaces the rules: every [`RuleIndex`] is void. The alerts of rules that changed or are gone
    /// end; what stayed as it was goes on.
    pub fn set_rules(&mut self, rules: Vec<Rule>, now: UnixMillis, out: &mut Vec<AlertDraft>) {
        let before = std::mem::replace(&mut self.rules, rules);
        let place = |name: &str| self.rules.iter().position(|rule| *rule.name == *name);
        let places: Vec<Option<usize>> = before.iter().map(|rule| place(&rule.name)).collect();
        let watches = std::mem::take(&mut self.watches);
        self.schedule.clear();
        let first = out.len();
        for ((index, device), watch) in watches {
            let Some(old) = before.get(index.0) else {
                continue;
            };
            let place = places.get(index.0).copied().flatten();
            let new = place.and_then(|place| self.rules.get(place));
            if let Some(place) = place.filter(|_| new == Some(old)) {
                let index = RuleIndex(place);
                self.schedule.extend(watch.due().map(|due| (due, index, device)));
                self.watches.insert((index, device), watch);
            } else if let Some(open) = watch.unresolved() {
                let gone = if new.is_some() { "changed" } else { "deleted" };
                let message = format!("Rule {} was {gone}", old.name).into();
                let open = Open { status: AlertStatus::Resolved, at: now, ..open };
                out.push(AlertDraft { message, ..draft(old, device, open, watch.value()) });
            }
        }
        // The order of a map means nothing.
        if let Some(ended) = out.get_mut(first..) {
            ended.sort_by(|a, b| (&a.key.rule, a.key.device).cmp(&(&b.key.rule, b.key.device)));
        }
        for (key, open) in std::mem::take(&mut self.restored) {
            let watches = |rule: &Rule| rule.name == key.rule && rule.metric == key.metric;
            match self.rules.iter().position(watches) {
                Some(place) => {
                    self.watches.insert((RuleIndex(place), key.device), Watch::of(open));
                }
                None => out.extend(orphaned(key, open, now)),
            }
        }
    }

    /// Finds the rules that watch a metric of a device.
    #[must_use]
    pub fn rules_for(&self, name: &str, key: &str, metric: &str) -> Vec<RuleIndex> {
        let watches = |rule: &Rule| *rule.metric == *metric && rule.device.covers(name, key);
        let rules = self.rules.iter().enumerate();
        rules.filter(|(_, rule)| watches(rule)).map(|(place, _)| RuleIndex(place)).collect()
    }

    /// Takes in a live reading that a rule watches: measured at `at`, received at `now`.
    pub fn observe(
        &mut self,
        index: RuleIndex,
        device: DeviceId,
        value: &Value,
        at: UnixMillis,
        now: UnixMillis,
        out: &mut Vec<AlertDraft>,
    ) {
        let Some(rule) = self.rules.get(index.0) else {
            return;
        };
        let Some(exceeded) = rule.exceeded_by(value) else {
            return;
        };
        let watch = self.watches.entry((index, device)).or_default();
        let was_due = watch.due();
        watch.see(exceeded, value, at, rule.hold.period);
        let moved = watch.settle(rule, rule.cleared_by(value), at, now);
        out.extend(moved.map(|open| draft(rule, device, open, Some(value))));
        if watch.due() != was_due {
            was_due.map(|due| self.schedule.remove(&(due, index, device)));
            self.schedule.extend(watch.due().map(|due| (due, index, device)));
        }
    }

    /// Returns when a `for` runs out next, if no reading comes before.
    #[must_use]
    pub fn deadline(&self) -> Option<UnixMillis> {
        self.schedule.first().map(|(due, ..)| *due)
    }

    /// Opens the alerts of conditions that have held for long enough, as far as is known.
    pub fn tick(&mut self, now: UnixMillis, out: &mut Vec<AlertDraft>) {
        while let Some(entry) = self.schedule.first().copied().filter(|(due, ..)| *due <= now) {
            self.schedule.remove(&entry);
            let (due, index, device) = entry;
            let (rule, watch) = (self.rules.get(index.0), self.watches.get_mut(&(index, device)));
            let (Some(rule), Some(watch)) = (rule, watch) else {
                continue;
            };
            let Some(at) = watch.take_due() else { continue };
            let moved = watch.settle(rule, false, at, due);
            out.extend(moved.map(|open| draft(rule, device, open, watch.value())));
            self.schedule.extend(watch.due().map(|due| (due, index, device)));
        }
    }
}

impl Rule {
    /// Returns how many of the levels a value exceeds; `None` where the rule says nothing of it.
    fn exceeded_by(&self, value: &Value) -> Option<usize> {
        self.levels.first()?.bound.exceeded_by(value)?;
        let exceeded = |level: &&super::rule::Level| level.bound.exceeded_by(value) == Some(true);
        Some(self.levels.iter().take_while(exceeded).count())
    }

    fn cleared_by(&self, value: &Value) -> bool {
        self.levels.first().is_some_and(|mildest| mildest.bound.cleared_by(&self.clear, value))
    }

    /// Returns how bad it is to exceed so many levels; of none, what the first one says.
    fn severity(&self, levels: usize) -> Severity {
        let level = self.levels.get(levels.saturating_sub(1));
        level.expect("a rule has levels, and no more are exceeded").severity
    }
}

fn draft(rule: &Rule, device: DeviceId, open: Open, value: Option<&Value>) -> AlertDraft {
    let level = rule.levels.iter().rfind(|level| level.severity <= open.severity);
    let bound = level.or(rule.levels.first()).map(|level| &level.bound);
    let message = match (&rule.message, bound, value) {
        (None, Some(bound), Some(value)) => {
            let where_it_is = if bound.exceeded_by(value) == Some(true) {
                format!("{bound}")
            } else if open.status == AlertStatus::Resolved {
                format!("no longer {bound}")
            } else {
                format!("no longer {bound} but not clear of it")
            };
            format!("{} is {value}, {where_it_is}", rule.metric).into()
        }
        (message, ..) => Arc::clone(message.as_ref().unwrap_or(&rule.title)),
    };
    AlertDraft {
        key: AlertKey { rule: Arc::clone(&rule.name), device, metric: Arc::clone(&rule.metric) },
        alert_type: Arc::clone(&rule.kind),
        status: open.status,
        severity: open.severity,
        title: Arc::clone(&rule.title),
        message,
        at: open.at,
        threshold: bound.map(|bound| bound.nearest(value).clone()),
        actual: value.cloned(),
    }
}

/// Ends an alert whose rule is gone since the server stopped.
fn orphaned(key: AlertKey, open: Open, now: UnixMillis) -> Option<AlertDraft> {
    let message = format!("Rule {} was changed or deleted", key.rule).into();
    (open.status != AlertStatus::Resolved).then(|| AlertDraft {
        alert_type: super::rule::THRESHOLD.into(),
        status: AlertStatus::Resolved,
        severity: open.severity,
        title: Arc::clone(&key.rule),
        message,
        at: now,
        threshold: None,
        actual: None,
        key,
    })
}
