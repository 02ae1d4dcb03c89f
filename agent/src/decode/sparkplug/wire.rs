//! Payloads as Protocol Buffers (`sparkplug_b.proto`; encoding: protobuf.dev, "Encoding").
//!
//! Only what a host needs is read: data sets, templates, bytes and what else may nest are passed
//! over by their length, however deep they are.

use std::ops::ControlFlow;

use valtronics_protocol::time::UnixMillis;

/// The most metrics in a payload, so that what a message costs is bounded: large nodes have some
/// thousand, and those of 4 MiB could be two million. A payload with more is refused.
pub const MAX_METRICS: usize = 20_000;

/// Why a payload cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It is cut off, or no such message.
    #[error("no Sparkplug payload")]
    Damaged,
    /// See [`MAX_METRICS`].
    #[error("more than 20000 metrics in a payload")]
    TooMany,
    /// It holds another one that is compressed, as some libraries can do; no version of the
    /// specification has that.
    #[error("a compressed payload")]
    Compressed,
}

/// What a node or a device says at once.
#[derive(Debug, Default)]
pub struct Payload<'p> {
    /// When it was sent, in milliseconds.
    pub timestamp: Option<u64>,
    /// Its place among the messages of its node, modulo 256.
    pub seq: Option<u64>,
    /// What it holds.
    pub metrics: Vec<Metric<'p>>,
}

/// One value, or what a birth says of one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Metric<'p> {
    /// Its name; data may have the alias only.
    pub name: Option<&'p str>,
    /// What it is called in data, if its birth said so.
    pub alias: Option<u64>,
    /// When it was measured, in milliseconds.
    pub timestamp: Option<u64>,
    /// The type, by its number in the specification.
    pub datatype: Option<u32>,
    /// It is of the past, and was kept.
    pub is_historical: bool,
    /// The value; absent also where it is null.
    pub value: Option<Raw<'p>>,
    /// The property `engUnit`.
    pub unit: Option<&'p str>,
    /// The property `Quality`.
    pub quality: Option<u64>,
}

/// A value as it lies in a payload.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Raw<'p> {
    /// A number of 32 bits, whose meaning the type says.
    Int(u32),
    /// One of 64 bits.
    Long(u64),
    /// A single.
    Float(f32),
    /// A double.
    Double(f64),
    /// A truth.
    Bool(bool),
    /// A text.
    Text(&'p str),
    /// Something that is no single value, or no text where one should be.
    Other,
}

impl Raw<'_> {
    /// Returns a number without sign.
    #[must_use]
    pub fn as_integer(self) -> Option<u64> {
        match self {
            Self::Int(number) => Some(number.into()),
            Self::Long(number) => Some(number),
            Self::Float(_) | Self::Double(_) | Self::Bool(_) | Self::Text(_) | Self::Other => None,
        }
    }
}

impl<'p> Payload<'p> {
    pub(super) fn read(bytes: &'p [u8]) -> Result<Self, Malformed> {
        let mut payload = Self::default();
        for field in Fields(bytes) {
            match field? {
                (1, Content::Number(millis)) => payload.timestamp = Some(millis),
                (3, Content::Number(seq)) => payload.seq = Some(seq),
                (2, Content::Bytes(_)) if payload.metrics.len() == MAX_METRICS => {
                    return Err(Malformed::TooMany);
                }
                (2, Content::Bytes(metric)) => payload.metrics.push(Metric::read(metric)?),
                (4, Content::Bytes(b"SPBV1.0_COMPRESSED")) => return Err(Malformed::Compressed),
                (1..=3, _) => return Err(Malformed::Damaged),
                _ => {}
            }
        }
        Ok(payload)
    }
}

impl<'p> Metric<'p> {
    fn read(bytes: &'p [u8]) -> Result<Self, Malformed> {
        let (mut metric, mut is_null) = (Self::default(), false);
        for field in Fields(bytes) {
            match field? {
                (1, Content::Bytes(name)) => {
                    let name = str::from_utf8(name).map_err(|_| Malformed::Damaged)?;
                    metric.name = Some(name).filter(|name| !name.is_empty());
                }
                (2, Content::Number(alias)) => metric.alias = Some(alias),
                (3, Content::Number(millis)) => metric.timestamp = Some(millis),
                (4, Content::Number(datatype)) => metric.datatype = u32::try_from(datatype).ok(),
                (5, Content::Number(truth)) => metric.is_historical = truth != 0,
                (7, Content::Number(truth)) => is_null = truth != 0,
                (9, Content::Bytes(set)) => {
                    metric.unit = match property(set, "engUnit")? {
                        Some(Raw::Text(unit)) => Some(unit),
                        _ => None,
                    };
                    metric.quality = property(set, "Quality")?.and_then(Raw::as_integer);
                }
                (tag @ 10.., content) => metric.value = Some(raw(tag - 10, content)?),
                (1..=5 | 7 | 9, _) => return Err(Malformed::Damaged),
                _ => {}
            }
        }
        metric.value = metric.value.filter(|_| !is_null);
        Ok(metric)
    }
}

/// Reads a value; metrics and properties number their kinds alike.
fn raw(kind: u32, content: Content<'_>) -> Result<Raw<'_>, Malformed> {
    Ok(match (kind, content) {
        // Some write negative numbers with the sign in all 64 bits.
        (0, Content::Number(number)) => Raw::Int(number as u32),
        (1, Content::Number(number)) => Raw::Long(number),
        (2, Content::Four(bytes)) => Raw::Float(f32::from_le_bytes(bytes)),
        (3, Content::Eight(bytes)) => Raw::Double(f64::from_le_bytes(bytes)),
        (4, Content::Number(truth)) => Raw::Bool(truth != 0),
        (5, Content::Bytes(text)) => str::from_utf8(text).map_or(Raw::Other, Raw::Text),
        (0..=5, _) => return Err(Malformed::Damaged),
        _ => Raw::Other,
    })
}

/// Finds a property; names and values are two lists.
fn property<'p>(set: &'p [u8], wanted: &str) -> Result<Option<Raw<'p>>, Malformed> {
    let mut keys = List(Fields(set), 1);
    let place = keys.try_fold(0, |place, key| match key {
        Ok(key) if key.eq_ignore_ascii_case(wanted.as_bytes()) => ControlFlow::Break(Ok(place)),
        Ok(_) => ControlFlow::Continue(place + 1),
        Err(error) => ControlFlow::Break(Err(error)),
    });
    let ControlFlow::Break(place) = place else { return Ok(None) };
    let Some(value) = List(Fields(set), 2).nth(place?) else { return Ok(None) };
    let (mut found, mut is_null) = (None, false);
    for field in Fields(value?) {
        match field? {
            (2, Content::Number(truth)) => is_null = truth != 0,
            (tag @ 3.., content) => found = Some(raw(tag - 3, content)?),
            _ => {}
        }
    }
    Ok(found.filter(|_| !is_null))
}

/// What a field holds.
#[derive(Clone, Copy)]
enum Content<'p> {
    Number(u64),
    Four([u8; 4]),
    Eight([u8; 8]),
    Bytes(&'p [u8]),
}

/// The fields of a message, with their numbers; it ends after an error.
struct Fields<'p>(&'p [u8]);

impl<'p> Iterator for Fields<'p> {
    type Item = Result<(u32, Content<'p>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field().ok_or(Malformed::Damaged);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'p> Fields<'p> {
    fn field(&mut self) -> Option<(u32, Content<'p>)> {
        let key = u32::try_from(self.varint()?).ok()?;
        let content = match key & 7 {
            0 => Content::Number(self.varint()?),
            1 => Content::Eight(*self.chunk()?),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Content::Bytes(bytes)
            }
            5 => Content::Four(*self.chunk()?),
            // Groups, which this format has none of.
            _ => return None,
        };
        (key >> 3 > 0).then_some((key >> 3, content))
    }

    fn chunk<const N: usize>(&mut self) -> Option<&'p [u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(chunk)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if *byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}

/// The contents of one field that is repeated.
struct List<'p>(Fields<'p>, u32);

impl<'p> Iterator for List<'p> {
    type Item = Result<&'p [u8], Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let Self(fields, wanted) = self;
        fields.find_map(|field| match field {
            Ok((tag, Content::Bytes(bytes))) => (tag == *wanted).then_some(Ok(bytes)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    }
}

/// Writes a payload with one metric, a truth that is true.
pub(super) fn command(now: UnixMillis, name: &str) -> Vec<u8> {
    let mut metric = vec![0x0a];
    write_varint(name.len() as u64, &mut metric);
    metric.extend(name.as_bytes());
    // Its type is Boolean, 11.
    metric.extend([0x20, 11, 0x70, 1]);
    let mut payload = vec![0x08];
    write_varint(now.0.unsigned_abs(), &mut payload);
    payload.push(0x12);
    write_varint(metric.len() as u64, &mut payload);
    payload.append(&mut metric);
    payload
}

fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
