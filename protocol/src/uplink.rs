//! What an agent and the server say on `/uplink`.
//!
//! Control is JSON in text frames, alike for our agent and for agents that others write; readings of
//! our agent travel in binary frames: a [`FrameHeader`], then a [`crate::batch`]. The subprotocol
//! tells which is spoken. `protocol/README.md` specifies both.
//!
//! Our agent numbers in two **lanes**, each for itself: every reading, and every status event. So
//! one number a lane says all that is committed. In the JSON dialect there is one lane.

use serde::{Deserialize, Serialize};

use crate::{
    counters::Counters, error::ErrorCode, event::Status, reading::TimeSource, time::UnixMillis,
};

mod frame;

pub use frame::{DamagedHeader, FrameHeader};

/// The subprotocol of our agent. Version 0: it may change until the agent's disk queue is done.
pub const SUBPROTOCOL_AGENT: &str = "valtronics.uplink.v0";
/// The subprotocol of agents that others write; no subprotocol means the same.
pub const SUBPROTOCOL_JSON: &str = "valtronics.uplink.v1.json";

/// The largest frame of `/uplink` in bytes (programs, "/uplink"); a larger one closes with 1009.
pub const MAX_FRAME_BYTES: usize = 1024 * 1024;
/// The most readings in one frame (programs, "/uplink").
pub const MAX_FRAME_READINGS: usize = 10_000;
/// The most bytes in the name of a queue (programs, "/uplink").
pub const MAX_QUEUE_NAME_BYTES: usize = 64;

/// The most entries of one [`Gap`]: with the longest names they stay within a frame. What is left
/// over shares one entry without a device.
pub const MAX_GAP_LOSSES: usize = 1000;

/// What our agent says in text frames.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum AgentMessage {
    /// The first message of a connection.
    Auth(Auth),
    /// What the agent knows of a device; may come again with other content.
    Device(DeviceInfo),
    /// A status event.
    Status(StatusEvent),
    /// What the agent has counted so far: once a minute, and before it goes.
    Counters(Counters),
    /// Readings that will never come; stands where they would in the order of their numbers.
    Gap(Gap),
}

/// Opens a connection.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Auth {
    /// A JWT with the scope `uplink`.
    pub token: String,
    /// Names the numbering: 128 random bits in hex, made with the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Who speaks; its presence makes the connection a gateway's, which is a device of that name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Gateway>,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut auth = f.debug_struct("Auth");
        auth.field("queue", &self.queue).field("gateway", &self.gateway).finish_non_exhaustive()
    }
}

/// The gateway on which an agent runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gateway {
    /// The gateway's name, and that of its device.
    pub name: String,
    /// The agent's version.
    pub version: String,
    /// Changes with every start of the machine; empty where there is none.
    pub boot_id: String,
    /// Stays with the machine; empty where there is none.
    pub machine_id: String,
    /// The gateway's wall clock as this was sent.
    pub time: UnixMillis,
}

/// What the agent's configuration says of a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// The device's name.
    pub device: String,
    /// After how much silence the device counts as offline; absent: the server's rule.
    #[serde(
        default,
        with = "crate::time::optional_period",
        skip_serializing_if = "Option::is_none"
    )]
    pub offline_after: Option<std::time::Duration>,
}

/// A change of a device's status that the agent or the device itself knows of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusEvent {
    /// The number in the lane of events.
    pub seq: u64,
    /// The device's name.
    pub device: String,
    /// The new status.
    pub status: Status,
    /// One sentence that is true, such as `Serial port unplugged`.
    pub reason: String,
    /// When it happened.
    pub timestamp: UnixMillis,
}

/// Numbers that no reading will come for. Committing it commits them all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// The first number.
    pub first: u64,
    /// The last number.
    pub last: u64,
    /// What became of the readings.
    pub reason: GapReason,
    /// Whose readings they were, at most [`MAX_GAP_LOSSES`]; empty when nothing is known of them.
    #[serde(default)]
    pub devices: Vec<Loss>,
}

/// What became of readings that are in a [`Gap`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The queue was full, and the oldest went first.
    Evicted,
    /// The file that held them is damaged.
    Corrupt,
    /// Something that this version does not know.
    #[serde(other)]
    Other,
}

/// The lost readings of one device that one clock has timed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loss {
    /// The device's name; absent for readings whose device is not known, which count as the gateway's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Whose clock.
    #[serde(default, skip_serializing_if = "is_receive")]
    pub time_source: TimeSource,
    /// The earliest of their timestamps.
    pub from: UnixMillis,
    /// The latest of their timestamps.
    pub to: UnixMillis,
    /// How many.
    pub readings: u64,
}

fn is_receive(source: &TimeSource) -> bool {
    *source == TimeSource::Receive
}

/// What the server says on `/uplink`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// The answer to [`AgentMessage::Auth`].
    AuthResponse(Welcome),
    /// Everything up to these numbers is committed.
    Ack(Ack),
    /// A message was refused for good; the connection stays.
    Error(Refusal),
    /// The token is about to expire: send [`AgentMessage::Auth`] with a new one.
    AuthExpiring {
        /// When the token expires.
        expires_at: UnixMillis,
    },
    /// A message that this version does not know: to be ignored.
    #[serde(other)]
    Other,
}

/// The answer to [`Auth`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Welcome {
    /// Whether the connection may go on.
    pub success: bool,
    /// The token's subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// When the token expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixMillis>,
    /// The scopes that the token came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// The last reading's number that is committed (in the JSON dialect: of any message); null when
    /// there is none, absent where no queue was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seq: Option<Option<u64>>,
    /// The last status event's number that is committed; likewise, and our agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_event: Option<Option<u64>>,
    /// How many bytes of frames may be under way without an acknowledgement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<u64>,
    /// The server's clock as this was sent; our agent only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<UnixMillis>,
    /// Why not, as a code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorCode>,
    /// Why not, as a sentence that says what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What is wrong with the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// After how many seconds another attempt makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

/// Says how far both lanes are committed; cumulative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The highest committed number of a reading (in the JSON dialect: of any message).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The highest committed number of a status event; our agent only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<u64>,
}

/// Says why a message was not taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    /// Why not, as a code.
    pub error: ErrorCode,
    /// Why not, as a sentence that says what to do.
    pub message: String,
    /// The number of the refused message, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_read_and_written() {
        let text = concat!(
            r#"{"type":"gap","first":7,"last":9,"reason":"evicted","devices":["#,
            r#"{"device":"d","from":"1970-01-01T00:00:01Z","to":"1970-01-01T00:00:02Z","readings":2},"#,
            r#"{"from":"1970-01-01T00:00:01Z","to":"1970-01-01T00:00:01Z","readings":1}]}"#,
        );
        let message: AgentMessage = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&message).unwrap(), text);
        let unknown = r#"{"type":"gap","first":1,"last":1,"reason":"stolen"}"#;
        let AgentMessage::Gap(gap) = serde_json::from_str(unknown).unwrap() else { panic!() };
        assert_eq!((gap.reason, gap.devices), (GapReason::Other, Vec::new()));
    }
}
