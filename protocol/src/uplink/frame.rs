//! What stands before the batch in a binary frame of our agent.

/// Says what the readings of a frame are.
///
/// Bytes: flags, then, unless it is a preview, the number of the first reading as a LEB128 varint.
/// The others are numbered on from it, in the order in which the batch holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameHeader {
    /// The newest values while their numbered readings have to wait: shown as live, not stored, not
    /// acknowledged.
    Preview,
    /// Readings of the queue.
    Numbered {
        /// Whether the readings are a backlog: stored, but not shown as live. Such a batch is
        /// self-contained and leaves the tables of the connection as they are.
        historical: bool,
        /// The number of the first reading.
        first: u64,
    },
}

/// A binary frame whose header cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the header of a binary frame is damaged")]
pub struct DamagedHeader;

const LIVE: u8 = 0;
const HISTORICAL: u8 = 1;
const PREVIEW: u8 = 2;

impl FrameHeader {
    /// Appends the header to `frame`.
    pub fn write(self, frame: &mut Vec<u8>) {
        let (historical, first) = match self {
            Self::Preview => return frame.push(PREVIEW),
            Self::Numbered { historical, first } => (historical, first),
        };
        frame.push(if historical { HISTORICAL } else { LIVE });
        let mut rest = first;
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
        let (&flags, rest) = frame.split_first().ok_or(DamagedHeader)?;
        let historical = match flags {
            PREVIEW => return Ok((Self::Preview, rest)),
            LIVE => false,
            HISTORICAL => true,
            _ => return Err(DamagedHeader),
        };
        let (first, rest) = read_number(rest)?;
        Ok((Self::Numbered { historical, first }, rest))
    }
}

fn read_number(mut rest: &[u8]) -> Result<(u64, &[u8]), DamagedHeader> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(DamagedHeader)?;
        rest = after;
        if shift == 63 && byte > 1 {
            break;
        }
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok((number, rest));
        }
    }
    Err(DamagedHeader)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_back() {
        let numbers = [0, 1, 127, 128, 300, 1 << 40, u64::MAX];
        let numbered = numbers.into_iter().flat_map(|first| {
            [false, true].map(|historical| FrameHeader::Numbered { historical, first })
        });
        for header in numbered.chain([FrameHeader::Preview]) {
            let mut frame = Vec::new();
            header.write(&mut frame);
            frame.extend(b"batch");
            assert_eq!(FrameHeader::read(&frame), Ok((header, &b"batch"[..])));
        }
    }

    #[test]
    fn the_bytes_stay_as_they_are() {
        let check = |header: FrameHeader, bytes: &[u8]| {
            let mut frame = Vec::new();
            header.write(&mut frame);
            assert_eq!(frame, bytes);
        };
        check(FrameHeader::Numbered { historical: false, first: 5 }, &[0, 5]);
        check(FrameHeader::Numbered { historical: true, first: 300 }, &[1, 0xac, 2]);
        check(FrameHeader::Preview, &[2]);
    }

    #[test]
    fn a_damaged_header_is_refused() {
        for frame in [&b""[..], b"\x00", b"\x00\x80", b"\x03\x00", b"\x04", &[0x80; 40]] {
            assert_eq!(FrameHeader::read(frame), Err(DamagedHeader));
        }
        let mut too_large = vec![0];
        too_large.extend([0xff; 9]);
        too_large.push(2);
        assert_eq!(FrameHeader::read(&too_large), Err(DamagedHeader));
    }
}
