//! One lane's records on disk: a row of segments, the last of which is written.
//!
//! A segment whose records are all acknowledged becomes a spare and is written over. Everything is
//! synced before it counts; a segment of which a write or a sync has failed is left as it is, and
//! what it should have held goes into a fresh one.

use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
};

use tracing::warn;
use valtronics_protocol::time::UnixMillis;

use super::{
    ages::Ages,
    disk::{Disk, DiskFile},
    segment::{Header, RECORD, RECORDS, Record, Records},
};

/// The most spares: the next segment is begun without waiting for zeros, more would only take room.
const SPARES: usize = 2;

/// A file of the log.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    pub(super) header: Header,
    /// The number after its last.
    pub(super) end: u64,
    pub(super) bytes: u64,
}

#[derive(Debug)]
struct Writer {
    file: DiskFile,
    offset: usize,
    next: u64,
    buffer: Vec<u8>,
}

/// The log of one lane.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) disk: Disk,
    pub(super) folder: PathBuf,
    /// What its files' names begin with.
    pub(super) lane: &'static str,
    /// The size of a segment.
    pub(super) segment_bytes: usize,
    pub(super) segments: VecDeque<Segment>,
    /// The number after the last that was ever in it.
    pub(super) end: u64,
    /// When what was there at the opening came in; the queue takes it over.
    pub(super) ages: Ages,
    spares: Vec<PathBuf>,
    writer: Option<Writer>,
    /// Bytes of files that were set aside.
    pub(super) aside_bytes: u64,
}

impl Log {
    pub(super) fn new(
        disk: Disk,
        folder: PathBuf,
        lane: &'static str,
        segment_bytes: usize,
    ) -> Self {
        Self {
            disk,
            folder,
            lane,
            segment_bytes,
            segments: VecDeque::new(),
            end: 1,
            ages: Ages::default(),
            spares: Vec::new(),
            writer: None,
            aside_bytes: 0,
        }
    }

    /// Returns how long the payload of a record may be that goes on at `first` in the segment that
    /// is written; `None` where it needs a new segment.
    pub(super) fn room(&self, first: u64) -> Option<usize> {
        let writer = self.writer.as_ref().filter(|writer| writer.next == first)?;
        let used = writer.offset + writer.buffer.len() + RECORD;
        self.segment_bytes.checked_sub(used)
    }

    /// Returns what its files take.
    pub(super) fn bytes(&self) -> u64 {
        let spares = (self.spares.len() * self.segment_bytes) as u64;
        self.aside_bytes + spares + self.segments.iter().map(|file| file.bytes).sum::<u64>()
    }

    /// Tells whether a new segment needs no new room.
    pub(super) fn has_spare(&self) -> bool {
        !self.spares.is_empty()
    }

    /// Begins a new segment, whose first record has the number `first`.
    pub(super) fn begin(&mut self, queue: u128, first: u64) -> io::Result<()> {
        self.commit()?;
        self.writer = None;
        let spare = match self.spares.pop() {
            Some(spare) => spare,
            None => {
                let spare = self.folder.join(format!("{}.spare", self.lane));
                self.disk.create_zeroed(&spare, self.segment_bytes).inspect_err(|_| {
                    // What is half there takes the room that is missing.
                    let _ = self.disk.remove(&spare);
                })?;
                spare
            }
        };
        let mut salt = [0; 8];
        getrandom::fill(&mut salt).map_err(io::Error::other)?;
        let header = Header { queue, first, before: self.end, salt: u64::from_le_bytes(salt) };
        let path = self.path(first);
        let file = self.disk.open(&spare)?;
        file.write_at(&header.bytes(), 0)?;
        file.sync()?;
        self.disk.rename(&spare, &path)?;
        let file = self.disk.open(&path)?;
        let bytes = self.segment_bytes as u64;
        self.segments.push_back(Segment { path, header, end: first, bytes });
        self.writer = Some(Writer { file, offset: RECORDS, next: first, buffer: Vec::new() });
        Ok(())
    }

    /// Appends a record to what the next commit writes.
    pub(super) fn put(&mut self, count: u32, received: UnixMillis, payload: &[u8]) {
        if let (Some(writer), Some(segment)) = (&mut self.writer, self.segments.back()) {
            let record = Record { first: writer.next, count, received, payload };
            record.write(segment.header.salt, &mut writer.buffer);
            writer.next += u64::from(count);
        }
    }

    /// Writes what was put, and waits until it is on the disk.
    pub(super) fn commit(&mut self) -> io::Result<()> {
        let Some(writer) = self.writer.as_mut().filter(|writer| !writer.buffer.is_empty()) else {
            return Ok(());
        };
        writer.file.write_at(&writer.buffer, writer.offset as u64)?;
        writer.file.sync()?;
        writer.offset += writer.buffer.len();
        writer.buffer.clear();
        if let Some(segment) = self.segments.back_mut() {
            segment.end = writer.next;
            self.end = writer.next;
        }
        Ok(())
    }

    /// Lets go of the segment that is written: what it holds counts as far as it was synced.
    pub(super) fn retire(&mut self) {
        self.writer = None;
        let is_empty = |segment: &mut Segment| segment.end == segment.header.first;
        if let Some(empty) = self.segments.pop_back_if(is_empty) {
            self.discard(&empty.path);
        }
    }

    /// Returns the oldest segment that holds something above `after`.
    pub(super) fn above(&self, after: u64) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.end > after + 1)
    }

    /// Takes back segments of which everything up to `released` is no longer needed.
    pub(super) fn release(&mut self, released: u64) {
        let writing = usize::from(self.writer.is_some());
        while self.segments.len() > writing
            && self.segments.front().is_some_and(|oldest| oldest.end <= released + 1)
        {
            self.recycle();
        }
    }

    /// Takes back the oldest segment, even if it is the one that is written.
    pub(super) fn recycle(&mut self) {
        if self.segments.len() == 1 {
            self.writer = None;
        }
        let Some(segment) = self.segments.pop_front() else { return };
        let spare = self.folder.join(format!("{}-{}.spare", self.lane, segment.header.first));
        let is_whole = segment.bytes == self.segment_bytes as u64;
        if self.spares.len() < SPARES && is_whole && self.disk.rename(&segment.path, &spare).is_ok()
        {
            self.spares.push(spare);
        } else {
            self.discard(&segment.path);
        }
    }

    /// Gives up what stands from `number` on in the segment that holds it.
    pub(super) fn cut(&mut self, number: u64) {
        let Some(at) = self.segments.iter().position(|segment| segment.end > number) else {
            return;
        };
        if at + 1 == self.segments.len() {
            self.writer = None;
        }
        if let Some(segment) = self.segments.get_mut(at) {
            segment.end = number;
        }
        self.segments.retain(|segment| segment.end > segment.header.first);
    }

    pub(super) fn path(&self, first: u64) -> PathBuf {
        self.folder.join(format!("{}-{first:020}", self.lane))
    }

    fn discard(&self, path: &Path) {
        if let Err(error) = self.disk.remove(path) {
            warn!("{} cannot be removed: {error}", path.display());
        }
    }
}

impl Segment {
    /// Reads its records, up to the last that counts.
    pub(super) fn records<'a>(&self, file: &'a [u8]) -> impl Iterator<Item = Record<'a>> {
        let (mut records, end) = (Records::of(&self.header), self.end);
        std::iter::from_fn(move || (records.next < end).then(|| records.read(file)).flatten())
    }
}
