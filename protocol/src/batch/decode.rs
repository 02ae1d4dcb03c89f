//! From frames to readings, whoever sent them.

use std::{collections::HashSet, sync::Arc};

use super::{
    FLAG_PACKED, FLAG_RESET, Kind, MAX_BODY_BYTES, MAX_GROUPS, MAX_SERIES, Row, Series, TAG_GROUP,
    TAG_ROW, TAG_SERIES,
    bytes::{Reader, unzigzag},
    unscaled,
};
use crate::{
    reading::{MAX_NAME_BYTES, MAX_TEXT_BYTES, MAX_UNIT_BYTES, TimeSource, is_clean, is_name},
    time::UnixMillis,
    uplink::MAX_FRAME_READINGS,
    value::Value,
};

/// Reads frames; knows what its [`super::Encoder`] has announced.
#[derive(Debug, Default)]
pub struct Decoder {
    series: Vec<Series>,
    values: Vec<Known>,
    groups: Vec<Group>,
    names: HashSet<Arc<str>>,
    rows: Vec<Row>,
    generation: u64,
}

#[derive(Debug)]
struct Known {
    kind: Kind,
    previous: i64,
    previous_text: Box<str>,
}

#[derive(Debug)]
struct Group {
    members: Box<[u32]>,
    at: i64,
    interval: i64,
}

/// A frame that cannot be read: what follows cannot be trusted either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end early, or say what nothing says.
    #[error("the batch is damaged")]
    Damaged,
    /// A limit of the protocol is exceeded.
    #[error("the batch has too many {0}")]
    TooMany(&'static str),
    /// A name, a unit, a text or a number that no reading may have.
    #[error("the batch holds {0} that no reading may have")]
    Invalid(&'static str),
}

use DecodeError::{Damaged, Invalid, TooMany};

impl Decoder {
    /// Reads one frame: all its readings in order, or none.
    ///
    /// # Errors
    /// When the frame is damaged or exceeds a limit; the decoder is of no use after that.
    pub fn decode(&mut self, frame: &[u8]) -> Result<&[Row], DecodeError> {
        self.rows.clear();
        let (flags, body) = frame.split_first().ok_or(Damaged)?;
        if flags & !(FLAG_RESET | FLAG_PACKED) != 0 {
            return Err(Damaged);
        }
        if flags & FLAG_RESET != 0 {
            let rows = std::mem::take(&mut self.rows);
            *self = Self { rows, generation: self.generation + 1, ..Self::default() };
        }
        if flags & FLAG_PACKED == 0 {
            self.read(Reader(body))?;
        } else {
            let mut packed = Reader(body);
            let length = usize::try_from(packed.number().ok_or(Damaged)?).unwrap_or(usize::MAX);
            if length > MAX_BODY_BYTES {
                return Err(TooMany("bytes"));
            }
            let body = zstd::bulk::decompress(packed.0, length).map_err(|_| Damaged)?;
            self.read(Reader(&body))?;
        }
        Ok(&self.rows)
    }

    /// Returns the readings of the last frame.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Returns every series that was announced since the last reset.
    #[must_use]
    pub fn series(&self) -> &[Series] {
        &self.series
    }

    /// Counts resets: whoever keeps a table beside [`Decoder::series`] begins it anew with each.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    fn read(&mut self, mut body: Reader<'_>) -> Result<(), DecodeError> {
        while !body.0.is_empty() {
            match body.number().ok_or(Damaged)? {
                TAG_SERIES => self.read_series(&mut body)?,
                TAG_GROUP => self.read_group(&mut body)?,
                row => self.read_row(row - TAG_ROW, &mut body)?,
            }
        }
        Ok(())
    }

    fn read_series(&mut self, body: &mut Reader<'_>) -> Result<(), DecodeError> {
        if self.series.len() >= MAX_SERIES {
            return Err(TooMany("series"));
        }
        let device = body.text(MAX_NAME_BYTES).ok_or(Damaged)?;
        let metric = body.text(MAX_NAME_BYTES).ok_or(Damaged)?;
        let unit = body.text(MAX_UNIT_BYTES).ok_or(Damaged)?;
        let traits = body.byte().ok_or(Damaged)?;
        if !is_name(device) || !is_name(metric) {
            return Err(Invalid("a name"));
        }
        if !is_clean(unit, MAX_UNIT_BYTES) {
            return Err(Invalid("a unit"));
        }
        let kind = Kind::from_byte(traits >> 2).ok_or(Damaged)?;
        let unit = (traits & 2 != 0).then(|| self.name(unit));
        let time_source = if traits & 1 == 0 { TimeSource::Receive } else { TimeSource::Device };
        let series =
            Series { device: self.name(device), metric: self.name(metric), unit, time_source };
        self.series.push(series);
        self.values.push(Known { kind, previous: 0, previous_text: "".into() });
        Ok(())
    }

    /// Shares names that come again.
    fn name(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.names.get(text) {
            return Arc::clone(known);
        }
        let name: Arc<str> = text.into();
        self.names.insert(Arc::clone(&name));
        name
    }

    fn read_group(&mut self, body: &mut Reader<'_>) -> Result<(), DecodeError> {
        if self.groups.len() >= MAX_GROUPS {
            return Err(TooMany("groups"));
        }
        let count = usize::try_from(body.number().ok_or(Damaged)?).unwrap_or(usize::MAX);
        // A member takes a byte at least.
        if count > body.0.len() || count > MAX_FRAME_READINGS {
            return Err(Damaged);
        }
        let mut before = 0_i64;
        let members = (0..count).map(|_| {
            before = before.checked_add(unzigzag(body.number()?))?;
            u32::try_from(before).ok().filter(|member| (*member as usize) < self.series.len())
        });
        let members = members.collect::<Option<Box<[u32]>>>().ok_or(Damaged)?;
        self.groups.push(Group { members, at: 0, interval: 0 });
        Ok(())
    }

    fn read_row(&mut self, group: u64, body: &mut Reader<'_>) -> Result<(), DecodeError> {
        let index = usize::try_from(group).map_err(|_| Damaged)?;
        let group = self.groups.get_mut(index).ok_or(Damaged)?;
        if self.rows.len() + group.members.len() > MAX_FRAME_READINGS {
            return Err(TooMany("readings"));
        }
        let expected = group.at.wrapping_add(group.interval);
        let at = expected.wrapping_add(unzigzag(body.number().ok_or(Damaged)?));
        (group.interval, group.at) = (at.wrapping_sub(group.at), at);
        let timestamp = UnixMillis(at);
        if !(UnixMillis::MIN..=UnixMillis::MAX).contains(&timestamp) {
            return Err(Invalid("a time"));
        }
        for series in &group.members {
            let known = self.values.get_mut(*series as usize).ok_or(Damaged)?;
            let value = known.read(body)?;
            self.rows.push(Row { series: *series, timestamp, value });
        }
        Ok(())
    }
}

impl Known {
    fn read(&mut self, body: &mut Reader<'_>) -> Result<Value, DecodeError> {
        Ok(match self.kind {
            Kind::Bool => match body.byte().ok_or(Damaged)? {
                0 => Value::Bool(false),
                1 => Value::Bool(true),
                _ => return Err(Damaged),
            },
            Kind::Int => Value::Int(self.read_difference(body)?),
            Kind::UInt => Value::from(self.read_difference(body)?.cast_unsigned()),
            Kind::Float(decimals) => match body.number().ok_or(Damaged)? {
                0 => {
                    let bytes = body.bytes(8).and_then(|bytes| bytes.try_into().ok());
                    let number = f64::from_le_bytes(bytes.ok_or(Damaged)?);
                    Value::finite(number).ok_or(Invalid("a number"))?
                }
                difference => {
                    self.previous = self.previous.wrapping_add(unzigzag(difference - 1));
                    Value::Float(unscaled(self.previous, decimals))
                }
            },
            Kind::Text => match body.number().ok_or(Damaged)? {
                0 => Value::Text(self.previous_text.clone()),
                length => {
                    let length = usize::try_from(length - 1).unwrap_or(usize::MAX);
                    let text = body.bytes(length).ok_or(Damaged)?;
                    let text = std::str::from_utf8(text).map_err(|_| Damaged)?;
                    if !is_clean(text, MAX_TEXT_BYTES) {
                        return Err(Invalid("a text"));
                    }
                    self.previous_text = text.into();
                    Value::Text(text.into())
                }
            },
        })
    }

    fn read_difference(&mut self, body: &mut Reader<'_>) -> Result<i64, DecodeError> {
        let difference = unzigzag(body.number().ok_or(Damaged)?);
        self.previous = self.previous.wrapping_add(difference);
        Ok(self.previous)
    }
}
