//! The status of one device: the worst of what is known of it, with its reason.
//!
//! In this order: its gateway is offline; it, or its gateway for it, reported `offline`; it is
//! silent; it reported `warning`; one of its metrics is silent; it is online. When one ends, the next
//! shows.
//!
//! Decided here:
//! - A live reading ends a reported `offline`, and the absence of the gateway that the device was
//!   behind, but not a `warning`: that ends when `online` is
//!   reported, for a device that sends may well have a low battery.
//! - Silence is not counted while the gateway is away, since nothing could be heard; when it is
//!   back, it counts from then for a device that was not silent before.
//! - After a restart of the server nothing changes: silence counts from the restart, and for 30 s
//!   at least; whatever made a device offline lasts until the device is heard.
//! - What the agent declares of a device comes before what the server is configured to.
//! - Metrics are missed only while their device is not offline, and anew when it is back.
//! - The long interval that a silence ended counts as any other: a device that sends once an hour
//!   is found to do so.
//! - A device of which nothing is known is offline, and that is not announced before something is.

use std::{sync::Arc, time::Duration};

use valtronics_protocol::{
    event::Status,
    id::DeviceId,
    time::{UnixMillis, format_period},
};

use super::{freshness::Hearing, rhythm::Rhythm};
use crate::commit::StatusDraft;

#[cfg(test)]
mod tests;

/// The least silence that counts where the rhythm is learned (programs, `[devices]`).
const LEAST_SILENCE: Duration = Duration::from_secs(45);
/// The silence that counts before the rhythm is known.
const UNKNOWN_SILENCE: Duration = Duration::from_secs(15 * 60);
/// How long agents have to come back after a start of the server, before anything is announced.
pub const COME_BACK: Duration = Duration::from_secs(30);

/// What is known of one device.
///
/// In this order: what each reading touches comes first.
#[derive(Debug, Clone, Default)]
#[repr(C)]
pub struct Health {
    last_seen: Option<UnixMillis>,
    /// Since when silence counts; `None` when there is nothing to miss.
    quiet_since: Option<UnixMillis>,
    gateway: Gateway,
    /// When what is known changed last.
    changed_at: UnixMillis,
    /// Before this, silence means nothing: the server has just started.
    patient_until: Option<UnixMillis>,
    reported: Option<(Status, Arc<str>)>,
    announced: Option<Status>,
    /// What is to be said of a metric that is silent.
    metric_silent: Option<Arc<str>>,
    /// Live readings since the start: an interval over a restart says nothing.
    rhythm: Rhythm,
    /// What the server is configured to.
    configured: Option<Duration>,
    /// What the agent says.
    declared: Option<Duration>,
    /// Since when metrics are missed.
    listening_since: UnixMillis,
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

/// The worst that is known of a device.
enum Worst<'a> {
    /// This was reported, or follows from a gateway or a metric that is missed.
    Said(Status, &'a Arc<str>),
    /// It is silent.
    Silent,
    /// It is heard, and that is all.
    Heard,
}

impl Worst<'_> {
    fn status(&self) -> Status {
        match self {
            Self::Said(status, _) => *status,
            Self::Silent => Status::Offline,
            Self::Heard => Status::Online,
        }
    }
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
            patient_until: Some(now.plus(COME_BACK)),
            reported: Some((status, Arc::clone(reason))),
            ..Self::default()
        }
    }

    /// Notes a live reading.
    pub fn heard(&mut self, now: UnixMillis) {
        if !matches!(self.gateway, Gateway::Connected) {
            // It came another way: it has moved, or writes itself.
            self.gateway_back(now);
        }
        self.rhythm.heard(now);
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
        self.patient_until = None;
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
            self.listening_since = now;
            // Until the device itself is heard, no more than this is true.
            if lost {
                self.reported.get_or_insert((Status::Online, "Gateway connected again".into()));
            }
        }
        self.changed_at = now;
    }

    /// Sets after how much silence devices count as offline; `None`: that is learned.
    pub fn configure_offline_after(&mut self, period: Option<Duration>) {
        self.configured = period;
    }

    /// Sets what the agent declares of this device; `None`: nothing.
    pub fn declare_offline_after(&mut self, period: Option<Duration>) {
        self.declared = period;
    }

    /// Returns after how much silence the device counts as offline, if that is not learned.
    #[must_use]
    pub fn offline_after(&self) -> Option<Duration> {
        self.declared.or(self.configured)
    }

    /// Returns how well its metrics can be heard at this moment.
    #[must_use]
    pub fn hearing(&self, now: UnixMillis) -> Hearing {
        let connected = matches!(self.gateway, Gateway::Connected);
        let is_there = self.worst(now).is_some_and(|worst| worst.status() != Status::Offline);
        let since = (connected && is_there).then_some(self.listening_since);
        Hearing { least: self.least_silence(), since }
    }

    /// Returns the least silence of a metric that counts.
    #[must_use]
    pub fn least_silence(&self) -> Duration {
        let shorter = || self.configured.map_or(LEAST_SILENCE, |period| period.min(LEAST_SILENCE));
        self.declared.unwrap_or_else(shorter)
    }

    /// Notes what is to be said of a metric that is silent, or that none is.
    pub fn miss_metric(&mut self, reason: Option<Arc<str>>, now: UnixMillis) {
        if self.metric_silent != reason {
            self.metric_silent = reason;
            self.changed_at = now;
        }
    }

    /// Takes over that the warning from before the start is that of a silent metric.
    pub fn restore_missed_metric(&mut self) {
        let reported = self.reported.take_if(|(status, _)| *status == Status::Warning);
        self.metric_silent = reported.map(|(_, reason)| reason);
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
        let worst = self.worst(now)?;
        let reason = match worst {
            Worst::Said(_, reason) => Arc::clone(reason),
            Worst::Silent => format!("No data for {}", spoken(self.patience())).into(),
            Worst::Heard => "Receiving data".into(),
        };
        Some((worst.status(), reason))
    }

    /// Returns the change to be announced, if the status differs from what was announced; that a
    /// device is offline of which nothing else was known is one, too.
    pub fn transition(&mut self, device: DeviceId, now: UnixMillis) -> Option<StatusDraft> {
        // Each message comes by here: only a change is worth a sentence.
        self.worst(now).filter(|worst| self.announced != Some(worst.status()))?;
        let (new, reason) = self.verdict(now)?;
        let old = self.announced.replace(new).unwrap_or(Status::Offline);
        if old == Status::Offline {
            self.listening_since = now;
        }
        let at = if self.is_silent(now) { now } else { self.changed_at };
        Some(StatusDraft { device, old, new, at, reason, last_seen: self.last_seen })
    }

    fn worst(&self, now: UnixMillis) -> Option<Worst<'_>> {
        if let Gateway::Lost { reason, .. } = &self.gateway {
            return Some(Worst::Said(Status::Offline, reason));
        }
        match &self.reported {
            Some((Status::Offline, reason)) => Some(Worst::Said(Status::Offline, reason)),
            _ if self.is_silent(now) => Some(Worst::Silent),
            Some((Status::Warning, reason)) => Some(Worst::Said(Status::Warning, reason)),
            reported => self.quiet_since.map(|_| match (&self.metric_silent, reported) {
                (Some(reason), _) => Worst::Said(Status::Warning, reason),
                (None, Some((status, reason))) => Worst::Said(*status, reason),
                (None, None) => Worst::Heard,
            }),
        }
    }

    fn is_silent(&self, now: UnixMillis) -> bool {
        match self.gateway {
            // Who has just been heard is not silent, however long a silence may be.
            Gateway::Connected if self.quiet_since >= Some(now) => false,
            Gateway::Connected => self.silent_from().is_some_and(|at| at <= now),
            Gateway::Away { silent } | Gateway::Lost { silent, .. } => silent,
        }
    }

    fn silent_from(&self) -> Option<UnixMillis> {
        let at = self.quiet_since?.plus(self.patience());
        Some(self.patient_until.map_or(at, |until| at.max(until)))
    }

    fn patience(&self) -> Duration {
        let learned = || self.rhythm.usual().map(|usual| LEAST_SILENCE.max(3 * usual));
        self.offline_after().or_else(learned).unwrap_or(UNKNOWN_SILENCE)
    }
}

/// Writes a period for people: `45 s`, `5 min`, `2 h`.
pub(crate) fn spoken(period: Duration) -> String {
    match period.as_secs() {
        0 => format_period(period),
        s if s.is_multiple_of(3600) => format!("{} h", s / 3600),
        s if s.is_multiple_of(60) => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}
