//! The only place that reads a clock; everything else takes `now` as a parameter.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;
use valtronics_protocol::time::UnixMillis;

/// Reads the wall clock, for timestamps.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn now() -> UnixMillis {
    let now = SystemTime::now();
    match now.duration_since(UNIX_EPOCH) {
        Ok(since) => UnixMillis::default().plus(since),
        Err(before) => UnixMillis::default().minus(before.duration()),
    }
}

/// Reads the clock that never jumps, for periods and deadlines; a test can pause it.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// Reads how long the machine has been up, suspended or not: what the wall clock is held against.
#[must_use]
pub fn since_boot() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}
