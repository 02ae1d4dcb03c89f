//! `missing`: a metric of a known device has not been heard of for so long, by the server's clock.
//!
//! Its condition begins anew with each live reading, and `for` is how long the next one may take.

use serde::Serialize;
use valtronics_protocol::{event::Severity, value::Value};

use super::{
    Fields, Judged, RuleError, Tale, Told,
    kind::{seconds, severity},
};
use crate::domain::status::spoken;

/// How bad it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Missing {
    pub(super) severity: Severity,
}

impl Missing {
    pub(super) fn take(fields: &mut Fields) -> Result<Self, RuleError> {
        Ok(Self { severity: severity(fields)? })
    }

    pub(super) fn judge(&self, value: &Value) -> Judged {
        Judged { exceeded: 1, cleared: true, anew: true, actual: value.clone() }
    }

    /// The figures are seconds expected and seconds silent.
    pub(super) fn tell(&self, tale: Tale<'_>) -> Told {
        let Tale { metric, resolved, hold, lasted, .. } = tale;
        let lasts = spoken(lasted);
        let sentence = match resolved {
            true => format!("{metric} is heard again after {lasts}"),
            false => format!("No {metric} for {lasts}, expected every {}", spoken(hold)),
        };
        Told { threshold: Some(seconds(hold)), actual: Some(seconds(lasted)), sentence }
    }
}
