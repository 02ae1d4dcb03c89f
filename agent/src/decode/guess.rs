//! Finds the format of a device from its first lines.
//!
//! A JSON object decides at once, and so do a sentence of NMEA 0183 with its checksum, an object in
//! a telegram of DSMR, and a line of nothing but two or more labels with numbers. Otherwise two lines must agree, because boot messages have labels too (`load:0x40,
//! len:1184`). It never changes its mind. Nothing is lost by it: the last lines are kept, with the
//! moments at which they came, until it has decided.

use std::sync::Arc;

use valtronics_protocol::{time::UnixMillis, value::Value};

use super::{
    Context, Format, Outcome,
    csv::{self, Csv},
    dsmr::{self, Dsmr},
    json,
    kv::{self, Pairs},
    nmea::{self, Nmea},
    vedirect::{self, Vedirect},
};

/// How many lines are kept: whatever boots before the first reading is not kept for ever.
const LINES: usize = 10;

/// A line and when it came.
pub(super) type Kept = (UnixMillis, String);

/// The lines so far.
#[derive(Debug, Clone, Default)]
pub struct Guess {
    kept: Vec<Kept>,
}

/// What a line told.
#[derive(Debug)]
pub(super) enum Guessed {
    /// Nothing yet; it is kept.
    Open,
    /// Nothing yet, and the oldest line was given up: it was none of any format.
    Dropped,
    /// The format, and so many lines that are not of it; the lines after them are still to be read.
    Decided(Format, Vec<Kept>, u64),
}

impl Guess {
    /// Takes a line.
    pub(super) fn add(&mut self, line: &str, now: UnixMillis) -> Guessed {
        if let Some((format, from)) = self.format_with(line) {
            let foreign = self.kept.drain(..from).count() as u64;
            return Guessed::Decided(format, std::mem::take(&mut self.kept), foreign);
        }
        self.kept.push((now, line.to_owned()));
        if self.kept.len() <= LINES {
            return Guessed::Open;
        }
        self.kept.remove(0);
        Guessed::Dropped
    }

    /// Decides by what there is, because nothing more comes; or says how many lines were foreign.
    pub(super) fn settle(&mut self) -> Result<(Format, Vec<Kept>), u64> {
        let kept = std::mem::take(&mut self.kept);
        let any = |fits: fn(&str) -> bool| kept.iter().any(|(_, line)| fits(line));
        if any(|line| labels(line).is_some()) {
            Ok((Format::Kv, kept))
        } else if any(|line| is_row(&csv::fields(line, csv::separator(line)))) {
            Ok((Format::Csv(Csv::new(&[])), kept))
        } else {
            Err(kept.len() as u64)
        }
    }

    /// Finds the format, and from which of the kept lines on it is theirs, too.
    fn format_with(&self, line: &str) -> Option<(Format, usize)> {
        let (mut context, mut out) = (Context::default(), Vec::new());
        if json::line(line, &mut context, &mut out) == Outcome::Good && !out.is_empty() {
            return Some((Format::Json, 0));
        }
        if nmea::is_sentence(line) {
            return Some((Format::Nmea(Nmea::default()), self.kept.len()));
        }
        if dsmr::is_object(line)
            && let Some(begin) = self.kept.iter().rposition(|(_, kept)| kept.starts_with('/'))
        {
            return Some((Format::Dsmr(Dsmr::default()), begin));
        }
        if vedirect::is_line(line)
            && let Some((_, before)) = self.kept.last()
            && vedirect::is_line(before)
        {
            return Some((Format::Vedirect(Vedirect::default()), self.kept.len() - 1));
        }
        if let Some((labels, is_clear)) = labels(line) {
            let agrees = |(_, kept): &Kept| {
                self::labels(kept)
                    .is_some_and(|(known, _)| known.iter().any(|l| labels.contains(l)))
            };
            let decided = is_clear || self.kept.iter().any(agrees);
            return decided.then_some((Format::Kv, 0));
        }
        Some((Format::Csv(Csv::new(&[])), self.table_from(line)?))
    }

    /// Tells whether this line and the one before are rows of one table; returns where it begins.
    fn table_from(&self, line: &str) -> Option<usize> {
        let separator = csv::separator(line);
        let fields = csv::fields(line, separator);
        if !is_row(&fields) {
            return None;
        }
        let alike = |(_, known): &Kept| {
            let known = csv::fields(known, separator);
            known.len() == fields.len() && (csv::is_header(&known) || is_row(&known))
        };
        let from = self.kept.iter().rposition(|line| !alike(line)).map_or(0, |at| at + 1);
        (from < self.kept.len()).then_some(from)
    }
}

/// Returns the labels of a line if more of them have a number than not, and whether all have.
fn labels(line: &str) -> Option<(Vec<Arc<str>>, bool)> {
    let (mut context, mut out) = (Context::default(), Vec::new());
    let Pairs { other, .. } = kv::pairs(line, &mut context, &mut out);
    out.retain(|sample| !matches!(sample.value, Value::Text(_)));
    let is_clear = out.len() > 1 && other == 0;
    let labels: Vec<_> = out.into_iter().map(|sample| sample.metric).collect();
    (labels.len() > other).then_some((labels, is_clear))
}

/// Tells whether the fields that are filled are numbers; the first may be a moment.
fn is_row(fields: &[std::borrow::Cow<'_, str>]) -> bool {
    let mut filled =
        fields.iter().map(|field| field.trim()).filter(|field| !field.is_empty()).peekable();
    if fields.len() > 1 {
        filled.next_if(|field| field.parse::<UnixMillis>().is_ok());
    }
    filled.peek().is_some() && filled.all(|field| csv::number(field).is_some())
}
