//! The queue's files: both logs, the cursor and the gaps. Synchronous, without threads; whoever
//! owns it decides where its calls may block.

use std::{fs::File, io, path::PathBuf, sync::Arc, time::Duration};

use tracing::{info, warn};
use valtronics_protocol::{
    batch::Encoder,
    time::UnixMillis,
    uplink::{Gap, GapReason, StatusEvent},
};

use super::{
    Limits,
    batch::{Batch, Picked},
    cursor::{Cursor, CursorFile},
    disk::{self, Disk},
    gaps::{GapFile, Tally},
    limits::Budget,
    log::{Log, Segment},
    reader::Reader,
    recovery::Loss,
    segment::{RECORD, RECORDS},
};

/// How many numbers are reserved at once: one write of the cursor for a million readings.
pub(super) const RESERVE: u64 = 1 << 20;
/// Readings of one record were received within this time, so that its one moment says enough.
const RECORD_SPAN: Duration = Duration::from_secs(1);

/// The lane of readings and the lane of status events, in pairs.
pub(super) const READINGS: usize = 0;

/// The files of one queue.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) disk: Disk,
    pub(super) folder: PathBuf,
    /// Absent while there is no folder to be had.
    pub(super) lock: Option<File>,
    pub(super) budget: Budget,
    pub(super) telemetry: Log,
    pub(super) events: Log,
    pub(super) encoder: Encoder,
    pub(super) reader: Reader,
    pub(super) cursor: CursorFile,
    pub(super) gaps: GapFile,
    pub(super) payload: Vec<u8>,
}

/// What is to be done in one go.
#[derive(Debug)]
pub(super) struct Work {
    /// What is known now; `end` is filled in here.
    pub(super) cursor: Cursor,
    /// Whether the cursor is worth a write of its own.
    pub(super) save_cursor: bool,
    pub(super) batches: Vec<Arc<Batch>>,
    pub(super) events: Vec<StatusEvent>,
    /// Gaps that never reached the disk.
    pub(super) lost: Vec<Gap>,
    /// Gaps up to this number were handed out.
    pub(super) told: u64,
    /// About when the oldest reading came in.
    pub(super) oldest: UnixMillis,
    pub(super) read: Option<(u64, Limits)>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// What the disk has now.
    pub(super) cursor: Option<Cursor>,
    /// The number of the last reading and of the last event that is durable.
    pub(super) saved: [u64; 2],
    /// All gaps that wait to be told.
    pub(super) gaps: Vec<Gap>,
    /// The numbers of readings that are lost.
    pub(super) losses: Vec<Loss>,
    /// Status events up to here are gone.
    pub(super) events_evicted: u64,
    pub(super) picked: Option<Picked>,
    pub(super) error: Option<io::Error>,
}

impl Store {
    /// Does everything that is due, as far as the disk lets it.
    pub(super) fn run(&mut self, work: Work) -> Outcome {
        let mut outcome = Outcome::default();
        outcome.error = self.write(&work, &mut outcome).err();
        if let Some((number, limits)) = work.read {
            outcome.picked = self.read(number, limits, &work, &mut outcome.losses);
        }
        outcome.saved = [self.telemetry.end - 1, self.events.end - 1];
        outcome.cursor = self.cursor.durable;
        outcome.gaps = self.gaps.gaps.clone();
        outcome
    }

    fn write(&mut self, work: &Work, outcome: &mut Outcome) -> io::Result<()> {
        let [released, events_released] = work.cursor.released;
        self.gaps.release(released);
        for gap in &work.lost {
            self.gaps.add(gap.clone(), work.told);
        }
        self.claim_folder()?;
        self.telemetry.release(released);
        self.events.release(events_released);
        let cursor = Cursor { end: [self.telemetry.end, self.events.end], ..work.cursor };
        let durable = self.cursor.durable.unwrap_or_default();
        if durable.queue != cursor.queue || durable.reserved != cursor.reserved {
            self.cursor.write_both(&self.disk, cursor)?;
        }
        self.save_readings(work, outcome).inspect_err(|_| self.telemetry.retire())?;
        self.save_events(work, outcome).inspect_err(|_| self.events.retire())?;
        self.gaps.save(&self.disk)?;
        if work.save_cursor {
            let end = [self.telemetry.end, self.events.end];
            self.cursor.write(&self.disk, Cursor { end, ..cursor })?;
        }
        Ok(())
    }

    /// Takes a folder that was not to be had before; one that holds another queue is left alone.
    fn claim_folder(&mut self) -> io::Result<()> {
        if self.lock.is_some() {
            return Ok(());
        }
        self.disk.create_folder(&self.folder)?;
        let lock = disk::lock(&self.folder.join("lock"))?;
        let has_others = self.disk.list(&self.folder)?.iter().any(|path| path.ends_with("cursor"));
        if has_others && self.telemetry.segments.is_empty() && self.cursor.durable.is_none() {
            let why = "it holds the queue of an earlier start, which the next start takes over";
            return Err(io::Error::other(why));
        }
        self.lock = Some(lock);
        info!("{} can be written", self.folder.display());
        Ok(())
    }

    fn save_readings(&mut self, work: &Work, outcome: &mut Outcome) -> io::Result<()> {
        let mut rest = work.batches.as_slice();
        while let Some((record, after)) = rest.split_at_checked(self.record_length(rest)) {
            if record.is_empty() {
                break;
            }
            self.save_record(record, work, outcome)?;
            rest = after;
        }
        self.telemetry.commit()
    }

    /// Returns how many of the batches make the next record.
    fn record_length(&self, batches: &[Arc<Batch>]) -> usize {
        let Some(begin) = batches.first() else { return 0 };
        let (mut next, mut bytes) = (begin.first, 0);
        let belongs = |batch: &&Arc<Batch>| {
            let is_next = batch.first == next && begin.received.plus(RECORD_SPAN) > batch.received;
            let fits = bytes == 0 || bytes + batch.encoded <= self.budget.record;
            (next, bytes) = (batch.end(), bytes + batch.encoded);
            is_next && fits
        };
        batches.iter().take_while(belongs).count()
    }

    fn save_record(
        &mut self,
        batches: &[Arc<Batch>],
        work: &Work,
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        let Some(begin) = batches.first() else { return Ok(()) };
        let readings = || batches.iter().flat_map(|batch| &batch.readings);
        let room = self.telemetry.room(begin.first);
        self.payload.clear();
        if room.is_some() {
            self.encoder.encode(readings(), &mut self.payload);
        }
        if room.is_none_or(|room| room < self.payload.len()) {
            self.telemetry.commit()?;
            self.make_room(work, outcome)?;
            self.telemetry.begin(work.cursor.queue, begin.first)?;
            self.encoder = Encoder::default();
            self.payload.clear();
            self.encoder.encode(readings(), &mut self.payload);
        }
        if self.payload.len() + RECORD + RECORDS > self.budget.segment {
            return Err(io::Error::other("a record does not fit its segment"));
        }
        let count = readings().count();
        self.telemetry.put(u32::try_from(count).unwrap_or(u32::MAX), begin.received, &self.payload);
        Ok(())
    }

    /// Makes sure that a new segment has room, if need be by giving up the oldest readings.
    fn make_room(&mut self, work: &Work, outcome: &mut Outcome) -> io::Result<()> {
        while !self.telemetry.has_spare() && !self.has_room()? {
            let Some(oldest) = self.telemetry.segments.front() else {
                return Err(io::ErrorKind::StorageFull.into());
            };
            let first = oldest.header.first.max(work.cursor.released[READINGS] + 1);
            let last = oldest.end - 1;
            if first <= last {
                let gap = tally(&self.telemetry, oldest, first, work.oldest);
                outcome.losses.push(Loss { first, last });
                self.gaps.add(gap, work.told);
                self.gaps.save(&self.disk)?;
            }
            self.telemetry.recycle();
        }
        Ok(())
    }

    fn has_room(&self) -> io::Result<bool> {
        let full = self.telemetry.bytes() + self.budget.segment as u64 > self.budget.telemetry;
        Ok(!full && self.disk.free_bytes(&self.folder)? >= self.budget.free())
    }

    fn save_events(&mut self, work: &Work, outcome: &mut Outcome) -> io::Result<()> {
        for event in &work.events {
            let json = serde_json::to_vec(event)?;
            if self.events.room(event.seq).is_none_or(|room| room < json.len()) {
                self.events.commit()?;
                while !self.events.has_spare()
                    && self.events.bytes() + self.budget.event_segment as u64 > self.budget.events
                {
                    let Some(oldest) = self.events.segments.front() else { break };
                    outcome.events_evicted = oldest.end - 1;
                    self.events.recycle();
                }
                self.events.begin(work.cursor.queue, event.seq)?;
            }
            self.events.put(1, event.timestamp, &json);
        }
        self.events.commit()
    }

    /// Reads on from `number`; what cannot be read is lost, and the segment is set aside.
    fn read(
        &mut self,
        number: u64,
        limits: Limits,
        work: &Work,
        losses: &mut Vec<Loss>,
    ) -> Option<Picked> {
        let segment = self.telemetry.above(number - 1)?;
        let number = number.max(segment.header.first);
        match self.reader.read(&self.telemetry, segment, number, limits) {
            Ok(picked) => Some(picked),
            Err(error) => {
                let last = segment.end - 1;
                warn!(first = number, last, "{}: {error}", segment.path.display());
                self.reader.clear();
                let gap = Tally::default().gap(number, last, GapReason::Corrupt, work.oldest);
                self.gaps.add(gap, work.told);
                losses.push(Loss { first: number, last });
                self.telemetry.cut(number);
                None
            }
        }
    }
}

/// Counts what is lost with a segment from `first` on, by device; it came in `about` then.
fn tally(log: &Log, segment: &Segment, first: u64, about: UnixMillis) -> Gap {
    let (mut reader, mut tally, mut next) = (Reader::default(), Tally::default(), first);
    while next < segment.end {
        match reader.read(log, segment, next, Limits::ALL) {
            Ok(picked) if !picked.readings.is_empty() => {
                picked.readings.iter().for_each(|reading| tally.add(reading));
                next += picked.readings.len() as u64;
            }
            // The numbers still say how many there were.
            Ok(_) | Err(_) => break,
        }
    }
    tally.gap(first, segment.end - 1, GapReason::Evicted, about)
}
