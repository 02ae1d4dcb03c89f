//! Opening the queue's files, whatever state they are in.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use tracing::warn;
use valtronics_protocol::{
    batch::Encoder,
    uplink::{Gap, GapReason, StatusEvent},
};

use super::{
    ages::Ages,
    cursor::{Cursor, CursorFile},
    disk::{self, Disk},
    gaps::{GapFile, Tally},
    limits::Budget,
    log::Log,
    reader::Reader,
    recovery::{self, Loss},
    store::{READINGS, RESERVE, Store},
};

/// What was there when the queue was opened.
#[derive(Debug, Default)]
pub(super) struct Opened {
    /// The cursor to go on with; `reserved` is where new numbers begin after.
    pub(super) cursor: Cursor,
    /// The numbers of readings that are there, in ranges `first..end`.
    pub(super) readings: Vec<(u64, u64)>,
    pub(super) ages: Ages,
    pub(super) events: Vec<StatusEvent>,
    pub(super) gaps: Vec<Gap>,
}

impl Store {
    /// Opens the files in `folder`, whatever state they are in.
    ///
    /// # Errors
    /// When another agent has them open.
    pub(super) fn open(disk: Disk, folder: PathBuf, max_bytes: u64) -> io::Result<(Self, Opened)> {
        let lock = take_folder(&disk, &folder)?;
        let budget = Budget::of(max_bytes);
        let log = |lane, bytes| Log::new(disk.clone(), folder.clone(), lane, bytes);
        let mut store = Self {
            lock,
            telemetry: log("telemetry", budget.segment),
            events: log("events", budget.event_segment),
            encoder: Encoder::default(),
            reader: Reader::default(),
            cursor: CursorFile::open(&disk, folder.join("cursor")),
            gaps: GapFile::open(&disk, folder.join("gaps")),
            payload: Vec::new(),
            budget,
            disk,
            folder,
        };
        let known = store.cursor.durable;
        let end = known.map_or([1, 1], |cursor| cursor.end);
        let losses = match recovery::recover(&mut store.telemetry, end[0]) {
            Ok(losses) => losses,
            Err(error) => {
                warn!("{} cannot be read: {error}", store.folder.display());
                Vec::new()
            }
        };
        if let Err(error) = recovery::recover(&mut store.events, end[1]) {
            warn!("{} cannot be read: {error}", store.folder.display());
        }
        let mut cursor = known.unwrap_or_else(|| store.guess_cursor());
        store.note_losses(&losses, cursor.released[READINGS]);
        store.reserve(&mut cursor);
        let opened = Opened {
            cursor,
            readings: store.readings(),
            ages: std::mem::take(&mut store.telemetry.ages),
            events: store.read_events(cursor.released[1]),
            gaps: store.gaps.gaps.clone(),
        };
        Ok((store, opened))
    }

    /// Goes by the newest segment when both slots of the cursor are gone.
    fn guess_cursor(&self) -> Cursor {
        let queue = self.telemetry.segments.back().map_or_else(new_id, |last| last.header.queue);
        let end = [self.telemetry.end, self.events.end];
        let has_any = !self.telemetry.segments.is_empty() || !self.events.segments.is_empty();
        // Numbers are reserved up to twice in advance.
        let reserved = end.map(|end| if has_any { end + 2 * RESERVE } else { 0 });
        Cursor { queue, reserved, released: [0, 0], end }
    }

    /// Reserves the first numbers; where that cannot be written down, they go under a new id.
    fn reserve(&mut self, cursor: &mut Cursor) {
        let old = cursor.reserved;
        let reserved = Cursor { reserved: old.map(|old| old + RESERVE), ..*cursor };
        if let Err(error) = self.cursor.write_both(&self.disk, reserved) {
            warn!("{}: {error}; the queue goes on in memory", self.folder.display());
            cursor.queue = new_id();
        }
    }

    fn note_losses(&mut self, losses: &[Loss], released: u64) {
        for loss in losses {
            let first = loss.first.max(released + 1);
            let is_known = |gap: &Gap| gap.first <= first && loss.last <= gap.last;
            if first <= loss.last && !self.gaps.gaps.iter().any(is_known) {
                let about = self.telemetry.ages.of(first).unwrap_or_default();
                let gap = Tally::default().gap(first, loss.last, GapReason::Corrupt, about);
                self.gaps.add(gap, 0);
            }
        }
        if let Err(error) = self.gaps.save(&self.disk) {
            warn!("{}: {error}", self.folder.display());
        }
    }

    fn readings(&self) -> Vec<(u64, u64)> {
        let segments = self.telemetry.segments.iter();
        segments.map(|segment| (segment.header.first, segment.end)).collect()
    }

    fn read_events(&self, released: u64) -> Vec<StatusEvent> {
        let mut events = Vec::new();
        for segment in &self.events.segments {
            let file = self.disk.read(&segment.path).unwrap_or_default();
            for record in segment.records(&file) {
                let event: Option<StatusEvent> = serde_json::from_slice(record.payload).ok();
                events.extend(event.filter(|event| event.seq > released));
            }
        }
        events
    }
}

/// Locks the folder, if there is one to be had: nothing in it is read before that.
fn take_folder(disk: &Disk, folder: &Path) -> io::Result<Option<File>> {
    let lock = disk.create_folder(folder).and_then(|()| disk::lock(&folder.join("lock")));
    match lock {
        Ok(lock) => Ok(Some(lock)),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Err(error),
        Err(error) => {
            warn!("{} cannot be written: {error}", folder.display());
            Ok(None)
        }
    }
}

/// Makes a new name of a numbering.
///
/// # Panics
/// When the system has no random bytes: a repeated id would lose readings.
pub(super) fn new_id() -> u128 {
    let mut random = [0; 16];
    getrandom::fill(&mut random).expect("every supported system has random bytes");
    u128::from_be_bytes(random)
}
