//! Readings as a blob of the journal: exact, self-contained, small.
//!
//! Devices, metrics, times, kinds and values stand in columns of their own. The first three are
//! differences to the row before; all whole numbers are varints (LEB128, zigzag where they have a
//! sign). Sensors print decimals, so a double that is exact at a few decimals is written as a whole
//! number. The columns are packed (zstd, level 1: as fast as the rest) after the format's version
//! and their length.

use valtronics_protocol::{id::DeviceId, time::UnixMillis, value::Value};

use super::StoreError;
use crate::commit::{MetricIndex, Row};

const VERSION: u8 = 2;
/// The most that one blob may hold when it is unpacked: far more than a commit is ever given.
const MAX_BYTES: usize = 256 * 1024 * 1024;

const FALSE: u8 = 0;
const TRUE: u8 = 1;
const INT: u8 = 2;
const UINT: u8 = 3;
const FLOAT: u8 = 4;
const TEXT: u8 = 5;
/// A double with no decimals; each kind from here on has one more.
const DECIMAL: u8 = 6;
/// What the number of each of these kinds is divided by.
const SCALES: [f64; 7] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6];
/// Beyond this a double does not hold every whole number.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// Writes rows as a blob.
pub(super) fn encode(rows: &[Row]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(rows.len() * 8);
    put(&mut bytes, rows.len() as u64);
    put_differences(&mut bytes, rows.iter().map(|row| row.device.0.cast_signed()));
    put_differences(&mut bytes, rows.iter().map(|row| i64::from(row.metric.0)));
    put_differences(&mut bytes, rows.iter().map(|row| row.at.0));
    let mut values = Vec::with_capacity(rows.len() * 3);
    bytes.extend(rows.iter().map(|row| put_value(&mut values, &row.value)));
    bytes.extend(values);
    let mut blob = vec![VERSION];
    put(&mut blob, bytes.len() as u64);
    blob.extend(zstd::bulk::compress(&bytes, 1).expect("memory is all it needs"));
    blob
}

/// Reads a blob.
pub(super) fn decode(blob: &[u8]) -> Result<Vec<Row>, StoreError> {
    try_decode(blob).ok_or_else(|| StoreError::Damaged("a blob of readings".into()))
}

fn try_decode(blob: &[u8]) -> Option<Vec<Row>> {
    let mut head = Reader(blob);
    let version = head.byte()?;
    let length = head.length()?;
    if version != VERSION || length > MAX_BYTES {
        return None;
    }
    let bytes = zstd::bulk::decompress(head.0, length).ok()?;
    let mut rest = Reader(&bytes);
    let count = rest.length()?;
    // Each of a row's columns takes a byte at least: no more memory than there are bytes.
    if bytes.len() != length || count > bytes.len() {
        return None;
    }
    let devices = rest.differences(count)?;
    let metrics = rest.differences(count)?;
    let times = rest.differences(count)?;
    let kinds = rest.bytes(count)?;
    let rows = devices.into_iter().zip(metrics).zip(times).zip(kinds);
    let rows = rows.map(|(((device, metric), at), kind)| {
        Some(Row {
            device: DeviceId(device.cast_unsigned()),
            metric: MetricIndex(u32::try_from(metric).ok()?),
            at: UnixMillis(at),
            value: rest.value(*kind)?,
        })
    });
    let rows = rows.collect::<Option<Vec<_>>>()?;
    rest.0.is_empty().then_some(rows)
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

fn put_differences(bytes: &mut Vec<u8>, column: impl Iterator<Item = i64>) {
    let mut before = 0_i64;
    for number in column {
        put_signed(bytes, number.wrapping_sub(before));
        before = number;
    }
}

/// Writes a value and returns its kind.
fn put_value(bytes: &mut Vec<u8>, value: &Value) -> u8 {
    match value {
        Value::Bool(false) => FALSE,
        Value::Bool(true) => TRUE,
        Value::Int(number) => {
            put_signed(bytes, *number);
            INT
        }
        Value::UInt(number) => {
            put(bytes, *number);
            UINT
        }
        Value::Float(number) => {
            if let Some((kind, scaled)) = decimal(*number) {
                put_signed(bytes, scaled);
                return kind;
            }
            bytes.extend(number.to_le_bytes());
            FLOAT
        }
        Value::Text(text) => {
            put(bytes, text.len() as u64);
            bytes.extend(text.as_bytes());
            TEXT
        }
    }
}

/// Returns a double as a kind and a whole number, when it is exactly that.
fn decimal(number: f64) -> Option<(u8, i64)> {
    (DECIMAL..).zip(SCALES).find_map(|(kind, scale)| {
        let scaled = (number * scale).round();
        // By its bits: -0.0 is not 0.0.
        let exact = scaled.abs() <= MAX_EXACT
            && (scaled as i64 as f64 / scale).to_bits() == number.to_bits();
        exact.then_some((kind, scaled as i64))
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn value(&mut self, kind: u8) -> Option<Value> {
        Some(match kind {
            FALSE => Value::Bool(false),
            TRUE => Value::Bool(true),
            INT => Value::Int(self.signed()?),
            UINT => Value::from(self.unsigned()?),
            FLOAT => Value::finite(f64::from_le_bytes(self.bytes(8)?.try_into().ok()?))?,
            TEXT => {
                let length = self.length()?;
                Value::Text(std::str::from_utf8(self.bytes(length)?).ok()?.into())
            }
            decimal => {
                let scale = SCALES.get(usize::from(decimal - DECIMAL))?;
                Value::Float(self.signed()? as f64 / scale)
            }
        })
    }

    fn differences(&mut self, count: usize) -> Option<Vec<i64>> {
        let mut before = 0_i64;
        let numbers = (0..count).map(|_| {
            before = before.wrapping_add(self.signed()?);
            Some(before)
        });
        numbers.collect()
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(self.unsigned()?).ok()
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
            (any::<i32>(), 0..9).prop_map(|(n, d)| Value::Float(f64::from(n) / 10_f64.powi(d))),
            ".{0,20}".prop_map(|text| Value::Text(text.into())),
        ]
    }

    fn row(device: u64, metric: u32, at: i64, value: Value) -> Row {
        Row { device: DeviceId(device), metric: MetricIndex(metric), at: UnixMillis(at), value }
    }

    /// Doubles are equal when their bits are: `==` takes -0.0 for 0.0.
    fn exact(rows: &[Row]) -> String {
        format!("{rows:?}")
    }

    proptest! {
        #[test]
        fn rows_come_back(rows in prop::collection::vec(
            (any::<u64>(), any::<u32>(), any::<i64>(), value()), 0..40,
        )) {
            let rows: Vec<Row> = rows.into_iter().map(|(d, m, at, v)| row(d, m, at, v)).collect();
            let blob = encode(&rows);
            prop_assert_eq!(exact(&decode(&blob).unwrap()), exact(&rows));
            for end in 0..blob.len() {
                prop_assert!(decode(&blob[..end]).is_err());
            }
        }

        #[test]
        fn damage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let mut blob = vec![VERSION];
            put(&mut blob, bytes.len() as u64);
            blob.extend(zstd::bulk::compress(&bytes, 1).unwrap());
            let _ = decode(&blob);
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn doubles_stay_exact() {
        for number in
            [0.0, -0.0, 23.5, 0.1, 21.57, 1e300, f64::MIN_POSITIVE, MAX_EXACT, 1e-6, -7.25]
        {
            let rows = [row(1, 0, 0, Value::Float(number))];
            assert_eq!(exact(&decode(&encode(&rows)).unwrap()), exact(&rows));
        }
    }

    /// A number below 128 that nothing can pack (the mixer of SplitMix64).
    fn noise(n: u64) -> u32 {
        let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed >> 57) as u32
    }

    #[test]
    fn a_steady_series_takes_few_bytes() {
        let rows: Vec<Row> = (0..10_000)
            .map(|n| {
                let value = Value::Float(f64::from(2000 + noise(n)) / 100.0);
                row(1 + n % 1000 / 10, (n % 10) as u32, n as i64 / 1000 * 1000, value)
            })
            .collect();
        let bytes = encode(&rows).len() as f64 / rows.len() as f64;
        assert!(bytes < 2.5, "{bytes} bytes a reading");
    }
}
