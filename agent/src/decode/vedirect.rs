//! VE.Direct, the text protocol of Victron's chargers and battery monitors: a block of labels and
//! values a second, whose bytes add up to 0 modulo 256.
//!
//! A line is CR, LF, label, TAB and value; the last one of a block is `Checksum` and one byte, which
//! may be any, a line's end included. HEX frames (`:`, digits, LF) may stand anywhere between and do
//! not count. The first block after the port was opened is usually torn, and then foreign.

use super::{Context, Outcome, Sample};

mod labels;

/// The longest line: a value has 33 characters at most (VE.Direct protocol, section "Text mode").
const MAX_LINE_BYTES: usize = 128;
/// The most lines of a block, several times those of any product.
const MAX_LINES: usize = 128;
/// The longest HEX frame, several times those of any product.
const MAX_HEX_BYTES: usize = 256;
/// Blocks begin with few different labels; a product with two kinds of block has two.
const MAX_FIRST_LABELS: usize = 8;

/// Reads blocks.
#[derive(Debug, Clone, Default)]
pub struct Vedirect {
    block: Block,
    line: Vec<u8>,
    /// A HEX frame that is not complete yet.
    hex: Option<Vec<u8>>,
    /// Bytes that turned out to be no HEX frame and are to be read as any other.
    again: Vec<u8>,
    /// A block has been complete since the port was opened.
    synchronised: bool,
    first_labels: Vec<Box<str>>,
}

/// The lines so far, and what their bytes add up to.
#[derive(Debug, Clone, Default)]
struct Block {
    sum: u8,
    lines: Vec<Line>,
}

#[derive(Debug, Clone)]
struct Line {
    label: Box<str>,
    value: Box<str>,
    /// What the bytes before this line added up to.
    sum_before: u8,
}

impl Vedirect {
    /// Takes bytes until they complete a block; `None` when they are used up.
    pub(super) fn next(
        &mut self,
        bytes: &mut &[u8],
        context: &mut Context,
        out: &mut Vec<Sample>,
    ) -> Option<Outcome> {
        loop {
            let (byte, is_again) = match self.again.pop() {
                Some(byte) => (byte, true),
                None => {
                    let (byte, rest) = bytes.split_first()?;
                    *bytes = rest;
                    (*byte, false)
                }
            };
            if self.take_hex(byte, is_again) {
                continue;
            }
            if let Some(outcome) = self.take(byte, context, out) {
                return Some(outcome);
            }
        }
    }

    /// Begins anew.
    pub(super) fn restart(&mut self) {
        let first_labels = std::mem::take(&mut self.first_labels);
        *self = Self { first_labels, ..Self::default() };
    }

    /// Takes a byte of a HEX frame; false when it belongs to none.
    fn take_hex(&mut self, byte: u8, is_again: bool) -> bool {
        match &mut self.hex {
            None if byte == b':' && !is_again && !self.line.starts_with(b"\nChecksum\t") => {
                self.hex = Some(vec![byte]);
                true
            }
            None => false,
            Some(_) if byte == b'\n' => {
                self.hex = None;
                true
            }
            Some(hex) if byte.is_ascii_hexdigit() && hex.len() < MAX_HEX_BYTES => {
                hex.push(byte);
                true
            }
            Some(_) => {
                // A colon of some text: all of it is read as it stands, the last byte first.
                self.again.push(byte);
                self.again.extend(self.hex.take().into_iter().flatten().rev());
                true
            }
        }
    }

    /// Takes a byte of a block; returns what the block was when it is complete.
    fn take(&mut self, byte: u8, context: &mut Context, out: &mut Vec<Sample>) -> Option<Outcome> {
        self.block.sum = self.block.sum.wrapping_add(byte);
        if self.line.starts_with(b"\nChecksum\t") {
            self.line.clear();
            return Some(self.end(context, out));
        }
        if byte == b'\r' {
            self.end_line();
            return None;
        }
        self.line.push(byte);
        if self.line.len() > MAX_LINE_BYTES {
            self.line.clear();
        }
        None
    }

    /// Keeps the line before a CR.
    fn end_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let text = String::from_utf8_lossy(line.trim_ascii_start());
        let (label, value) = text.split_once('\t').unwrap_or((&text, ""));
        let bytes = line.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
        // The CR before it and the one behind it are alike.
        let sum_before = self.block.sum.wrapping_sub(bytes).wrapping_sub(b'\r').wrapping_sub(b'\r');
        if self.block.lines.len() == MAX_LINES {
            self.block.lines.clear();
        }
        self.block.lines.push(Line { label: label.into(), value: value.into(), sum_before });
    }

    /// Ends a block by its checksum.
    fn end(&mut self, context: &mut Context, out: &mut Vec<Sample>) -> Outcome {
        let Block { sum, lines } = std::mem::take(&mut self.block);
        let synchronised = std::mem::replace(&mut self.synchronised, true);
        let begin = if sum == 0 { Some(0) } else { self.begin_of_last(sum, &lines) };
        let Some(block) = begin.and_then(|begin| lines.get(begin..)) else {
            return match synchronised {
                true => Outcome::Damaged("a block with a wrong checksum"),
                false => Outcome::Foreign,
            };
        };
        if let Some(first) = block.first()
            && self.first_labels.len() < MAX_FIRST_LABELS
            && !self.first_labels.contains(&first.label)
        {
            self.first_labels.push(first.label.clone());
        }
        for line in block {
            labels::read(&line.label, &line.value, context, out);
        }
        Outcome::Good
    }

    /// Finds where the last block begins, when the end of the one before it was damaged.
    fn begin_of_last(&self, sum: u8, lines: &[Line]) -> Option<usize> {
        lines.iter().rposition(|line| {
            self.first_labels.contains(&line.label) && sum.wrapping_sub(line.sum_before) == 0
        })
    }
}

/// Tells whether a line is one of a block.
pub(super) fn is_line(line: &str) -> bool {
    line.split_once('\t')
        .is_some_and(|(label, value)| labels::is_known(label) && !value.contains('\t'))
}

#[cfg(test)]
mod tests;
