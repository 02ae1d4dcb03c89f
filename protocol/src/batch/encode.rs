//! From readings to frames: names become numbers.

use std::{collections::HashMap, sync::Arc};

use super::{
    Series, TAG_DEVICE_SERIES, TAG_SERIES,
    bytes::put,
    table::{Found, Table},
    writer::{Writer, append, append_packed},
};
use crate::{
    reading::{Reading, TimeSource},
    value::Value,
};

/// Writes readings as frames; what it has announced, its [`super::Decoder`] knows.
#[derive(Debug, Default)]
pub struct Encoder {
    series: Table<Series>,
    texts: HashMap<Arc<str>, u64>,
    writer: Writer,
}

impl Encoder {
    /// Appends a frame with these readings, in their order; it refers to what earlier frames said.
    ///
    /// They are at most [`crate::uplink::MAX_FRAME_READINGS`].
    pub fn encode<'a, I>(&mut self, readings: I, frame: &mut Vec<u8>)
    where
        I: IntoIterator<Item = &'a Reading, IntoIter: Clone>,
    {
        let readings = readings.into_iter();
        let mut is_new = self.writer.is_new();
        let mut values = self.place(readings.clone());
        if self.writer.is_overfull() {
            *self = Self::default();
            is_new = true;
            values = self.place(readings);
        }
        append(is_new, self.writer.finish(&values), frame);
    }

    /// Appends a frame that anybody can read by itself, packed where that pays; what was announced
    /// before is forgotten.
    ///
    /// The readings are at most [`crate::uplink::MAX_FRAME_READINGS`].
    pub fn encode_self_contained<'a>(
        &mut self,
        readings: impl IntoIterator<Item = &'a Reading>,
        frame: &mut Vec<u8>,
    ) {
        *self = Self::default();
        let values = self.place(readings.into_iter());
        append_packed(self.writer.finish(&values), frame);
    }

    fn place<'a>(&mut self, readings: impl Iterator<Item = &'a Reading>) -> Vec<&'a Value> {
        let mut device = None;
        let place = |reading: &'a Reading| {
            let series = self.find(reading);
            let same_device = device.replace(&reading.device) == Some(&reading.device);
            self.writer.place(series, same_device, reading.timestamp);
            &reading.value
        };
        readings.map(place).collect()
    }

    /// Finds the series of a reading, or announces it.
    fn find(&mut self, reading: &Reading) -> u32 {
        let is = |series: &Series| {
            series.device == reading.device
                && series.metric == reading.metric
                && series.unit == reading.unit
                && series.time_source == reading.time_source
        };
        let series = || Series {
            device: Arc::clone(&reading.device),
            metric: Arc::clone(&reading.metric),
            unit: reading.unit.clone(),
            time_source: reading.time_source,
        };
        match self.series.find(is, series) {
            Found::Known(position) => position,
            Found::New(position) => {
                let before = self.series.before(position).map(|series| &series.device);
                let device = Some(&reading.device).filter(|device| Some(*device) != before);
                let body = self.writer.announce(match reading.time_source {
                    TimeSource::Receive => TAG_SERIES,
                    TimeSource::Device => TAG_DEVICE_SERIES,
                });
                put_name(&mut self.texts, device, body);
                put_name(&mut self.texts, Some(&reading.metric), body);
                put_name(&mut self.texts, reading.unit.as_ref(), body);
                position
            }
        }
    }
}

/// Appends the number of a name, or, the first time, the name.
fn put_name(texts: &mut HashMap<Arc<str>, u64>, name: Option<&Arc<str>>, body: &mut Vec<u8>) {
    let Some(name) = name else {
        return put(body, 0);
    };
    if let Some(position) = texts.get(name) {
        return put(body, position + 2);
    }
    texts.insert(Arc::clone(name), texts.len() as u64);
    put(body, 1);
    put(body, name.len() as u64);
    body.extend(name.as_bytes());
}
