//! Varints (LEB128), zigzag, and reading them back without trusting anybody.

use super::DecodeError::{self, Damaged};

pub(super) fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number as u8) | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

/// Appends how far a number is from the one that was expected.
pub(super) fn put_difference(bytes: &mut Vec<u8>, number: i64, expected: i64) {
    put(bytes, zigzag(number.wrapping_sub(expected)));
}

pub(super) fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

pub(super) fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// What is left of a frame.
#[derive(Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.0.split_first().ok_or(Damaged)?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn bytes(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(length).map_err(|_| Damaged)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Damaged)
    }

    /// Reads a number that was written as its difference to the expected one.
    pub(super) fn difference(&mut self, expected: i64) -> Result<i64, DecodeError> {
        Ok(expected.wrapping_add(unzigzag(self.number()?)))
    }

    pub(super) fn text(&mut self, length: u64, most_bytes: usize) -> Result<&'a str, DecodeError> {
        if length > most_bytes as u64 {
            return Err(Damaged);
        }
        std::str::from_utf8(self.bytes(length)?).map_err(|_| Damaged)
    }
}
