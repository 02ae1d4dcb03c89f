//! What the queue has lost: counted exactly, written down, and handed to the uplink.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use serde::{Deserialize, Serialize};
use valtronics_protocol::{reading::Reading, time::UnixMillis};

use super::{crc, disk::Disk};

/// The most gaps that wait to be told; beyond, the newest two become one.
const GAPS: usize = 64;
/// The most devices that a gap names: as many as the agent knows.
const DEVICES: usize = 10_000;

/// Readings that were numbered and are lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The first number.
    pub first: u64,
    /// The last number; the gap is acknowledged with it.
    pub last: u64,
    /// Why they are lost.
    pub reason: GapReason,
    /// Whose they were, as far as that could still be read.
    pub devices: Vec<DeviceLoss>,
}

/// Why readings are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapReason {
    /// The queue was full.
    Evicted,
    /// The disk gave back something else than was written.
    Corrupt,
}

/// What a device has lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceLoss {
    /// The device's name.
    pub device: String,
    /// The time of its first lost reading.
    pub from: UnixMillis,
    /// The time of its last lost reading.
    pub to: UnixMillis,
    /// How many readings.
    pub readings: u64,
}

/// Counts lost readings by device.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<Arc<str>, (UnixMillis, UnixMillis, u64)>);

impl Tally {
    pub(super) fn add(&mut self, reading: &Reading) {
        if self.0.len() >= DEVICES && !self.0.contains_key(&reading.device) {
            return;
        }
        let at = reading.timestamp;
        let (from, to, count) = self.0.entry(Arc::clone(&reading.device)).or_insert((at, at, 0));
        (*from, *to, *count) = ((*from).min(at), (*to).max(at), *count + 1);
    }

    pub(super) fn gap(self, first: u64, last: u64, reason: GapReason) -> Gap {
        let loss = |(device, (from, to, readings)): (Arc<str>, _)| DeviceLoss {
            device: device.to_string(),
            from,
            to,
            readings,
        };
        Gap { first, last, reason, devices: self.0.into_iter().map(loss).collect() }
    }
}

impl Gap {
    /// Takes in a gap that follows.
    fn join(&mut self, next: Self) {
        self.last = next.last;
        for loss in next.devices {
            let has_room = self.devices.len() < DEVICES;
            match self.devices.iter_mut().find(|known| known.device == loss.device) {
                Some(known) => {
                    known.from = known.from.min(loss.from);
                    known.to = known.to.max(loss.to);
                    known.readings += loss.readings;
                }
                None if has_room => self.devices.push(loss),
                None => {}
            }
        }
    }
}

/// Appends a gap; one that touches the last becomes part of it, unless that one, up to number
/// `told`, has already been handed out.
pub(super) fn append(gaps: &mut Vec<Gap>, gap: Gap, told: u64) {
    let is_full = gaps.len() >= GAPS;
    match gaps.last_mut() {
        Some(last) if is_full => last.join(gap),
        Some(last)
            if last.last > told && last.last + 1 == gap.first && last.reason == gap.reason =>
        {
            last.join(gap);
        }
        _ => gaps.push(gap),
    }
}

/// The gaps that wait to be told, in their file.
#[derive(Debug)]
pub(super) struct GapFile {
    path: PathBuf,
    pub(super) gaps: Vec<Gap>,
    is_saved: bool,
}

impl GapFile {
    pub(super) fn open(disk: &Disk, path: PathBuf) -> Self {
        let gaps = disk.read(&path).ok().and_then(|file| {
            let (sum, json) = file.split_first_chunk()?;
            let is_whole = crc::sum(&[json]) == u32::from_le_bytes(*sum);
            is_whole.then(|| serde_json::from_slice(json).ok())?
        });
        Self { path, gaps: gaps.unwrap_or_default(), is_saved: true }
    }

    pub(super) fn add(&mut self, gap: Gap, told: u64) {
        append(&mut self.gaps, gap, told);
        self.is_saved = false;
    }

    /// Forgets what the server knows: everything up to `committed`.
    pub(super) fn release(&mut self, committed: u64) {
        let before = self.gaps.len();
        self.gaps.retain(|gap| gap.last > committed);
        self.is_saved &= self.gaps.len() == before;
    }

    /// Writes them down, where anything has changed.
    pub(super) fn save(&mut self, disk: &Disk) -> io::Result<()> {
        if self.is_saved {
            return Ok(());
        }
        let json = serde_json::to_vec(&self.gaps)?;
        let sum = crc::sum(&[&json]).to_le_bytes();
        disk.replace(&self.path, &[&sum[..], &json].concat())?;
        self.is_saved = true;
        Ok(())
    }
}
