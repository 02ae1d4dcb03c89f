//! Labels and values: `temp=21.5C;hum=40`, `T: 21.5 H: 40`, `temp_C=21.5`.
//!
//! A label ends with `=` or `:`; pairs are separated by blanks, tabs, commas or semicolons. A unit
//! is glued to the number, or stands behind the label.

use valtronics_protocol::{reading::is_name, unit, value::Value};

use super::{Context, Outcome, Sample};

/// Reads a line.
pub(super) fn line(line: &str, context: &mut Context, out: &mut Vec<Sample>) -> Outcome {
    let begin = out.len();
    let mut rest = line.trim();
    let mut torn = false;
    while !rest.is_empty() {
        let Some(at) = rest.find(['=', ':']) else {
            torn = true;
            break;
        };
        let (label, after) = rest.split_at(at);
        // Words before the label are prose.
        let label = label.rsplit([' ', '\t', ',', ';']).next().unwrap_or_default();
        let after = after.get(1..).unwrap_or_default().trim_start_matches([' ', '\t']);
        let end = after.find([' ', '\t', ',', ';']).unwrap_or(after.len());
        let (text, left) = after.split_at(end);
        rest = left.trim_start_matches([' ', '\t', ',', ';']);
        if is_name(label)
            && let Some((value, unit)) = number_with_unit(text)
        {
            let (name, named_unit) = split_label(label);
            let metric = context.name(name);
            let unit = unit.or(named_unit).map(|unit| context.name(unit));
            out.push(Sample { device: None, metric, value, unit, at: None });
        }
    }
    match (out.len() > begin, torn) {
        (true, _) => Outcome::Good,
        (false, _) => Outcome::Foreign,
    }
}

/// Reads `21.5C`, `40%`, `3.3 V` or `true`; anything else is prose.
pub(super) fn number_with_unit(text: &str) -> Option<(Value, Option<&str>)> {
    let in_number = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.');
    let exponent = |(at, c): (usize, char)| {
        // `1e3` is a number, `1e` and `1eV` are units.
        matches!(c, 'e' | 'E')
            && text.get(at + 1..).is_some_and(|rest| {
                let digits = rest.strip_prefix(['+', '-']).unwrap_or(rest);
                digits.starts_with(|c: char| c.is_ascii_digit())
            })
    };
    let mut letters = text.char_indices();
    let end = letters.find(|(at, c)| !in_number(*c) && !exponent((*at, *c)));
    let end = end.map_or(text.len(), |(at, _)| at);
    let (number, unit) = text.split_at(end);
    match (Value::parse_number(number), unit.trim()) {
        (Some(value), "") => Some((value, None)),
        (Some(value), unit) if is_unit(unit) => Some((value, Some(unit))),
        (Some(_) | None, _) => match text {
            "true" => Some((Value::Bool(true), None)),
            "false" => Some((Value::Bool(false), None)),
            _ => None,
        },
    }
}

/// Splits `temp_C` and `temp(°C)` into the name and a unit that is known.
pub(super) fn split_label(label: &str) -> (&str, Option<&str>) {
    let bracketed = label.strip_suffix([')', ']']).and_then(|rest| rest.rsplit_once(['(', '[']));
    let split = bracketed.or_else(|| label.rsplit_once('_'));
    match split {
        Some((name, unit)) if !name.trim().is_empty() && is_unit(unit) => {
            (name.trim_end(), Some(unit))
        }
        Some(_) | None => (label, None),
    }
}

/// Tells whether a word is a spelling of a unit that is known.
fn is_unit(word: &str) -> bool {
    unit::ucum(&unit::canonical(word)).is_some()
}
