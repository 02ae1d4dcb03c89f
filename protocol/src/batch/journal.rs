//! The codec for readings whose names are numbers: what a store keeps.
//!
//! A blob is a sequence of frames that stand for themselves, each after its length as a varint. A
//! series is its device's and its metric's number, each as the difference to the series before.

use super::{
    DecodeError::{self, Damaged},
    TAG_SERIES,
    bytes::{Reader, put, put_difference},
    decode::open,
    rows::Rows,
    table::{Found, Table},
    writer::{Writer, append_packed},
};
use crate::{time::UnixMillis, uplink::MAX_FRAME_READINGS, value::Value};

/// A reading of a metric of a device, both by number.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Whose.
    pub device: u64,
    /// Of what.
    pub metric: u32,
    /// When it was measured.
    pub timestamp: UnixMillis,
    /// What was measured.
    pub value: Value,
}

/// Writes readings, each (device, metric, moment, value), in their order as a blob.
#[must_use]
pub fn encode<'a>(items: impl IntoIterator<Item = (u64, u32, UnixMillis, &'a Value)>) -> Vec<u8> {
    let (mut blob, mut frame) = (Vec::new(), Vec::new());
    let mut items = items.into_iter().peekable();
    while items.peek().is_some() {
        encode_frame(items.by_ref().take(MAX_FRAME_READINGS), &mut frame);
        put(&mut blob, frame.len() as u64);
        blob.append(&mut frame);
    }
    blob
}

fn encode_frame<'a>(
    items: impl Iterator<Item = (u64, u32, UnixMillis, &'a Value)>,
    frame: &mut Vec<u8>,
) {
    let (mut table, mut writer) = (Table::default(), Writer::default());
    let (mut before, mut announced) = (None, (0, 0));
    let place = |(device, metric, at, value)| {
        let key: (u64, u32) = (device, metric);
        let series = match table.find(|known| *known == key, || key) {
            Found::Known(series) => series,
            Found::New(series) => {
                let body = writer.announce(TAG_SERIES);
                let next = (device.cast_signed(), i64::from(metric));
                put_difference(body, next.0, announced.0);
                put_difference(body, next.1, announced.1);
                announced = next;
                series
            }
        };
        writer.place(series, before.replace(device) == Some(device), at);
        value
    };
    let values: Vec<&Value> = items.map(place).collect();
    append_packed(writer.finish(&values), frame);
}

/// Reads a blob.
///
/// # Errors
/// When it is damaged.
pub fn decode(blob: &[u8]) -> Result<Vec<Item>, DecodeError> {
    let mut blob = Reader(blob);
    let mut items = Vec::new();
    while !blob.0.is_empty() {
        let length = blob.number()?;
        let (_, body) = open(blob.bytes(length)?)?;
        let (mut rows, mut names) = (Rows::default(), Vec::<(i64, u32)>::new());
        let mut announced = (0, 0);
        rows.read(Reader(&body), |_, body| {
            announced = (body.difference(announced.0)?, body.difference(announced.1)?);
            let metric = u32::try_from(announced.1).map_err(|_| Damaged)?;
            names.push((announced.0, metric));
            Ok(())
        })?;
        items.reserve(rows.rows().len());
        for row in rows.into_rows() {
            let (device, metric) = names.get(row.series as usize).copied().ok_or(Damaged)?;
            let device = device.cast_unsigned();
            items.push(Item { device, metric, timestamp: row.timestamp, value: row.value });
        }
    }
    Ok(items)
}
