//! Whether a metric is still heard as often as it usually is.
//!
//! A metric is **stale** when it has not been heard for three of its usual intervals, for whatever
//! reason: that is what a snapshot shows. It is **silent** when it could have been heard for as long,
//! its gateway being connected and its device not offline: that makes the device `warning`.
//!
//! Decided here:
//! - What counts is the receipt, by the server's clock, of live readings only.
//! - The silence is at least 45 s, or what the agent declared for the device: an agent that sends
//!   a value only when it moves knows how long it may keep still.
//! - A metric that was heard less than four times has no usual interval and is never silent: it may
//!   well be said once a start, such as a version.
//! - To a metric's silence comes a round: a device that says its metrics one by one, and stops, is
//!   itself silent before any of them is.
//! - Nothing ticks for a metric. Its device is looked at when the earliest of its deadlines has come.

use std::time::Duration;

use valtronics_protocol::time::UnixMillis;

use super::rhythm::Rhythm;

/// How many usual intervals may pass: two readings may get lost.
const INTERVALS: u32 = 3;
/// In how much time a device says all its metrics.
const A_ROUND: Duration = Duration::from_secs(2);

/// What is known of one metric: 72 bytes, and 2 ns a reading.
#[derive(Debug, Clone, Default)]
#[repr(C)]
pub struct Freshness {
    standing: Standing,
    rhythm: Rhythm,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Fresh,
    Stale,
    Silent,
}

/// How well a device's metrics can be heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hearing {
    /// The least silence that counts.
    pub least: Duration,
    /// Since when each metric would be heard that speaks; `None`: none would.
    pub since: Option<UnixMillis>,
}

impl Freshness {
    /// Notes a live reading; returns whether that ends a silence.
    pub fn heard(&mut self, now: UnixMillis) -> bool {
        self.rhythm.heard(now);
        std::mem::take(&mut self.standing) == Standing::Silent
    }

    /// Returns when it was heard last.
    #[must_use]
    pub fn heard_at(&self) -> Option<UnixMillis> {
        self.rhythm.heard_at()
    }

    /// Takes over that its device was offline when the server stopped.
    pub fn restore_stale(&mut self) {
        self.standing = Standing::Stale;
    }

    /// Takes over that it was silent when the server stopped.
    pub fn restore_silent(&mut self) {
        self.standing = Standing::Silent;
    }

    /// Looks where it stands at this moment; returns when to look again if it is not heard.
    pub fn look(&mut self, hearing: Hearing, now: UnixMillis) -> Option<UnixMillis> {
        let patience = self.patience(hearing.least)? + A_ROUND;
        let heard_at = self.rhythm.heard_at()?;
        let stale_at = heard_at.plus(patience);
        let silent_at = hearing.since.map(|since| heard_at.max(since).plus(patience));
        if silent_at.is_some_and(|at| at <= now) {
            self.standing = Standing::Silent;
        } else if stale_at <= now && self.standing == Standing::Fresh {
            self.standing = Standing::Stale;
        }
        match self.standing {
            Standing::Fresh => Some(stale_at),
            Standing::Stale => silent_at,
            Standing::Silent => None,
        }
    }

    /// Returns how much silence counts, if it has a usual interval.
    #[must_use]
    pub fn patience(&self, least: Duration) -> Option<Duration> {
        self.rhythm.usual().map(|usual| least.max(INTERVALS * usual))
    }

    /// Tells whether its value is older than it should be.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.standing != Standing::Fresh
    }

    /// Tells whether it is missed.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        self.standing == Standing::Silent
    }
}
