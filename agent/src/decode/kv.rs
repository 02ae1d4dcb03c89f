//! Labels and values: `temp=21.5C;hum=40`, `Soil moisture: 21.5 % T: 4`, `temp (°C): 21.5`.
//!
//! A label ends with `=` or `:`; pairs are separated by blanks, tabs, commas or semicolons. A unit
//! stands right behind the number, or behind the label. A word is a value only right behind a `=`:
//! after a colon it is prose.

use valtronics_protocol::{unit, value::Value};

use super::{Context, Outcome, Sample, is_nothing};

/// The most words of a label before a colon; more are a sentence.
const MAX_LABEL_WORDS: usize = 3;
/// Units that mean something else behind a label: the least (`temp_min`), or one of several.
const NO_SUFFIXES: [&str; 7] = ["min", "d", "day", "days", "B", "g", "l"];

const SEPARATORS: [char; 4] = [' ', '\t', ',', ';'];

/// What the pairs of a line were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Pairs {
    /// With a value that was understood; it may say that it is absent.
    pub(super) understood: usize,
    /// Any other.
    pub(super) other: usize,
}

/// Reads a line.
pub(super) fn line(line: &str, context: &mut Context, out: &mut Vec<Sample>) -> Outcome {
    match pairs(line, context, out) {
        Pairs { understood: 0, .. } => Outcome::Foreign,
        Pairs { .. } => Outcome::Good,
    }
}

/// Reads the pairs of a line.
pub(super) fn pairs(line: &str, context: &mut Context, out: &mut Vec<Sample>) -> Pairs {
    let (mut rest, mut pairs) = (line.trim(), Pairs::default());
    if rest.starts_with(['{', '[']) {
        return pairs;
    }
    while let Some((before, after)) = rest.split_once(['=', ':']) {
        let words =
            if rest.as_bytes().get(before.len()) == Some(&b':') { MAX_LABEL_WORDS } else { 1 };
        let label = label(before, words);
        let text = after.trim_start_matches([' ', '\t']);
        let (text, left) = text.split_at(text.find(SEPARATORS).unwrap_or(text.len()));
        let is_glued = words == 1 && after.len() == text.len() + left.len();
        if text.ends_with(['=', ':']) {
            // What stands before a label is prose: `INFO: temp: 21.5`.
            rest = after.trim_start_matches([' ', '\t']);
            continue;
        }
        rest = left.trim_start_matches(SEPARATORS);
        let has_name = label.contains(char::is_alphabetic);
        if has_name && is_nothing(text) && !text.is_empty() {
            pairs.understood += 1;
            continue;
        }
        let value = number_with_unit(text).or_else(|| {
            let is_value = context.is_time_field(label) || (is_glued && is_word(text));
            is_value.then(|| (Value::Text(text.into()), None))
        });
        let Some((value, mut unit)) = value.filter(|_| has_name && !goes_on(text, left)) else {
            pairs.other += 1;
            continue;
        };
        if unit.is_none()
            && let Some((found, left)) = unit_apart(left)
        {
            (unit, rest) = (Some(found), left.trim_start_matches(SEPARATORS));
        }
        let label = context.label(label);
        let unit = unit.map(|unit| context.name(unit)).or(label.unit);
        out.push(context.sample(label.metric, value, unit));
        pairs.understood += 1;
    }
    pairs
}

/// Returns the label at the end of a text: the last words, with a unit in brackets behind them.
fn label(before: &str, most_words: usize) -> &str {
    let before = before.trim_end();
    let name = match before.strip_suffix([')', ']']).and_then(|inside| inside.rfind(['(', '['])) {
        Some(bracket) => before.get(..bracket).unwrap_or_default().trim_end(),
        None => before,
    };
    let mut begin = name.len();
    for _ in 0..most_words {
        let earlier = name.get(..begin).unwrap_or_default();
        // Words of one label are one blank apart.
        let earlier = if begin == name.len() {
            earlier
        } else {
            earlier.strip_suffix(' ').unwrap_or_default()
        };
        let word = earlier.rsplit(SEPARATORS).next().unwrap_or_default();
        if !word.starts_with(|c: char| c.is_alphabetic() || c == '_') && begin < name.len() {
            break;
        }
        if word.is_empty() {
            break;
        }
        begin = earlier.len() - word.len();
    }
    before.get(begin..).unwrap_or_default().trim_matches(['"', '\''])
}

/// Takes a unit that stands one blank behind its number and is no label itself.
fn unit_apart(left: &str) -> Option<(&str, &str)> {
    let left = left.strip_prefix(' ')?;
    let end = left.find(SEPARATORS).unwrap_or(left.len());
    let (word, left) = left.split_at_checked(end)?;
    let is_label = left.trim_start().starts_with(['=', ':']);
    (unit::is_known(word) && !is_label).then_some((word, left))
}

/// Tells whether `21` is only a part of `21,5`, which may be one number or two: better none than a
/// wrong one.
fn goes_on(text: &str, left: &str) -> bool {
    let digit = |c: char| c.is_ascii_digit();
    text.ends_with(digit) && left.strip_prefix(',').is_some_and(|rest| rest.starts_with(digit))
}

fn is_word(text: &str) -> bool {
    text.starts_with(char::is_alphabetic)
        && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
}

/// Reads `21.5C`, `40%` or `true`; anything else is prose.
pub(super) fn number_with_unit(text: &str) -> Option<(Value, Option<&str>)> {
    match text.split_at(number_end(text)) {
        (number, "") => Some((Value::parse_number(number)?, None)),
        ("", "true") => Some((Value::Bool(true), None)),
        ("", "false") => Some((Value::Bool(false), None)),
        (number, unit) => {
            let unit = unit.trim_start();
            let value = Value::parse_number(number)?;
            unit::is_known(unit).then_some((value, Some(unit)))
        }
    }
}

/// Finds where the number ends with which a text begins: `1e3` is one, `1eV` has a unit.
pub(super) fn number_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let ends = |(at, byte): (usize, &u8)| match byte {
        b'0'..=b'9' | b'.' => false,
        b'+' | b'-' => at > 0 && !matches!(bytes.get(at - 1), Some(b'e' | b'E')),
        b'e' | b'E' => {
            let signed = matches!(bytes.get(at + 1), Some(b'+' | b'-'));
            at == 0 || !digit(at + 1 + usize::from(signed))
        }
        _ => true,
    };
    bytes.iter().enumerate().position(|(at, byte)| ends((at, byte))).unwrap_or(bytes.len())
}

/// Splits `temp_C` and `temp (°C)` into the name and a unit that is known.
pub(super) fn split_label(label: &str) -> (&str, Option<&str>) {
    let bracketed = label.strip_suffix([')', ']']).and_then(|rest| rest.rsplit_once(['(', '[']));
    let suffix = || label.rsplit_once('_').filter(|(_, unit)| !NO_SUFFIXES.contains(unit));
    match bracketed.or_else(suffix) {
        Some((name, unit)) if !name.trim().is_empty() && unit::is_known(unit.trim()) => {
            (name.trim_end(), Some(unit))
        }
        Some(_) | None => (label, None),
    }
}
