//! DSMR P1, the port for the customer of smart meters in the Netherlands, Belgium, Luxembourg,
//! Sweden, Hungary and elsewhere: telegrams of OBIS objects, a line each.
//!
//! A telegram is from `/` to `!`, with a CRC-16 behind it from version 4 on (DSMR 5.0.2, P1 Companion
//! Standard, section 6.2). Meters that are connected to this one (gas, water, heat) are devices of
//! their own, and a value of theirs comes once for each of their own times.

use super::{Context, Outcome, Sample};

mod objects;

/// The longest telegram: profiles and messages make some kilobytes.
const MAX_BYTES: usize = 16 * 1024;

/// Reads telegrams.
#[derive(Debug, Clone, Default)]
pub struct Dsmr {
    /// The telegram so far; empty outside of one.
    telegram: Vec<u8>,
    /// Bytes outside of a telegram since the last one, up to a line's end.
    noise: bool,
    meters: objects::Meters,
}

impl Dsmr {
    /// Takes bytes until they complete a telegram; `None` when they are used up.
    pub(super) fn next(
        &mut self,
        bytes: &mut &[u8],
        context: &mut Context,
        out: &mut Vec<Sample>,
    ) -> Option<Outcome> {
        while let Some((byte, rest)) = bytes.split_first() {
            *bytes = rest;
            if let Some(outcome) = self.take(*byte, context, out) {
                return Some(outcome);
            }
        }
        None
    }

    /// Begins anew.
    pub(super) fn restart(&mut self) {
        self.telegram.clear();
        self.noise = false;
    }

    fn take(&mut self, byte: u8, context: &mut Context, out: &mut Vec<Sample>) -> Option<Outcome> {
        let at_line_start = self.telegram.last().is_none_or(|last| matches!(last, b'\r' | b'\n'));
        if byte == b'/' && at_line_start {
            let torn = !self.telegram.is_empty();
            self.telegram.clear();
            self.telegram.push(byte);
            return torn.then_some(Outcome::Damaged("a telegram without its end"));
        }
        if self.telegram.is_empty() {
            let is_end = matches!(byte, b'\r' | b'\n');
            let ends_noise = is_end && self.noise;
            self.noise = !is_end;
            return ends_noise.then_some(Outcome::Foreign);
        }
        self.telegram.push(byte);
        if self.telegram.len() > MAX_BYTES {
            self.telegram.clear();
            return Some(Outcome::Damaged("a telegram of more than 16 KiB"));
        }
        if !matches!(byte, b'\r' | b'\n') {
            return None;
        }
        let end = self.telegram.iter().rposition(|byte| *byte == b'!')?;
        let is_last = end > 0 && matches!(self.telegram.get(end - 1), Some(b'\r' | b'\n'));
        is_last.then(|| {
            let telegram = std::mem::take(&mut self.telegram);
            self.read(&telegram, end, context, out)
        })
    }

    /// Reads a whole telegram, whose `!` is at `end`.
    fn read(
        &mut self,
        telegram: &[u8],
        end: usize,
        context: &mut Context,
        out: &mut Vec<Sample>,
    ) -> Outcome {
        let (content, tail) = telegram.split_at(end + 1);
        let Ok(content) = std::str::from_utf8(content) else {
            return Outcome::Damaged("a telegram that is no text");
        };
        let tail = tail.trim_ascii();
        if !tail.is_empty() {
            // Some print the checksum without leading zeros.
            let said = std::str::from_utf8(tail).ok().and_then(|t| u16::from_str_radix(t, 16).ok());
            if said != Some(crc16(content.bytes())) && said != Some(crc16(canonical(content))) {
                return Outcome::Damaged("a telegram with a wrong checksum");
            }
        }
        let begin = out.len();
        match objects::read(content, &mut self.meters, context, out) {
            // Without a checksum this is all that tells damage.
            Some(cause) if tail.is_empty() => {
                out.truncate(begin);
                Outcome::Damaged(cause)
            }
            Some(_) | None => Outcome::Good,
        }
    }
}

/// Tells whether these lines stand in a telegram.
pub(super) fn is_object(line: &str) -> bool {
    objects::is_object(line)
}

/// Returns the bytes of a telegram with the line ends that a meter sends, whatever a logger made of
/// them: CR and LF, and an empty line behind the first.
fn canonical(content: &str) -> impl Iterator<Item = u8> {
    let mut lines = content.lines().map(str::trim_end).filter(|line| !line.is_empty());
    let first = lines.next().into_iter().flat_map(|line| line.bytes().chain(*b"\r\n\r\n"));
    let rest = lines.flat_map(|line| {
        let end: &[u8] = if line == "!" { b"" } else { b"\r\n" };
        line.bytes().chain(end.iter().copied())
    });
    first.chain(rest)
}

/// CRC-16/ARC.
fn crc16(bytes: impl IntoIterator<Item = u8>) -> u16 {
    bytes.into_iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(byte), |crc, _| (crc >> 1) ^ (0xa001 * (crc & 1)))
    })
}

#[cfg(test)]
mod tests;
