//! What was read and is not yet committed by the server: the only elastic buffer of the agent.
//!
//! Two lanes, readings and status events, each strictly first in, first out, each with numbers of
//! its own that only grow. Readings have a limit in bytes: when it is reached the oldest go first,
//! and are counted. This one holds everything in memory and so begins a new numbering, with a new
//! id, at each start. Plain values in and out; [`keeper`] is the task that owns it.

pub mod gaps;
pub mod keeper;
pub mod newest;
pub mod timeline;

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};
use valtronics_protocol::{
    reading::Reading,
    time::UnixMillis,
    uplink::{DeviceInfo, Gap, GapReason, StatusEvent},
    value::Value,
};

use crate::{config::size::Size, source::StatusChange};
use gaps::Gaps;

/// The most status events that wait: they are rare, and a source that flaps all night must not
/// fill the memory. The oldest goes first.
const EVENTS: usize = 4096;
/// The most devices whose settings are kept for the next connection.
const DEVICES: usize = 10_000;
/// The most memory that waiting readings take, whatever `max_bytes` says: `max_bytes` is meant for
/// a disk, and a gateway has 256 to 512 MiB for everything.
const MEMORY: usize = 64 * 1024 * 1024;

/// The section `[queue]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How much may wait.
    pub max_bytes: Size<{ 256 * 1024 }>,
    /// How much time a power cut may cost; nothing to do while the queue is in memory.
    #[serde(with = "valtronics_protocol::time::period")]
    pub sync: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_bytes: Size(256 * 1024 * 1024), sync: Duration::from_secs(1) }
    }
}

/// What was ever counted; `queued` is the sum of `acknowledged`, `evicted` and `waiting`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Readings that came in.
    pub queued: u64,
    /// Readings that were handed to a connection at least once.
    pub sent: u64,
    /// Readings that the server has committed.
    pub acknowledged: u64,
    /// Readings that went because the queue was full.
    pub evicted: u64,
    /// Readings that are here.
    pub waiting: u64,
    /// Status events that are here.
    pub events_waiting: u64,
    /// Status events that went because there were too many.
    pub events_evicted: u64,
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

/// What follows a [`Position`].
#[derive(Debug, Default)]
pub struct Chunk {
    /// What was lost before the readings.
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

/// Returns what a reading takes in a frame at most: its names, its text, and the numbers around.
#[must_use]
pub fn frame_bytes(reading: &Reading) -> usize {
    const NUMBERS: usize = 48;
    let text = match &reading.value {
        Value::Text(text) => text.len(),
        Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) => 0,
    };
    let unit = reading.unit.as_ref().map_or(0, |unit| unit.len());
    reading.device.len() + reading.metric.len() + unit + text + NUMBERS
}

#[derive(Debug)]
struct Entry {
    received: UnixMillis,
    reading: Reading,
}

impl Entry {
    /// Names are shared, so only texts are counted beside the entry itself.
    fn memory(&self) -> usize {
        let text = match &self.reading.value {
            Value::Text(text) => text.len(),
            Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) => 0,
        };
        size_of::<Self>() + text
    }
}

/// The queue in memory.
#[derive(Debug)]
pub struct Queue {
    id: String,
    max_bytes: usize,
    bytes: usize,
    /// The number of the first reading that is here, or of the next one to come.
    first: u64,
    readings: VecDeque<Entry>,
    next_event: u64,
    events: VecDeque<StatusEvent>,
    devices: Vec<DeviceInfo>,
    gaps: Gaps,
    handed_out: u64,
    counters: Counters,
}

impl Queue {
    /// Makes an empty queue with a new id.
    ///
    /// # Panics
    /// When the system has no random bytes: a repeated id would lose readings.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            id: new_id(),
            max_bytes: usize::try_from(config.max_bytes.0).map_or(MEMORY, |max| max.min(MEMORY)),
            bytes: 0,
            first: 1,
            readings: VecDeque::new(),
            next_event: 1,
            events: VecDeque::new(),
            devices: Vec::new(),
            gaps: Gaps::default(),
            handed_out: 0,
            counters: Counters::default(),
        }
    }

    /// Returns what names the numbering.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the last numbers given.
    #[must_use]
    pub fn end(&self) -> Position {
        Position {
            seq: self.first + self.readings.len() as u64 - 1,
            event: self.next_event - 1,
            device: self.devices.len(),
        }
    }

    /// Returns what was counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            waiting: self.readings.len() as u64,
            events_waiting: self.events.len() as u64,
            ..self.counters
        }
    }

    /// Returns when the oldest reading that is here came in.
    #[must_use]
    pub fn oldest(&self) -> Option<UnixMillis> {
        self.readings.front().map(|entry| entry.received)
    }

    /// Takes readings that were received at one moment.
    pub fn append(&mut self, received: UnixMillis, readings: impl IntoIterator<Item = Reading>) {
        for reading in readings {
            let entry = Entry { received, reading };
            self.bytes += entry.memory();
            self.readings.push_back(entry);
            self.counters.queued += 1;
        }
        while self.bytes > self.max_bytes
            && let Some(reading) = self.take_first()
        {
            self.gaps.lose(self.first - 1, &reading, GapReason::Evicted);
            self.counters.evicted += 1;
        }
    }

    /// Takes a status event.
    pub fn append_event(&mut self, change: StatusChange) {
        self.events.push_back(StatusEvent {
            seq: self.next_event,
            device: change.device.to_string(),
            status: change.status,
            reason: change.reason,
            timestamp: change.timestamp,
        });
        self.next_event += 1;
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

    /// Returns what follows `after`.
    pub fn read(&mut self, after: Position, limits: Limits) -> Chunk {
        let gaps = self.gaps.after(after.seq);
        let after = Position { seq: gaps.last().map_or(after.seq, |gap| gap.last), ..after };
        let first = (after.seq + 1).max(self.first);
        let skipped = usize::try_from(first - self.first).unwrap_or(usize::MAX);
        let waiting = (first..).zip(self.readings.iter().skip(skipped));
        let is_backlog = |(number, entry): &(u64, &Entry)| {
            entry.received < limits.live_since || *number <= limits.passed
        };
        let historical = waiting.clone().next().as_ref().is_some_and(is_backlog);
        let mut bytes = 0;
        let readings: Vec<Reading> = waiting
            .clone()
            .take(limits.readings)
            .take_while(|entry| is_backlog(entry) == historical)
            .take_while(|(_, entry)| {
                let fits = bytes == 0 || bytes + frame_bytes(&entry.reading) <= limits.bytes;
                bytes += frame_bytes(&entry.reading);
                fits
            })
            .map(|(_, entry)| entry.reading.clone())
            .collect();
        let through = first + readings.len() as u64 - 1;
        self.counters.sent += through.saturating_sub(self.handed_out.max(first - 1));
        self.handed_out = self.handed_out.max(through);
        Chunk {
            gaps,
            first,
            more: through < self.end().seq,
            readings,
            historical,
            events: self.events.iter().filter(|event| event.seq > after.event).cloned().collect(),
            devices: self.devices.get(after.device..).unwrap_or_default().into(),
        }
    }

    /// Lets go of what the server has committed, `seq` and `event` included.
    pub fn release(&mut self, seq: Option<u64>, event: Option<u64>) {
        while self.first <= seq.unwrap_or(0) && self.take_first().is_some() {
            self.counters.acknowledged += 1;
        }
        self.gaps.release(seq.unwrap_or(0));
        let committed = event.unwrap_or(0);
        while self.events.front().is_some_and(|event| event.seq <= committed) {
            self.events.pop_front();
        }
    }

    /// Begins a new numbering under a new id: the old one belongs to another machine.
    pub fn renew(&mut self) {
        self.id = new_id();
        self.first = self.gaps.renumber() + 1;
        self.handed_out = 0;
        self.next_event = 1;
        for event in &mut self.events {
            event.seq = self.next_event;
            self.next_event += 1;
        }
    }

    fn take_first(&mut self) -> Option<Reading> {
        let entry = self.readings.pop_front()?;
        self.bytes -= entry.memory();
        self.first += 1;
        Some(entry.reading)
    }
}

fn new_id() -> String {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).expect("every supported system has random bytes");
    format!("{:032x}", u128::from_be_bytes(random))
}

#[cfg(test)]
mod tests;
