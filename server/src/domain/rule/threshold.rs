//! `threshold`: a value is beyond a bound, in one step or in several that grow worse.

use serde::Serialize;
use valtronics_protocol::{event::Severity, value::Value};

use super::{
    Clear, Fields, Judged, Level, RuleError, Tale, Told,
    level::{self, take_levels},
    take,
};

/// The bounds of a value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Threshold {
    /// What is too much, at least one; each worse than the one before.
    #[serde(flatten, serialize_with = "level::serialize")]
    levels: Vec<Level>,
    /// What a value has to pass before the alert ends.
    #[serde(flatten)]
    clear: Clear,
}

impl Threshold {
    pub(super) fn take(fields: &mut Fields) -> Result<Self, RuleError> {
        let above = take(fields, "clear_above")?;
        let clear = Clear { above, below: take(fields, "clear_below")? };
        Ok(Self { levels: take_levels(fields, &clear)?, clear })
    }

    /// Returns `None` for a value that cannot be compared with the bound.
    pub(super) fn judge(&self, value: &Value) -> Option<Judged> {
        let mildest = &self.levels.first()?.bound;
        mildest.exceeded_by(value)?;
        let exceeded = |level: &&Level| level.bound.exceeded_by(value) == Some(true);
        Some(Judged {
            exceeded: self.levels.iter().take_while(exceeded).count(),
            cleared: mildest.cleared_by(&self.clear, value),
            anew: false,
            actual: value.clone(),
        })
    }

    pub(super) fn severity(&self, levels: usize) -> Severity {
        let level = self.levels.get(levels.saturating_sub(1));
        level.expect("a rule has levels, and no more are exceeded").severity
    }

    pub(super) fn tell(&self, tale: Tale<'_>) -> Told {
        let level = self.levels.iter().rfind(|level| level.severity <= tale.severity);
        let level = level.or(self.levels.first()).expect("a rule has levels");
        level.bound.tell(tale.metric, "is", "", tale)
    }
}
