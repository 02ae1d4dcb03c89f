//! Messages of both directions.

use std::sync::Arc;

use valtronics_protocol::{close::CloseCode, filter::Channel};

use super::frame::{self, CONTROL_BYTES, Opcode};

/// A message to clients: a frame as it stands on the wire, written once and shared by all
/// connections that send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    frame: Arc<[u8]>,
    header_bytes: u8,
    opcode: Opcode,
    channel: Option<Channel>,
}

/// What a client sends, free of its mask and in one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    /// A text.
    Text(String),
    /// Bytes.
    Binary(Vec<u8>),
    /// A ping, and what its pong is to repeat.
    Ping(Vec<u8>),
    /// A pong.
    Pong,
    /// The connection's end: nothing, or a code and why.
    Close(Vec<u8>),
}

impl Message {
    fn new(opcode: Opcode, payload: &[u8]) -> Self {
        let (frame, header_bytes) = frame::write(opcode, payload);
        Self { frame: frame.into(), header_bytes, opcode, channel: None }
    }

    /// Makes a text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::new(Opcode::Text, text.as_bytes())
    }

    /// Makes a text of JSON, which is UTF-8 as it was written.
    pub(crate) fn json(json: &[u8]) -> Self {
        Self::new(Opcode::Text, json)
    }

    /// Makes a message of bytes.
    #[must_use]
    pub fn binary(bytes: &[u8]) -> Self {
        Self::new(Opcode::Binary, bytes)
    }

    /// Makes a question for a sign of life.
    #[must_use]
    pub fn ping() -> Self {
        Self::new(Opcode::Ping, &[])
    }

    /// Makes the answer to a ping.
    pub(super) fn pong(payload: &[u8]) -> Self {
        Self::new(Opcode::Pong, payload)
    }

    /// Makes the message that ends a connection.
    #[must_use]
    pub fn close(code: CloseCode, reason: &str) -> Self {
        let mut payload = code.as_u16().to_be_bytes().to_vec();
        let end = reason.floor_char_boundary(CONTROL_BYTES - payload.len());
        payload.extend_from_slice(reason.get(..end).unwrap_or_default().as_bytes());
        Self::new(Opcode::Close, &payload)
    }

    /// Makes the answer to a client's close: its code again (RFC 6455, section 5.5.1).
    pub(super) fn close_answer(payload: &[u8]) -> Self {
        Self::new(Opcode::Close, payload.first_chunk::<2>().map_or(&[], |code| code))
    }

    /// Counts it as one of a channel.
    #[must_use]
    pub fn of(self, channel: Channel) -> Self {
        Self { channel: Some(channel), ..self }
    }

    /// Returns the channel as one of which it counts.
    #[must_use]
    pub fn channel(&self) -> Option<Channel> {
        self.channel
    }

    /// Returns what it is.
    #[must_use]
    pub fn opcode(&self) -> Opcode {
        self.opcode
    }

    /// Returns what it says.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        self.frame.get(usize::from(self.header_bytes)..).unwrap_or_default()
    }

    /// Returns how long what it says is.
    #[must_use]
    pub fn size(&self) -> usize {
        self.frame.len() - usize::from(self.header_bytes)
    }

    /// Returns it as it goes onto the wire.
    pub(super) fn frame(&self) -> &[u8] {
        &self.frame
    }
}

impl AsRef<Message> for Message {
    fn as_ref(&self) -> &Message {
        self
    }
}

impl Incoming {
    /// Returns what it is.
    #[must_use]
    pub fn opcode(&self) -> Opcode {
        match self {
            Self::Text(_) => Opcode::Text,
            Self::Binary(_) => Opcode::Binary,
            Self::Ping(_) => Opcode::Ping,
            Self::Pong => Opcode::Pong,
            Self::Close(_) => Opcode::Close,
        }
    }

    /// Returns what it says.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(payload) | Self::Ping(payload) | Self::Close(payload) => payload,
            Self::Pong => &[],
        }
    }
}
