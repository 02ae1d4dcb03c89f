//! From live readings to the transitions of alerts.
//!
//! A rule watches each series that it covers on its own: there is at most one alert of a (rule,
//! device, metric) at a time. `for` runs in the time of the readings, and in the server's when none
//! comes; a silence of more than three usual intervals makes it begin anew.

use std::{collections::HashMap, sync::Arc, time::Duration};

use foldhash::fast::RandomState;
use valtronics_protocol::{
    event::{AlertStatus, Severity},
    id::DeviceId,
    time::UnixMillis,
    value::Value,
};

use super::rule::{Bound, Rule};
use crate::commit::{AlertDraft, AlertKey};

/// Where a rule stands among those that count now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuleIndex(u32);

/// The alert rules and where each series stands.
#[derive(Debug, Default)]
pub struct Alerts {
    rules: Vec<Rule>,
    series: HashMap<AlertKey, Watch, RandomState>,
    /// Conditions that hold for some time and are not alerts yet, by when they will be.
    maturing: Vec<(UnixMillis, AlertKey)>,
}

/// One series under one rule.
#[derive(Debug, Clone, Default)]
struct Watch {
    /// Since when the condition holds, and the value that said so last.
    holds_since: Option<(UnixMillis, Value)>,
    active: Option<Severity>,
    last_at: Option<UnixMillis>,
    /// A smoothed interval of readings in milliseconds.
    interval_ms: u64,
}

impl Alerts {
    /// Begins with rules, and alerts that were open when the server stopped.
    #[must_use]
    pub fn restore(rules: Vec<Rule>, open: Vec<(AlertKey, Severity)>) -> Self {
        let watch = |severity| Watch { active: Some(severity), ..Watch::default() };
        let series = open.into_iter().map(|(key, severity)| (key, watch(severity)));
        Self { rules, series: series.collect(), maturing: Vec::new() }
    }

    /// Returns the rules that count now.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Replaces the rules; the alerts of rules that changed or are gone end.
    pub fn set_rules(&mut self, rules: Vec<Rule>, now: UnixMillis, out: &mut Vec<AlertDraft>) {
        let before = std::mem::replace(&mut self.rules, rules);
        let kept = |name: &Arc<str>| {
            let find = |rules: &[Rule]| rules.iter().find(|rule| rule.name == *name).cloned();
            find(&before).is_some_and(|rule| Some(rule) == find(&self.rules))
        };
        let mut ended = Vec::new();
        self.series.retain(|key, watch| {
            let stays = kept(&key.rule);
            if !stays && let Some(severity) = watch.active {
                ended.push((key.clone(), severity));
            }
            stays
        });
        self.maturing.retain(|(_, key)| self.series.contains_key(key));
        // The order of a map is nobody's business.
        ended.sort_by(|(a, _), (b, _)| (&a.rule, a.device).cmp(&(&b.rule, b.device)));
        for (key, severity) in ended {
            let rule = before.iter().find(|rule| rule.name == key.rule);
            let title = rule.map_or_else(|| Arc::clone(&key.rule), |rule| Arc::clone(&rule.title));
            let message = format!("Rule {} was changed or deleted", key.rule);
            out.push(AlertDraft {
                alert_type: rule.map_or_else(|| "threshold".into(), |rule| Arc::clone(&rule.kind)),
                key,
                status: AlertStatus::Resolved,
                severity,
                title,
                message: message.into(),
                at: now,
                threshold: rule.map(|rule| rule.bound.shown(None)),
                actual: None,
            });
        }
    }

    /// Finds the rules that watch a metric of a device.
    #[must_use]
    pub fn rules_for(&self, name: &str, key: &str, metric: &str) -> Vec<RuleIndex> {
        let rules = (0..).map(RuleIndex).zip(&self.rules);
        let watching = rules.filter(|(_, rule)| *rule.metric == *metric && rule.device.covers(name, key));
        watching.map(|(index, _)| index).collect()
    }

    /// Takes in a live reading of a series that a rule watches.
    pub fn observe(
        &mut self,
        rule: RuleIndex,
        device: DeviceId,
        metric: &Arc<str>,
        value: &Value,
        at: UnixMillis,
        out: &mut Vec<AlertDraft>,
    ) {
        let Some(rule) = self.rules.get(rule.0 as usize) else { return };
        let Some(exceeds) = rule.bound.exceeded_by(value) else { return };
        let key = AlertKey { rule: Arc::clone(&rule.name), device, metric: Arc::clone(metric) };
        let watch = self.series.entry(key.clone()).or_default();
        let silence = watch.last_at.map_or(Duration::ZERO, |last| at.since(last));
        let gap = watch.interval_ms > 0 && silence.as_millis() as u64 > 3 * watch.interval_ms;
        watch.note_interval(at);
        if let Some(severity) = watch.active {
            if rule.is_over(value) {
                watch.active = None;
                watch.holds_since = None;
                out.push(rule.draft(key, AlertStatus::Resolved, severity, value, at));
            }
            return;
        }
        if !exceeds {
            watch.holds_since = None;
            return;
        }
        let since = match &watch.holds_since {
            Some((since, _)) if !gap => *since,
            Some(_) | None => at,
        };
        watch.holds_since = Some((since, value.clone()));
        let matures_at = since.plus(rule.hold);
        if at >= matures_at {
            watch.active = Some(rule.severity);
            out.push(rule.draft(key, AlertStatus::Active, rule.severity, value, at));
        } else if since == at {
            self.maturing.push((matures_at, key));
        }
    }

    /// Returns when a condition will have held for long enough, if no reading comes before.
    #[must_use]
    pub fn deadline(&self) -> Option<UnixMillis> {
        self.maturing.iter().map(|(at, _)| *at).min()
    }

    /// Opens the alerts of conditions that have held for long enough, as far as is known.
    pub fn tick(&mut self, now: UnixMillis, out: &mut Vec<AlertDraft>) {
        let (due, rest) = std::mem::take(&mut self.maturing).into_iter().partition(|(at, _)| *at <= now);
        self.maturing = rest;
        let due: Vec<(UnixMillis, AlertKey)> = due;
        for (at, key) in due {
            let Some(rule) = self.rules.iter().find(|rule| rule.name == key.rule) else { continue };
            let Some(watch) = self.series.get_mut(&key) else { continue };
            // The condition may have ended and begun anew since: that has an entry of its own.
            let holds = watch.holds_since.clone().filter(|(since, _)| since.plus(rule.hold) == at);
            if let Some((_, value)) = holds.filter(|_| watch.active.is_none()) {
                watch.active = Some(rule.severity);
                out.push(rule.draft(key, AlertStatus::Active, rule.severity, &value, at));
            }
        }
    }
}

impl Watch {
    fn note_interval(&mut self, at: UnixMillis) {
        if let Some(last) = self.last_at {
            let interval = u64::try_from(at.since(last).as_millis()).unwrap_or(u64::MAX);
            // Weighs the newest with an eighth; the first counts whole.
            self.interval_ms = match self.interval_ms {
                0 => interval,
                known if interval > 3 * known => known,
                known => (known * 7 + interval) / 8,
            };
        }
        self.last_at = Some(at);
    }
}

impl Bound {
    /// Tells whether a value is too much; `None` when this bound says nothing of such a value.
    fn exceeded_by(&self, value: &Value) -> Option<bool> {
        let number = value.as_f64();
        let of = |bound: &Value| bound.as_f64().unwrap_or(f64::NAN);
        match self {
            Self::Above(bound) => number.map(|number| number > of(bound)),
            Self::Below(bound) => number.map(|number| number < of(bound)),
            Self::Inside([least, most]) => {
                number.map(|number| (of(least)..=of(most)).contains(&number))
            }
            Self::Outside([least, most]) => {
                number.map(|number| !(of(least)..=of(most)).contains(&number))
            }
            Self::Equal(bound) => Some(match (number, bound.as_f64()) {
                (Some(number), Some(bound)) => number == bound,
                _ => value == bound,
            }),
        }
    }

    /// Returns the bound that is shown with a value: the nearer one where there are two.
    fn shown(&self, value: Option<f64>) -> Value {
        match self {
            Self::Above(bound) | Self::Below(bound) | Self::Equal(bound) => bound.clone(),
            Self::Inside([least, most]) | Self::Outside([least, most]) => {
                let of = |bound: &Value| bound.as_f64().unwrap_or_default();
                let middle = f64::midpoint(of(least), of(most));
                if value.is_some_and(|value| value > middle) { most.clone() } else { least.clone() }
            }
        }
    }

    fn spoken(&self) -> &'static str {
        match self {
            Self::Above(_) => "above",
            Self::Below(_) => "below",
            Self::Inside(_) => "inside the range at",
            Self::Outside(_) => "outside the range at",
            Self::Equal(_) => "equal to",
        }
    }
}

impl Rule {
    /// Tells whether an alert ends with this value: the bound is not enough where the rule says
    /// more.
    fn is_over(&self, value: &Value) -> bool {
        if self.bound.exceeded_by(value) != Some(false) {
            return false;
        }
        let Some(number) = value.as_f64() else { return true };
        let below = self.clear_below.as_ref().and_then(Value::as_f64);
        let above = self.clear_above.as_ref().and_then(Value::as_f64);
        below.is_none_or(|clear| number < clear) && above.is_none_or(|clear| number > clear)
    }

    fn draft(
        &self,
        key: AlertKey,
        status: AlertStatus,
        severity: Severity,
        value: &Value,
        at: UnixMillis,
    ) -> AlertDraft {
        let threshold = self.bound.shown(value.as_f64());
        let message = match (&self.message, status) {
            (Some(message), _) => Arc::clone(message),
            (None, AlertStatus::Resolved) => {
                format!("{} is {value}: no longer {} {threshold}", self.metric, self.bound.spoken())
                    .into()
            }
            (None, _) => {
                format!("{} is {value}: {} {threshold}", self.metric, self.bound.spoken()).into()
            }
        };
        AlertDraft {
            key,
            alert_type: Arc::clone(&self.kind),
            status,
            severity,
            title: Arc::clone(&self.title),
            message,
            at,
            threshold: Some(threshold),
            actual: Some(value.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRIC: &str = "temperature";

    fn engine(rule: &str) -> Alerts {
        let rule = format!(r#"{{"metric":"{METRIC}","kind":"threshold",{rule}}}"#);
        Alerts::restore(vec![Rule::parse_json(&rule, Some("r")).unwrap()], Vec::new())
    }

    /// Plays readings `(second, value)`; `None` is only time going by.
    fn play(alerts: &mut Alerts, steps: &[(i64, Option<f64>)]) -> Vec<String> {
        let mut told = Vec::new();
        for (second, value) in steps {
            let (at, mut out) = (UnixMillis(second * 1000), Vec::new());
            match value {
                None => alerts.tick(at, &mut out),
                Some(value) => {
                    let metric = Arc::from(METRIC);
                    for rule in alerts.rules_for("d", "s/d", METRIC) {
                        let value = Value::Float(*value);
                        alerts.observe(rule, DeviceId(1), &metric, &value, at, &mut out);
                    }
                }
            }
            let draft = |draft: AlertDraft| {
                format!("{second} {:?} {}", draft.status, draft.actual.unwrap())
            };
            told.extend(out.into_iter().map(draft));
        }
        told
    }

    #[test]
    fn hysteresis_keeps_an_alert_until_it_is_clear() {
        let mut alerts = engine(r#""above":30.0,"clear_below":28.0"#);
        let values = [29.0, 30.0, 30.5, 29.0, 28.0, 31.0, 27.9, 29.0, 30.1];
        let steps: Vec<_> = (0..).zip(values).map(|(at, value)| (at, Some(value))).collect();
        assert_eq!(
            play(&mut alerts, &steps),
            ["2 Active 30.5", "6 Resolved 27.9", "8 Active 30.1"]
        );
    }

    #[test]
    fn a_condition_has_to_hold() {
        let mut alerts = engine(r#""above":30.0,"for":"3s""#);
        let high = Some(31.0);
        let steps = [(0, high), (1, high), (2, Some(1.0)), (3, high), (4, high), (5, high), (6, high)];
        assert_eq!(play(&mut alerts, &steps), ["6 Active 31.0"]);
    }

    #[test]
    fn a_condition_matures_without_further_readings() {
        let mut alerts = engine(r#""above":30.0,"for":"3s""#);
        let high = Some(31.0);
        let told = play(&mut alerts, &[(0, high), (2, None), (3, None), (4, None), (5, high)]);
        assert_eq!(told, ["3 Active 31.0"]);
        let mut alerts = engine(r#""above":30.0,"for":"3s""#);
        let told = play(&mut alerts, &[(0, high), (1, Some(0.0)), (2, high), (3, None), (5, None)]);
        assert_eq!(told, ["5 Active 31.0"]);
    }

    #[test]
    fn a_gap_restarts_the_time() {
        let mut alerts = engine(r#""above":30.0,"for":"10s""#);
        let (low, high) = (Some(0.0), Some(31.0));
        let told = play(&mut alerts, &[(0, low), (1, low), (2, high), (20, high), (25, high), (30, high)]);
        assert_eq!(told, ["30 Active 31.0"]);
    }

    #[test]
    fn other_bounds() {
        for (rule, values, expected) in [
            (r#""below":5"#, [6.0, 4.0, 5.0], vec!["1 Active 4.0", "2 Resolved 5.0"]),
            (r#""outside":[1,2]"#, [1.0, 2.5, 2.0], vec!["1 Active 2.5", "2 Resolved 2.0"]),
            (r#""inside":[1,2]"#, [0.5, 1.0, 3.0], vec!["1 Active 1.0", "2 Resolved 3.0"]),
            (r#""equal":3"#, [2.0, 3.0, 4.0], vec!["1 Active 3.0", "2 Resolved 4.0"]),
        ] {
            let steps: Vec<_> = (0..).zip(values).map(|(at, value)| (at, Some(value))).collect();
            assert_eq!(play(&mut engine(rule), &steps), expected, "{rule}");
        }
    }

    #[test]
    fn a_changed_rule_ends_its_alerts_and_a_restored_alert_ends_once() {
        let mut alerts = engine(r#""above":30.0"#);
        assert_eq!(play(&mut alerts, &[(0, Some(31.0))]), ["0 Active 31.0"]);
        let (rules, mut out) = (alerts.rules().to_vec(), Vec::new());
        alerts.set_rules(rules.clone(), UnixMillis(0), &mut out);
        assert!(out.is_empty());
        alerts.set_rules(Vec::new(), UnixMillis(0), &mut out);
        assert_eq!(out.len(), 1);
        assert_eq!(out[0].status, AlertStatus::Resolved);

        let key = AlertKey { rule: "r".into(), device: DeviceId(1), metric: METRIC.into() };
        let mut alerts = Alerts::restore(rules, vec![(key, Severity::Warning)]);
        let told = play(&mut alerts, &[(0, Some(31.0)), (1, Some(2.0)), (2, Some(2.0))]);
        assert_eq!(told, ["1 Resolved 2.0"]);
    }
}
