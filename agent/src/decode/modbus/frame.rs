//! Requests and answers as bytes: RTU with its checksum, TCP with its header.
//!
//! An answer says neither which register it is of nor, in RTU, which request it belongs to, so it
//! counts only when unit, function and length are those that were asked for; in TCP its transaction
//! is, too.

use super::{Span, Table};

/// The longest frame (Modbus over Serial Line V1.02, section 2.5.1; in TCP it has four bytes more).
pub const LONGEST: usize = 260;
/// The bytes before what both framings share: transaction, protocol, length (Modbus Messaging on
/// TCP/IP V1.0b, section 3.1.3).
const HEADER: usize = 6;

/// How frames are marked on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Unit, content, checksum.
    Rtu,
    /// Header, unit, content.
    Tcp,
}

/// A request to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Its number, which only TCP carries.
    pub transaction: u16,
    /// Whom it asks.
    pub unit: u8,
    /// What it asks for.
    pub span: Span,
}

/// What the bytes that have come so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Not complete, or nothing that was asked for: more may come.
    Incomplete,
    /// The items, bits as 0 and 1.
    Words(Vec<u16>),
    /// The device refuses.
    Refused(Exception),
    /// Nothing that follows can be trusted.
    Broken,
}

/// Why a device refuses (Modbus Application Protocol V1.1b3, section 7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exception(pub u8);

impl Exception {
    /// Tells whether asking for less, or elsewhere, may be answered.
    #[must_use]
    pub fn is_about_the_request(self) -> bool {
        matches!(self.0, 1..=3)
    }

    /// Tells whether it is a gateway's, whose device keeps silent.
    #[must_use]
    pub fn is_silence(self) -> bool {
        matches!(self.0, 10 | 11)
    }
}

impl std::fmt::Display for Exception {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.0 {
            1 => "function not supported",
            2 => "address not supported",
            3 => "value not supported",
            4 => "device failure",
            5 => "acknowledged, not done yet",
            6 => "device busy",
            8 => "memory damaged",
            10 => "gateway has no path",
            11 => "gateway got no answer",
            _ => "unknown",
        };
        write!(f, "exception {} ({name})", self.0)
    }
}

impl Request {
    /// Returns the bytes to send.
    #[must_use]
    pub fn encode(self, framing: Framing) -> Vec<u8> {
        let Self { transaction, unit, span } = self;
        let mut content = vec![unit, span.table.function()];
        content.extend(span.first.to_be_bytes());
        content.extend(span.count.to_be_bytes());
        match framing {
            Framing::Rtu => {
                content.extend(checksum(&content).to_le_bytes());
                content
            }
            Framing::Tcp => {
                let mut frame = transaction.to_be_bytes().to_vec();
                // Protocol 0, and six bytes to come.
                frame.extend([0, 0, 0, 6]);
                frame.extend(content);
                frame
            }
        }
    }

    /// Returns how many bytes the longest part of an answer has, its items.
    #[must_use]
    pub fn answer_bytes(self) -> usize {
        let count = usize::from(self.span.count);
        if self.span.table.is_bits() { count.div_ceil(8) } else { 2 * count }
    }

    /// Looks for the answer in the bytes that have come since the request.
    #[must_use]
    pub fn answer(self, framing: Framing, bytes: &[u8]) -> Answer {
        match framing {
            // A line that is noisy when it turns round begins answers with a byte or two of nobody.
            Framing::Rtu => (0..bytes.len())
                .filter_map(|begin| bytes.get(begin..))
                .find_map(|bytes| self.rtu(bytes))
                .unwrap_or(Answer::Incomplete),
            Framing::Tcp => self.tcp(bytes),
        }
    }

    fn rtu(self, bytes: &[u8]) -> Option<Answer> {
        let length = self.length(bytes)?;
        let (content, rest) = bytes.split_at_checked(length)?;
        let [low, high, ..] = *rest else { return None };
        (checksum(content) == u16::from_le_bytes([low, high])).then(|| self.read(content))
    }

    fn tcp(self, mut bytes: &[u8]) -> Answer {
        loop {
            let [a, b, 0, 0, c, d, ..] = *bytes else {
                let is_other = bytes.len() >= HEADER;
                return if is_other { Answer::Broken } else { Answer::Incomplete };
            };
            let length = usize::from(u16::from_be_bytes([c, d]));
            if !(2..=LONGEST - HEADER).contains(&length) {
                return Answer::Broken;
            }
            let Some(content) = bytes.get(HEADER..HEADER + length) else {
                return Answer::Incomplete;
            };
            let is_own = u16::from_be_bytes([a, b]) == self.transaction;
            if is_own && self.length(content) == Some(length) {
                return self.read(content);
            }
            bytes = bytes.get(HEADER + length..).unwrap_or_default();
        }
    }

    /// Returns the length of an answer without header and checksum, if this begins one.
    fn length(self, content: &[u8]) -> Option<usize> {
        let [unit, function, third, ..] = *content else { return None };
        let wanted = self.span.table.function();
        if unit != self.unit || function & 0x7f != wanted {
            None
        } else if function == wanted {
            (usize::from(third) == self.answer_bytes()).then_some(3 + self.answer_bytes())
        } else {
            Some(3)
        }
    }

    fn read(self, content: &[u8]) -> Answer {
        match content {
            [_, function, code] if function & 0x80 != 0 => Answer::Refused(Exception(*code)),
            [_, _, _, items @ ..] => Answer::Words(self.items(items)),
            _ => Answer::Incomplete,
        }
    }

    fn items(self, bytes: &[u8]) -> Vec<u16> {
        match self.span.table {
            Table::Coil | Table::Discrete => {
                let bits = bytes.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1));
                bits.map(u16::from).take(self.span.count.into()).collect()
            }
            Table::Input | Table::Holding => {
                bytes.as_chunks().0.iter().map(|word| u16::from_be_bytes(*word)).collect()
            }
        }
    }
}

/// Sums bytes up (CRC-16, Modbus over Serial Line V1.02, section 6.2.2).
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let shifted = |sum: u16, _| if sum & 1 == 1 { sum >> 1 ^ 0xa001 } else { sum >> 1 };
    bytes.iter().fold(0xffff, |sum, byte| (0..8).fold(sum ^ u16::from(*byte), shifted))
}

#[cfg(test)]
mod tests;
