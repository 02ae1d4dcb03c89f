//! From the bytes of a device to samples: pure, one file for each format.
//!
//! Bytes are cut into lines ([`frame`]), or into blocks and telegrams by formats that have such, and
//! read by their [`Format`]; what comes out are [`Sample`]s, which `normalize` makes readings of. A value that is absent, null or NaN is no
//! sample, never 0. Damaged input is counted and passed over.

use std::sync::Arc;

use valtronics_protocol::{time::UnixMillis, value::Value};

mod context;
pub mod frame;
pub mod csv;
pub mod json;
pub mod kv;
pub mod pattern;
pub mod nmea;
pub mod vedirect;
pub mod dsmr;
pub mod guess;
pub mod modbus;
pub mod sparkplug;
pub mod topic;

use context::plausible;
pub use context::{Context, device_time};
pub(crate) use context::{TIME_FIELDS, is_nothing};
use csv::Csv;
use dsmr::Dsmr;
use frame::{Frame, Lines};
use guess::{Guess, Guessed};
use nmea::Nmea;
use pattern::Pattern;
use vedirect::Vedirect;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatName {
    /// A JSON object.
    Json,
    /// Separated columns.
    Csv,
    /// Labels and values.
    Kv,
    /// As `pattern` says.
    Pattern,
    /// NMEA 0183.
    Nmea,
    /// VE.Direct.
    Vedirect,
    /// DSMR P1.
    Dsmr,
}

impl FormatName {
    /// Every format.
    pub const ALL: [Self; 7] =
        [Self::Json, Self::Csv, Self::Kv, Self::Pattern, Self::Nmea, Self::Vedirect, Self::Dsmr];

    /// Returns the name in a configuration.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Kv => "kv",
            Self::Pattern => "pattern",
            Self::Nmea => "nmea",
            Self::Vedirect => "vedirect",
            Self::Dsmr => "dsmr",
        }
    }
}

/// How a device writes.
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
    /// Sentences of NMEA 0183.
    Nmea(Nmea),
    /// Blocks of VE.Direct.
    Vedirect(Vedirect),
    /// Telegrams of DSMR P1.
    Dsmr(Dsmr),
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
    pub fn feed(&mut self, mut bytes: &[u8], now: UnixMillis, out: &mut Vec<Sample>) {
        self.context.now = now;
        let mut lines = std::mem::take(&mut self.lines);
        loop {
            let outcome = match &mut self.format {
                Format::Vedirect(blocks) => blocks.next(&mut bytes, &mut self.context, out),
                Format::Dsmr(telegrams) => telegrams.next(&mut bytes, &mut self.context, out),
                _ => match lines.next(&mut bytes) {
                    Some(Frame::Line(line)) => {
                        self.line(line, out);
                        continue;
                    }
                    Some(Frame::TooLong) => {
                        Some(Outcome::Damaged("a line of more than 4096 bytes"))
                    }
                    None => None,
                },
            };
            let Some(outcome) = outcome else { break };
            self.count(outcome);
        }
        self.lines = lines;
    }

    /// Takes the last line, which nothing ends; a format that is still open is decided.
    pub fn finish(&mut self, out: &mut Vec<Sample>) {
        let now = self.context.now;
        if !matches!(self.format, Format::Vedirect(_)) {
            self.feed(b"\n", now, out);
        }
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
        match &mut self.format {
            Format::Csv(csv) => csv.restart(),
            Format::Vedirect(blocks) => blocks.restart(),
            Format::Dsmr(telegrams) => telegrams.restart(),
            Format::Json | Format::Kv | Format::Pattern(_) | Format::Nmea(_) | Format::Guess(_) => {
            }
        }
    }

    /// Returns what was counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<Sample>) {
        if let Format::Nmea(nmea) = &mut self.format {
            if let Some(outcome) = nmea.line(line, &mut self.context, out) {
                self.count(outcome);
            }
            return;
        }
        let line = match frame::text(line) {
            Ok(line) => line,
            Err(cause) => return self.count(Outcome::Damaged(cause)),
        };
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
        let outcome = self.format.read(line, &mut self.context, out);
        // Who opens a port in the middle of `temp=21.5` hears of a new metric `mp`.
        if std::mem::take(&mut self.reopened) && known > 0 && self.context.names.len() > known {
            out.truncate(begin);
            return self.count(Outcome::Foreign);
        }
        if let Some(outcome) = outcome {
            self.count(outcome);
        }
    }

    fn decide(&mut self, format: Format, kept: Vec<guess::Kept>, out: &mut Vec<Sample>) {
        self.decided = Some(format.name());
        self.format = format;
        for (received, line) in kept {
            self.context.received = Some(received);
            let outcome = self.format.read(&line, &mut self.context, out);
            if let Some(outcome) = outcome {
                self.count(outcome);
            }
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
    /// Reads a line that has no end any more; `None` where it is only a part of something.
    fn read(
        &mut self,
        line: &str,
        context: &mut Context,
        out: &mut Vec<Sample>,
    ) -> Option<Outcome> {
        let begin = out.len();
        let outcome = match self {
            // Each document of a line has its own time.
            Self::Json => return Some(json::line(line, context, out)),
            Self::Nmea(nmea) => return nmea.line(line.as_bytes(), context, out),
            Self::Dsmr(telegrams) => {
                let line = format!("{line}\r\n");
                return telegrams.next(&mut line.as_bytes(), context, out);
            }
            // Its bytes count, and they are gone: the next block is read.
            Self::Vedirect(_) => return None,
            Self::Csv(csv) => csv.line(line, context, out),
            Self::Kv => kv::line(line, context, out),
            Self::Pattern(pattern) => pattern.line(line, context, out),
            Self::Guess(_) => Outcome::Foreign,
        };
        context.take_time("", begin, out);
        Some(outcome)
    }

    /// Returns the name in a configuration.
    #[must_use]
    pub fn name(&self) -> &'static str {
        let name = match self {
            Self::Json => FormatName::Json,
            Self::Csv(_) => FormatName::Csv,
            Self::Kv => FormatName::Kv,
            Self::Pattern(_) => FormatName::Pattern,
            Self::Nmea(_) => FormatName::Nmea,
            Self::Vedirect(_) => FormatName::Vedirect,
            Self::Dsmr(_) => FormatName::Dsmr,
            Self::Guess(_) => return "guessed",
        };
        name.as_str()
    }
}

#[cfg(test)]
mod tests;
