//! CBOR (RFC 8949), as far as it says what JSON can say: the subprotocol `valtronics.v1.cbor`.
//!
//! Messages are the same maps in both formats, so both are read into the same values. What is written
//! has definite lengths, heads in their shortest form, and doubles in 64 bits. Read is whatever is
//! well-formed and has a meaning in JSON: indefinite lengths and shorter floats too; tags are passed
//! over, `undefined` is null. Byte strings, keys that are no texts, keys that stand twice, NaN and
//! infinity are refused.
//!
//! Not serde's traits: through them a flattened structure has no definite length, and an item no
//! place in its frame.

use std::str;

use serde::Serialize;
use serde_json::{Map, Number, Value as Json};

/// How deep values may be nested: as deep as in JSON (`serde_json`), far from the end of any stack.
const MAX_DEPTH: usize = 128;

// Major types (RFC 8949, section 3.1).
const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const TAG: u8 = 6;
const SIMPLE: u8 = 7;

/// The additional information of a length that comes piece by piece.
const INDEFINITE: u8 = 31;
/// What ends a value of indefinite length.
const BREAK: u8 = 0xff;

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not CBOR, or a key stands twice (byte {at})")]
pub struct Malformed {
    /// How many bytes could be read.
    pub at: usize,
}

/// Writes a message.
///
/// # Panics
///
/// When a key is no text: none of ours is.
#[must_use]
pub fn to_vec(message: &impl Serialize) -> Vec<u8> {
    let value = serde_json::to_value(message).expect("our messages have text keys only");
    let mut out = Vec::with_capacity(256);
    write(&value, &mut out);
    out
}

/// Reads one message, which is all there is.
///
/// # Errors
///
/// When these bytes are no CBOR, are more than one value, or hold what JSON has not.
pub fn from_slice(bytes: &[u8]) -> Result<Json, Malformed> {
    let mut reader = Reader { rest: bytes };
    let value = reader.value(MAX_DEPTH);
    let value = value.filter(|_| reader.rest.is_empty());
    value.ok_or(Malformed { at: bytes.len() - reader.rest.len() })
}

/// Returns how many bytes each item of the array under `key` takes, in a map that can be read.
pub(crate) fn item_sizes(map: &[u8], key: &str) -> Vec<usize> {
    let mut sizes = Vec::new();
    // What cannot be read has no items.
    let _ = Reader { rest: map }.item_sizes(key, &mut sizes);
    sizes
}

/// Joins messages that are written already into one `batch` message.
#[must_use]
pub fn join(messages: &[&[u8]]) -> Vec<u8> {
    let size: usize = messages.iter().map(|message| message.len()).sum();
    let mut out = Vec::with_capacity(size + 32);
    write_head(MAP, 2, &mut out);
    for text in ["type", "batch", "messages"] {
        write_text(text, &mut out);
    }
    write_head(ARRAY, messages.len() as u64, &mut out);
    messages.iter().for_each(|message| out.extend_from_slice(message));
    out
}

fn write(value: &Json, out: &mut Vec<u8>) {
    match value {
        Json::Bool(false) => out.push(SIMPLE << 5 | 20),
        Json::Bool(true) => out.push(SIMPLE << 5 | 21),
        Json::Null => out.push(SIMPLE << 5 | 22),
        Json::Number(number) => write_number(number, out),
        Json::String(text) => write_text(text, out),
        Json::Array(items) => {
            write_head(ARRAY, items.len() as u64, out);
            items.iter().for_each(|item| write(item, out));
        }
        Json::Object(map) => {
            write_head(MAP, map.len() as u64, out);
            for (key, value) in map {
                write_text(key, out);
                write(value, out);
            }
        }
    }
}

fn write_number(number: &Number, out: &mut Vec<u8>) {
    if let Some(number) = number.as_u64() {
        write_head(UNSIGNED, number, out);
    } else if let Some(number) = number.as_i64() {
        write_head(NEGATIVE, !number as u64, out);
    } else {
        out.push(SIMPLE << 5 | 27);
        out.extend_from_slice(&number.as_f64().unwrap_or_default().to_be_bytes());
    }
}

fn write_text(text: &str, out: &mut Vec<u8>) {
    write_head(TEXT, text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

fn write_head(major: u8, argument: u64, out: &mut Vec<u8>) {
    let bytes = argument.to_be_bytes();
    let (info, skip) = match argument {
        0..24 => return out.push(major << 5 | argument as u8),
        24..0x100 => (24, 7),
        0x100..0x1_0000 => (25, 6),
        0x1_0000..0x1_0000_0000 => (26, 4),
        _ => (27, 0),
    };
    out.push(major << 5 | info);
    out.extend(bytes.iter().skip(skip));
}

/// What begins a value.
#[derive(Clone, Copy)]
struct Head {
    major: u8,
    info: u8,
    argument: u64,
}

impl Head {
    /// How many items follow; unknown when the length is indefinite.
    fn length(self) -> Option<u64> {
        (self.info != INDEFINITE).then_some(self.argument)
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Option<Json> {
        let head = self.head()?;
        match head.major {
            UNSIGNED => Some(head.argument.into()),
            NEGATIVE => Some(match i64::try_from(head.argument) {
                Ok(number) => (!number).into(),
                Err(_) => (-1.0 - head.argument as f64).into(),
            }),
            TEXT => self.text(head).map(Json::from),
            ARRAY => {
                let (mut items, mut left) = (Vec::new(), head.length());
                while self.goes_on(&mut left)? {
                    items.push(self.value(depth.checked_sub(1)?)?);
                }
                Some(items.into())
            }
            MAP => {
                let (mut map, mut left) = (Map::new(), head.length());
                while self.goes_on(&mut left)? {
                    let key = self.key()?;
                    if map.insert(key, self.value(depth.checked_sub(1)?)?).is_some() {
                        return None;
                    }
                }
                Some(map.into())
            }
            SIMPLE => simple(head),
            _ => None,
        }
    }

    fn item_sizes(&mut self, wanted: &str, sizes: &mut Vec<usize>) -> Option<()> {
        let head = self.head().filter(|head| head.major == MAP)?;
        let mut left = head.length();
        while self.goes_on(&mut left)? {
            if self.key()? != wanted {
                self.value(MAX_DEPTH)?;
                continue;
            }
            let head = self.head().filter(|head| head.major == ARRAY)?;
            let mut left = head.length();
            while self.goes_on(&mut left)? {
                let before = self.rest.len();
                self.value(MAX_DEPTH)?;
                sizes.push(before - self.rest.len());
            }
        }
        Some(())
    }

    fn key(&mut self) -> Option<String> {
        let head = self.head().filter(|head| head.major == TEXT)?;
        self.text(head)
    }

    fn text(&mut self, head: Head) -> Option<String> {
        let Some(length) = head.length() else {
            let (mut text, mut left) = (String::new(), None);
            while self.goes_on(&mut left)? {
                let piece = self.head_or_tag().filter(|head| head.major == TEXT)?;
                text.push_str(self.piece(piece.length()?)?);
            }
            return Some(text);
        };
        self.piece(length).map(str::to_owned)
    }

    fn piece(&mut self, length: u64) -> Option<&'a str> {
        let (text, rest) = self.rest.split_at_checked(usize::try_from(length).ok()?)?;
        let text = str::from_utf8(text).ok()?;
        self.rest = rest;
        Some(text)
    }

    /// Tells whether another item follows, of so many that are left.
    fn goes_on(&mut self, left: &mut Option<u64>) -> Option<bool> {
        if let Some(left) = left {
            let more = left.checked_sub(1);
            *left = more.unwrap_or_default();
            return Some(more.is_some());
        }
        let (next, rest) = self.rest.split_first()?;
        if *next == BREAK {
            self.rest = rest;
        }
        Some(*next != BREAK)
    }

    fn head(&mut self) -> Option<Head> {
        loop {
            let head = self.head_or_tag()?;
            if head.major != TAG {
                return Some(head);
            }
        }
    }

    fn head_or_tag(&mut self) -> Option<Head> {
        let (first, rest) = self.rest.split_first()?;
        let (major, info) = (first >> 5, first & 0x1f);
        let size = match info {
            0..24 => 0,
            24..28 => 1 << (info - 24),
            INDEFINITE if matches!(major, TEXT | ARRAY | MAP) => 0,
            _ => return None,
        };
        let (bytes, rest) = rest.split_at_checked(size)?;
        let argument = if size == 0 {
            u64::from(info)
        } else {
            bytes.iter().fold(0, |argument, byte| argument << 8 | u64::from(*byte))
        };
        self.rest = rest;
        Some(Head { major, info, argument })
    }
}

/// Reads what needs no bytes beyond its head (RFC 8949, section 3.3).
fn simple(head: Head) -> Option<Json> {
    let double = match head.info {
        20 => return Some(false.into()),
        21 => return Some(true.into()),
        // Null, and what JavaScript does not know.
        22 | 23 => return Some(Json::Null),
        25 => half(head.argument as u16),
        26 => f64::from(f32::from_bits(head.argument as u32)),
        27 => f64::from_bits(head.argument),
        _ => return None,
    };
    Number::from_f64(double).map(Json::Number)
}

/// Reads a half-precision float (RFC 8949, appendix D).
fn half(bits: u16) -> f64 {
    let (exponent, mantissa) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let size = match exponent {
        0 => mantissa * 2f64.powi(-24),
        31 => f64::INFINITY,
        _ => (mantissa + 1024.0) * 2f64.powi(exponent - 25),
    };
    if bits >> 15 == 0 { size } else { -size }
}
