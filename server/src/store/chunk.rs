//! An hour of up to 16 metrics of a device as two blobs: the readings, and the minutes.
//!
//! The metrics of a device are mostly read together, so moments stand once: a **slot** is a moment
//! and a commit; a metric without a reading in each slot says in which it has one. Readings of one
//! moment keep the order in which they were committed.

use std::collections::BTreeMap;

use valtronics_protocol::value::Value;

use super::{
    column::{self, pack, unpack},
    seal::{self, join, take},
    summary::{self, Span},
};

/// The hour, in milliseconds: what a chunk is of.
pub(super) const HOUR: i64 = 3_600_000;
/// How many metrics of a device a chunk holds at most: a reader of one loads them all.
pub(super) const METRICS: u32 = 16;

/// A reading of a metric.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point {
    /// When it was measured.
    pub(super) at: i64,
    /// When it was committed: each commit has a moment of its own.
    pub(super) arrived: i64,
    /// Its sender marked it as a backlog's.
    pub(super) historical: bool,
    pub(super) value: Value,
}

/// The readings of a chunk by their metrics' places in it, each metric's in order.
pub(super) type Series = BTreeMap<u32, Vec<Point>>;

/// A moment, a commit, which of equal readings, and whether they are a backlog's.
type Slot = (i64, i64, u32, bool);

/// Puts readings in order.
pub(super) fn sort(points: &mut [Point]) {
    points.sort_by_key(|point| (point.at, point.arrived));
}

/// Writes readings.
pub(super) fn encode(series: &Series) -> Vec<u8> {
    let slots: BTreeMap<u32, Vec<Slot>> =
        series.iter().map(|(place, points)| (*place, slots(points))).collect();
    let mut all: Vec<Slot> = slots.values().flatten().copied().collect();
    all.sort();
    all.dedup();
    let times: Vec<i64> = all.iter().map(|(at, ..)| *at).collect();
    // Nearly constant, while the moments of commits are not.
    let delays: Vec<i64> = all.iter().map(|(at, arrived, ..)| arrived.wrapping_sub(*at)).collect();
    let head = [mask(series), backlogs(&all)].concat();
    let mut parts = vec![head, pack(&times), pack(&delays)];
    for (points, slots) in series.values().zip(slots.values()) {
        let whole = slots.len() == all.len();
        parts.push(if whole { Vec::new() } else { pack(&positions(slots, &all)) });
        parts.push(column::encode(&points.iter().map(|point| &point.value).collect::<Vec<_>>()));
    }
    seal::seal(join(&parts))
}

/// Writes the minutes of readings.
pub(super) fn encode_minutes(series: &Series) -> Vec<u8> {
    let minutes = series.values().map(|points| summary::encode(points));
    seal::seal(join(&[mask(series)].into_iter().chain(minutes).collect::<Vec<_>>()))
}

/// Reads the readings of one metric.
pub(super) fn decode(blob: &[u8], place: u32) -> Option<Vec<Point>> {
    let mut bytes = seal::open(blob)?;
    let (mask, backlogs) = take_head(&mut bytes)?;
    let slots = Slots::take(&mut bytes, backlogs)?;
    if mask & (1 << place) == 0 {
        return Some(Vec::new());
    }
    for _ in 0..(mask & ((1 << place) - 1)).count_ones() * 2 {
        take(&mut bytes)?;
    }
    slots.take_points(&mut bytes)
}

/// Reads every reading.
pub(super) fn decode_all(blob: &[u8]) -> Option<Series> {
    let mut bytes = seal::open(blob)?;
    let (mask, backlogs) = take_head(&mut bytes)?;
    let slots = Slots::take(&mut bytes, backlogs)?;
    let places = (0..METRICS).filter(|place| mask & (1 << place) != 0);
    places.map(|place| Some((place, slots.take_points(&mut bytes)?))).collect()
}

/// Reads the minutes of one metric.
pub(super) fn decode_minutes(blob: &[u8], place: u32) -> Option<Vec<Span>> {
    let mut bytes = seal::open(blob)?;
    let (mask, _) = take_head(&mut bytes)?;
    if mask & (1 << place) == 0 {
        return Some(Vec::new());
    }
    for _ in 0..(mask & ((1 << place) - 1)).count_ones() {
        take(&mut bytes)?;
    }
    summary::decode(take(&mut bytes)?)
}

/// Names the slots of a metric's readings.
fn slots(points: &[Point]) -> Vec<Slot> {
    let mut before: Option<Slot> = None;
    let slot = |point: &Point| {
        let ordinal = match before {
            Some((at, arrived, ordinal, _)) if (at, arrived) == (point.at, point.arrived) => {
                ordinal + 1
            }
            Some(_) | None => 0,
        };
        *before.insert((point.at, point.arrived, ordinal, point.historical))
    };
    points.iter().map(slot).collect()
}

/// Returns where in all slots, which are in order, these stand, which are too.
fn positions(slots: &[Slot], all: &[Slot]) -> Vec<u32> {
    let mut wanted = slots.iter().peekable();
    let found = (0..).zip(all).filter(|(_, slot)| wanted.next_if_eq(slot).is_some());
    found.map(|(position, _)| position).collect()
}

fn mask(series: &Series) -> Vec<u8> {
    let mask = series.keys().fold(0_u16, |mask, place| mask | 1 << place);
    mask.to_le_bytes().to_vec()
}

/// Takes the mask, and what [`backlogs`] wrote.
fn take_head<'a>(bytes: &mut &'a [u8]) -> Option<(u32, &'a [u8])> {
    let (mask, backlogs) = take(bytes)?.split_first_chunk()?;
    Some((u32::from(u16::from_le_bytes(*mask)), backlogs))
}

/// Says which slots are a backlog's: how many are not, how many are, and so on; nothing where none is.
fn backlogs(slots: &[Slot]) -> Vec<u8> {
    let mut runs = vec![0_u32];
    for (.., historical) in slots {
        if *historical == runs.len().is_multiple_of(2) {
            runs.last_mut().into_iter().for_each(|run| *run += 1);
        } else {
            runs.push(1);
        }
    }
    if runs.len() > 1 { pack(&runs) } else { Vec::new() }
}

/// Reads what [`backlogs`] wrote, slot by slot; what is not told of is no backlog's.
fn take_backlogs(bytes: &[u8]) -> Option<Vec<bool>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let runs = unpack::<u32>(bytes)?.into_iter().zip([false, true].into_iter().cycle());
    Some(runs.flat_map(|(run, is)| std::iter::repeat_n(is, run as usize)).collect())
}

/// The slots of a chunk.
struct Slots {
    times: Vec<i64>,
    delays: Vec<i64>,
    backlogs: Vec<bool>,
}

impl Slots {
    fn take(bytes: &mut &[u8], backlogs: &[u8]) -> Option<Self> {
        let (times, delays) = (unpack(take(bytes)?)?, unpack(take(bytes)?)?);
        Some(Self { times, delays, backlogs: take_backlogs(backlogs)? })
    }

    fn take_points(&self, bytes: &mut &[u8]) -> Option<Vec<Point>> {
        let positions = take(bytes)?;
        let values = column::decode(take(bytes)?)?;
        if positions.is_empty() {
            return (0..self.times.len()).zip(values).map(|(at, v)| self.point(at, v)).collect();
        }
        let positions = unpack::<u32>(positions)?.into_iter();
        positions.zip(values).map(|(at, value)| self.point(at as usize, value)).collect()
    }

    fn point(&self, slot: usize, value: Value) -> Option<Point> {
        let (at, delay) = (*self.times.get(slot)?, *self.delays.get(slot)?);
        let historical = self.backlogs.get(slot).copied().unwrap_or_default();
        Some(Point { at, arrived: at.wrapping_add(delay), historical, value })
    }
}
