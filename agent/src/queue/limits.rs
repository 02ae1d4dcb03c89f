//! How the room that a configuration grants is shared out.

/// The largest segment: what is lost at once when the queue is full, and what is read at once.
const SEGMENT: usize = 1024 * 1024;
/// The smallest segment: a record with the longest reading fits several times.
const SMALL_SEGMENT: usize = 16 * 1024;
/// The most readings that a record holds are those of a second, unless they are so long.
const RECORD: usize = 128 * 1024;
/// What the cursor, the lock and the gaps take.
const AROUND: u64 = 24 * 1024;
/// What is left free on the file system for others, so that the machine goes on.
const FREE: u64 = 8 * 1024 * 1024;

/// Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    /// All files of readings.
    pub(super) telemetry: u64,
    /// One of them.
    pub(super) segment: usize,
    /// One record of readings, at most.
    pub(super) record: usize,
    /// All files of status events.
    pub(super) events: u64,
    /// One of them.
    pub(super) event_segment: usize,
}

impl Budget {
    /// Shares out `max_bytes`: a sixteenth for events, a sixteenth for each segment.
    pub(super) fn of(max_bytes: u64) -> Self {
        let sixteenth = usize::try_from(max_bytes / 16).unwrap_or(SEGMENT) / 4096 * 4096;
        let segment = sixteenth.clamp(SMALL_SEGMENT, SEGMENT);
        let events = segment as u64 * 2;
        Self {
            telemetry: max_bytes.saturating_sub(events + AROUND),
            segment,
            record: RECORD.min(segment / 4),
            events,
            event_segment: segment / 2,
        }
    }

    /// What must be free before a new file is made.
    pub(super) fn free(&self) -> u64 {
        FREE + self.segment as u64
    }
}
