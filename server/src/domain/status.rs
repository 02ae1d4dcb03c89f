//! The status of one device: the worst of what is known of it, with its reason.
//!
//! In this order: its gateway is offline; it, or its gateway for it, reported `offline`; it is
//! silent; it reported `warning`; it is online. When one ends, the next shows.
//!
//! Decided here:
//! - A live reading ends a reported `offline`, but not a `warning`: that ends when `online` is
//!   reported, for a device that sends may well have a low battery.
//! - Silence is not counted while the gateway is away, since nothing could be heard; when it is
//!   back, it counts from then for a device that was not silent before.
//! - After a restart of the server nothing changes: silence counts from the restart, and whatever
//!   made a device offline lasts until the device is heard.
//! - The long interval that a silence ended counts as any other: a device that sends once an hour
//!   is found to do so.
//! - A device of which nothing is known is offline, and that is not announced before something is.

use std::{sync::Arc, time::Duration};

use valtronics_protocol::{
    event::Status,
    id::DeviceId,
    time::{UnixMillis, format_period},
};

use super::intervals::Intervals;
use crate::commit::StatusDraft;

#[cfg(test)]
mod tests;

/// The least silence that counts where the rhythm is learned (programs, `[devices]`).
const LEAST_SILENCE: Duration = Duration::from_secs(45);
/// The silence that counts before the rhythm is known.
const UNKNOWN_SILENCE: Duration = Duration::from_secs(15 * 60);
/// How many intervals make a rhythm.
const ENOUGH_INTERVALS: usize = 3;
/// What comes within this is one sign of life, such as a device's metrics on topics of their own.
const ONE_GO: Duration = Duration::from_millis(50);

/// What is known of one device.
#[derive(Debug, Clone, Default)]
pub struct Health {
    announced: Option<Status>,
    /// When what is known changed last.
    changed_at: UnixMillis,
    last_seen: Option<UnixMillis>,
    /// Since when silence counts; `None` when there is nothing to miss.
    quiet_since: Option<UnixMillis>,
    /// The last live reading since the start: an interval over a restart says nothing.
    last_reading: Option<UnixMillis>,
    intervals: Intervals,
    offline_after: Option<Duration>,
    reported: Option<(Status, Arc<str>)>,
    gateway: Gateway,
}

/// The gateway of a device, as far as it matters.
#[derive(Debug, Clone, Default)]
enum Gateway {
    /// Connected, or there is none.
    #[default]
    Connected,
    /// Not connected, though not for long; whether the device was silent by then.
    Away { silent: bool },
    /// Offline, and the reason to give.
    Lost { silent: bool, reason: Arc<str> },
}

impl Health {
    /// Begins with what was announced before the server restarted at `now`.
    #[must_use]
    pub fn restored(
        status: Status,
        reason: &Arc<str>,
        last_seen: Option<UnixMillis>,
        now: UnixMillis,
    ) -> Self {
        Self {
            announced: Some(status),
            changed_at: now,
            last_seen,
            quiet_since: (status != Status::Offline).then_some(now),
            reported: Some((status, Arc::clone(reason))),
            ..Self::default()
        }
    }

    /// Notes a live reading.
    pub fn heard(&mut self, now: UnixMillis) {
        let interval = self.last_reading.map(|last| now.since(last));
        if interval.is_none_or(|interval| interval >= ONE_GO) {
            self.intervals.note(interval.unwrap_or_default());
            self.last_reading = Some(now);
        }
        self.sign_of_life(now);
        self.reported.take_if(|(status, _)| *status != Status::Warning);
        self.changed_at = now;
    }

    /// Notes what the device, or its gateway for it, reports.
    pub fn reported(&mut self, status: Status, reason: &Arc<str>, at: UnixMillis) {
        if status == Status::Online {
            self.sign_of_life(at);
        }
        self.reported = Some((status, Arc::clone(reason)));
        self.changed_at = at;
    }

    fn sign_of_life(&mut self, at: UnixMillis) {
        self.last_seen = self.last_seen.max(Some(at));
        self.quiet_since = self.quiet_since.max(Some(at));
    }

    /// Notes that the connection of the device's gateway has ended: it may come back soon.
    pub fn gateway_away(&mut self, now: UnixMillis) {
        if matches!(self.gateway, Gateway::Connected) {
            self.gateway = Gateway::Away { silent: self.is_silent(now) };
        }
    }

    /// Notes that the device's gateway is offline.
    pub fn gateway_lost(&mut self, reason: &str, at: UnixMillis) {
        self.gateway_away(at);
        if let Gateway::Away { silent } = self.gateway {
            self.gateway = Gateway::Lost { silent, reason: reason.into() };
            self.changed_at = at;
        }
    }

    /// Notes that the device's gateway is connected again.
    pub fn gateway_back(&mut self, now: UnixMillis) {
        let (silent, lost) = match std::mem::take(&mut self.gateway) {
            Gateway::Connected => return,
            Gateway::Away { silent } => (silent, false),
            Gateway::Lost { silent, .. } => (silent, true),
        };
        if !silent && self.quiet_since.is_some() {
            self.quiet_since = self.quiet_since.max(Some(now));
            // Until the device itself is heard, no more than this is true.
            if lost {
                self.reported.get_or_insert((Status::Online, "Gateway connected again".into()));
            }
        }
        self.changed_at = now;
    }

    /// Sets after how much silence the device counts as offline; `None`: that is learned.
    pub fn set_offline_after(&mut self, period: Option<Duration>) {
        self.offline_after = period;
    }

    /// Returns after how much silence the device counts as offline, if that is configured.
    #[must_use]
    pub fn offline_after(&self) -> Option<Duration> {
        self.offline_after
    }

    /// Returns the moment of the last sign of life.
    #[must_use]
    pub fn last_seen(&self) -> Option<UnixMillis> {
        self.last_seen
    }

    /// Returns the status that was announced last.
    #[must_use]
    pub fn announced(&self) -> Option<Status> {
        self.announced
    }

    /// Returns when silence will make the device offline, if nothing is heard until then.
    #[must_use]
    pub fn deadline(&self) -> Option<UnixMillis> {
        let counts = matches!(self.gateway, Gateway::Connected);
        let matters = self.announced != Some(Status::Offline);
        self.silent_from().filter(|_| counts && matters)
    }

    /// Returns the status at this moment, and why; `None` while nothing is known.
    #[must_use]
    pub fn verdict(&self, now: UnixMillis) -> Option<(Status, Arc<str>)> {
        if let Gateway::Lost { reason, .. } = &self.gateway {
            return Some((Status::Offline, Arc::clone(reason)));
        }
        match &self.reported {
            Some((Status::Offline, reason)) => Some((Status::Offline, Arc::clone(reason))),
            _ if self.is_silent(now) => {
                let reason = format!("No data for {}", spoken(self.patience()));
                Some((Status::Offline, reason.into()))
            }
            Some((status, reason)) => Some((*status, Arc::clone(reason))),
            None => self.quiet_since.map(|_| (Status::Online, "Receiving data".into())),
        }
    }

    /// Returns the change to be announced, if the status differs from what was announced; that a
    /// device is offline of which nothing else was known is one, too.
    pub fn transition(&mut self, device: DeviceId, now: UnixMillis) -> Option<StatusDraft> {
        let (new, reason) = self.verdict(now).filter(|(new, _)| self.announced != Some(*new))?;
        let old = self.announced.replace(new).unwrap_or(Status::Offline);
        let at = if self.is_silent(now) { now } else { self.changed_at };
        Some(StatusDraft { device, old, new, at, reason, last_seen: self.last_seen })
    }

    fn is_silent(&self, now: UnixMillis) -> bool {
        match self.gateway {
            Gateway::Connected => self.silent_from().is_some_and(|at| at <= now),
            Gateway::Away { silent } | Gateway::Lost { silent, .. } => silent,
        }
    }

    fn silent_from(&self) -> Option<UnixMillis> {
        self.quiet_since.map(|since| since.plus(self.patience()))
    }

    fn patience(&self) -> Duration {
        let learned = self.intervals.median(ENOUGH_INTERVALS);
        let learned = learned.map(|usual| LEAST_SILENCE.max(3 * usual));
        self.offline_after.or(learned).unwrap_or(UNKNOWN_SILENCE)
    }
}

/// Writes a period for people: `45 s`, `5 min`, `2 h`.
pub(super) fn spoken(period: Duration) -> String {
    match period.as_secs() {
        0 => format_period(period),
        s if s.is_multiple_of(3600) => format!("{} h", s / 3600),
        s if s.is_multiple_of(60) => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}
