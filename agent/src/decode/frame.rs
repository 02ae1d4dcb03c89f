//! From bytes to lines, whatever comes.
//!
//! A line ends with CR, LF or both. Memory stays bounded: what is longer than [`MAX_LINE_BYTES`] is
//! reported as soon as it is too long, for its end may never come, and passed over. How the bytes are
//! cut into pieces changes nothing.

/// The longest line: the longest that devices of this field send are a few hundred bytes.
pub const MAX_LINE_BYTES: usize = 4096;

/// What a line turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A line of text without its end.
    Line(&'a str),
    /// No text, or too long; the cause says which.
    Damaged(&'static str),
}

/// The line that is not complete yet.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    partial: Vec<u8>,
    too_long: bool,
}

impl Lines {
    /// Takes bytes and hands on each line that they complete.
    pub fn feed(&mut self, mut bytes: &[u8], each: &mut impl FnMut(Frame<'_>)) {
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (line, rest) = bytes.split_at(end);
            bytes = rest.get(1..).unwrap_or_default();
            if self.partial.is_empty() && !self.too_long && line.len() <= MAX_LINE_BYTES {
                emit(line, each);
                continue;
            }
            self.keep(line, each);
            if !std::mem::take(&mut self.too_long) {
                emit(&self.partial, each);
            }
            self.partial.clear();
        }
        self.keep(bytes, each);
    }

    fn keep(&mut self, bytes: &[u8], each: &mut impl FnMut(Frame<'_>)) {
        if self.too_long {
            return;
        }
        if self.partial.len() + bytes.len() > MAX_LINE_BYTES {
            self.too_long = true;
            self.partial.clear();
            each(Frame::Damaged("a line of more than 4096 bytes"));
        } else {
            self.partial.extend(bytes);
        }
    }
}

fn emit(line: &[u8], each: &mut impl FnMut(Frame<'_>)) {
    if line.is_empty() {
        return;
    }
    match std::str::from_utf8(line) {
        Ok(line) if line.contains('\0') => each(Frame::Damaged("a line with NUL bytes")),
        Ok(line) => each(Frame::Line(line)),
        Err(_) => each(Frame::Damaged("a line that is no UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(bytes: &[u8], piece: usize) -> Vec<String> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for piece in bytes.chunks(piece) {
            lines.feed(piece, &mut |frame| found.push(format!("{frame:?}")));
        }
        found
    }

    #[test]
    fn pieces_change_nothing_and_memory_is_bounded() {
        let mut bytes = b"a=1\r\nb=2\n\n\rc\xff\nd\x00\n".to_vec();
        bytes.extend(vec![b'x'; 3 * MAX_LINE_BYTES]);
        bytes.extend(b"\nlast\nhalf");
        let whole = frames(&bytes, bytes.len());
        assert_eq!(
            whole,
            [
                "Line(\"a=1\")",
                "Line(\"b=2\")",
                "Damaged(\"a line that is no UTF-8\")",
                "Damaged(\"a line with NUL bytes\")",
                "Damaged(\"a line of more than 4096 bytes\")",
                "Line(\"last\")",
            ]
        );
        for piece in [1, 2, 7, 16, 64] {
            assert_eq!(frames(&bytes, piece), whole, "{piece}");
        }
        let mut lines = Lines::default();
        let mut reported = Vec::new();
        for _ in 0..1000 {
            lines.feed(&[b'y'; 10_000], &mut |frame| reported.push(format!("{frame:?}")));
        }
        assert_eq!(reported, ["Damaged(\"a line of more than 4096 bytes\")"]);
        assert!(lines.partial.capacity() <= 2 * MAX_LINE_BYTES);
    }
}
