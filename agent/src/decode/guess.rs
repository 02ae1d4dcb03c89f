//! Finds the format of a device from its first lines.
//!
//! It decides as soon as it can, within [`LINES`], and never changes its mind. Nothing is lost by
//! it: lines are kept until it has decided.

use super::{
    Context, Format, Outcome,
    csv::{self, Csv},
    json, kv,
};

/// After how many lines it begins anew: a device that is understood by then never will be.
const LINES: usize = 10;

/// The lines so far.
#[derive(Debug, Clone, Default)]
pub struct Guess {
    kept: Vec<String>,
    dropped: bool,
}

impl Guess {
    /// Takes a line; returns the format once it is decided, with the lines before.
    pub(super) fn add(&mut self, line: &str) -> Option<(Format, Vec<String>)> {
        self.dropped = false;
        let (mut context, mut out) = (Context::default(), Vec::new());
        if json::line(line, &mut context, &mut out) == Outcome::Good && !out.is_empty() {
            return Some((Format::Json, std::mem::take(&mut self.kept)));
        }
        out.clear();
        if kv::line(line, &mut context, &mut out) == Outcome::Good {
            return Some((Format::Kv, std::mem::take(&mut self.kept)));
        }
        if let Some(from) = self.columns_from(line) {
            let kept = self.kept.split_off(from);
            return Some((Format::Csv(Csv::new(&[])), kept));
        }
        self.kept.push(line.to_owned());
        if self.kept.len() > LINES {
            self.kept.remove(0);
            self.dropped = true;
        }
        None
    }

    /// Tells whether a line fell out of memory: it was none of any format.
    pub(super) fn take_dropped(&mut self) -> bool {
        std::mem::take(&mut self.dropped)
    }

    /// Tells whether this line and one before are rows of one table; returns where it begins.
    fn columns_from(&self, line: &str) -> Option<usize> {
        let separator = csv::separator(line);
        let fields = csv::fields(line, separator);
        let numbers = |fields: &[String]| {
            let filled = || fields.iter().map(|field| field.trim()).filter(|field| !field.is_empty());
            filled().next().is_some() && filled().all(|field| kv::number_with_unit(field).is_some())
        };
        if !numbers(&fields) {
            return None;
        }
        let alike = |known: &String| {
            let known = csv::fields(known, separator);
            known.len() == fields.len() && (csv::is_header(&known) || numbers(&known))
        };
        let last = self.kept.len().checked_sub(1)?;
        // The header may stand before rows that were kept, too.
        let first = self.kept.iter().rposition(|line| !alike(line)).map_or(0, |at| at + 1);
        (first <= last).then_some(first)
    }
}
