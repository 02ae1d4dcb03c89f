//! Messages of Sparkplug B 3.0 (Eclipse, ISO/IEC 20237): their topics, payloads and values.
//!
//! A payload is read where it lies: whatever it holds costs no more than its metrics' places. What a
//! metric is called may stand in an earlier message; `describe::sparkplug` remembers that.

pub mod topic;
pub mod value;
pub mod wire;

use valtronics_protocol::time::UnixMillis;

use super::plausible;
use wire::{Malformed, Metric, Payload};

/// What every topic begins with (specification, "Topics").
pub const NAMESPACE: &str = "spBv1.0";
/// The metric that has a node tell everything anew (specification, "Edge Node").
pub const REBIRTH: &str = "Node Control/Rebirth";
/// The metric that pairs a node's birth with its death.
pub const BD_SEQ: &str = "bdSeq";

/// Tells whether a metric is the protocol's own, and no measurement.
#[must_use]
pub fn is_control(name: &str) -> bool {
    name == BD_SEQ || name.starts_with("Node Control/") || name.starts_with("Device Control/")
}

impl Payload<'_> {
    /// Returns when a metric was measured, where that is plausible: a current one has the time of
    /// the whole payload if it has none of its own.
    #[must_use]
    pub fn time_of(&self, metric: &Metric<'_>, now: UnixMillis) -> Option<UnixMillis> {
        let of_all = self.timestamp.filter(|_| !metric.is_historical);
        let millis = metric.timestamp.or(of_all)?;
        plausible(UnixMillis(i64::try_from(millis).ok()?), now)
    }

    /// Returns the number that pairs a birth with a death.
    #[must_use]
    pub fn bd_seq(&self) -> Option<u64> {
        self.metrics.iter().find(|metric| metric.name == Some(BD_SEQ))?.value?.as_integer()
    }
}

/// Writes the command that asks a node for its births.
#[must_use]
pub fn rebirth(now: UnixMillis) -> Vec<u8> {
    wire::command(now, REBIRTH)
}

/// Reads a payload.
///
/// # Errors
/// When it is none.
pub fn payload(bytes: &[u8]) -> Result<Payload<'_>, Malformed> {
    Payload::read(bytes)
}
