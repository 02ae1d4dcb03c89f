//! What was read and is not yet committed by the server: the only elastic buffer of the agent.
//!
//! Two lanes, readings and status events, each strictly first in, first out, each with numbers of
//! its own that only grow and are never given twice. What is new is held in memory until a [`Job`]
//! has made it durable; what is older is read back from the disk. When the room is used up the
//! oldest readings go first, counted as a [`Gap`].
//!
//! ```text
//! append -> recent (memory) -> job: store (log of readings, log of events, cursor, gaps)
//! read   <- recent, or, what is older, a job
//! ```
//!
//! Plain values in and out; [`keeper`] is the task that owns it and runs the jobs where they may
//! block.

mod crc;
mod limits;
mod ranges;
mod ages;
mod numbers;
mod disk;
mod segment;
mod cursor;
mod gaps;
mod log;
mod recovery;
mod batch;
mod reader;
mod store;
mod opening;
mod intake;
mod pick;
mod job;
pub mod keeper;
pub mod newest;
pub mod timeline;

use std::{collections::VecDeque, io, path::Path, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use valtronics_protocol::{
    reading::Reading,
    time::UnixMillis,
    uplink::{DeviceInfo, Gap, StatusEvent},
};

use crate::{config::size::Size, source::StatusChange};
use ages::Ages;
use batch::Batch;
pub use batch::frame_bytes;
use disk::Disk;
pub use job::{Done, Job};
use numbers::Numbers;
use ranges::Ranges;
use store::Store;

/// The most status events that wait: they are rare, and a source that flaps all night must not
/// fill the memory. The oldest goes first.
const EVENTS: usize = 4096;
/// The most devices whose settings are kept for the next connection.
const DEVICES: usize = 10_000;

/// The section `[queue]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How much room all files take at most.
    pub max_bytes: Size<{ 256 * 1024 }>,
    /// How much time a power cut may cost; 0: each reading is made durable at once.
    #[serde(with = "valtronics_protocol::time::period")]
    pub sync: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_bytes: Size(256 * 1024 * 1024), sync: Duration::from_secs(1) }
    }
}

/// What was counted since the start; `queued` is the sum of `acknowledged`, `evicted` and `waiting`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Readings that came in, or were here at the start.
    pub queued: u64,
    /// Readings that the server has committed.
    pub acknowledged: u64,
    /// Readings that are lost: the queue was full, or the disk gave them back damaged.
    pub evicted: u64,
    /// Readings that are here.
    pub waiting: u64,
    /// Of these, readings that are not yet durable.
    pub unsaved: u64,
    /// Status events that are here.
    pub events_waiting: u64,
    /// Status events that went because there were too many.
    pub events_evicted: u64,
    /// How often the disk did not take what it should have.
    pub disk_errors: u64,
}

/// How far a reader has come in each lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// The number of the last reading.
    pub seq: u64,
    /// The number of the last status event.
    pub event: u64,
    /// How many devices' settings were read.
    pub device: usize,
}

/// What a reader takes at once.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most readings.
    pub readings: usize,
    /// The most bytes that the readings may take as a frame, by [`frame_bytes`]; one reading is
    /// always taken.
    pub bytes: usize,
    /// Readings received before this moment are a backlog; a frame never mixes the two.
    pub live_since: UnixMillis,
    /// Readings up to this number are a backlog, too: a preview has passed them.
    pub passed: u64,
}

impl Limits {
    /// As many as one record may hold.
    const ALL: Self =
        Self { readings: 10_000, bytes: usize::MAX, live_since: UnixMillis(i64::MIN), passed: 0 };
}

/// What follows a [`Position`].
#[derive(Debug, Default)]
pub struct Chunk {
    /// What is lost before these readings and was not acknowledged, oldest first.
    pub gaps: Vec<Gap>,
    /// The number of the first reading.
    pub first: u64,
    /// The readings, numbered on from `first`.
    pub readings: Vec<Reading>,
    /// Whether the readings are a backlog.
    pub historical: bool,
    /// Whether more readings wait than the limits let through.
    pub more: bool,
    /// The status events.
    pub events: Vec<StatusEvent>,
    /// The devices' settings.
    pub devices: Vec<DeviceInfo>,
}

/// The queue.
#[derive(Debug)]
pub struct Queue {
    /// Away while a job runs.
    store: Option<Box<Store>>,
    id: u128,
    numbers: Numbers,
    event_numbers: Numbers,
    /// The numbers of the readings that wait.
    held: Ranges,
    ages: Ages,
    /// The newest readings: all that are not durable, and as many others as there is room for.
    recent: VecDeque<Arc<Batch>>,
    recent_bytes: usize,
    unsaved_bytes: usize,
    gaps: Vec<Gap>,
    /// Gaps that no job has written down yet.
    lost: Vec<Gap>,
    /// Gaps up to this number were handed out.
    told: u64,
    events: VecDeque<StatusEvent>,
    devices: Vec<DeviceInfo>,
    is_disk_broken: bool,
    counters: Counters,
}

impl Queue {
    /// Opens the queue in `folder`, and makes it where there is none.
    ///
    /// # Errors
    /// When another agent uses it; nothing else keeps an agent from starting.
    pub fn open(config: &Config, folder: &Path) -> io::Result<Self> {
        Self::open_on(Disk::Real, config, folder)
    }

    fn open_on(disk: Disk, config: &Config, folder: &Path) -> io::Result<Self> {
        let (store, opened) = Store::open(disk, folder.into(), config.max_bytes.0)?;
        let cursor = opened.cursor;
        let mut queue = Self {
            store: Some(Box::new(store)),
            id: cursor.queue,
            numbers: Numbers::of(&cursor, 0),
            event_numbers: Numbers::of(&cursor, 1),
            held: Ranges::default(),
            ages: opened.ages,
            recent: VecDeque::new(),
            recent_bytes: 0,
            unsaved_bytes: 0,
            gaps: opened.gaps,
            lost: Vec::new(),
            told: 0,
            events: opened.events.into(),
            devices: Vec::new(),
            is_disk_broken: false,
            counters: Counters::default(),
        };
        for (first, end) in opened.readings {
            queue.held.push(first.max(cursor.released[0] + 1), end - 1);
        }
        queue.numbers.last = queue.held.last().unwrap_or(queue.numbers.released);
        if let Some(event) = queue.events.back() {
            queue.event_numbers.last = event.seq;
        }
        queue.counters.queued = queue.held.count();
        Ok(queue)
    }

    /// Returns what names the numbering.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{:032x}", self.id)
    }

    /// Returns what the readings that are not durable take in memory.
    #[must_use]
    pub fn unsaved_bytes(&self) -> usize {
        self.unsaved_bytes
    }

    /// Tells whether a status event is not durable.
    #[must_use]
    pub fn has_unsaved_events(&self) -> bool {
        self.events.back().is_some_and(|last| last.seq > self.event_numbers.saved)
    }

    /// Tells whether the disk did not take what the last job had for it.
    #[must_use]
    pub fn is_disk_broken(&self) -> bool {
        self.is_disk_broken
    }

    /// Returns up to which number readings need their source no longer: they are durable here, or
    /// the server has committed them.
    #[must_use]
    pub fn safe(&self) -> u64 {
        self.numbers.saved.max(self.numbers.released)
    }

    /// Returns how far the server has come in both lanes.
    #[must_use]
    pub fn released(&self) -> [u64; 2] {
        [self.numbers.released, self.event_numbers.released]
    }

    /// Returns the last numbers that wait, or were committed.
    #[must_use]
    pub fn end(&self) -> Position {
        let (seq, event) = (self.numbers.last, self.event_numbers.last);
        Position { seq, event, device: self.devices.len() }
    }

    /// Returns the next numbers of both lanes, unless none are left for now.
    #[must_use]
    pub fn next(&self) -> (u64, u64) {
        (self.numbers.next, self.event_numbers.next)
    }

    /// Returns when the oldest reading that waits came in; to the minute, where only the disk has it.
    #[must_use]
    pub fn oldest(&self) -> Option<UnixMillis> {
        let first = *self.held.after(0)?.start();
        let in_memory = self.recent.iter().find(|batch| first < batch.end());
        match in_memory.filter(|batch| batch.first <= first) {
            Some(batch) => Some(batch.received),
            None => self.ages.of(first),
        }
    }

    /// Returns what was counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let unsaved = self.recent.iter().filter(|batch| batch.first > self.numbers.saved);
        Counters {
            waiting: self.held.count(),
            unsaved: unsaved.map(|batch| batch.readings.len() as u64).sum(),
            events_waiting: self.events.len() as u64,
            ..self.counters
        }
    }

    /// Takes a status event.
    pub fn append_event(&mut self, change: StatusChange) {
        let Some(seq) = self.event_numbers.give() else {
            self.counters.events_evicted += 1;
            return;
        };
        self.events.push_back(StatusEvent {
            seq,
            device: change.device.to_string(),
            status: change.status,
            reason: change.reason,
            timestamp: change.timestamp,
        });
        if self.events.len() > EVENTS {
            self.events.pop_front();
            self.counters.events_evicted += 1;
        }
    }

    /// Takes what is configured for a device; known devices' settings are replaced in place, and
    /// told to the next connection.
    pub fn append_device(&mut self, info: DeviceInfo) {
        let room = self.devices.len() < DEVICES;
        match self.devices.iter_mut().find(|known| known.device == info.device) {
            Some(known) => *known = info,
            None if room => self.devices.push(info),
            None => {}
        }
    }

    /// Lets go of what the server has committed, `seq` and `event` included.
    pub fn release(&mut self, seq: Option<u64>, event: Option<u64>) {
        let seq = seq.unwrap_or(0).min(self.numbers.next - 1);
        if seq > self.numbers.released {
            self.counters.acknowledged += self.held.remove(0, seq);
            self.numbers.released = seq;
            self.numbers.last = self.numbers.last.max(seq);
            self.gaps.retain(|gap| gap.last > seq);
            self.lost.retain(|gap| gap.last > seq);
            self.ages.release(seq + 1);
            self.trim();
        }
        let event = event.unwrap_or(0).min(self.event_numbers.next - 1);
        if event > self.event_numbers.released {
            self.event_numbers.released = event;
            self.event_numbers.last = self.event_numbers.last.max(event);
            while self.events.pop_front_if(|known| known.seq <= event).is_some() {}
        }
    }

    /// Lets go of what the server has committed, and returns where a connection goes on: before the
    /// first thing that waits. `None` where a number was never given, so that the numbering must
    /// be another's.
    pub fn resume(&mut self, seq: Option<u64>, event: Option<u64>) -> Option<Position> {
        let (committed, committed_event) = (seq.unwrap_or(0), event.unwrap_or(0));
        if committed >= self.numbers.next || committed_event >= self.event_numbers.next {
            return None;
        }
        self.release(seq, event);
        let end = self.end();
        let first_gap = self.gaps.iter().chain(&self.lost).map(|gap| gap.first).min();
        let first = self.held.after(0).map(|range| *range.start());
        let first = [first, first_gap].into_iter().flatten().min();
        Some(Position {
            seq: first.map_or(end.seq, |first| end.seq.min(first - 1)),
            event: self.events.front().map_or(end.event, |first| first.seq - 1),
            device: 0,
        })
    }

    /// Takes a new id and keeps everything: the old one belongs to another machine. The next job
    /// writes it down.
    pub fn renew(&mut self) {
        self.id = opening::new_id();
    }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
