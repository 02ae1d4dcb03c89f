//! Separated columns, with a header line or names from the configuration.

use std::sync::Arc;

use csv_core::{ReadFieldResult, Reader, ReaderBuilder};
use valtronics_protocol::value::Value;

use super::{Context, Outcome, Sample, device_time, kv};

/// The most columns of a line.
const MAX_COLUMNS: usize = 256;

/// Reads lines of columns.
#[derive(Debug, Clone)]
pub struct Csv {
    /// The names and units of the columns; empty until a header comes.
    columns: Vec<(Arc<str>, Option<Arc<str>>)>,
    separator: Option<u8>,
}

impl Csv {
    /// Reads columns of these names; without names the first line of words names them.
    #[must_use]
    pub fn new(columns: &[Arc<str>]) -> Self {
        let column = |name: &Arc<str>| match kv::split_label(name) {
            (name, Some(unit)) => (name.into(), Some(unit.into())),
            (_, None) => (Arc::clone(name), None),
        };
        Self { columns: columns.iter().map(column).collect(), separator: None }
    }

    /// Reads a line.
    pub(super) fn line(&mut self, line: &str, context: &mut Context, out: &mut Vec<Sample>) -> Outcome {
        let separator = *self.separator.get_or_insert_with(|| separator(line));
        let fields = fields(line, separator);
        if is_header(&fields) {
            self.take_header(&fields, context);
            return Outcome::Good;
        }
        if self.columns.is_empty() {
            // The header was sent before we listened: columns are called by their places.
            let name = |at: usize| (format!("c{}", at + 1).into(), None);
            self.columns = (0..fields.len()).map(name).collect();
        }
        if fields.len() != self.columns.len() {
            return Outcome::Damaged("a line with more or fewer columns than the others");
        }
        let begin = out.len();
        let mut at = None;
        for (field, (name, unit)) in fields.iter().zip(&self.columns) {
            let field = field.trim();
            let Some((value, own_unit)) = value(field) else { continue };
            if context.is_time_field(name)
                && let Some(moment) = device_time(&value, context.now)
            {
                at = Some(moment);
                continue;
            }
            let unit = own_unit.map(|unit| context.name(unit)).or_else(|| unit.clone());
            out.push(Sample { device: None, metric: Arc::clone(name), value, unit, at: None });
        }
        out.iter_mut().skip(begin).for_each(|sample| sample.at = at);
        Outcome::Good
    }

    fn take_header(&mut self, fields: &[String], context: &mut Context) {
        self.columns = fields
            .iter()
            .map(|field| {
                let (name, unit) = kv::split_label(field.trim());
                (context.name(name), unit.map(|unit| context.name(unit)))
            })
            .collect();
    }
}

/// An empty field, and what stands for one, is absent.
fn value(field: &str) -> Option<(Value, Option<&str>)> {
    if field.is_empty() || ["nan", "null", "-", "---", "n/a"].contains(&&*field.to_ascii_lowercase()) {
        return None;
    }
    kv::number_with_unit(field).or_else(|| Some((Value::Text(field.into()), None)))
}

/// Tells whether every field is a word.
pub(super) fn is_header(fields: &[String]) -> bool {
    let word = |field: &String| {
        let field = field.trim();
        field.starts_with(|c: char| c.is_alphabetic() || c == '_') && value(field).is_some_and(|(value, _)| matches!(value, Value::Text(_)))
    };
    !fields.is_empty() && fields.iter().all(word)
}

/// Finds what separates the columns: the first of these that stands in the line.
pub(super) fn separator(line: &str) -> u8 {
    let stands = |separator: &&u8| line.as_bytes().contains(separator);
    [b';', b'\t', b',', b' '].iter().find(stands).copied().unwrap_or(b',')
}

/// Cuts a line into its columns (RFC 4180, section 2, for one line); runs of blanks are one.
pub(super) fn fields(line: &str, separator: u8) -> Vec<String> {
    if separator == b' ' {
        return line.split_whitespace().take(MAX_COLUMNS + 1).map(str::to_owned).collect();
    }
    let mut reader: Reader = ReaderBuilder::new().delimiter(separator).build();
    let (mut input, mut fields) = (line.as_bytes(), Vec::new());
    let (mut field, mut buffer) = (Vec::new(), [0; 256]);
    loop {
        let (result, read, written) = reader.read_field(input, &mut buffer);
        input = input.get(read..).unwrap_or_default();
        field.extend(buffer.get(..written).unwrap_or_default());
        match result {
            ReadFieldResult::InputEmpty | ReadFieldResult::OutputFull => {}
            ReadFieldResult::Field { .. } => {
                let text = String::from_utf8_lossy(&std::mem::take(&mut field)).into_owned();
                fields.push(text);
                if fields.len() > MAX_COLUMNS {
                    return fields;
                }
            }
            ReadFieldResult::End => return fields,
        }
    }
}
