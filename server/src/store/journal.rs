//! Readings as a blob of the journal: exact, self-contained, small.
//!
//! A row is the differences of device, metric and time to the row before, as zigzag varints
//! (LEB128), then a byte for the kind of value and the value. The whole is compressed (zstd, level
//! 1: as fast as the rest). The first byte is the format's version.

use valtronics_protocol::{id::DeviceId, time::UnixMillis, value::Value};

use super::StoreError;
use crate::commit::{MetricIndex, Row};

const VERSION: u8 = 1;
/// The most that one blob may hold when it is unpacked: far more than a commit is ever given.
const MAX_BYTES: usize = 256 * 1024 * 1024;

/// Writes rows as a blob.
pub(super) fn encode(rows: &[Row]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rows.len() * 12);
    let (mut device, mut metric, mut at) = (0_i64, 0_i64, 0_i64);
    for row in rows {
        let next = (row.device.0.cast_signed(), i64::from(row.metric.0), row.at.0);
        put_signed(&mut bytes, next.0.wrapping_sub(device));
        put_signed(&mut bytes, next.1.wrapping_sub(metric));
        put_signed(&mut bytes, next.2.wrapping_sub(at));
        (device, metric, at) = next;
        match &row.value {
            Value::Bool(truth) => bytes.push(u8::from(*truth)),
            Value::Int(number) => {
                bytes.push(2);
                put_signed(&mut bytes, *number);
            }
            Value::UInt(number) => {
                bytes.push(3);
                put(&mut bytes, *number);
            }
            Value::Float(number) => {
                bytes.push(4);
                bytes.extend(number.to_le_bytes());
            }
            Value::Text(text) => {
                bytes.push(5);
                put(&mut bytes, text.len() as u64);
                bytes.extend(text.as_bytes());
            }
        }
    }
    let mut blob = vec![VERSION];
    blob.extend((bytes.len() as u64).to_le_bytes());
    blob.extend(zstd::bulk::compress(&bytes, 1).expect("memory is all it needs"));
    blob
}

/// Reads a blob.
pub(super) fn decode(blob: &[u8]) -> Result<Vec<Row>, StoreError> {
    let damaged = || StoreError::Damaged("a blob of readings".into());
    let (head, packed) = blob.split_at_checked(9).ok_or_else(damaged)?;
    let (version, length) = head.split_first().ok_or_else(damaged)?;
    let length = length.try_into().map(u64::from_le_bytes).map_err(|_| damaged())?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if *version != VERSION || length > MAX_BYTES {
        return Err(damaged());
    }
    let bytes = zstd::bulk::decompress(packed, length).map_err(|_| damaged())?;
    if bytes.len() != length {
        return Err(damaged());
    }
    let mut rest = Reader(&bytes);
    let mut rows = Vec::new();
    let (mut device, mut metric, mut at) = (0_i64, 0_i64, 0_i64);
    while !rest.0.is_empty() {
        rows.push(rest.row(&mut device, &mut metric, &mut at).ok_or_else(damaged)?);
    }
    Ok(rows)
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push((number as u8) | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn put_signed(bytes: &mut Vec<u8>, number: i64) {
    put(bytes, ((number << 1) ^ (number >> 63)).cast_unsigned());
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn row(&mut self, device: &mut i64, metric: &mut i64, at: &mut i64) -> Option<Row> {
        *device = device.wrapping_add(self.signed()?);
        *metric = metric.wrapping_add(self.signed()?);
        *at = at.wrapping_add(self.signed()?);
        let value = match self.byte()? {
            0 => Value::Bool(false),
            1 => Value::Bool(true),
            2 => Value::Int(self.signed()?),
            3 => Value::UInt(self.unsigned()?),
            4 => Value::finite(f64::from_le_bytes(self.bytes(8)?.try_into().ok()?))?,
            5 => {
                let length = usize::try_from(self.unsigned()?).ok()?;
                Value::Text(std::str::from_utf8(self.bytes(length)?).ok()?.into())
            }
            _ => return None,
        };
        let metric = MetricIndex(u32::try_from(*metric).ok()?);
        Some(Row { device: DeviceId(device.cast_unsigned()), metric, at: UnixMillis(*at), value })
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, length: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn unsigned(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let number = self.unsigned()?;
        Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            any::<u64>().prop_map(Value::from),
            any::<f64>().prop_filter_map("finite", Value::finite),
            ".{0,20}".prop_map(|text| Value::Text(text.into())),
        ]
    }

    proptest! {
        #[test]
        fn rows_come_back(rows in prop::collection::vec(
            (any::<u64>(), any::<u32>(), any::<i64>(), value()), 1..40,
        )) {
            let rows: Vec<Row> = rows.into_iter().map(|(device, metric, at, value)| Row {
                device: DeviceId(device), metric: MetricIndex(metric), at: UnixMillis(at), value,
            }).collect();
            let blob = encode(&rows);
            prop_assert_eq!(&decode(&blob).unwrap(), &rows);
            for end in 0..blob.len() {
                prop_assert!(decode(&blob[..end]).is_err());
            }
        }

        #[test]
        fn damage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut blob = vec![VERSION];
            blob.extend((bytes.len() as u64).to_le_bytes());
            blob.extend(zstd::bulk::compress(&bytes, 1).unwrap());
            let _ = decode(&blob);
            let _ = decode(&bytes);
        }
    }
}
