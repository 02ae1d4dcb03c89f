//! From readings to frames.

use std::collections::HashMap;

use super::{
    FLAG_PACKED, FLAG_RESET, Kind, MAX_GROUPS, MAX_SERIES, Series, TAG_GROUP, TAG_ROW, TAG_SERIES,
    bytes::{put, put_text, zigzag},
    scaled, series_of,
};
use crate::{
    reading::{Reading, TimeSource},
    value::Value,
};

/// Writes readings as frames; what it has announced, its [`super::Decoder`] knows.
#[derive(Debug, Default)]
pub struct Encoder {
    series: Vec<Known>,
    by_series: HashMap<Series, u32>,
    groups: Vec<Group>,
    by_members: HashMap<Box<[u32]>, u32>,
    /// The group of the last row that began with this series: a good guess at the next.
    after: HashMap<u32, u32>,
    begun: bool,
    body: Vec<u8>,
    members: Vec<u32>,
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

impl Encoder {
    /// Appends a frame with these readings, in their order; it refers to what earlier frames said.
    pub fn encode<'a>(
        &mut self,
        readings: impl IntoIterator<Item = &'a Reading>,
        frame: &mut Vec<u8>,
    ) {
        if self.series.len() > MAX_SERIES / 2 || self.groups.len() > MAX_GROUPS / 2 {
            self.reset();
        }
        let flags = if self.begun { 0 } else { FLAG_RESET };
        self.begun = true;
        frame.push(flags);
        self.body.clear();
        self.write(readings);
        frame.append(&mut self.body);
    }

    /// Appends a frame that anybody can read by itself, packed where that pays; what was announced
    /// before is forgotten.
    pub fn encode_self_contained<'a>(
        &mut self,
        readings: impl IntoIterator<Item = &'a Reading>,
        frame: &mut Vec<u8>,
    ) {
        self.reset();
        self.begun = true;
        self.body.clear();
        self.write(readings);
        match zstd::bulk::compress(&self.body, 1) {
            Ok(packed) if packed.len() + 4 < self.body.len() => {
                frame.push(FLAG_RESET | FLAG_PACKED);
                put(frame, self.body.len() as u64);
                frame.extend(packed);
            }
            Ok(_) | Err(_) => {
                frame.push(FLAG_RESET);
                frame.append(&mut self.body);
            }
        }
    }

    fn reset(&mut self) {
        let body = std::mem::take(&mut self.body);
        *self = Self { body, ..Self::default() };
    }

    fn write<'a>(&mut self, readings: impl IntoIterator<Item = &'a Reading>) {
        let mut row: Vec<&'a Reading> = Vec::new();
        for reading in readings {
            let fits = row.first().is_none_or(|first| {
                let together =
                    first.device == reading.device && first.timestamp == reading.timestamp;
                together && !row.iter().any(|known| known.metric == reading.metric)
            });
            if !fits {
                self.write_row(&row);
                row.clear();
            }
            row.push(reading);
        }
        self.write_row(&row);
    }

    fn write_row(&mut self, row: &[&Reading]) {
        let Some(first) = row.first() else { return };
        let at = first.timestamp.0;
        let mut members = std::mem::take(&mut self.members);
        members.clear();
        members.extend(row.iter().map(|reading| self.series_for(reading)));
        let group = self.group_for(&members);
        self.members = members;
        let Some(known) = self.groups.get_mut(group as usize) else {
            return;
        };
        put(&mut self.body, TAG_ROW + u64::from(group));
        let expected = known.at.wrapping_add(known.interval);
        put(&mut self.body, zigzag(at.wrapping_sub(expected)));
        (known.interval, known.at) = (at.wrapping_sub(known.at), at);
        for (series, reading) in known.members.iter().zip(row) {
            if let Some(series) = self.series.get_mut(*series as usize) {
                series.write(&reading.value, &mut self.body);
            }
        }
    }

    /// Finds the series of a reading, or announces it: also anew, when its values need another
    /// kind.
    fn series_for(&mut self, reading: &Reading) -> u32 {
        let key = series_of(reading);
        let known = self.by_series.get(&key).copied();
        if let Some(index) = known
            && self.series.get(index as usize).is_some_and(|series| series.takes(&reading.value))
        {
            return index;
        }
        let kind = Kind::of(&reading.value);
        let index = u32::try_from(self.series.len()).unwrap_or(u32::MAX);
        put(&mut self.body, TAG_SERIES);
        put_text(&mut self.body, &key.device);
        put_text(&mut self.body, &key.metric);
        put_text(&mut self.body, key.unit.as_deref().unwrap_or_default());
        let device_time = u8::from(key.time_source == TimeSource::Device);
        let has_unit = u8::from(key.unit.is_some());
        self.body.push(kind.to_byte() << 2 | has_unit << 1 | device_time);
        self.series.push(Known { kind, previous: 0, previous_text: "".into() });
        self.by_series.insert(key, index);
        index
    }

    fn group_for(&mut self, members: &[u32]) -> u32 {
        let first = members.first().copied().unwrap_or_default();
        if let Some(guess) = self.after.get(&first)
            && self.groups.get(*guess as usize).is_some_and(|group| *group.members == *members)
        {
            return *guess;
        }
        let index = self.by_members.get(members).copied().unwrap_or_else(|| {
            let index = u32::try_from(self.groups.len()).unwrap_or(u32::MAX);
            put(&mut self.body, TAG_GROUP);
            put(&mut self.body, members.len() as u64);
            let mut before = 0;
            for member in members {
                put(&mut self.body, zigzag(i64::from(*member) - before));
                before = i64::from(*member);
            }
            self.groups.push(Group { members: members.into(), at: 0, interval: 0 });
            self.by_members.insert(members.into(), index);
            index
        });
        self.after.insert(first, index);
        index
    }
}

impl Known {
    /// Tells whether a value can travel in this series; a number that needs more decimals travels
    /// better in one of its own.
    fn takes(&self, value: &Value) -> bool {
        match (self.kind, Kind::of(value)) {
            (Kind::Float(known), Kind::Float(needed)) => needed <= known,
            (known, needed) => known == needed,
        }
    }

    fn write(&mut self, value: &Value, body: &mut Vec<u8>) {
        match value {
            Value::Bool(truth) => body.push(u8::from(*truth)),
            Value::Int(number) => self.write_difference(*number, body),
            Value::UInt(number) => self.write_difference(number.cast_signed(), body),
            Value::Float(number) => {
                let Kind::Float(decimals) = self.kind else {
                    return;
                };
                match scaled(*number, decimals) {
                    // 0 says that the number does not fit; the difference is one more.
                    Some(integer) => {
                        put(body, zigzag(integer.wrapping_sub(self.previous)) + 1);
                        self.previous = integer;
                    }
                    None => {
                        put(body, 0);
                        body.extend(number.to_le_bytes());
                    }
                }
            }
            // 0 says that the text is the one before; the length is one more.
            Value::Text(text) if *text == self.previous_text && !text.is_empty() => put(body, 0),
            Value::Text(text) => {
                put(body, text.len() as u64 + 1);
                body.extend(text.as_bytes());
                self.previous_text.clone_from(text);
            }
        }
    }

    fn write_difference(&mut self, number: i64, body: &mut Vec<u8>) {
        put(body, zigzag(number.wrapping_sub(self.previous)));
        self.previous = number;
    }
}
