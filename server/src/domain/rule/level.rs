//! The levels of a rule: one bound, or the `steps` of an alert that grows worse.

use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};
use valtronics_protocol::{event::Severity, value::Value};

use super::{Bound, Clear, Fields, RuleError, take, wrong};

/// A bound, and how bad it is to exceed it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Level {
    /// When a value is too much.
    #[serde(flatten)]
    pub bound: Bound,
    /// How bad that is.
    pub severity: Severity,
}

/// Takes the levels from the fields, checked: at least one.
pub(super) fn take_levels(fields: &mut Fields, clear: &Clear) -> Result<Vec<Level>, RuleError> {
    let severity = take(fields, "severity")?.unwrap_or(Severity::Warning);
    let steps: Option<Vec<Step>> = take(fields, "steps")?;
    let bounds = [
        take(fields, "above")?.map(Bound::Above),
        take(fields, "below")?.map(Bound::Below),
        take(fields, "inside")?.map(Bound::Inside),
        take(fields, "outside")?.map(Bound::Outside),
        take(fields, "equal")?.map(Bound::Equal),
    ];
    let mut bounds = bounds.into_iter().flatten();
    match (bounds.next(), bounds.next(), steps) {
        (Some(bound), None, None) => {
            bound.check(clear)?;
            Ok(vec![Level { bound, severity }])
        }
        (None, None, Some(steps)) => nest(steps, severity, clear),
        _ => wrong("kind", "threshold needs one of above, below, inside, outside, equal, steps"),
    }
}

/// One of `steps` as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    above: Option<Value>,
    below: Option<Value>,
    /// Absent: the rule's.
    severity: Option<Severity>,
}

fn nest(steps: Vec<Step>, usual: Severity, clear: &Clear) -> Result<Vec<Level>, RuleError> {
    let (mut levels, none) = (Vec::<Level>::new(), Clear::default());
    for Step { above, below, severity } in steps {
        let severity = severity.unwrap_or(usual);
        let bound = match (above, below) {
            (Some(above), None) => Bound::Above(above),
            (None, Some(below)) => Bound::Below(below),
            _ => return wrong("steps", "each has either above or below"),
        };
        // An alert ends by its mildest level.
        bound.check(if levels.is_empty() { clear } else { &none })?;
        if let Some(milder) = levels.last() {
            let worse = milder.bound.exceeded_by(bound.nearest(None)) == Some(true);
            let alike = std::mem::discriminant(&milder.bound) == std::mem::discriminant(&bound);
            if !(worse && alike && milder.severity < severity) {
                return wrong("steps", "each goes further than the one before, and is worse");
            }
        }
        levels.push(Level { bound, severity });
    }
    if levels.is_empty() { wrong("steps", "has at least one step") } else { Ok(levels) }
}

/// Writes one level as a bound and a severity, more as `steps`.
pub(super) fn serialize<S: Serializer>(levels: &[Level], serializer: S) -> Result<S::Ok, S::Error> {
    if let [level] = levels {
        return level.serialize(serializer);
    }
    let mut map = serializer.serialize_map(Some(1))?;
    map.serialize_entry("steps", levels)?;
    map.end()
}
