//! WebSocket frames as they stand on the wire (RFC 6455, section 5.2): pure.

use valtronics_protocol::close::CloseCode;

/// The most bytes of a control frame's payload (RFC 6455, section 5.5).
pub(super) const CONTROL_BYTES: usize = 125;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// What a frame is (RFC 6455, section 11.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A further part of a message.
    Continuation = 0,
    /// A text, or its first part.
    Text = 1,
    /// Bytes, or their first part.
    Binary = 2,
    /// The connection's end.
    Close = 8,
    /// A question for a sign of life.
    Ping = 9,
    /// A sign of life.
    Pong = 10,
}

impl Opcode {
    fn from_bits(bits: u8) -> Option<Self> {
        let all =
            [Self::Continuation, Self::Text, Self::Binary, Self::Close, Self::Ping, Self::Pong];
        all.into_iter().find(|opcode| *opcode as u8 == bits)
    }

    /// Tells whether it carries a message's content.
    #[must_use]
    pub fn is_data(self) -> bool {
        !self.is_control()
    }

    /// Tells whether it may stand between the parts of a message.
    pub(super) fn is_control(self) -> bool {
        match self {
            Self::Continuation | Self::Text | Self::Binary => false,
            Self::Close | Self::Ping | Self::Pong => true,
        }
    }
}

/// A client's frame: its header, and how much of its payload is yet to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    /// No further part of the message follows.
    pub(super) is_last: bool,
    pub(super) left_bytes: u64,
    /// The mask, turned to the next byte of the payload.
    mask: [u8; 4],
}

impl Frame {
    /// Reads a header, if it is whole; returns it and what follows.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, &[u8])>, CloseCode> {
        let Some((&[first, second], rest)) = bytes.split_first_chunk() else { return Ok(None) };
        let (short, is_last) = (second & !MASKED, first & FIN != 0);
        let opcode = Opcode::from_bits(first & !(FIN | RESERVED)).ok_or(CloseCode::Protocol)?;
        let is_odd = opcode.is_control() && (!is_last || usize::from(short) > CONTROL_BYTES);
        if first & RESERVED != 0 || second & MASKED == 0 || is_odd {
            return Err(CloseCode::Protocol);
        }
        let (left_bytes, rest, least) = match short {
            126 => match rest.split_first_chunk() {
                Some((long, rest)) => (u64::from(u16::from_be_bytes(*long)), rest, 126),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk() {
                Some((long, rest)) => (u64::from_be_bytes(*long), rest, 1 << 16),
                None => return Ok(None),
            },
            short => (u64::from(short), rest, 0),
        };
        // The shortest form it is to be.
        if left_bytes < least {
            return Err(CloseCode::Protocol);
        }
        let frame =
            |(mask, rest): (&[u8; 4], _)| (Self { opcode, is_last, left_bytes, mask: *mask }, rest);
        Ok(rest.split_first_chunk().map(frame))
    }

    /// Moves what has come of the payload to the end of `payload`.
    pub(super) fn unmask(&mut self, bytes: &mut &[u8], payload: &mut Vec<u8>) {
        let left = usize::try_from(self.left_bytes).unwrap_or(usize::MAX);
        let (chunk, rest) = bytes.split_at(left.min(bytes.len()));
        let at = payload.len();
        payload.extend_from_slice(chunk);
        mask(payload.get_mut(at..).unwrap_or_default(), self.mask);
        self.mask.rotate_left(chunk.len() % 4);
        self.left_bytes -= chunk.len() as u64;
        *bytes = rest;
    }
}

/// Masks a payload, or takes the mask off (RFC 6455, section 5.3).
fn mask(payload: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let twice = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ twice).to_ne_bytes();
    }
    rest.iter_mut().zip(mask.into_iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
}

/// Writes a frame of the server's: whole, and not masked. Returns it and how long its header is.
pub(super) fn write(opcode: Opcode, payload: &[u8]) -> (Vec<u8>, u8) {
    let mut frame = Vec::with_capacity(10 + payload.len());
    frame.push(FIN | opcode as u8);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ ..=125), _) => frame.push(short),
        (_, Ok(long)) => {
            frame.push(126);
            frame.extend_from_slice(&long.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    let header = frame.len() as u8;
    frame.extend_from_slice(payload);
    (frame, header)
}
