//! One device under one rule.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use valtronics_protocol::{
    event::{AlertStatus, Severity},
    time::UnixMillis,
    value::Value,
};

use super::Change;
use crate::domain::{
    intervals::Intervals,
    rule::{Judged, Kind, Memory, Rule},
};

/// How many intervals make a rhythm that a silence can break.
const ENOUGH_INTERVALS: usize = 2;
/// So many alerts, or rises of one, within [`FLAP_WINDOW`] are flapping: what is there is held. An
/// operator who is called once a minute knows that something flaps.
pub(super) const FLAPS: usize = 10;
/// In which time, and how long it has to be quiet before an alert that is held ends.
pub(super) const FLAP_WINDOW: Duration = Duration::from_secs(10 * 60);

/// What is known of one device under one rule.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Since when each of the exceeded levels has been exceeded, in the time of the rule's kind.
    held: Vec<UnixMillis>,
    /// Since when what was told of last had held, and until when.
    lasted: Option<(UnixMillis, UnixMillis)>,
    /// The condition was found twice in a row.
    repeated: bool,
    open: Option<Open>,
    /// When a shelved alert comes back, by the server's clock.
    shelved_until: Option<UnixMillis>,
    /// When the last alerts began, or rose, at most [`FLAPS`].
    begun: Vec<UnixMillis>,
    /// When an alert that is held for flapping ends, if it stays quiet.
    calm: Option<Due>,
    pub(super) memory: Memory,
    last_at: Option<UnixMillis>,
    intervals: Intervals,
    due: Option<Due>,
    /// Its place in the schedule: never later than its deadline.
    pub(super) scheduled: Option<UnixMillis>,
    saved: Saved,
}

/// An alert that has begun and of which nobody knows that its condition has ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Open {
    pub(super) severity: Severity,
    /// [`AlertStatus::Resolved`] only by hand.
    pub(super) status: AlertStatus,
    /// When it moved last: what follows is never dated before.
    pub(super) at: UnixMillis,
    /// It is held, because alerts of its kind came too often.
    pub(super) damped: bool,
}

/// A moment to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Due {
    /// In the time of the rule's kind.
    at: UnixMillis,
    /// By the server's clock.
    now: UnixMillis,
}

/// What of a watch outlives the server, besides the open alert: a row of the store.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    /// Since when each exceeded level has been.
    since: Vec<UnixMillis>,
    /// When the next one will have been for long enough.
    due: Option<Due>,
    /// The severity of an alert that was resolved by hand and whose condition has not ended.
    quiet: Option<Severity>,
    shelved_until: Option<UnixMillis>,
    begun: Vec<UnixMillis>,
    calm: Option<Due>,
    damped: bool,
}

impl Watch {
    /// Begins with what was known before the start.
    pub(super) fn restored(open: Option<(Severity, AlertStatus)>, saved: Saved) -> Self {
        let by_hand = saved.quiet.map(|severity| (severity, AlertStatus::Resolved));
        let (at, damped) = (UnixMillis::MIN, saved.damped);
        let open = open.or(by_hand);
        Self {
            held: saved.since.clone(),
            lasted: saved.since.first().map(|since| (*since, *since)),
            repeated: true,
            open: open.map(|(severity, status)| Open { severity, status, at, damped }),
            shelved_until: saved.shelved_until,
            begun: saved.begun.clone(),
            calm: saved.calm,
            due: saved.due,
            saved,
            ..Self::default()
        }
    }

    /// Returns what has to be saved, if that is something else than before.
    pub(super) fn save(&mut self, kind: &Kind) -> Option<&Saved> {
        // Each reading of a metric that is not missing, or not stuck, would be a row.
        let worth = match kind {
            Kind::Threshold(_) | Kind::Rate(_) => true,
            Kind::Stuck(_) => self.repeated,
            Kind::Missing(_) | Kind::Status(_) => false,
        };
        let by_hand = self.open.filter(|open| open.status == AlertStatus::Resolved);
        let saved = Saved {
            since: if worth { self.held.clone() } else { Vec::new() },
            due: self.due.filter(|_| worth),
            quiet: by_hand.map(|open| open.severity),
            shelved_until: self.shelved_until,
            begun: self.begun.clone(),
            calm: self.calm,
            damped: self.open.is_some_and(|open| open.damped),
        };
        if saved == self.saved {
            return None;
        }
        self.saved = saved;
        Some(&self.saved)
    }

    /// Tells whether a row of it is in the store.
    pub(super) fn is_saved(&self) -> bool {
        self.saved != Saved::default()
    }

    /// Returns the alert, unless it was resolved by hand.
    pub(super) fn unresolved(&self) -> Option<Open> {
        self.open.filter(|open| open.status != AlertStatus::Resolved)
    }

    /// Returns for how long what was told of last had held.
    pub(super) fn lasted(&self) -> Duration {
        self.lasted.map_or(Duration::ZERO, |(since, until)| until.since(since))
    }

    /// Returns when something will happen by itself, by the server's clock.
    pub(super) fn deadline(&self) -> Option<UnixMillis> {
        let (due, calm) = (self.due.map(|due| due.now), self.calm.map(|calm| calm.now));
        [due, calm, self.shelved_until].into_iter().flatten().min()
    }

    /// Notes what a kind made of what it saw at `at`.
    pub(super) fn see(&mut self, judged: Judged, rule: &Rule, at: UnixMillis) {
        if rule.kind.has_rhythm() && !rule.hold.length.is_zero() {
            let silence = self.last_at.map_or(Duration::ZERO, |last| at.since(last));
            let usual = self.intervals.median(ENOUGH_INTERVALS);
            if usual.is_some_and(|usual| silence > 3 * usual) {
                self.held.clear();
            }
            self.intervals.note(silence);
            self.last_at = Some(at);
        }
        self.lasted = self.held.first().map(|since| (*since, at)).or(self.lasted);
        if judged.anew {
            self.held.clear();
        }
        self.repeated = !self.held.is_empty();
        self.held.truncate(judged.exceeded);
        self.held.resize(judged.exceeded, at);
        self.memory.actual = Some(judged.actual);
        let ended = judged.anew || judged.exceeded == 0;
        self.open.take_if(|open| open.status == AlertStatus::Resolved && ended);
    }

    /// Moves the alert to where it belongs, and returns it if it moved. Nothing is due before
    /// `earliest`.
    pub(super) fn settle(
        &mut self,
        rule: &Rule,
        cleared: bool,
        (at, now): (UnixMillis, UnixMillis),
        earliest: UnixMillis,
    ) -> Option<Open> {
        let ripe = |since: &UnixMillis| since.plus(rule.hold.length).max(earliest);
        let matured = self.held.iter().take_while(|since| ripe(since) <= at).count();
        let next = self.held.get(matured).map(ripe).filter(|_| rule.kind.holds_in_silence());
        if self.due.map(|due| due.at) != next {
            let from = if rule.kind.by_server_clock() { now } else { at };
            self.due = next.map(|next| Due { at: next, now: now.plus(next.since(from)) });
        }
        let moved = match self.open {
            None if matured == 0 => return None,
            None => {
                self.begin(at);
                let (severity, status) = (rule.kind.severity(matured), AlertStatus::Active);
                Open { severity, status, at, damped: false }
            }
            Some(open) if open.status == AlertStatus::Resolved => return None,
            Some(open) if cleared => return self.clear(open, at, now),
            Some(open) => {
                self.calm.take_if(|_| matured > 0);
                let [least, most] =
                    [matured, self.held.len()].map(|levels| rule.kind.severity(levels));
                // What flaps between two steps stays at the worse one.
                let most = if self.flaps(at) { most.max(open.severity) } else { most };
                let shifted = open.shifted([least, most], at)?;
                if shifted.severity > open.severity {
                    self.begin(at);
                }
                shifted
            }
        };
        if let Some(since) = self.held.first() {
            self.lasted = Some((*since, at));
        }
        self.open = Some(moved);
        self.open
    }

    /// Tells whether alerts, or rises of one, come too often.
    fn flaps(&self, at: UnixMillis) -> bool {
        let first = self.begun.first().filter(|_| self.begun.len() == FLAPS);
        first.is_some_and(|first| at.since(*first) <= FLAP_WINDOW)
    }

    fn begin(&mut self, at: UnixMillis) {
        if self.begun.len() == FLAPS {
            self.begun.remove(0);
        }
        self.begun.push(at);
    }

    /// Ends the alert, or holds it while such alerts come too often.
    fn clear(&mut self, open: Open, at: UnixMillis, now: UnixMillis) -> Option<Open> {
        let at = at.max(open.at);
        let often = self.flaps(at);
        match self.calm {
            Some(calm) if at < calm.at => return None,
            None if open.damped || often => {
                let [end, end_now] = [at, now].map(|moment| moment.plus(FLAP_WINDOW));
                self.calm = Some(Due { at: end, now: end_now });
                let held = Open { at, damped: true, ..open };
                self.open = Some(held);
                return (!open.damped).then_some(held);
            }
            Some(_) | None => {}
        }
        self.end();
        Some(Open { status: AlertStatus::Resolved, at, ..open })
    }

    fn end(&mut self) {
        (self.open, self.calm, self.shelved_until) = (None, None, None);
    }

    /// Does what is due at `now`: at most one thing.
    pub(super) fn ring(
        &mut self,
        rule: &Rule,
        now: UnixMillis,
        earliest: UnixMillis,
    ) -> Option<Open> {
        if self.shelved_until.take_if(|until| *until <= now).is_some() {
            return self.shift_to(rule, AlertStatus::Active, now);
        }
        if let Some(due) = self.due.take_if(|due| due.now <= now) {
            return self.settle(rule, false, (due.at, due.now), earliest);
        }
        let calm = self.calm.take_if(|calm| calm.now <= now)?;
        let open = self.unresolved()?;
        self.end();
        Some(Open { status: AlertStatus::Resolved, at: calm.at.max(open.at), ..open })
    }

    /// Does what somebody asks for; returns the alert if that moved it.
    pub(super) fn change(&mut self, rule: &Rule, change: Change, now: UnixMillis) -> Option<Open> {
        self.unresolved()?;
        match change {
            Change::Acknowledge => {
                self.shelved_until = None;
                self.shift_to(rule, AlertStatus::Acknowledged, now)
            }
            Change::Shelve(until) => {
                self.shelved_until = Some(until);
                self.shift_to(rule, AlertStatus::Shelved, now)
            }
            Change::Resolve => {
                let moved = self.shift_to(rule, AlertStatus::Resolved, now);
                self.end();
                // The condition has to be false once before there is a new alert.
                self.open = moved.filter(|_| !self.held.is_empty());
                moved
            }
        }
    }

    fn shift_to(&mut self, rule: &Rule, status: AlertStatus, now: UnixMillis) -> Option<Open> {
        if let Some(since) = self.held.first().filter(|_| rule.kind.by_server_clock()) {
            self.lasted = Some((*since, now));
        }
        let open = self.open.as_mut().filter(|open| open.status != status)?;
        (open.status, open.at) = (status, now.max(open.at));
        self.open
    }

    /// Begins with a reading of the time before the rule, or the server, began: what was measured,
    /// or, for what is missing, when.
    pub(super) fn prepare(
        &mut self,
        rule: &Rule,
        last: Option<(&Value, UnixMillis)>,
        now: UnixMillis,
        earliest: UnixMillis,
    ) {
        let at = last.map_or(now, |(_, at)| at.min(now));
        let fresh = self.memory.actual.is_none();
        match &rule.kind {
            Kind::Threshold(_) => {}
            Kind::Rate(_) => {
                last.into_iter().for_each(|(value, at)| self.memory.window.seed(at, value));
                return;
            }
            Kind::Stuck(_) if fresh && self.held.is_empty() && last.is_some() => {
                self.held.push(at);
            }
            Kind::Missing(_) if fresh && self.held.is_empty() => {
                self.held.push(at);
                let due = at.plus(rule.hold.length).max(earliest);
                self.due = Some(Due { at: due, now: due });
            }
            Kind::Stuck(_) | Kind::Missing(_) | Kind::Status(_) => {}
        }
        if fresh {
            self.lasted = self.held.first().map(|since| (*since, at));
            self.memory.actual = last.map(|(value, _)| value.clone());
        }
    }
}

impl Open {
    /// Returns the alert with a severity within limits, if its own is not.
    fn shifted(self, [least, most]: [Severity; 2], at: UnixMillis) -> Option<Self> {
        let severity = self.severity.clamp(least, most);
        let reactivated = severity > self.severity && self.status == AlertStatus::Acknowledged;
        let status = if reactivated { AlertStatus::Active } else { self.status };
        let at = at.max(self.at);
        (severity != self.severity).then_some(Self { severity, status, at, ..self })
    }
}
