//! When a value is too much, and when it no longer is.

use std::fmt;

use serde::Serialize;
use valtronics_protocol::value::Value;

use super::{RuleError, Tale, Told, wrong};

/// When a value is too much.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Above this.
    Above(Value),
    /// Below this.
    Below(Value),
    /// From the one to the other, both included.
    Inside([Value; 2]),
    /// Below the one or above the other.
    Outside([Value; 2]),
    /// Just this.
    Equal(Value),
}

/// What a value has to pass beyond the bound before an alert ends.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Clear {
    /// It has to rise above this.
    #[serde(rename = "clear_above", skip_serializing_if = "Option::is_none")]
    pub above: Option<Value>,
    /// It has to fall below this.
    #[serde(rename = "clear_below", skip_serializing_if = "Option::is_none")]
    pub below: Option<Value>,
}

impl Bound {
    /// Tells whether a value is too much; `None` where this bound says nothing of such a value.
    #[must_use]
    pub fn exceeded_by(&self, value: &Value) -> Option<bool> {
        if let Self::Equal(bound) = self {
            return Some(equal(value, bound));
        }
        let number = value.as_f64()?;
        Some(match self {
            Self::Above(bound) => number > bound.as_f64()?,
            Self::Below(bound) => number < bound.as_f64()?,
            Self::Inside([least, most]) => (least.as_f64()?..=most.as_f64()?).contains(&number),
            Self::Outside([least, most]) => !(least.as_f64()?..=most.as_f64()?).contains(&number),
            Self::Equal(_) => return None,
        })
    }

    /// Tells whether an alert ends with this value.
    #[must_use]
    pub fn cleared_by(&self, clear: &Clear, value: &Value) -> bool {
        if self.exceeded_by(value) != Some(false) {
            return false;
        }
        let Some(number) = value.as_f64() else {
            return true;
        };
        let above = clear.above.as_ref().and_then(Value::as_f64);
        let below = clear.below.as_ref().and_then(Value::as_f64);
        match self {
            // A value leaves a range through one end, and only that end's figure counts.
            Self::Inside([least, most]) => {
                above.or(most.as_f64()).is_none_or(|clear| number > clear)
                    || below.or(least.as_f64()).is_none_or(|clear| number < clear)
            }
            Self::Above(_) | Self::Below(_) | Self::Outside(_) | Self::Equal(_) => {
                above.is_none_or(|clear| number > clear) && below.is_none_or(|clear| number < clear)
            }
        }
    }

    /// Returns the figure that is shown with a value: the nearer one where there are two.
    #[must_use]
    pub fn nearest(&self, value: Option<&Value>) -> &Value {
        match self {
            Self::Above(bound) | Self::Below(bound) | Self::Equal(bound) => bound,
            Self::Inside([least, most]) | Self::Outside([least, most]) => {
                let figures = (least.as_f64(), most.as_f64(), value.and_then(Value::as_f64));
                match figures {
                    (Some(a), Some(b), Some(value)) if value > f64::midpoint(a, b) => most,
                    _ => least,
                }
            }
        }
    }

    /// Tells where a value stands, such as `t is 31.5, above 30.0`.
    pub(super) fn tell(&self, metric: &str, verb: &str, unit: &str, tale: Tale<'_>) -> Told {
        let actual = tale.actual.cloned();
        let threshold = Some(self.nearest(tale.actual).clone());
        let Some(value) = tale.actual else {
            return Told { threshold, actual, sentence: format!("{metric}: {self}{unit}") };
        };
        let stands = match (self.exceeded_by(value) == Some(true), tale.resolved) {
            (true, _) => format!("{self}"),
            (false, true) => format!("no longer {self}"),
            (false, false) => format!("no longer {self} but not clear of it"),
        };
        let sentence = format!("{metric} {verb} {value}{unit}, {stands}");
        Told { threshold, actual, sentence }
    }

    /// Refuses figures that are no numbers, that stand the wrong way round, or that would never let
    /// an alert end, or at once.
    pub(super) fn check(&self, clear: &Clear) -> Result<(), RuleError> {
        let above = clear.above.as_ref().map(|value| number("clear_above", value)).transpose()?;
        let below = clear.below.as_ref().map(|value| number("clear_below", value)).transpose()?;
        match (self, above, below) {
            (Self::Above(bound), None, below) => {
                let bound = number("above", bound)?;
                at_most("clear_below", below, bound, "is not above the bound")
            }
            (Self::Below(bound), above, None) => {
                let bound = number("below", bound)?;
                at_least("clear_above", above, bound, "is not below the bound")
            }
            (Self::Inside(range), above, below) => {
                let (least, most) = ordered("inside", range)?;
                at_least("clear_above", above, most, "is not below the upper bound")?;
                at_most("clear_below", below, least, "is not above the lower bound")
            }
            (Self::Outside(range), above, below) => {
                let (least, most) = ordered("outside", range)?;
                let between = "stands between the bounds, and clear_above below clear_below";
                at_least("clear_above", above, least, between)?;
                at_most("clear_below", below, most, between)?;
                // Between the two there has to be a value that clears.
                match above.unwrap_or(least) < below.unwrap_or(most) || above.or(below).is_none() {
                    true => Ok(()),
                    false => wrong("clear_above", between),
                }
            }
            (Self::Equal(_), None, None) => Ok(()),
            (Self::Above(_) | Self::Equal(_), Some(_), _) => {
                wrong("clear_above", "does not go with this bound")
            }
            (Self::Below(_) | Self::Equal(_), _, Some(_)) => {
                wrong("clear_below", "does not go with this bound")
            }
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Above(bound) => write!(f, "above {bound}"),
            Self::Below(bound) => write!(f, "below {bound}"),
            Self::Inside([least, most]) => write!(f, "inside {least} to {most}"),
            Self::Outside([least, most]) => write!(f, "outside {least} to {most}"),
            Self::Equal(bound) => write!(f, "equal to {bound}"),
        }
    }
}

/// Tells whether two values are equal; integers to the last digit, 3 and 3.0 too.
fn equal(value: &Value, bound: &Value) -> bool {
    let double = matches!(value, Value::Float(_)) || matches!(bound, Value::Float(_));
    match (value.as_f64(), bound.as_f64()) {
        (Some(value), Some(bound)) if double => value == bound,
        _ => value == bound,
    }
}

fn number(field: &str, value: &Value) -> Result<f64, RuleError> {
    value.as_f64().map_or_else(|| wrong(field, "is a number"), Ok)
}

fn ordered(field: &str, [least, most]: &[Value; 2]) -> Result<(f64, f64), RuleError> {
    match (number(field, least)?, number(field, most)?) {
        (least, most) if least <= most => Ok((least, most)),
        _ => wrong(field, "is [least, most]"),
    }
}

fn at_most(field: &str, clear: Option<f64>, most: f64, why: &str) -> Result<(), RuleError> {
    if clear.is_some_and(|clear| clear > most) { wrong(field, why) } else { Ok(()) }
}

fn at_least(field: &str, clear: Option<f64>, least: f64, why: &str) -> Result<(), RuleError> {
    if clear.is_some_and(|clear| clear < least) { wrong(field, why) } else { Ok(()) }
}
