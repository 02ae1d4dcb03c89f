//! From the bytes of a device to samples: pure, one file for each format.
//!
//! Bytes are cut into lines ([`frame`]), a line is read by its [`Format`], and what comes out are
//! [`Sample`]s, which `normalize` makes readings of. A value that is absent, null or NaN is no
//! sample, never 0. Damaged input is counted and passed over.

use std::{collections::HashSet, sync::Arc};

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
use guess::Guess;
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
    /// What was wrong with the last damaged line.
    pub last_damage: Option<&'static str>,
    /// What was decided of the format; taken by who logs it.
    pub decided: Option<&'static str>,
}

/// The most names that are shared; beyond, names are made anew for each sample.
const MAX_NAMES: usize = 10_000;

/// What formats share: names that come again and again, and where the time stands.
#[derive(Debug, Clone, Default)]
pub struct Context {
    names: HashSet<Arc<str>>,
    /// The field that holds the time; otherwise the usual names.
    pub time_field: Option<Arc<str>>,
    /// The moment of receipt.
    pub now: UnixMillis,
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

    /// Tells whether a field may hold the time.
    #[must_use]
    pub fn is_time_field(&self, field: &str) -> bool {
        match &self.time_field {
            Some(named) => **named == *field,
            None => ["timestamp", "ts", "time", "Time"].contains(&field),
        }
    }
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
            last_damage: None,
            decided: None,
        }
    }

    /// Takes bytes that were received now; adds what they complete to `out`.
    pub fn feed(&mut self, bytes: &[u8], now: UnixMillis, out: &mut Vec<Sample>) {
        self.context.now = now;
        let Self { lines, format, context, counts, last_damage, decided } = self;
        lines.feed(bytes, &mut |frame| {
            let outcome = match frame {
                Frame::Line(line) => read_line(format, line, context, counts, decided, out),
                Frame::Damaged(cause) => Some(Outcome::Damaged(cause)),
            };
            if let Some(outcome) = outcome {
                counts.count(outcome, last_damage);
            }
        });
    }

    /// Takes the last line, which nothing ends.
    pub fn finish(&mut self, out: &mut Vec<Sample>) {
        let now = self.context.now;
        self.feed(b"\n", now, out);
    }

    /// Begins anew with the next byte: half a line before does not complete one after.
    pub fn restart(&mut self) {
        self.lines = Lines::default();
    }

    /// Returns what was counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }
}

/// Reads a line; `None` when it is kept until the format is known.
fn read_line(
    format: &mut Format,
    line: &str,
    context: &mut Context,
    counts: &mut Counts,
    decided: &mut Option<&'static str>,
    out: &mut Vec<Sample>,
) -> Option<Outcome> {
    let Format::Guess(guess) = format else { return Some(format.read(line, context, out)) };
    if let Some((found, kept)) = guess.add(line) {
        *decided = Some(found.name());
        *format = found;
        for earlier in kept {
            counts.count(format.read(&earlier, context, out), &mut None);
        }
    }
    // What is kept is counted when it is read.
    match format {
        Format::Guess(guess) => guess.take_dropped().then_some(Outcome::Foreign),
        _ => Some(format.read(line, context, out)),
    }
}

impl Counts {
    fn count(&mut self, outcome: Outcome, last_damage: &mut Option<&'static str>) {
        match outcome {
            Outcome::Good => self.good += 1,
            Outcome::Foreign => self.foreign += 1,
            Outcome::Damaged(cause) => {
                self.damaged += 1;
                *last_damage = Some(cause);
            }
        }
    }
}

impl Format {
    /// Reads a line that has no end any more.
    pub fn read(&mut self, line: &str, context: &mut Context, out: &mut Vec<Sample>) -> Outcome {
        if line.trim().is_empty() {
            return Outcome::Good;
        }
        match self {
            Self::Json => json::line(line, context, out),
            Self::Csv(csv) => csv.line(line, context, out),
            Self::Kv => kv::line(line, context, out),
            Self::Pattern(pattern) => pattern.line(line, context, out),
            Self::Guess(_) => Outcome::Foreign,
        }
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
            UnixMillis(millis as i64)
        }
        Value::Bool(_) => return None,
    };
    (EARLIEST <= moment && moment <= now.plus(AHEAD)).then_some(moment)
}

#[cfg(test)]
mod tests;
