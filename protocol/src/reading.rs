//! One reading: what a sensor said, normalised.
//!
//! The agent's `decode` stage makes readings, `normalize` finishes them, and the uplink carries
//! them. As a JSON line it is what `try` and `decode` print.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{time::UnixMillis, value::Value};

/// Whose clock a timestamp comes from.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum TimeSource {
    /// The device sent a plausible time with a zone or an epoch.
    Device,
    /// The moment at which the gateway received it.
    #[default]
    Receive,
}

/// The value of one metric of one device at one moment.
///
/// Names are shared text: a source says the same few names for ever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// The device's name as its gateway knows it, 1 to 128 bytes.
    pub device: Arc<str>,
    /// The metric's name, 1 to 128 bytes; nested names are joined by dots.
    pub metric: Arc<str>,
    /// What was measured.
    pub value: Value,
    /// The canonical symbol of the unit ([`crate::unit`]); absent when unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Arc<str>>,
    /// When it was measured.
    pub timestamp: UnixMillis,
    /// Whose clock said so.
    pub time_source: TimeSource,
}

/// The most bytes that a name of a device or a metric may have (programs, "/uplink").
pub const MAX_NAME_BYTES: usize = 128;
/// The most bytes that a text value may have (WebSocket API, section 9).
pub const MAX_TEXT_BYTES: usize = 1024;
/// The most bytes that a unit may have (WebSocket API, section 9).
pub const MAX_UNIT_BYTES: usize = 32;
/// The most bytes that a reason, a title or a message may have (WebSocket API, section 9).
pub const MAX_SENTENCE_BYTES: usize = 512;

/// Tells whether `text` may stand in a message: at most `max_bytes` and no control characters.
#[must_use]
pub fn is_clean(text: &str, max_bytes: usize) -> bool {
    text.len() <= max_bytes && !text.chars().any(char::is_control)
}

/// Tells whether `name` may name a device or a metric: clean, and not empty.
#[must_use]
pub fn is_name(name: &str) -> bool {
    !name.is_empty() && is_clean(name, MAX_NAME_BYTES)
}
