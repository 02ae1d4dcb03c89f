//! From the bytes of a device to samples: pure, one file for each format.
//!
//! Bytes are cut into lines ([`frame`]), a line is read by its [`Format`], and what comes out are
//! [`Sample`]s, which `normalize` makes readings of. A value that is absent, null or NaN is no
//! sample, never 0. Damaged input is counted and passed over.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde::Deserialize;
use valtronics_protocol::{time::UnixMillis, value::Value};

pub mod frame;
pub mod csv;
pub mod json;
pub mod kv;
pub mod pattern;
pub mod guess;
pub mod topic;

use csv::Csv;
use frame::{Frame, Lines};
use guess::{Guess, Guessed};
use pattern::Pattern;

/// One value as a device said it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The device that the input names itself.
    pub device: Option<Arc<str>>,
    /// The metric's name.
    pub metric: Arc<str>,
    /// What was measured.
    pub value: Value,
    /// The unit as it was spelled.
    pub unit: Option<Arc<str>>,
    /// The moment that the input names itself, if it is plausible.
    pub at: Option<UnixMillis>,
    /// When it came in, where it had to wait until the format was known; otherwise just now.
    pub received: Option<UnixMillis>,
}

/// How a line is written, as a configuration names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase", expecting = "expected json, csv, kv or pattern")]
pub enum FormatName {
    /// A JSON object.
    Json,
    /// Separated columns.
    Csv,
    /// Labels and values.
    Kv,
    /// As `pattern` says.
    Pattern,
}

/// How a line is written.
#[derive(Debug, Clone)]
pub enum Format {
    /// A JSON object.
    Json,
    /// Separated columns.
    Csv(Csv),
    /// Labels and values.
    Kv,
    /// As a pattern says.
    Pattern(Pattern),
    /// Not known yet.
    Guess(Guess),
}

/// What a line was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was understood.
    Good,
    /// It is something else, such as a boot banner.
    Foreign,
    /// It is damaged; the text says how.
    Damaged(&'static str),
}

/// How many lines were what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Understood.
    pub good: u64,
    /// Damaged.
    pub damaged: u64,
    /// Something else.
    pub foreign: u64,
}

/// Reads the byte stream of one device.
#[derive(Debug, Clone)]
pub struct Decoder {
    lines: Lines,
    format: Format,
    context: Context,
    counts: Counts,
    reopened: bool,
    /// What was wrong with the last damaged line.
    pub last_damage: Option<&'static str>,
    /// What was decided of the format; taken by who logs it.
    pub decided: Option<&'static str>,
}

impl Decoder {
    /// Reads lines of this format.
    #[must_use]
    pub fn new(format: Format, time_field: Option<Arc<str>>) -> Self {
        Self {
            lines: Lines::default(),
            format,
            context: Context::new(time_field),
            counts: Counts::default(),
            reopened: false,
            last_damage: None,
            decided: None,
        }
    }

    /// Takes bytes that were received now; adds what they complete to `out`.
    pub fn feed(&mut self, bytes: &[u8], now: UnixMillis, out: &mut Vec<Sample>) {
        self.context.now = now;
        let mut lines = std::mem::take(&mut self.lines);
        lines.feed(bytes, &mut |frame| match frame {
            Frame::Line(line) => self.line(line, out),
            Frame::Damaged(cause) => self.count(Outcome::Damaged(cause)),
        });
        self.lines = lines;
    }

    /// Takes the last line, which nothing ends; a format that is still open is decided.
    pub fn finish(&mut self, out: &mut Vec<Sample>) {
        let now = self.context.now;
        self.feed(b"\n", now, out);
        if let Format::Guess(guess) = &mut self.format {
            match guess.settle() {
                Ok((format, kept)) => self.decide(format, kept, out),
                Err(lines) => self.counts.foreign += lines,
            }
        }
    }

    /// Begins anew with the next byte: half a line before does not complete one after.
    pub fn restart(&mut self) {
        self.lines = Lines::default();
        self.reopened = true;
        if let Format::Csv(csv) = &mut self.format {
            csv.restart();
        }
    }

    /// Returns what was counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn line(&mut self, line: &str, out: &mut Vec<Sample>) {
        if line.trim().is_empty() {
            return;
        }
        if let Format::Guess(guess) = &mut self.format {
            match guess.add(line, self.context.now) {
                Guessed::Open => return,
                Guessed::Dropped => return self.count(Outcome::Foreign),
                Guessed::Decided(format, kept, foreign) => {
                    self.counts.foreign += foreign;
                    self.decide(format, kept, out);
                }
            }
        }
        let (begin, known) = (out.len(), self.context.names.len());
        let mut outcome = self.format.read(line, &mut self.context, out);
        // Who opens a port in the middle of `temp=21.5` hears of a new metric `mp`.
        if std::mem::take(&mut self.reopened) && known > 0 && self.context.names.len() > known {
            out.truncate(begin);
            outcome = Outcome::Foreign;
        }
        self.count(outcome);
    }

    fn decide(&mut self, format: Format, kept: Vec<guess::Kept>, out: &mut Vec<Sample>) {
        self.decided = Some(format.name());
        self.format = format;
        for (received, line) in kept {
            self.context.received = Some(received);
            let outcome = self.format.read(&line, &mut self.context, out);
            self.count(outcome);
        }
        self.context.received = None;
    }

    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Good => self.counts.good += 1,
            Outcome::Foreign => self.counts.foreign += 1,
            Outcome::Damaged(cause) => {
                self.counts.damaged += 1;
                self.last_damage = Some(cause);
            }
        }
    }
}

impl Format {
    /// Reads a line that has no end any more.
    fn read(&mut self, line: &str, context: &mut Context, out: &mut Vec<Sample>) -> Outcome {
        let begin = out.len();
        let outcome = match self {
            // Each document of a line has its own time.
            Self::Json => return json::line(line, context, out),
            Self::Csv(csv) => csv.line(line, context, out),
            Self::Kv => kv::line(line, context, out),
            Self::Pattern(pattern) => pattern.line(line, context, out),
            Self::Guess(_) => Outcome::Foreign,
        };
        context.take_time("", begin, out);
        outcome
    }

    /// Returns the name in a configuration.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv(_) => "csv",
            Self::Kv => "kv",
            Self::Pattern(_) => "pattern",
            Self::Guess(_) => "guessed",
        }
    }
}

/// The most names that are shared; beyond, names are made anew for each sample.
const MAX_NAMES: usize = 10_000;
/// The fields that may hold the time, where the configuration names none.
const TIME_FIELDS: [&str; 4] = ["timestamp", "ts", "time", "Time"];

/// What formats share: names that come again and again, and where the time stands.
#[derive(Debug, Clone, Default)]
pub struct Context {
    names: HashSet<Arc<str>>,
    labels: HashMap<Box<str>, Label>,
    time_field: Option<Arc<str>>,
    received: Option<UnixMillis>,
    /// The moment of receipt.
    pub now: UnixMillis,
}

/// A label that may have a unit behind its name.
#[derive(Debug, Clone)]
struct Label {
    metric: Arc<str>,
    unit: Option<Arc<str>>,
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

    fn sample(&self, metric: Arc<str>, value: Value, unit: Option<Arc<str>>) -> Sample {
        Sample { device: None, metric, value, unit, at: None, received: self.received }
    }

    /// Splits `temp_C` into `temp` and `C`; beside a `temp_C`, `temp_F` stays whole, so that two
    /// labels are never one metric.
    fn label(&mut self, text: &str) -> Label {
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

    fn is_time_field(&self, field: &str) -> bool {
        match &self.time_field {
            Some(named) => **named == *field,
            None => TIME_FIELDS.contains(&field),
        }
    }

    /// Takes the time out of the samples from `begin` on, whose names begin with `prefix`.
    fn take_time(&self, prefix: &str, begin: usize, out: &mut Vec<Sample>) {
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
fn local_name<'n>(metric: &'n str, prefix: &str) -> Option<&'n str> {
    if prefix.is_empty() {
        return Some(metric);
    }
    metric.strip_prefix(prefix)?.strip_prefix('.')
}

/// Tells whether a text stands for a value that is absent.
fn is_nothing(text: &str) -> bool {
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
    (EARLIEST <= moment && moment <= now.plus(AHEAD)).then_some(moment)
}

#[cfg(test)]
mod tests;
