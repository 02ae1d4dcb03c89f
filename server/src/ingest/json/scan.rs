//! A walk over JSON text.
//!
//! What nearly every frame is made of (texts without escapes, plain numbers, the signs between them)
//! is read here; everything else is left to `serde_json`, value by value, so that both agree on what
//! JSON is.

use std::borrow::Cow;

use serde::{
    Deserialize,
    de::{Error as _, IgnoredAny},
};
use serde_json::Error;
use valtronics_protocol::{time::UnixMillis, value::Value};

use super::scalar::Scalar;

/// Where the walk is.
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// The last moment that was read: neighbours often share it.
    moment: Option<(&'a str, UnixMillis)>,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, moment: None }
    }

    /// Returns the length of the whole text in bytes.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// Reads by `usual`, or else goes back to where it began.
    #[inline]
    pub(super) fn attempt<T>(&mut self, usual: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        let begin = self.at;
        let read = usual(self);
        if read.is_none() {
            self.at = begin;
        }
        read
    }

    /// Walks over exactly these bytes, if they come next.
    #[inline]
    pub(super) fn literal<const N: usize>(&mut self, bytes: &[u8; N]) -> Option<()> {
        let next = self.text.as_bytes().get(self.at..)?.first_chunk()?;
        (next == bytes).then(|| self.at += N)
    }

    /// Looks at what comes next beyond white space.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match self.byte() {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                byte => return byte,
            }
        }
    }

    /// Walks through an object: `field` reads the value of each key.
    #[inline]
    pub(super) fn object(
        &mut self,
        mut field: impl FnMut(&mut Self, &str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.expect(b'{')?;
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            let key = self.string()?;
            self.expect(b':')?;
            field(self, &key)?;
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    /// Walks through an array: `element` reads each of its values.
    #[inline]
    pub(super) fn array(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.expect(b'[')?;
        if self.take(b']') {
            return Ok(());
        }
        loop {
            element(self)?;
            if self.take(b']') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    /// Reads any value.
    #[inline]
    pub(super) fn scalar(&mut self) -> Result<Scalar<'a>, Error> {
        let plain = match self.peek() {
            Some(b'"') => return self.string().map(Scalar::Text),
            Some(b'-' | b'0'..=b'9') => self.plain_number().map(Scalar::Value),
            _ => None,
        };
        plain.map_or_else(|| self.any(), Ok)
    }

    /// Walks over any value.
    pub(super) fn skip(&mut self) -> Result<(), Error> {
        self.any::<IgnoredAny>().map(|_| ())
    }

    /// Makes sure that nothing follows.
    pub(super) fn end(&mut self) -> Result<(), Error> {
        self.peek().map_or(Ok(()), |_| Err(Error::custom("something follows the frame")))
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn take(&mut self, sign: u8) -> bool {
        let taken = self.peek() == Some(sign);
        self.at += usize::from(taken);
        taken
    }

    #[inline]
    fn expect(&mut self, sign: u8) -> Result<(), Error> {
        if self.take(sign) { Ok(()) } else { Err(misplaced(sign)) }
    }

    #[inline]
    fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        match self.plain_text() {
            Some(text) => Ok(Cow::Borrowed(text)),
            None => self.any().map(Cow::Owned),
        }
    }

    /// Reads a text without escapes.
    #[inline]
    fn plain_text(&mut self) -> Option<&'a str> {
        if self.peek() != Some(b'"') {
            return None;
        }
        self.attempt(|scanner| {
            scanner.at += 1;
            scanner.opened_text()
        })
    }

    /// Reads a text without escapes behind its opening quote.
    #[inline]
    pub(super) fn opened_text(&mut self) -> Option<&'a str> {
        let rest = self.text.get(self.at..)?;
        let length = plain_length(rest.as_bytes());
        if rest.as_bytes().get(length) != Some(&b'"') {
            return None;
        }
        self.at += length + 1;
        rest.get(..length)
    }

    /// Reads a moment behind its opening quote.
    #[inline]
    pub(super) fn opened_moment(&mut self) -> Option<UnixMillis> {
        let text = self.opened_text()?;
        if let Some((known, moment)) = self.moment
            && known == text
        {
            return Some(moment);
        }
        let moment = text.parse().ok()?;
        self.moment = Some((text, moment));
        Some(moment)
    }

    /// Reads a number of few digits without an exponent.
    #[inline]
    pub(super) fn plain_number(&mut self) -> Option<Value> {
        self.attempt(Self::decimal)
    }

    fn decimal(&mut self) -> Option<Value> {
        let negative = self.byte() == Some(b'-');
        self.at += usize::from(negative);
        let starts_with_zero = self.byte() == Some(b'0');
        let (whole, digits) = self.digits(0);
        if digits == 0 || (starts_with_zero && digits > 1) {
            return None;
        }
        let is_float = self.byte() == Some(b'.');
        self.at += usize::from(is_float);
        let (number, decimals) = if is_float { self.digits(whole) } else { (whole, 0) };
        let most = if is_float { EXACT_DIGITS } else { INTEGER_DIGITS };
        let is_plain = digits + decimals <= most
            && (decimals > 0) == is_float
            // Only a double has a negative zero.
            && !(negative && number == 0)
            && !matches!(self.byte(), Some(b'e' | b'E'));
        if !is_plain {
            return None;
        }
        let number = if negative { -number } else { number };
        Some(match is_float {
            // Both are exact doubles, so their quotient is the nearest one (Clinger, "How to Read
            // Floating Point Numbers Accurately").
            true => Value::Float(number as f64 / POWERS_OF_TEN.get(decimals)?),
            false => Value::Int(number),
        })
    }

    /// Reads digits on behind `number`, and counts them; beyond the exact ones the number is
    /// meaningless.
    #[inline]
    fn digits(&mut self, mut number: i64) -> (i64, usize) {
        let begin = self.at;
        while let Some(digit @ b'0'..=b'9') = self.byte() {
            number = number.wrapping_mul(10).wrapping_add(i64::from(digit - b'0'));
            self.at += 1;
        }
        (number, self.at - begin)
    }

    /// Has a value read by `serde_json`.
    #[cold]
    fn any<T: Deserialize<'a>>(&mut self) -> Result<T, Error> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let mut values = serde_json::Deserializer::from_str(rest).into_iter();
        let value = values.next().unwrap_or_else(|| Err(Error::custom("the frame ends early")))?;
        self.at += values.byte_offset();
        Ok(value)
    }
}

/// How many decimal digits fit into an `i64`, whatever they are.
const INTEGER_DIGITS: usize = 18;
/// How many fit into a double.
const EXACT_DIGITS: usize = 15;
const POWERS_OF_TEN: [f64; EXACT_DIGITS] =
    [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14];

#[cold]
fn misplaced(sign: u8) -> Error {
    Error::custom(format_args!("`{}` is expected", char::from(sign)))
}

/// Counts the bytes before the first quote, backslash or control character, eight at a time.
#[inline]
fn plain_length(text: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES << 7;
    // Sets the high bit of each byte that is zero; above the lowest of them also of others.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word;
    let (words, tail) = text.as_chunks();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let controls = word.wrapping_sub(ONES * 0x20) & !word;
        let quotes = zeros(word ^ (ONES * u64::from(b'"')));
        let escapes = zeros(word ^ (ONES * u64::from(b'\\')));
        let stops = (controls | quotes | escapes) & HIGHS;
        if stops != 0 {
            return at * 8 + stops.trailing_zeros() as usize / 8;
        }
    }
    let stop = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    text.len() - tail.len() + tail.iter().position(stop).unwrap_or(tail.len())
}
