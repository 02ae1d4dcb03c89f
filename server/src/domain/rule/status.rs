//! `status`: a device is offline, or warns; by the server's clock.

use serde::Serialize;
use valtronics_protocol::{
    event::{Severity, Status},
    value::Value,
};

use super::{Fields, Judged, RuleError, Tale, Told, kind::severity, take, wrong};

/// Which status, and how bad it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StatusIs {
    is: Status,
    pub(super) severity: Severity,
}

impl StatusIs {
    pub(super) fn take(fields: &mut Fields) -> Result<Self, RuleError> {
        match take::<Status>(fields, "is")? {
            Some(is @ (Status::Offline | Status::Warning)) => {
                Ok(Self { is, severity: severity(fields)? })
            }
            Some(Status::Online) | None => wrong("is", "is \"offline\" or \"warning\""),
        }
    }

    pub(super) fn judge(&self, status: Status) -> Judged {
        let exceeded = status == self.is;
        let actual = Value::Text(name(status).into());
        Judged { exceeded: exceeded.into(), cleared: !exceeded, anew: false, actual }
    }

    /// The figures are the status that the rule names, and the present one.
    pub(super) fn tell(&self, tale: Tale<'_>) -> Told {
        let is = name(self.is);
        let sentence = match tale.actual {
            Some(actual) if tale.resolved => format!("Device is {actual}, no longer {is}"),
            Some(_) | None => format!("Device is {is}"),
        };
        Told { threshold: Some(Value::Text(is.into())), actual: tale.actual.cloned(), sentence }
    }
}

fn name(status: Status) -> &'static str {
    match status {
        Status::Online => "online",
        Status::Offline => "offline",
        Status::Warning => "warning",
    }
}
