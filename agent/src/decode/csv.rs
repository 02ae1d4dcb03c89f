//! Separated columns, with a header line or names from the configuration.
//!
//! Without either, columns are called `c1`, `c2` and so on. What was taken for a header gives way
//! when the next row does not fit it: devices greet before they speak.

use std::{borrow::Cow, sync::Arc};

use csv_core::{ReadFieldResult, Reader, ReaderBuilder};
use valtronics_protocol::value::Value;

use super::{Context, Outcome, Sample, context::Label, is_nothing, kv};

/// The most columns of a line; what stands behind them is not read.
const MAX_COLUMNS: usize = 256;
/// After how many rows of another shape, one after the other, it is the device's new shape.
const ODD_ROWS: usize = 3;

/// Reads lines of columns.
#[derive(Debug, Clone)]
pub struct Csv {
    configured: Vec<Arc<str>>,
    columns: Vec<Label>,
    separator: u8,
    /// A header has named the columns.
    has_header: bool,
    /// A row has had these columns.
    is_proven: bool,
    /// A row had a number, so that a line of words is none.
    has_numbers: bool,
    /// The device was connected anew and may say its header again.
    is_reopened: bool,
    /// The shape of rows that do not fit, and how many came.
    odd: ((u8, usize), usize),
}

impl Csv {
    /// Reads columns of these names; without names the first line of words names them.
    #[must_use]
    pub fn new(columns: &[Arc<str>]) -> Self {
        Self {
            configured: columns.to_vec(),
            columns: Vec::new(),
            separator: b',',
            has_header: false,
            is_proven: false,
            has_numbers: false,
            is_reopened: false,
            odd: ((0, 0), 0),
        }
    }

    /// The device is connected anew.
    pub(super) fn restart(&mut self) {
        self.is_reopened = true;
    }

    /// Reads a line.
    pub(super) fn line(
        &mut self,
        line: &str,
        context: &mut Context,
        out: &mut Vec<Sample>,
    ) -> Outcome {
        if self.columns.is_empty() {
            self.columns = self.configured.iter().map(|name| context.label(name)).collect();
        }
        if !self.is_proven {
            self.separator = separator(line);
        }
        let mut fields = fields(line, self.separator);
        if is_header(&fields)
            && let Some(outcome) = self.header(&fields, context)
        {
            return outcome;
        }
        if fields.len() != self.columns.len() {
            if !self.is_new_shape(line) {
                return Outcome::Damaged("a line with more or fewer columns than the others");
            }
            fields = self::fields(line, self.separator);
            let place = |at| Label { metric: context.name(&format!("c{at}")), unit: None };
            self.columns = (1..=fields.len()).map(place).collect();
            self.has_header = false;
        }
        (self.is_proven, self.is_reopened, self.odd.1) = (true, false, 0);
        for (field, label) in fields.iter().zip(&self.columns) {
            let field = field.trim();
            if is_nothing(field) || label.metric.is_empty() {
                continue;
            }
            let comma_is_decimal = self.separator != b',';
            let (value, unit) = kv::number_with_unit(field)
                .or_else(|| Some((number(field).filter(|_| comma_is_decimal)?, None)))
                .unwrap_or_else(|| (Value::Text(field.into()), None));
            self.has_numbers |= value.as_f64().is_some();
            let unit = unit.map(|unit| context.name(unit)).or_else(|| label.unit.clone());
            out.push(context.sample(Arc::clone(&label.metric), value, unit));
        }
        Outcome::Good
    }

    /// Takes a line of words; `None` when it is a row of texts.
    fn header(&mut self, fields: &[Cow<'_, str>], context: &mut Context) -> Option<Outcome> {
        let fits = fields.len() == self.columns.len();
        if !self.configured.is_empty() {
            // The first line of words is the device's own header, where there are only words.
            let is_row = fits && !self.has_numbers && std::mem::replace(&mut self.has_header, true);
            let outcome = if fits { Outcome::Good } else { Outcome::Foreign };
            return (!is_row).then_some(outcome);
        }
        let columns = fields.iter().map(|field| context.label(field.trim()));
        let columns: Vec<Label> = columns.collect();
        let is_known =
            fits && self.columns.iter().zip(&columns).all(|(old, new)| old.metric == new.metric);
        if is_known {
            return Some(Outcome::Good);
        }
        let may_change = !self.is_proven || self.is_reopened || (fits && !self.has_header);
        if !may_change {
            return if fits { None } else { Some(Outcome::Foreign) };
        }
        (self.columns, self.has_header, self.is_proven) = (columns, true, false);
        // One word is a greeting more often than a table of one column.
        Some(if fields.len() > 1 { Outcome::Good } else { Outcome::Foreign })
    }

    /// Tells whether a row that does not fit shows the shape that rows have from now on.
    fn is_new_shape(&mut self, line: &str) -> bool {
        let separator = separator(line);
        let shape = (separator, fields(line, separator).len());
        let (last, times) = self.odd;
        let times = if last == shape { times + 1 } else { 1 };
        self.odd = (shape, times);
        let is_new = self.configured.is_empty() && (!self.is_proven || times >= ODD_ROWS);
        if is_new {
            self.separator = separator;
        }
        is_new
    }
}

/// Reads a number, with the decimal comma of many countries, too.
pub(super) fn number(field: &str) -> Option<Value> {
    kv::number_with_unit(field).map(|(value, _)| value).or_else(|| {
        let (whole, decimals) = field.split_once(',')?;
        let is_plain = !decimals.is_empty() && decimals.bytes().all(|byte| byte.is_ascii_digit());
        is_plain.then(|| Value::parse_number(&format!("{whole}.{decimals}")))?
    })
}

/// Tells whether every field is a word, but for those that are empty: many lines end with a
/// separator.
pub(super) fn is_header(fields: &[Cow<'_, str>]) -> bool {
    let is_word = |field: &str| {
        field.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && !is_nothing(field)
            && kv::number_with_unit(field).is_none()
    };
    let filled = fields.iter().map(|field| field.trim()).filter(|field| !field.is_empty());
    let mut filled = filled.peekable();
    filled.peek().is_some() && filled.all(is_word)
}

/// Finds what separates the columns: the first of these that stands in the line.
pub(super) fn separator(line: &str) -> u8 {
    let stands = |separator: &&u8| line.trim().as_bytes().contains(separator);
    b";\t, ".iter().find(stands).copied().unwrap_or(b',')
}

/// Cuts a line into its columns (RFC 4180, section 2, for one line); runs of blanks are one.
pub(super) fn fields(line: &str, separator: u8) -> Vec<Cow<'_, str>> {
    if separator == b' ' {
        return line.split_whitespace().take(MAX_COLUMNS).map(Cow::Borrowed).collect();
    }
    if line.contains('"') {
        return quoted_fields(line, separator);
    }
    line.split(char::from(separator)).take(MAX_COLUMNS).map(Cow::Borrowed).collect()
}

fn quoted_fields(line: &str, separator: u8) -> Vec<Cow<'_, str>> {
    let mut reader: Reader = ReaderBuilder::new().delimiter(separator).build();
    let (mut input, mut fields) = (line.as_bytes(), Vec::new());
    let (mut field, mut buffer) = (Vec::new(), [0; 256]);
    while fields.len() < MAX_COLUMNS {
        let (result, read, written) = reader.read_field(input, &mut buffer);
        input = input.get(read..).unwrap_or_default();
        field.extend(buffer.get(..written).unwrap_or_default());
        match result {
            ReadFieldResult::InputEmpty | ReadFieldResult::OutputFull => {}
            ReadFieldResult::Field { .. } => {
                let text = String::from_utf8_lossy(&std::mem::take(&mut field)).into_owned();
                fields.push(Cow::Owned(text));
            }
            ReadFieldResult::End => break,
        }
    }
    fields
}
