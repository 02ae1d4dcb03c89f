//! How often something is heard: a device, or one of its metrics.

use std::time::Duration;

use valtronics_protocol::time::UnixMillis;

use super::intervals::Intervals;

/// How many intervals make a rhythm.
const ENOUGH_INTERVALS: usize = 3;
/// What comes within this is one sign of life, such as a device's metrics on topics of their own.
const ONE_GO: Duration = Duration::from_millis(50);

/// When something was heard, and how often it usually is.
#[derive(Debug, Clone, Default)]
#[repr(C)]
pub struct Rhythm {
    heard_at: Option<UnixMillis>,
    /// When the first of what was heard in one go last came.
    began_at: UnixMillis,
    intervals: Intervals,
}

impl Rhythm {
    /// Notes that it is heard.
    pub fn heard(&mut self, now: UnixMillis) {
        let interval = now.since(self.began_at);
        if self.heard_at.is_none() {
            self.began_at = now;
        } else if interval >= ONE_GO {
            self.intervals.note(interval);
            self.began_at = now;
        }
        self.heard_at = Some(now);
    }

    /// Returns when it was heard last.
    #[must_use]
    pub fn heard_at(&self) -> Option<UnixMillis> {
        self.heard_at
    }

    /// Returns its usual interval, the median of the last eight; `None` before three are known.
    #[must_use]
    pub fn usual(&self) -> Option<Duration> {
        self.intervals.median(ENOUGH_INTERVALS)
    }
}
