//! Readings as bytes: a codec with state.
//!
//! An [`Encoder`] and its [`Decoder`] are born with a connection and die with it. What they have in
//! common is a table of **series** (device, metric, unit, whose clock, kind of value), announced
//! once, and a table of **groups**: the series that are read together. A **row** is a group at one
//! moment: the moment against its expectation, and for each series the difference to its value
//! before. Sensors print decimals, so a number that is exact at a few decimals travels as an
//! integer; what is not exact travels as it is. The order of readings is kept: they are numbered by
//! it. The bytes are specified in `protocol/README.md`, section "Binary batches".

use std::sync::Arc;

use crate::{
    reading::{Reading, TimeSource},
    time::UnixMillis,
    value::Value,
};

mod bytes;
mod decode;
mod encode;

pub use decode::{DecodeError, Decoder};
pub use encode::Encoder;

/// The most series of one connection: some hundred devices with some hundred metrics.
pub const MAX_SERIES: usize = 100_000;
/// The most groups of one connection.
pub const MAX_GROUPS: usize = 10_000;
/// The most that one frame may hold when it is unpacked: far more than any frame of ours.
pub const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
/// The most decimals at which a number travels as an integer.
const MAX_DECIMALS: u8 = 6;

/// The frame forgets what was announced before: it can be read by itself.
const FLAG_RESET: u8 = 1;
/// The body is packed (zstd), after its length as a varint.
const FLAG_PACKED: u8 = 2;

/// Announces a series.
const TAG_SERIES: u64 = 0;
/// Announces a group.
const TAG_GROUP: u64 = 1;
/// A row of the group `tag - TAG_ROW`.
const TAG_ROW: u64 = 2;

/// What a series is, beside its values.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Series {
    /// The device's name.
    pub device: Arc<str>,
    /// The metric's name.
    pub metric: Arc<str>,
    /// The symbol of the unit; absent when unknown.
    pub unit: Option<Arc<str>>,
    /// Whose clock its timestamps come from.
    pub time_source: TimeSource,
}

/// A reading as it was decoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The position of its series in [`Decoder::series`].
    pub series: u32,
    /// When it was measured.
    pub timestamp: UnixMillis,
    /// What was measured.
    pub value: Value,
}

/// How the values of a series travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// A byte.
    Bool,
    /// The difference to the value before.
    Int,
    /// The same above the range of signed integers.
    UInt,
    /// The difference at so many decimals.
    Float(u8),
    /// Its bytes.
    Text,
}

impl Kind {
    /// Returns how this value travels best.
    fn of(value: &Value) -> Self {
        match value {
            Value::Bool(_) => Self::Bool,
            Value::Int(_) => Self::Int,
            Value::UInt(_) => Self::UInt,
            Value::Float(number) => {
                let exact =
                    (0..=MAX_DECIMALS).find(|decimals| scaled(*number, *decimals).is_some());
                Self::Float(exact.unwrap_or(0))
            }
            Value::Text(_) => Self::Text,
        }
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::Bool => 0,
            Self::Int => 1,
            Self::UInt => 2,
            Self::Text => 3,
            Self::Float(decimals) => 8 + decimals,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Bool,
            1 => Self::Int,
            2 => Self::UInt,
            3 => Self::Text,
            8..=14 => Self::Float(byte - 8),
            _ => return None,
        })
    }
}

const POWERS: [f64; 7] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6];

fn power(decimals: u8) -> f64 {
    POWERS.get(usize::from(decimals)).copied().unwrap_or(1.0)
}

/// Returns the number at so many decimals as an integer, if that says it exactly.
fn scaled(number: f64, decimals: u8) -> Option<i64> {
    /// Up to here every integer is a double.
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    let integer = (number * power(decimals)).round();
    if integer.abs() > LARGEST {
        return None;
    }
    let integer = integer as i64;
    (unscaled(integer, decimals).to_bits() == number.to_bits()).then_some(integer)
}

fn unscaled(integer: i64, decimals: u8) -> f64 {
    integer as f64 / power(decimals)
}

#[cfg(test)]
mod tests;

/// Counts what an encoder is given, in the order of the wire.
fn series_of(reading: &Reading) -> Series {
    Series {
        device: Arc::clone(&reading.device),
        metric: Arc::clone(&reading.metric),
        unit: reading.unit.clone(),
        time_source: reading.time_source,
    }
}
