//! What formats share: names that come again and again, where the time stands, and what is no value.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use valtronics_protocol::{time::UnixMillis, value::Value};

use super::{Sample, kv};

/// The most names that are shared; beyond, names are made anew for each sample.
const MAX_NAMES: usize = 10_000;
/// The fields that may hold the time, where the configuration names none.
pub(crate) const TIME_FIELDS: [&str; 4] = ["timestamp", "ts", "time", "Time"];

/// What formats share: names that come again and again, and where the time stands.
#[derive(Debug, Clone, Default)]
pub struct Context {
    pub(super) names: HashSet<Arc<str>>,
    labels: HashMap<Box<str>, Label>,
    time_field: Option<Arc<str>>,
    pub(super) received: Option<UnixMillis>,
    /// The moment of receipt.
    pub now: UnixMillis,
}

/// A label that may have a unit behind its name.
#[derive(Debug, Clone)]
pub(super) struct Label {
    pub(super) metric: Arc<str>,
    pub(super) unit: Option<Arc<str>>,
}

impl Context {
    /// Begins with no names; `time_field` holds the time, otherwise the usual names do.
    #[must_use]
    pub fn new(time_field: Option<Arc<str>>) -> Self {
        Self { time_field, ..Self::default() }
    }

    /// Shares a name.
    pub fn name(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.names.get(text) {
            return Arc::clone(known);
        }
        let name: Arc<str> = text.into();
        if self.names.len() < MAX_NAMES {
            self.names.insert(Arc::clone(&name));
        }
        name
    }

    pub(super) fn sample(&self, metric: Arc<str>, value: Value, unit: Option<Arc<str>>) -> Sample {
        Sample { device: None, metric, value, unit, at: None, received: self.received }
    }

    /// Splits `temp_C` into `temp` and `C`; beside a `temp_C`, `temp_F` stays whole, so that two
    /// labels are never one metric.
    pub(super) fn label(&mut self, text: &str) -> Label {
        if let Some(known) = self.labels.get(text) {
            return known.clone();
        }
        let (name, unit) = kv::split_label(text);
        let taken = unit.is_some() && self.names.contains(name);
        let metric = self.name(if taken { text } else { name });
        let label = Label { metric, unit: unit.map(|unit| self.name(unit)) };
        if self.labels.len() < MAX_NAMES {
            self.labels.insert(text.into(), label.clone());
        }
        label
    }

    pub(super) fn is_time_field(&self, field: &str) -> bool {
        match &self.time_field {
            Some(named) => **named == *field,
            None => TIME_FIELDS.contains(&field),
        }
    }

    /// Takes the time out of the samples from `begin` on, whose names begin with `prefix`.
    pub(super) fn take_time(&self, prefix: &str, begin: usize, out: &mut Vec<Sample>) {
        let samples = out.iter().enumerate().skip(begin);
        let found = samples.into_iter().find_map(|(place, sample)| {
            let is_time = self.is_time_field(local_name(&sample.metric, prefix)?);
            let moment = is_time.then(|| device_time(&sample.value, self.now))?;
            // A field that is named holds the time and nothing else, be it right or wrong.
            (moment.is_some() || self.time_field.is_some()).then_some((place, moment))
        });
        let Some((place, moment)) = found else { return };
        out.remove(place);
        out.iter_mut().skip(begin).for_each(|sample| sample.at = moment);
    }
}

/// Returns the name of a field of the document that is called `prefix`.
pub(super) fn local_name<'n>(metric: &'n str, prefix: &str) -> Option<&'n str> {
    if prefix.is_empty() {
        return Some(metric);
    }
    metric.strip_prefix(prefix)?.strip_prefix('.')
}

/// Tells whether a text stands for a value that is absent.
pub(crate) fn is_nothing(text: &str) -> bool {
    const NOTHING: [&str; 11] =
        ["", "nan", "-nan", "null", "none", "n/a", "-", "--", "---", "inf", "-inf"];
    // Nearly every text is a number, which is seen from its first byte.
    !text.starts_with(|c: char| c.is_ascii_digit())
        && NOTHING.iter().any(|nothing| text.eq_ignore_ascii_case(nothing))
}

/// 2020-01-01T00:00:00Z: a clock that says less has never been set.
const EARLIEST: UnixMillis = UnixMillis(1_577_836_800_000);
/// How far ahead of ours a device's clock may be.
const AHEAD: std::time::Duration = std::time::Duration::from_secs(300);

/// Reads a time that a device says: RFC 3339 with a zone, or an epoch in s, ms or µs.
#[must_use]
pub fn device_time(value: &Value, now: UnixMillis) -> Option<UnixMillis> {
    let moment = match value {
        Value::Text(text) => text.parse().ok()?,
        Value::Int(_) | Value::UInt(_) | Value::Float(_) => {
            let number = value.as_f64()?;
            let millis = match number {
                1e9..1e11 => number * 1e3,
                1e12..1e14 => number,
                1e15..1e17 => number / 1e3,
                _ => return None,
            };
            UnixMillis(millis.round() as i64)
        }
        Value::Bool(_) => return None,
    };
    plausible(moment, now)
}

/// Tells moments that a clock may have said from those of one that was never set, or is wrong.
pub(super) fn plausible(moment: UnixMillis, now: UnixMillis) -> Option<UnixMillis> {
    (EARLIEST <= moment && moment <= now.plus(AHEAD)).then_some(moment)
}
