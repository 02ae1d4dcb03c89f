//! Lines as a configuration shows them: `Humidity: {hum:%} *Temperature: {temp:°C}`.
//!
//! `{name}` and `{name:unit}` are values, `*` is anything, a blank is any number of blanks, and the
//! rest is itself. Matching takes a time in the order of the line's length for each part: each
//! literal is looked for at its first place only. A value with a unit is a number; any other may be
//! a word, which ends at a blank or where the pattern goes on. A known unit that is glued to a number
//! belongs to it.

use std::sync::Arc;

use valtronics_protocol::{reading::is_name, unit, value::Value};

use super::{Context, Outcome, Sample, is_nothing, kv};

/// A pattern of lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// These letters.
    Literal(Box<str>),
    /// Blanks, or none.
    Blanks,
    /// Anything, as little as possible.
    Anything,
    /// A number or a word.
    Value(Arc<str>, Option<Arc<str>>),
}

/// A pattern that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at letter {at}: {why}")]
pub struct PatternError {
    /// Where, counted from 1.
    pub at: usize,
    /// Why.
    pub why: &'static str,
}

impl std::str::FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let mut parts = Vec::new();
        let (mut rest, mut literal) = (text, String::new());
        let fault = |rest: &str, why| {
            let at = text.chars().count() - rest.chars().count() + 1;
            Err(PatternError { at, why })
        };
        while let Some(letter) = rest.chars().next() {
            let part = match letter {
                ' ' => Part::Blanks,
                '*' => Part::Anything,
                '}' => return fault(rest, "a } without its {"),
                '{' => {
                    let Some(end) = rest.find('}') else {
                        return fault(rest, "a { without its }");
                    };
                    let inside = rest.get(1..end).unwrap_or_default();
                    let (name, unit) = inside.split_once(':').unwrap_or((inside, ""));
                    if !is_name(name) || name.contains('{') {
                        return fault(rest, "a value needs a name, such as {temp} or {temp:°C}");
                    }
                    if matches!(parts.last(), Some(Part::Value(..))) && literal.is_empty() {
                        return fault(rest, "two values need something between them");
                    }
                    push_literal(&mut parts, &mut literal);
                    let unit = (!unit.is_empty()).then(|| Arc::from(unit));
                    parts.push(Part::Value(name.into(), unit));
                    rest = rest.get(end + 1..).unwrap_or_default();
                    continue;
                }
                other => {
                    literal.push(other);
                    rest = rest.get(other.len_utf8()..).unwrap_or_default();
                    continue;
                }
            };
            push_literal(&mut parts, &mut literal);
            if parts.last() != Some(&part) {
                parts.push(part);
            }
            rest = rest.get(1..).unwrap_or_default();
        }
        push_literal(&mut parts, &mut literal);
        if parts.iter().any(|part| matches!(part, Part::Value(..))) {
            return Ok(Self(parts));
        }
        fault(text, "a pattern needs a value, such as {temp}")
    }
}

fn push_literal(parts: &mut Vec<Part>, literal: &mut String) {
    if !literal.is_empty() {
        parts.push(Part::Literal(std::mem::take(literal).into()));
    }
}

impl Pattern {
    /// Reads a line.
    pub(super) fn line(&self, line: &str, context: &mut Context, out: &mut Vec<Sample>) -> Outcome {
        let begin = out.len();
        if self.read(line.trim(), context, out).is_some() {
            return Outcome::Good;
        }
        out.truncate(begin);
        Outcome::Foreign
    }

    fn read(&self, line: &str, context: &mut Context, out: &mut Vec<Sample>) -> Option<()> {
        let (mut rest, mut skip) = (line, false);
        let mut parts = self.0.iter().peekable();
        while let Some(part) = parts.next() {
            match part {
                Part::Anything => skip = true,
                Part::Blanks if skip => {}
                Part::Blanks => rest = rest.trim_start(),
                Part::Literal(literal) => {
                    let at = if skip { rest.find(&**literal)? } else { 0 };
                    rest = rest.get(at..)?.strip_prefix(&**literal)?;
                    skip = false;
                }
                Part::Value(name, unit) => {
                    if std::mem::take(&mut skip) {
                        let number = rest.find(|c: char| c.is_ascii_digit());
                        let number = number.map(|at| signed(rest, at));
                        rest = rest.get(number.or_else(|| rest.find(|c| c != ' '))?..)?;
                    }
                    let next = match parts.peek() {
                        Some(Part::Literal(literal)) => &**literal,
                        Some(_) | None => " ",
                    };
                    let number_suffices =
                        unit.is_some() || matches!(parts.peek(), Some(Part::Anything));
                    let (text, glued, after) = split_value(rest, next, number_suffices);
                    rest = after;
                    if text.is_empty() {
                        return None;
                    }
                    let number = Value::parse_number(text);
                    let word = || (unit.is_none() && !is_nothing(text)).then(|| text.into());
                    if let Some(value) = number.or_else(|| word().map(Value::Text)) {
                        let unit = unit.clone().or_else(|| Some(context.name(glued?)));
                        let metric = context.name(name);
                        out.push(context.sample(metric, value, unit));
                    }
                }
            }
        }
        Some(())
    }
}

/// Returns where the number begins whose first digit stands at `digit`.
fn signed(text: &str, digit: usize) -> usize {
    let before = text.get(..digit).unwrap_or_default();
    before.trim_end_matches('.').trim_end_matches(['+', '-']).len()
}

/// Splits off a value, and a known unit that is glued to it: a word that ends at `next` at the
/// latest, or the number with which it begins, where nothing but a number makes sense.
fn split_value<'l>(
    text: &'l str,
    next: &str,
    number_suffices: bool,
) -> (&'l str, Option<&'l str>, &'l str) {
    let end = text.find(|c: char| c.is_whitespace() || matches!(c, ',' | ';'));
    let end = end.unwrap_or(text.len());
    let (word, after) = text.split_at(text.find(next).map_or(end, |next| next.min(end)));
    let (number, behind) = word.split_at(kv::number_end(word));
    if Value::parse_number(number).is_none() {
        return (word, None, after);
    }
    if unit::is_known(behind) {
        return (number, Some(behind), after);
    }
    // `4f3a`, `12:30` and `2024-01-01` are words, `21.5*` is a number.
    let joins = |c: char| c.is_alphanumeric() || matches!(c, '+' | '-' | '.' | ':' | '/' | '_');
    if behind.starts_with(joins) && !number_suffices {
        return (word, None, after);
    }
    let (number, after) = text.split_at(number.len());
    (number, None, after)
}
