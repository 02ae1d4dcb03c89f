//! `stuck`: a metric speaks, and says the same for so long.
//!
//! Its condition begins anew with each value that differs from the one before. Silence proves
//! nothing: only a reading can make it last.

use serde::Serialize;
use valtronics_protocol::{event::Severity, value::Value};

use super::{
    Fields, Judged, RuleError, Tale, Told,
    kind::{seconds, severity},
};
use crate::domain::status::spoken;

/// How bad it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stuck {
    pub(super) severity: Severity,
}

impl Stuck {
    pub(super) fn take(fields: &mut Fields) -> Result<Self, RuleError> {
        Ok(Self { severity: severity(fields)? })
    }

    pub(super) fn judge(&self, value: &Value, before: Option<&Value>) -> Judged {
        let changed = before != Some(value);
        Judged { exceeded: 1, cleared: changed, anew: changed, actual: value.clone() }
    }

    /// The figures are seconds allowed and seconds unchanged.
    pub(super) fn tell(&self, tale: Tale<'_>) -> Told {
        let Tale { metric, resolved, actual, hold, lasted, .. } = tale;
        let (lasts, value) = (spoken(lasted), actual.map(Value::to_string).unwrap_or_default());
        let sentence = match resolved {
            true => format!("{metric} is {value}, changed after {lasts}"),
            false => format!("{metric} is {value}, unchanged for {lasts}"),
        };
        Told { threshold: Some(seconds(hold)), actual: Some(seconds(lasted)), sentence }
    }
}
