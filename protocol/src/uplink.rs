//! What an agent and the server say on `/uplink`.
//!
//! Control is JSON in text frames, alike for our agent and for agents that others write; readings of
//! our agent travel in binary frames: a [`FrameHeader`], then a [`crate::batch`]. The subprotocol
//! tells which is spoken. `protocol/README.md` specifies both.
//!
//! Our agent numbers in two **lanes**, each for itself: every reading, and every status event. So
//! one number a lane says all that is committed. In the JSON dialect there is one lane.

use serde::{Deserialize, Serialize};

use crate::{counters::Counters, error::ErrorCode, event::Status, time::UnixMillis};

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

/// Stands before the batch in a binary frame of our agent.
///
/// Bytes: flags (bit 0: historical; the others are 0), then the number of the first reading as a
/// LEB128 varint. The others are numbered on from it, in the order in which the batch holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Whether the readings are a backlog: stored, but not shown as live.
    pub historical: bool,
    /// The number of the first reading.
    pub first: u64,
}

/// A binary frame whose header cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the header of a binary frame is damaged")]
pub struct DamagedHeader;

impl FrameHeader {
    /// Appends the header to `frame`.
    pub fn write(self, frame: &mut Vec<u8>) {
        frame.push(u8::from(self.historical));
        let mut rest = self.first;
        while rest >= 0x80 {
            frame.push((rest as u8) | 0x80);
            rest >>= 7;
        }
        frame.push(rest as u8);
    }

    /// Splits `frame` into its header and the batch.
    ///
    /// # Errors
    /// When the frame is too short, has unknown flags, or a number beyond 64 bits.
    pub fn read(frame: &[u8]) -> Result<(Self, &[u8]), DamagedHeader> {
        let (&flags, mut rest) = frame.split_first().ok_or(DamagedHeader)?;
        let mut first = 0_u64;
        for shift in (0..).step_by(7) {
            let (&byte, after) = rest.split_first().ok_or(DamagedHeader)?;
            rest = after;
            if shift > 63 || (shift == 63 && byte > 1) {
                return Err(DamagedHeader);
            }
            first |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        match flags {
            0 | 1 => Ok((Self { historical: flags == 1, first }, rest)),
            _ => Err(DamagedHeader),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back() {
        for first in [0, 1, 127, 128, 300, 1 << 40, u64::MAX] {
            for historical in [false, true] {
                let header = FrameHeader { historical, first };
                let mut frame = Vec::new();
                header.write(&mut frame);
                frame.extend(b"batch");
                assert_eq!(FrameHeader::read(&frame), Ok((header, &b"batch"[..])));
            }
        }
    }

    #[test]
    fn a_damaged_header_is_refused() {
        for frame in [&b""[..], b"\x00", b"\x00\x80", b"\x02\x00", &[0x80; 40]] {
            assert_eq!(FrameHeader::read(frame), Err(DamagedHeader));
        }
        let mut too_large = vec![0];
        too_large.extend([0xff; 9]);
        too_large.push(2);
        assert_eq!(FrameHeader::read(&too_large), Err(DamagedHeader));
    }
}
