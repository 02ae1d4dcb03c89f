//! The kinds of rules, and what they have in common.
//!
//! A kind sees one thing after another (a live reading, or a device's status) and says how many of
//! its levels are exceeded; levels are nested, so that says everything. How long that has to last,
//! and what becomes of the alert, is the same for all of them (`alerts/watch.rs`).

use std::time::Duration;

use serde::Serialize;
use valtronics_protocol::{
    event::{Severity, Status},
    time::UnixMillis,
    value::Value,
};

use super::{
    Fields, RuleError,
    missing::Missing,
    rate::{Rate, Window},
    status::StatusIs,
    stuck::Stuck,
    take,
    threshold::Threshold,
    wrong,
};

/// What a rule watches for.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Kind {
    /// A value is too high, too low, or just what it should not be.
    Threshold(Threshold),
    /// A value changes too quickly, or too slowly.
    Rate(Rate),
    /// A metric is not heard of.
    Missing(Missing),
    /// A metric says the same again and again.
    Stuck(Stuck),
    /// A device has a status.
    Status(StatusIs),
}

/// What a kind makes of what it saw.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// How many levels are exceeded.
    pub exceeded: usize,
    /// An alert ends with this.
    pub cleared: bool,
    /// Whatever was exceeded until now has ended before this.
    pub anew: bool,
    /// The value that is compared with the bound, and shown.
    pub actual: Value,
}

/// What a kind remembers of one device; some tens of bytes, for rates a few hundred.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// What was judged last.
    pub actual: Option<Value>,
    /// Earlier readings.
    pub window: Window,
}

/// A transition to be told.
#[derive(Debug, Clone, Copy)]
pub struct Tale<'a> {
    /// The rule's metric.
    pub metric: &'a str,
    /// How bad the alert is.
    pub severity: Severity,
    /// Whether the alert is over.
    pub resolved: bool,
    /// What was judged last.
    pub actual: Option<&'a Value>,
    /// The rule's `for`.
    pub hold: Duration,
    /// For how long the condition has held.
    pub lasted: Duration,
}

/// A transition as it is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// The rule's bound.
    pub threshold: Option<Value>,
    /// What it is compared with.
    pub actual: Option<Value>,
    /// One sentence with both.
    pub sentence: String,
}

impl Kind {
    /// Takes the kind and its own fields.
    pub(super) fn take(fields: &mut Fields) -> Result<Self, RuleError> {
        match take::<String>(fields, "kind")?.as_deref() {
            Some("threshold") => Threshold::take(fields).map(Self::Threshold),
            Some("rate") => Rate::take(fields).map(Self::Rate),
            Some("missing") => Missing::take(fields).map(Self::Missing),
            Some("stuck") => Stuck::take(fields).map(Self::Stuck),
            Some("status") => StatusIs::take(fields).map(Self::Status),
            Some(_) | None => wrong("kind", "is one of threshold, rate, missing, stuck, status"),
        }
    }

    /// Returns its name: the `alert_type` of messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Threshold(_) => "threshold",
            Self::Rate(_) => "rate",
            Self::Missing(_) => "missing",
            Self::Stuck(_) => "stuck",
            Self::Status(_) => "status",
        }
    }

    /// Tells whether it is about a metric, not about the device itself.
    pub(super) fn has_metric(&self) -> bool {
        !matches!(self, Self::Status(_))
    }

    /// Tells whether it says nothing without a `for`.
    pub(super) fn needs_hold(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::Stuck(_))
    }

    /// Tells whether its time is the server's; otherwise it is that of the readings.
    #[must_use]
    pub fn by_server_clock(&self) -> bool {
        matches!(self, Self::Missing(_) | Self::Status(_))
    }

    /// Tells whether its condition goes on holding while nothing is heard.
    #[must_use]
    pub fn holds_in_silence(&self) -> bool {
        !matches!(self, Self::Stuck(_))
    }

    /// Tells whether an unusual silence begins its condition anew.
    #[must_use]
    pub fn has_rhythm(&self) -> bool {
        matches!(self, Self::Threshold(_) | Self::Rate(_))
    }

    /// Judges a live reading; `None` where the kind says nothing of it.
    #[must_use]
    pub fn judge(&self, value: &Value, at: UnixMillis, memory: &mut Memory) -> Option<Judged> {
        match self {
            Self::Threshold(threshold) => threshold.judge(value),
            Self::Rate(rate) => rate.judge(value, at, &mut memory.window),
            Self::Missing(missing) => Some(missing.judge(value)),
            Self::Stuck(stuck) => Some(stuck.judge(value, memory.actual.as_ref())),
            Self::Status(_) => None,
        }
    }

    /// Judges a device's status; `None` where the kind is about a metric.
    #[must_use]
    pub fn judge_status(&self, status: Status) -> Option<Judged> {
        match self {
            Self::Status(wanted) => Some(wanted.judge(status)),
            Self::Threshold(_) | Self::Rate(_) | Self::Missing(_) | Self::Stuck(_) => None,
        }
    }

    /// Returns how bad it is to exceed so many levels; of none, what the first one says.
    #[must_use]
    pub fn severity(&self, levels: usize) -> Severity {
        match self {
            Self::Threshold(threshold) => threshold.severity(levels),
            Self::Rate(rate) => rate.level.severity,
            Self::Missing(missing) => missing.severity,
            Self::Stuck(stuck) => stuck.severity,
            Self::Status(status) => status.severity,
        }
    }

    /// Tells of a transition.
    #[must_use]
    pub fn tell(&self, tale: Tale<'_>) -> Told {
        match self {
            Self::Threshold(threshold) => threshold.tell(tale),
            Self::Rate(rate) => rate.tell(tale),
            Self::Missing(missing) => missing.tell(tale),
            Self::Stuck(stuck) => stuck.tell(tale),
            Self::Status(status) => status.tell(tale),
        }
    }
}

/// Takes the severity of a kind that has one level.
pub(super) fn severity(fields: &mut Fields) -> Result<Severity, RuleError> {
    Ok(take(fields, "severity")?.unwrap_or(Severity::Warning))
}

/// Returns a period as a value in seconds: an integer where it is one.
pub(super) fn seconds(period: Duration) -> Value {
    match period.subsec_millis() {
        0 => Value::from(period.as_secs()),
        _ => Value::Float(period.as_millis() as f64 / 1000.0),
    }
}
