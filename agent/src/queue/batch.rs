//! Readings that came in together, and picking from them what a connection asked for.

use valtronics_protocol::{reading::Reading, time::UnixMillis, value::Value};

use super::Limits;

/// Readings that were received at one moment, numbered on from `first`.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) first: u64,
    pub(super) received: UnixMillis,
    pub(super) readings: Vec<Reading>,
    /// What they take in memory.
    pub(super) memory: usize,
    /// What they take in a file at most.
    pub(super) encoded: usize,
}

/// The number that a batch takes in memory beside its readings.
const OVERHEAD: usize = 64;

impl Batch {
    pub(super) fn new(first: u64, received: UnixMillis, readings: Vec<Reading>) -> Self {
        let memory = readings.iter().map(memory).sum::<usize>() + OVERHEAD;
        let encoded = readings.iter().map(frame_bytes).sum();
        Self { first, received, readings, memory, encoded }
    }

    /// The number after its last.
    pub(super) fn end(&self) -> u64 {
        self.first + self.readings.len() as u64
    }
}

/// Names are shared, so only texts are counted beside the reading itself.
fn memory(reading: &Reading) -> usize {
    size_of::<Reading>() + text(reading)
}

fn text(reading: &Reading) -> usize {
    match &reading.value {
        Value::Text(text) => text.len(),
        Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) => 0,
    }
}

/// Returns what a reading takes in a frame at most: its names, its text, and the numbers around.
#[must_use]
pub fn frame_bytes(reading: &Reading) -> usize {
    const NUMBERS: usize = 48;
    let unit = reading.unit.as_ref().map_or(0, |unit| unit.len());
    reading.device.len() + reading.metric.len() + unit + text(reading) + NUMBERS
}

/// Gathers readings that follow each other, up to limits.
#[derive(Debug)]
pub(super) struct Picker {
    limits: Limits,
    bytes: usize,
    historical: Option<bool>,
    readings: Vec<Reading>,
}

/// What was gathered.
#[derive(Debug, Default)]
pub(super) struct Picked {
    pub(super) first: u64,
    pub(super) readings: Vec<Reading>,
    pub(super) historical: bool,
}

impl Picker {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, bytes: 0, historical: None, readings: Vec::new() }
    }

    /// Takes the next reading, unless it is one too many.
    pub(super) fn take(&mut self, number: u64, received: UnixMillis, reading: &Reading) -> bool {
        let is_backlog = received < self.limits.live_since || number <= self.limits.passed;
        let bytes = frame_bytes(reading);
        let fits = self.readings.is_empty() || self.bytes + bytes <= self.limits.bytes;
        let is_like_others = *self.historical.get_or_insert(is_backlog) == is_backlog;
        if self.readings.len() >= self.limits.readings || !fits || !is_like_others {
            return false;
        }
        self.bytes += bytes;
        self.readings.push(reading.clone());
        true
    }

    /// Returns what was gathered, numbered on from `first`.
    pub(super) fn picked(self, first: u64) -> Picked {
        let Self { historical, readings, .. } = self;
        Picked { first, readings, historical: historical.unwrap_or(false) }
    }
}
