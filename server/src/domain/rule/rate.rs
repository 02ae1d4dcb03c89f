//! `rate`: a value changes by more, or by less, than so much in a time.
//!
//! The rate is the change since the reading that is one `per` old, or, where there is a gap, the
//! last one before it. While less is known it is the change since the oldest reading; a noisy
//! sensor's first two readings are no rate, so that change counts as if it had taken a tenth of
//! `per` at least. A value that is no number says nothing.

use std::{collections::VecDeque, time::Duration};

use serde::Serialize;
use valtronics_protocol::{time::UnixMillis, value::Value};

use super::{
    Bound, Clear, Fields, Judged, Level, Period, RuleError, Tale, Told, kind::severity, period,
    take, wrong,
};

/// The least `per`: clocks of sensors are not finer.
const LEAST_PER: Duration = Duration::from_millis(100);
/// How many readings a window holds: it misses the start of `per` by a sixteenth at most.
const SAMPLES: u32 = 16;
/// Which part of `per` a change takes at least.
const LEAST_PART: u32 = 10;

/// The bound of a change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rate {
    /// How much is too much, and how bad that is.
    #[serde(flatten)]
    pub(super) level: Level,
    /// In which time.
    per: Period,
}

/// Readings of about one `per`, oldest first.
#[derive(Debug, Clone, Default)]
pub struct Window(VecDeque<(UnixMillis, f64)>);

impl Rate {
    pub(super) fn take(fields: &mut Fields) -> Result<Self, RuleError> {
        let above: Option<Value> = take(fields, "above")?;
        let bound = match (above, take(fields, "below")?) {
            (Some(above), None) => Bound::Above(above),
            (None, Some(below)) => Bound::Below(below),
            _ => return wrong("kind", "rate needs one of above, below"),
        };
        bound.check(&Clear::default())?;
        let level = Level { bound, severity: severity(fields)? };
        match period(fields, "per")?.filter(|per| per.length >= LEAST_PER) {
            Some(per) => Ok(Self { level, per }),
            None => wrong("per", "is needed: the period of the change, such as \"1m\""),
        }
    }

    /// Returns `None` while there is nothing to compare with.
    pub(super) fn judge(
        &self,
        value: &Value,
        at: UnixMillis,
        window: &mut Window,
    ) -> Option<Judged> {
        let number = value.as_f64()?;
        let per = self.per.length;
        let before = window.before(at, per);
        window.note(at, number, per);
        let (since, base) = before?;
        let took = at.since(since);
        let least = per / LEAST_PART;
        let bound = &self.level.bound;
        // What counts as slower than it is cannot be too slow.
        if took.is_zero() || (took < least && bound.exceeded_by(&Value::Int(0)) == Some(true)) {
            return None;
        }
        let rate = (number - base) * (per.as_secs_f64() / took.max(least).as_secs_f64());
        let actual = Value::finite((rate * 1000.0).round() / 1000.0)?;
        let exceeded = bound.exceeded_by(&actual)?;
        Some(Judged { exceeded: exceeded.into(), cleared: !exceeded, anew: false, actual })
    }

    pub(super) fn tell(&self, tale: Tale<'_>) -> Told {
        let per = format!(" per {}", self.per.written);
        self.level.bound.tell(tale.metric, "changes by", &per, tale)
    }
}

impl Window {
    /// Returns the newest reading that is `per` old, or the oldest.
    fn before(&self, at: UnixMillis, per: Duration) -> Option<(UnixMillis, f64)> {
        let old_enough = |(since, _): &&(UnixMillis, f64)| at.since(*since) >= per;
        self.0.iter().rfind(old_enough).or(self.0.front()).copied()
    }

    fn note(&mut self, at: UnixMillis, number: f64, per: Duration) {
        let close = |(last, _): &(UnixMillis, f64)| at.since(*last) < per / SAMPLES;
        if self.0.back().is_some_and(close) {
            return;
        }
        // The first that is old enough is all that is needed of those that are.
        while self.0.get(1).is_some_and(|(since, _)| at.since(*since) >= per) {
            self.0.pop_front();
        }
        self.0.push_back((at, number));
    }

    /// Begins with a reading from before the start.
    pub(in crate::domain) fn seed(&mut self, at: UnixMillis, value: &Value) {
        if self.0.is_empty() {
            self.0.extend(value.as_f64().map(|number| (at, number)));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::rule::{Kind, Memory, Rule};

    fn kind(rest: &str) -> Kind {
        let json = format!(r#"{{"metric":"t","kind":"rate",{rest}}}"#);
        Rule::parse_json(&json, Some("r")).unwrap().kind
    }

    fn check(rest: &str, readings: &[(i64, f64)], expected: &[Option<(usize, f64)>]) {
        let (kind, mut memory) = (kind(rest), Memory::default());
        let judge = |(second, value): &(i64, f64)| {
            let at = UnixMillis(second * 1000);
            let judged = kind.judge(&Value::Float(*value), at, &mut memory)?;
            Some((judged.exceeded, judged.actual.as_f64().unwrap()))
        };
        assert_eq!(readings.iter().map(judge).collect::<Vec<_>>(), expected, "{rest}");
    }

    #[test]
    fn a_rate_is_the_change_in_a_period() {
        let rest = r#""above":10,"per":"1m""#;
        check(
            rest,
            &[(0, 20.0), (60, 25.0), (120, 40.0)],
            &[None, Some((0, 5.0)), Some((1, 15.0))],
        );
        // Twice the same moment says nothing; neither does less than a tenth of the period alone.
        check(
            rest,
            &[(0, 20.0), (0, 90.0), (1, 20.1), (2, 60.0)],
            &[None, None, Some((0, 1.0)), Some((1, 400.0))],
        );
        // After a gap: since the last reading before it.
        check(rest, &[(0, 0.0), (600, 50.0)], &[None, Some((0, 5.0))]);
        let falls = r#""below":-10,"per":"1m""#;
        check(
            falls,
            &[(0, 50.0), (30, 46.0), (60, 30.0)],
            &[None, Some((0, -8.0)), Some((1, -20.0))],
        );
        let slow = r#""below":5,"per":"1m""#;
        check(slow, &[(0, 0.0), (1, 0.0), (30, 1.0)], &[None, None, Some((1, 2.0))]);
    }

    proptest! {
        /// Whatever comes, the window is small, and a steady rise is found to be one.
        #[test]
        fn a_window_is_bounded(times in prop::collection::vec(0..100_000_i64, 1..300)) {
            let (kind, mut memory) = (kind(r#""above":10,"per":"1m""#), Memory::default());
            for time in &times {
                let _ = kind.judge(&Value::Int(*time), UnixMillis(*time), &mut memory);
                prop_assert!(memory.window.0.len() <= SAMPLES as usize + 2);
            }
            let (mut times, mut memory) = (times, Memory::default());
            times.sort_unstable();
            for time in times {
                // One a second: sixty a minute.
                let value = Value::Float(time as f64 / 1000.0);
                if let Some(judged) = kind.judge(&value, UnixMillis(time), &mut memory) {
                    let rate = judged.actual.as_f64().unwrap();
                    prop_assert!(rate <= 60.001, "{rate}");
                }
            }
        }
    }
}
