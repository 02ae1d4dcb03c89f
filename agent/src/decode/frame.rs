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
    /// A line without its end; never empty.
    Line(&'a [u8]),
    /// It is longer than [`MAX_LINE_BYTES`].
    TooLong,
}

/// The line that is not complete yet.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    partial: Vec<u8>,
    too_long: bool,
    /// `partial` was handed out.
    done: bool,
}

impl Lines {
    /// Takes bytes until they complete a line; `None` when they are used up.
    pub fn next<'a, 'b: 'a>(&'a mut self, bytes: &mut &'b [u8]) -> Option<Frame<'a>> {
        if std::mem::take(&mut self.done) {
            self.partial.clear();
        }
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let (line, rest) = bytes.split_at(end);
            if self.too_long {
                // Its end at last.
                self.too_long = false;
            } else if self.partial.len() + line.len() > MAX_LINE_BYTES {
                self.partial.clear();
                *bytes = rest.get(1..).unwrap_or_default();
                return Some(Frame::TooLong);
            } else if !self.partial.is_empty() {
                self.partial.extend_from_slice(line);
                *bytes = rest.get(1..).unwrap_or_default();
                self.done = true;
                return Some(Frame::Line(&self.partial));
            } else if !line.is_empty() {
                *bytes = rest.get(1..).unwrap_or_default();
                return Some(Frame::Line(line));
            }
            *bytes = rest.get(1..).unwrap_or_default();
        }
        self.keep(std::mem::take(bytes))
    }

    fn keep(&mut self, bytes: &[u8]) -> Option<Frame<'static>> {
        if self.too_long {
            return None;
        }
        if self.partial.len() + bytes.len() > MAX_LINE_BYTES {
            self.too_long = true;
            self.partial.clear();
            return Some(Frame::TooLong);
        }
        self.partial.extend_from_slice(bytes);
        None
    }
}

/// Returns the text of a line.
///
/// # Errors
/// Why it is none.
pub fn text(line: &[u8]) -> Result<&str, &'static str> {
    match std::str::from_utf8(line) {
        Ok(line) if line.contains('\0') => Err("a line with NUL bytes"),
        Ok(line) => Ok(line),
        Err(_) => Err("a line that is no UTF-8"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(bytes: &[u8], piece: usize) -> Vec<String> {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for mut piece in bytes.chunks(piece) {
            while let Some(frame) = lines.next(&mut piece) {
                found.push(match frame {
                    Frame::Line(line) => format!("{:?}", text(line)),
                    Frame::TooLong => "too long".into(),
                });
            }
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
                "Ok(\"a=1\")",
                "Ok(\"b=2\")",
                "Err(\"a line that is no UTF-8\")",
                "Err(\"a line with NUL bytes\")",
                "too long",
                "Ok(\"last\")",
            ]
        );
        for piece in [1, 2, 7, 16, 64] {
            assert_eq!(frames(&bytes, piece), whole, "{piece}");
        }
        let mut lines = Lines::default();
        let mut reported = 0;
        for _ in 0..1000 {
            let mut garbage: &[u8] = &[b'y'; 10_000];
            while lines.next(&mut garbage).is_some() {
                reported += 1;
            }
        }
        assert_eq!(reported, 1);
        assert!(lines.partial.capacity() <= 2 * MAX_LINE_BYTES);
    }
}
