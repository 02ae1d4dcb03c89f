//! What may be sent now, and what is under way: plain values in and out.
//!
//! The server grants a window in bytes. A frame is under way from when it is sent until its last
//! reading is acknowledged; nothing is sent that does not fit beside what is under way. A frame
//! that would not fit into an empty window is sent alone, or it would never go. Where the link is
//! slower than the window is large, [`Pace`] lets less through.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

use super::pace::{Departure, Pace};
use crate::queue::Position;

/// One connection's window and flush interval.
#[derive(Debug)]
pub struct Window {
    bytes: usize,
    under_way: VecDeque<Frame>,
    under_way_bytes: usize,
    blocked: bool,
    pace: Pace,
    sent: Position,
    seq_committed: u64,
    event_committed: u64,
    flush: Duration,
    last_flush: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    last: u64,
    bytes: usize,
    departure: Departure,
}

impl Window {
    /// Starts after what the server has committed; `flush` is the least time between two frames.
    #[must_use]
    pub fn new(bytes: usize, committed: Position, flush: Duration) -> Self {
        Self {
            bytes,
            under_way: VecDeque::new(),
            under_way_bytes: 0,
            blocked: false,
            pace: Pace::default(),
            sent: committed,
            seq_committed: committed.seq,
            event_committed: committed.event,
            flush,
            last_flush: None,
        }
    }

    /// Returns how far all lanes were sent.
    #[must_use]
    pub fn sent(&self) -> Position {
        self.sent
    }

    /// Returns how many bytes the next frame may have, or `None` while none may go.
    #[must_use]
    pub fn room(&self) -> Option<usize> {
        let room = self.bytes.saturating_sub(self.under_way_bytes);
        let paced = room > 0 && self.under_way_bytes < self.pace.under_way();
        (!self.blocked && (paced || self.under_way.is_empty())).then_some(room)
    }

    /// Returns how long the link needs for so many bytes, as far as that is known.
    #[must_use]
    pub fn time_for(&self, bytes: usize) -> Duration {
        self.pace.time_for(bytes)
    }

    /// Returns how many readings a frame may hold, so that it does not hold the link for long.
    #[must_use]
    pub fn frame_readings(&self) -> usize {
        self.pace.frame_readings()
    }

    /// Tells whether a frame of `bytes` may go now; if not, there is no room until the next
    /// acknowledgement.
    pub fn admits(&mut self, bytes: usize) -> bool {
        let admits = self.under_way.is_empty() || self.under_way_bytes + bytes <= self.bytes;
        self.blocked = !admits;
        admits
    }

    /// Notes a frame of so many readings, up to the number `last`, in `bytes`, and whether more wait
    /// behind it.
    pub fn frame_sent(
        &mut self,
        last: u64,
        readings: usize,
        bytes: usize,
        more_waits: bool,
        now: Instant,
    ) {
        let departure = self.pace.departed(readings, bytes, more_waits, now);
        self.sent.seq = last;
        self.under_way.push_back(Frame { last, bytes, departure });
        self.under_way_bytes += bytes;
    }

    /// Notes a gap up to the number `last`.
    pub fn gap_sent(&mut self, last: u64) {
        self.sent.seq = last;
    }

    /// Notes a status event.
    pub fn event_sent(&mut self, event: u64) {
        self.sent.event = event;
    }

    /// Notes a device's settings.
    pub fn device_sent(&mut self) {
        self.sent.device += 1;
    }

    /// Notes that the server has committed all readings up to `seq` and events up to `event`.
    pub fn acknowledged(&mut self, seq: u64, event: u64, now: Instant) {
        self.blocked = false;
        self.seq_committed = self.seq_committed.max(seq);
        self.event_committed = self.event_committed.max(event);
        let (mut bytes, mut newest) = (0, None);
        while let Some(frame) = self.under_way.pop_front_if(|frame| frame.last <= seq) {
            bytes += frame.bytes;
            newest = Some(frame.departure);
        }
        self.under_way_bytes -= bytes;
        if let Some(departure) = newest {
            self.pace.arrived(departure, bytes, now);
        }
    }

    /// Tells whether nothing that was sent waits for its acknowledgement.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.seq_committed >= self.sent.seq && self.event_committed >= self.sent.event
    }

    /// Returns when the next live frame may go: at once after a quiet interval.
    #[must_use]
    pub fn flush_due(&self, now: Instant) -> Instant {
        self.last_flush.map_or(now, |last| last + self.flush).max(now)
    }

    /// Notes a flush; what it had to leave behind goes as soon as there is room.
    pub fn flushed(&mut self, now: Instant, is_behind: bool) {
        self.last_flush = (!is_behind).then_some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn window(bytes: usize) -> Window {
        Window::new(bytes, Position::default(), Duration::from_millis(100))
    }

    #[test]
    fn no_more_is_under_way_than_the_window_holds() {
        let mut window = window(100);
        assert_eq!(window.room(), Some(100));
        window.frame_sent(10, 1, 60, false, clock::monotonic());
        assert_eq!(window.room(), Some(40));
        assert!(window.admits(40));
        assert!(!window.admits(41));
        assert_eq!(window.room(), None);
        window.acknowledged(0, 0, clock::monotonic());
        window.frame_sent(15, 1, 40, false, clock::monotonic());
        assert_eq!(window.room(), None);
        window.acknowledged(14, 0, clock::monotonic());
        assert_eq!(window.room(), Some(60));
        assert!(!window.is_settled());
        window.acknowledged(15, 0, clock::monotonic());
        assert!(window.is_settled());
        assert_eq!(window.sent().seq, 15);
    }

    #[test]
    fn what_never_fits_goes_alone() {
        for bytes in [0, 10] {
            let mut window = window(bytes);
            assert!(window.admits(1000));
            window.frame_sent(1, 1, 1000, false, clock::monotonic());
            assert_eq!(window.room(), None);
            window.acknowledged(1, 0, clock::monotonic());
            assert_eq!(window.room(), Some(bytes));
        }
    }

    #[test]
    fn the_first_frame_after_a_quiet_interval_goes_at_once() {
        let mut window = window(100);
        let start = clock::monotonic();
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(window.flush_due(start), start);
        window.flushed(start, false);
        assert_eq!(window.flush_due(after(20)), after(100));
        assert_eq!(window.flush_due(after(250)), after(250));
        window.flushed(after(250), true);
        assert_eq!(window.flush_due(after(260)), after(260));
    }
}
