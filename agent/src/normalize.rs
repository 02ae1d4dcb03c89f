//! From samples to readings: names, units, scales, times, and what is worth sending.
//!
//! The rules are those of one source (programs, "Every source may have"). Only the spelling of a
//! unit is made canonical; values change by `scale` and `offset` alone. A value that does not
//! change is sent again now and then, so that "unchanged" differs from "dead".

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Deserializer, de};
use valtronics_protocol::{
    reading::{MAX_TEXT_BYTES, MAX_UNIT_BYTES, Reading, TimeSource, is_clean, is_name},
    time::UnixMillis,
    unit,
    value::Value,
};

use crate::{
    decode::Sample,
    tally::{Cause, Tally},
};

/// How often a value within the deadband is sent all the same.
const HEARTBEAT: Duration = Duration::from_secs(300);
/// With more decimals than these a double holds no more of what was written than it says itself.
const MAX_DECIMALS: usize = 12;
/// The most series of a source that are remembered for `every` and `deadband`.
const MAX_SERIES: usize = 10_000;

/// What a source does with its samples.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rules {
    /// Units by metric, where the device says none.
    pub units: BTreeMap<String, String>,
    /// New names by metric.
    pub rename: BTreeMap<String, String>,
    /// Only these metrics; a trailing `*` stands for anything.
    pub keep: Vec<String>,
    /// Not these.
    pub skip: Vec<String>,
    /// What values are multiplied by.
    pub scale: Option<Factor>,
    /// What is added after that.
    pub offset: Option<Factor>,
    /// The least interval of a metric.
    #[serde(with = "valtronics_protocol::time::optional_period")]
    pub every: Option<Duration>,
    /// How far a value has to move to be sent.
    pub deadband: Option<Deadband>,
    /// What the operator wants to remember; not sent by this version.
    pub tags: BTreeMap<String, String>,
    /// The field that holds the time.
    pub time: Option<String>,
}

impl Rules {
    /// Returns how long a value may keep still at most until it is sent all the same; `None` where
    /// that depends on the device alone.
    #[must_use]
    pub fn longest_still(&self) -> Option<Duration> {
        self.deadband.map(|_| self.every.unwrap_or_default().max(HEARTBEAT))
    }
}

/// A number for all metrics, or by metric.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "expected a number, or { metric = number }")]
pub enum Factor {
    /// For all.
    All(f64),
    /// By metric.
    Each(BTreeMap<String, f64>),
}

impl Factor {
    fn of(&self, metric: &str) -> Option<f64> {
        match self {
            Self::All(number) => Some(*number),
            Self::Each(numbers) => numbers.get(metric).copied(),
        }
    }
}

/// How far a value has to move.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Deadband {
    /// By this much.
    Absolute(f64),
    /// By this part of the value that was sent last.
    Relative(f64),
}

impl<'de> Deserialize<'de> for Deadband {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Text(String),
        }
        let wanted =
            || de::Error::custom("expected a number such as 0.5, or a text such as \"2%\"");
        let deadband = match Written::deserialize(deserializer).map_err(|_| wanted())? {
            Written::Number(number) => Self::Absolute(number),
            Written::Text(text) => {
                let percent = text.strip_suffix('%').and_then(|number| number.trim().parse().ok());
                Self::Relative(percent.map(|percent: f64| percent / 100.0).ok_or_else(wanted)?)
            }
        };
        let (Self::Absolute(size) | Self::Relative(size)) = deadband;
        if size.is_finite() && size >= 0.0 { Ok(deadband) } else { Err(wanted()) }
    }
}

/// Makes readings of one source's samples.
#[derive(Debug, Clone)]
pub struct Normalizer {
    rules: Rules,
    device: Arc<str>,
    /// By the name of the device's metric.
    plans: HashMap<Arc<str>, Result<Plan, Cause>>,
    units: HashMap<Arc<str>, Option<Arc<str>>>,
    sent: HashMap<(Arc<str>, Arc<str>), Sent>,
}

/// What is done with a metric.
#[derive(Debug, Clone)]
struct Plan {
    name: Arc<str>,
    /// The unit that the configuration gives it.
    unit: Option<Arc<str>>,
    scale: Option<f64>,
    offset: Option<f64>,
}

#[derive(Debug, Clone)]
struct Sent {
    at: UnixMillis,
    value: Value,
}

impl Normalizer {
    /// Applies rules to the samples of a source whose device is `device` where they name none.
    #[must_use]
    pub fn new(rules: Rules, device: Arc<str>) -> Self {
        let (plans, units, sent) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { rules, device, plans, units, sent }
    }

    /// Makes readings of samples that were received now; counts them, and those it holds back.
    pub fn readings(
        &mut self,
        samples: impl IntoIterator<Item = Sample>,
        now: UnixMillis,
        tally: &mut Tally,
    ) -> Vec<Reading> {
        let mut readings = Vec::new();
        for sample in samples {
            tally.read += 1;
            match self.reading(sample, now) {
                Ok(reading) => readings.push(reading),
                Err(cause) => tally.hold_back(cause),
            }
        }
        readings
    }

    fn reading(&mut self, sample: Sample, now: UnixMillis) -> Result<Reading, Cause> {
        let Plan { name: metric, unit, scale, offset } = self.plan(&sample.metric)?;
        let unit = unit.or_else(|| self.unit(&sample.unit?));
        let value = scaled(sample.value, scale, offset).ok_or(Cause::Unfit)?;
        if matches!(&value, Value::Text(text) if !is_clean(text, MAX_TEXT_BYTES)) {
            return Err(Cause::Unfit);
        }
        let device = match sample.device {
            Some(device) => clean_name(device).ok_or(Cause::Unfit)?,
            None => Arc::clone(&self.device),
        };
        let received = sample.received.unwrap_or(now);
        let (timestamp, time_source) = match sample.at {
            Some(at) => (at, TimeSource::Device),
            None => (received, TimeSource::Receive),
        };
        let reading = Reading { device, metric, value, unit, timestamp, time_source };
        self.worth_sending(&reading).map(|()| reading)
    }

    /// Decides once for each metric what is done with it.
    fn plan(&mut self, metric: &Arc<str>) -> Result<Plan, Cause> {
        if let Some(known) = self.plans.get(metric) {
            return known.clone();
        }
        let Rules { keep, skip, rename, units, scale, offset, .. } = &self.rules;
        let listed = |patterns: &[String]| patterns.iter().any(|pattern| covers(pattern, metric));
        let kept = (keep.is_empty() || listed(keep)) && !listed(skip);
        let name =
            rename.get(&**metric).map_or_else(|| Arc::clone(metric), |name| name.as_str().into());
        let name = if kept { clean_name(name).ok_or(Cause::Unfit) } else { Err(Cause::Skip) };
        let of = |factor: &Option<Factor>| factor.as_ref().and_then(|factor| factor.of(metric));
        let (scale, offset) = (of(scale), of(offset));
        let unit = units.get(&**metric).cloned();
        let plan = name.map(|name| {
            let unit = unit.and_then(|unit| self.unit(&unit.into()));
            Plan { name, unit, scale, offset }
        });
        if self.plans.len() < MAX_SERIES {
            self.plans.insert(Arc::clone(metric), plan.clone());
        }
        plan
    }

    /// Spells a unit canonically; what cannot be one is none.
    fn unit(&mut self, spelled: &Arc<str>) -> Option<Arc<str>> {
        if let Some(known) = self.units.get(spelled) {
            return known.clone();
        }
        let canonical = unit::canonical(spelled);
        let good = !canonical.is_empty() && is_clean(&canonical, MAX_UNIT_BYTES);
        let unit: Option<Arc<str>> = good.then(|| canonical.as_ref().into());
        if self.units.len() < MAX_SERIES {
            self.units.insert(Arc::clone(spelled), unit.clone());
        }
        unit
    }

    fn worth_sending(&mut self, reading: &Reading) -> Result<(), Cause> {
        let Rules { every, deadband, .. } = &self.rules;
        if every.is_none() && deadband.is_none() {
            return Ok(());
        }
        let key = (Arc::clone(&reading.device), Arc::clone(&reading.metric));
        let at = reading.timestamp;
        // A clock that was set back must not silence a metric until it has caught up.
        if let Some(sent) = self.sent.get(&key).filter(|sent| sent.at <= at) {
            let since = at.since(sent.at);
            if every.is_some_and(|every| since < every) {
                return Err(Cause::Every);
            }
            let unmoved = deadband.is_some_and(|band| !moved(band, &sent.value, &reading.value));
            if unmoved && since < HEARTBEAT {
                return Err(Cause::Deadband);
            }
        }
        if self.sent.len() < MAX_SERIES || self.sent.contains_key(&key) {
            self.sent.insert(key, Sent { at, value: reading.value.clone() });
        }
        Ok(())
    }
}

fn scaled(value: Value, scale: Option<f64>, offset: Option<f64>) -> Option<Value> {
    let Some(number) = value.as_f64().filter(|_| scale.is_some() || offset.is_some()) else {
        return Some(value);
    };
    let (scale, offset) = (scale.unwrap_or(1.0), offset.unwrap_or(0.0));
    // What decimals can say exactly has no digits of the machine's behind them.
    let decimals = (decimals(number) + decimals(scale)).max(decimals(offset));
    let raw = number * scale + offset;
    let power = 10_f64.powi(i32::try_from(decimals).unwrap_or(i32::MAX));
    let rounded = (raw * power).round() / power;
    Value::finite(if decimals <= MAX_DECIMALS && rounded.is_finite() { rounded } else { raw })
}

fn moved(band: Deadband, from: &Value, to: &Value) -> bool {
    let (Some(before), Some(now)) = (from.as_f64(), to.as_f64()) else { return from != to };
    let distance = (now - before).abs();
    let size = match band {
        Deadband::Absolute(size) => size,
        Deadband::Relative(part) => part * before.abs(),
    };
    // From 20.0 to 20.1 it is not more than 0.1, whatever the machine's digits say.
    distance > size * (1.0 + 1e-9)
}

/// Counts the decimals in which a number is usually written.
fn decimals(number: f64) -> usize {
    let text = format!("{number}");
    text.split_once('.').map_or(0, |(_, decimals)| decimals.len())
}

fn covers(pattern: &str, metric: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => metric.starts_with(prefix),
        None => pattern == metric,
    }
}

/// Makes a name that a message may hold: without control characters. One that is too long is
/// refused: cut, it could be the name of another.
fn clean_name(name: Arc<str>) -> Option<Arc<str>> {
    if is_name(&name) {
        return Some(name);
    }
    let clean: String = name.chars().filter(|letter| !letter.is_control()).collect();
    is_name(&clean).then(|| clean.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalizer(rules: &str) -> Normalizer {
        Normalizer::new(toml::from_str(rules).unwrap(), "greenhouse".into())
    }

    fn sample(metric: &str, value: f64, unit: Option<&str>) -> Sample {
        let unit = unit.map(Arc::from);
        Sample {
            device: None,
            metric: metric.into(),
            value: Value::Float(value),
            unit,
            at: None,
            received: None,
        }
    }

    fn check(rules: &str, input: (&str, f64, Option<&str>), expected: Option<&str>) {
        let (metric, value, unit) = input;
        let now = UnixMillis(0);
        let reading = normalizer(rules).reading(sample(metric, value, unit), now);
        let shown = reading.ok().map(|reading| {
            format!(
                "{} {} {}",
                reading.metric,
                reading.value,
                reading.unit.as_deref().unwrap_or("-")
            )
        });
        assert_eq!(shown.as_deref(), expected, "{rules}");
    }

    #[test]
    fn names_units_and_scales() {
        check("", ("temp", 21.5, Some("C")), Some("temp 21.5 °C"));
        check("", ("temp", 21.5, None), Some("temp 21.5 -"));
        check("units = { temp = \"degC\" }", ("temp", 21.5, None), Some("temp 21.5 °C"));
        check("rename = { t = \"temperature\" }", ("t", 1.0, None), Some("temperature 1.0 -"));
        check("skip = [\"rssi\", \"fw*\"]", ("fw_version", 1.0, None), None);
        check("keep = [\"temp*\"]", ("hum", 1.0, None), None);
        check("keep = [\"temp*\"]", ("temp2", 1.0, None), Some("temp2 1.0 -"));
        check("scale = 0.1", ("t", 235.0, None), Some("t 23.5 -"));
        check("scale = 0.01\noffset = -0.3", ("t", 2149.0, None), Some("t 21.19 -"));
        check("scale = { u = 0.001 }", ("t", 5.0, None), Some("t 5.0 -"));
        check("scale = { t = 10.0 }\nrename = { t = \"u\" }", ("t", 0.7, None), Some("u 7.0 -"));
        check("units = { t = \"K\" }", ("t", 1.0, Some("C")), Some("t 1.0 K"));
        check("", ("t", 1.0, Some("\u{7}")), Some("t 1.0 -"));
        check("", ("\u{7}bell", 1.0, None), Some("bell 1.0 -"));
        check("", (&"x".repeat(129), 1.0, None), None);
    }

    #[test]
    fn a_reading_has_the_best_time_there_is() {
        let mut normalizer = normalizer("");
        let mut check = |at: Option<i64>, received: Option<i64>, expected| {
            let (at, received) = (at.map(UnixMillis), received.map(UnixMillis));
            let sample = Sample { at, received, ..sample("t", 1.0, None) };
            let reading = normalizer.reading(sample, UnixMillis(9)).unwrap();
            assert_eq!((reading.timestamp.0, reading.time_source), expected);
        };
        check(None, None, (9, TimeSource::Receive));
        check(None, Some(5), (5, TimeSource::Receive));
        check(Some(3), Some(5), (3, TimeSource::Device));
    }

    #[test]
    fn texts_that_no_message_may_hold_are_held_back() {
        let mut tally = Tally::default();
        let texts = ["ok".into(), "a\u{1b}[31m".into(), "x".repeat(MAX_TEXT_BYTES + 1)];
        let samples =
            texts.map(|text| Sample { value: Value::Text(text.into()), ..sample("t", 1.0, None) });
        let readings = normalizer("").readings(samples, UnixMillis(0), &mut tally);
        assert_eq!((readings.len(), tally.read, tally.held_back.unfit), (1, 3, 2));
    }

    #[test]
    fn what_does_not_move_is_sent_now_and_then() {
        let mut normalizer = normalizer("deadband = 0.5");
        let mut sends = |second: i64, value| {
            let now = UnixMillis(second * 1000);
            normalizer.reading(sample("t", value, None), now).is_ok()
        };
        let steps = [(0, 20.0), (1, 20.4), (2, 20.6), (3, 20.2), (303, 20.2), (304, 20.2)];
        let sent = steps.map(|(second, value)| sends(second, value));
        assert_eq!(sent, [true, false, true, false, true, false]);
    }

    #[test]
    fn a_metric_has_a_least_interval() {
        let mut normalizer = normalizer("every = \"10s\"");
        let mut sends = |second: i64, metric: &str| {
            let now = UnixMillis(second * 1000);
            normalizer.reading(sample(metric, 1.0, None), now).is_ok()
        };
        let steps = [(0, "t"), (1, "t"), (1, "h"), (10, "t"), (19, "t"), (20, "t")];
        let sent = steps.map(|(second, metric)| sends(second, metric));
        assert_eq!(sent, [true, false, true, true, false, true]);
    }
    #[test]
    fn a_clock_that_was_set_back_silences_no_metric() {
        let mut normalizer = normalizer("every = \"10s\"\ndeadband = 0");
        let mut sends = |second: i64| {
            normalizer.reading(sample("t", 1.0, None), UnixMillis(second * 1000)).is_ok()
        };
        assert_eq!(
            [5000, 5005, 1000, 1005, 1300].map(&mut sends),
            [true, false, true, false, true]
        );
    }

    #[test]
    fn the_interval_counts_by_the_times_of_the_readings() {
        let samples = [0, 30, 35, 60]
            .map(|second| Sample { at: Some(UnixMillis(second * 1000)), ..sample("t", 1.0, None) });
        let readings =
            normalizer("every = \"30s\"").readings(samples, UnixMillis(0), &mut Tally::default());
        let seconds: Vec<_> = readings.iter().map(|reading| reading.timestamp.0 / 1000).collect();
        assert_eq!(seconds, [0, 30, 60]);
    }

    #[test]
    fn a_step_as_large_as_the_deadband_does_not_leave_it() {
        let check = |band, from, to, expected| {
            assert_eq!(
                moved(band, &Value::Float(from), &Value::Float(to)),
                expected,
                "{from} {to}"
            );
        };
        check(Deadband::Absolute(0.1), 20.0, 20.1, false);
        check(Deadband::Absolute(0.1), 20.1, 20.2, false);
        check(Deadband::Absolute(0.1), 20.0, 20.11, true);
        check(Deadband::Relative(0.02), -50.0, -49.0, false);
        check(Deadband::Relative(0.02), -50.0, -48.9, true);
        check(Deadband::Absolute(0.0), 1.0, 1.0, false);
    }
}
