//! The status of one device: the worst of what is known of it, with its reason.
//!
//! In order: its gateway is offline; it, or its gateway for it, has reported something; it is
//! silent; it is online. When one ends, the next shows.
//!
//! Decided here: a live reading ends a reported `offline`, but not a reported `warning`, which ends
//! when `online` is reported. A device that nobody has heard of stays `offline` without an event
//! until something is known.

use std::{sync::Arc, time::Duration};

use valtronics_protocol::{
    event::Status,
    id::DeviceId,
    time::{UnixMillis, format_period},
};

use crate::commit::StatusDraft;

/// The least silence that counts where the interval is learned (programs, `[devices]`).
const LEAST_SILENCE: Duration = Duration::from_secs(45);
/// The silence that counts before three intervals are known.
const UNKNOWN_SILENCE: Duration = Duration::from_secs(15 * 60);
/// How many intervals are remembered.
const INTERVALS: usize = 8;

/// What is known of one device.
#[derive(Debug, Clone, Default)]
pub struct Health {
    announced: Option<Status>,
    last_seen: Option<UnixMillis>,
    /// Since when silence is counted: the last sign of life, or the start of the server.
    quiet_since: Option<UnixMillis>,
    silent: bool,
    /// The last intervals between signs of life in milliseconds, a ring.
    intervals: [u32; INTERVALS],
    known_intervals: usize,
    configured: Option<Duration>,
    reported: Option<(Status, Arc<str>, UnixMillis)>,
    gateway: Option<(Arc<str>, UnixMillis)>,
}

impl Health {
    /// Begins with what was announced before the server started: nothing changes by that, and
    /// silence is counted from the start.
    #[must_use]
    pub fn restored(
        status: Status,
        reason: &Arc<str>,
        last_seen: Option<UnixMillis>,
        now: UnixMillis,
    ) -> Self {
        let reported = (status == Status::Warning).then(|| (status, Arc::clone(reason), now));
        let silent = status == Status::Offline;
        let quiet_since = Some(now);
        Self { announced: Some(status), last_seen, quiet_since, silent, reported, ..Self::default() }
    }

    /// Notes a sign of life.
    pub fn heard(&mut self, now: UnixMillis) {
        if let Some(before) = self.last_seen.filter(|_| !self.silent) {
            let interval = u32::try_from(now.since(before).as_millis()).unwrap_or(u32::MAX);
            // Readings that come in one go say nothing about an interval.
            if interval > 0 {
                if let Some(place) = self.intervals.get_mut(self.known_intervals % INTERVALS) {
                    *place = interval;
                }
                self.known_intervals += 1;
            }
        }
        self.last_seen = Some(now.max(self.last_seen.unwrap_or(now)));
        self.quiet_since = self.last_seen;
        self.silent = false;
        self.reported.take_if(|(status, ..)| *status == Status::Offline);
    }

    /// Notes what the device, or its gateway for it, says.
    pub fn reported(&mut self, status: Status, reason: &Arc<str>, at: UnixMillis) {
        if status == Status::Online {
            self.reported = None;
            self.silent = false;
            self.quiet_since = Some(at);
            self.last_seen = Some(at.max(self.last_seen.unwrap_or(at)));
        } else {
            self.reported = Some((status, Arc::clone(reason), at));
        }
    }

    /// Notes that the device's gateway is gone.
    pub fn gateway_lost(&mut self, reason: &str, at: UnixMillis) {
        self.gateway = Some((reason.into(), at));
    }

    /// Notes that the device's gateway is back.
    pub fn gateway_back(&mut self, now: UnixMillis) {
        if self.gateway.take().is_some() && self.announced.is_some() {
            self.quiet_since = Some(now);
        }
    }

    /// Sets after how much silence the device counts as offline; `None`: learned.
    pub fn set_offline_after(&mut self, period: Option<Duration>) {
        self.configured = period;
    }

    /// Returns after how much silence the device counts as offline, if that is configured.
    #[must_use]
    pub fn offline_after(&self) -> Option<Duration> {
        self.configured
    }

    /// Returns the moment of the last sign of life.
    #[must_use]
    pub fn last_seen(&self) -> Option<UnixMillis> {
        self.last_seen
    }

    fn patience(&self) -> Duration {
        if let Some(configured) = self.configured {
            return configured;
        }
        if self.known_intervals < 3 {
            return UNKNOWN_SILENCE;
        }
        let known = self.known_intervals.min(INTERVALS);
        let mut sorted = self.intervals;
        let sorted = sorted.get_mut(..known).unwrap_or_default();
        sorted.sort_unstable();
        let median = sorted.get(known / 2).copied().unwrap_or_default();
        LEAST_SILENCE.max(3 * Duration::from_millis(u64::from(median)))
    }

    /// Returns when silence begins to count, if nothing is heard until then.
    #[must_use]
    pub fn deadline(&self) -> Option<UnixMillis> {
        if self.silent {
            return None;
        }
        self.quiet_since.map(|since| since.plus(self.patience()))
    }

    /// Returns the status, why, and since when.
    fn verdict(&self) -> Option<(Status, Arc<str>, Option<UnixMillis>)> {
        if let Some((reason, at)) = &self.gateway {
            return Some((Status::Offline, Arc::clone(reason), Some(*at)));
        }
        if let Some((status, reason, at)) = &self.reported
            && (*status == Status::Offline || !self.silent)
        {
            return Some((*status, Arc::clone(reason), Some(*at)));
        }
        if self.silent {
            let reason = format!("No data for {}", spoken(self.patience()));
            return Some((Status::Offline, reason.into(), None));
        }
        self.quiet_since.map(|_| (Status::Online, "Receiving data".into(), None))
    }

    /// Counts silence, and compares with what was announced: returns what is to be announced now.
    pub fn transition(&mut self, device: DeviceId, now: UnixMillis) -> Option<StatusDraft> {
        if self.deadline().is_some_and(|at| at <= now) {
            self.silent = true;
        }
        let (new, reason, at) = self.verdict()?;
        let old = self.announced.unwrap_or(Status::Offline);
        // Of a device whose first news is that it is offline, that is still news.
        if self.announced == Some(new) {
            return None;
        }
        self.announced = Some(new);
        let at = at.unwrap_or(now);
        Some(StatusDraft { device, old, new, at, reason, last_seen: self.last_seen })
    }
}

/// Writes a period for people: `45 s`, `5 min`, `2 h`.
fn spoken(period: Duration) -> String {
    let seconds = period.as_secs();
    match seconds {
        0 => format_period(period),
        s if s.is_multiple_of(3600) => format!("{} h", s / 3600),
        s if s.is_multiple_of(60) => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays steps at seconds: `5 heard`, `6 offline Cut`, `7 online`, `8 lost`, `9 back`, `10`.
    fn play(health: &mut Health, steps: &[(i64, &str)]) -> Vec<String> {
        let mut told = Vec::new();
        for (second, step) in steps {
            let now = UnixMillis(second * 1000);
            match step.split_once(' ').unwrap_or((step, "")) {
                ("heard", _) => health.heard(now),
                ("offline", why) => health.reported(Status::Offline, &why.into(), now),
                ("warning", why) => health.reported(Status::Warning, &why.into(), now),
                ("online", _) => health.reported(Status::Online, &"".into(), now),
                ("lost", why) => health.gateway_lost(why, now),
                ("back", _) => health.gateway_back(now),
                _ => {}
            }
            if let Some(draft) = health.transition(DeviceId(1), now) {
                told.push(format!("{second} {:?}->{:?} {}", draft.old, draft.new, draft.reason));
            }
        }
        told
    }

    #[test]
    fn silence_is_three_usual_intervals() {
        let steps: Vec<(i64, &str)> = (0..5).map(|i| (i * 30, "heard")).collect();
        let mut health = Health::default();
        assert_eq!(play(&mut health, &steps), ["0 Offline->Online Receiving data"]);
        assert_eq!(health.deadline(), Some(UnixMillis(210_000)));
        let told = play(&mut health, &[(209, ""), (210, ""), (300, "heard")]);
        assert_eq!(
            told,
            ["210 Online->Offline No data for 90 s", "300 Offline->Online Receiving data"]
        );
    }

    #[test]
    fn the_worst_shows_and_then_the_next() {
        let told = play(
            &mut Health::default(),
            &[
                (0, "heard"),
                (1, "offline Serial port unplugged"),
                (2, "lost Gateway gw-01 offline"),
                (3, "heard"),
                (4, "back"),
                (5, "warning Battery low"),
                (6, "heard"),
                (7, "online"),
            ],
        );
        assert_eq!(
            told,
            [
                "0 Offline->Online Receiving data",
                "1 Online->Offline Serial port unplugged",
                "4 Offline->Online Receiving data",
                "5 Online->Warning Battery low",
                "7 Warning->Online Receiving data",
            ]
        );
    }

    #[test]
    fn a_restart_changes_nothing_and_counts_silence_anew() {
        let reason: Arc<str> = "Receiving data".into();
        let start = UnixMillis(1_000_000);
        let mut health = Health::restored(Status::Online, &reason, Some(UnixMillis(5)), start);
        assert_eq!(health.transition(DeviceId(1), start), None);
        assert_eq!(health.deadline(), Some(start.plus(UNKNOWN_SILENCE)));
        let mut health = Health::restored(Status::Offline, &reason, None, start);
        assert_eq!(health.transition(DeviceId(1), UnixMillis(i64::MAX)), None);
        assert_eq!(play(&mut health, &[(2000, "heard")]), ["2000 Offline->Online Receiving data"]);
    }

    #[test]
    fn nothing_is_said_of_a_device_that_nobody_has_heard() {
        assert!(play(&mut Health::default(), &[(0, ""), (10_000, ""), (10_001, "back")]).is_empty());
        assert_eq!(
            play(&mut Health::default(), &[(0, "offline Serial port not found")]),
            ["0 Offline->Offline Serial port not found"]
        );
    }
}
