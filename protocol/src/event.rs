//! What the server tells its subscribers.

use serde::{Deserialize, Serialize};

/// The status of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It sends.
    Online,
    /// It does not send.
    Offline,
    /// It sends, but something is wrong.
    Warning,
}
