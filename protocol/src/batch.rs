//! Readings as bytes: a codec with state.
//!
//! An [`Encoder`] and its [`Decoder`] are born with a connection and die with it. What they have in
//! common is a table of **series** (device, metric, unit, whose clock), announced once, and a table
//! of **groups**: the series that are read together. A **row** is a group at one moment. A frame
//! says first which groups follow each other; then, group by group, all moments and each series'
//! values, as differences to what was expected. So a frame a second costs a byte a reading, and a
//! backlog of thousands stands in columns, which zstd packs further.
//!
//! ```text
//! readings -> encode (names) -> writer (rows, columns) -> form (values) -> bytes
//! bytes -> decode (names) -> rows -> form -> readings
//! ```
//!
//! Sensors print decimals, so a number that is exact at a few decimals travels as an integer; what
//! is not exact travels as it is. The order of readings is kept: they are numbered by it. The bytes
//! are specified in `protocol/README.md`, section "Binary batches". [`journal`] is the same codec
//! for readings whose names are numbers.

use std::sync::Arc;

use crate::{reading::TimeSource, time::UnixMillis, value::Value};

mod bytes;
mod form;
mod group;
mod table;
mod writer;
mod encode;
mod rows;
mod decode;
pub mod journal;

pub use decode::{DecodeError, Decoder};
pub use encode::Encoder;

/// The most series of one connection: some hundred devices with some hundred metrics.
pub const MAX_SERIES: usize = 100_000;
/// The most groups of one connection.
pub const MAX_GROUPS: usize = 10_000;
/// The most series in all groups of one connection: bounds what a decoder keeps to 4 MiB.
pub const MAX_MEMBERS: usize = 1_000_000;
/// The most that one frame may hold when it is unpacked: far more than any frame of ours.
pub const MAX_BODY_BYTES: usize = 4 * 1024 * 1024;
/// The longest text that is remembered, so that it costs a byte when it comes again; longer ones
/// would let a connection hold too much.
pub const MAX_REMEMBERED_TEXT_BYTES: usize = 128;

/// The frame forgets what was announced before: it can be read by itself.
const FLAG_RESET: u8 = 1;
/// The body is packed (zstd).
const FLAG_PACKED: u8 = 2;

/// Ends the rows; their moments and values follow.
const TAG_END: u64 = 0;
/// Announces a series whose timestamps say when it was received.
const TAG_SERIES: u64 = 1;
/// Announces a series whose timestamps are its device's.
const TAG_DEVICE_SERIES: u64 = 2;
/// Announces a group.
const TAG_GROUP: u64 = 3;
/// So many rows, each of the group that followed the one before it last time.
const TAG_RUN: u64 = 4;
/// A row of the group `tag - TAG_ROW`.
const TAG_ROW: u64 = 5;

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

#[cfg(test)]
mod tests;
