//! The one place that reads time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use valtronics_protocol::time::UnixMillis;

/// Reads the wall clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn now() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Reads the monotonic clock.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn instant() -> Instant {
    // Tokio's clock is the system's, unless a test has paused it.
    tokio::time::Instant::now().into_std()
}
