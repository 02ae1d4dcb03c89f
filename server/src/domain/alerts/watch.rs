//! One device under one rule.

use std::time::Duration;

use valtronics_protocol::{
    event::{AlertStatus, Severity},
    time::UnixMillis,
    value::Value,
};

use crate::domain::{intervals::Intervals, rule::Rule};

/// How many intervals make a rhythm that a silence can break.
const ENOUGH_INTERVALS: usize = 2;

/// What is known of one device under one rule.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Since when each of the exceeded levels has been exceeded, in the time of the readings.
    held: Vec<UnixMillis>,
    open: Option<Open>,
    value: Option<Value>,
    last_at: Option<UnixMillis>,
    intervals: Intervals,
    due: Option<Due>,
}

/// An alert that has begun and of which nobody knows that its condition has ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    pub(super) severity: Severity,
    /// [`AlertStatus::Resolved`] only by hand.
    pub(super) status: AlertStatus,
    /// When it moved last: what follows is never dated before.
    pub(super) at: UnixMillis,
}

/// The moment at which a level will have been exceeded for long enough.
#[derive(Debug, Clone, Copy)]
struct Due {
    /// In the time of the readings.
    at: UnixMillis,
    /// By the server's clock.
    now: UnixMillis,
}

impl Watch {
    /// Begins with an alert from before the start.
    pub(super) fn of(open: Open) -> Self {
        Self { open: Some(open), ..Self::default() }
    }

    /// Returns the alert, unless it was resolved by hand.
    pub(super) fn unresolved(&self) -> Option<Open> {
        self.open.filter(|open| open.status != AlertStatus::Resolved)
    }

    /// Returns the last value.
    pub(super) fn value(&self) -> Option<&Value> {
        self.value.as_ref()
    }

    /// Returns when the next level will have been exceeded for long enough, by the server's clock.
    pub(super) fn due(&self) -> Option<UnixMillis> {
        self.due.map(|due| due.now)
    }

    /// Takes that moment, in the time of the readings, because it has come.
    pub(super) fn take_due(&mut self) -> Option<UnixMillis> {
        self.due.take().map(|due| due.at)
    }

    /// Notes a reading that exceeds so many levels.
    pub(super) fn see(&mut self, exceeded: usize, value: &Value, at: UnixMillis, hold: Duration) {
        self.value = Some(value.clone());
        if !hold.is_zero() {
            let silence = self.last_at.map_or(Duration::ZERO, |last| at.since(last));
            let usual = self.intervals.median(ENOUGH_INTERVALS);
            if usual.is_some_and(|usual| silence > 3 * usual) {
                self.held.clear();
            }
            self.intervals.note(silence);
            self.last_at = Some(at);
        }
        self.held.truncate(exceeded);
        self.held.resize(exceeded, at);
    }

    /// Moves the alert to where it belongs, and returns it if it moved.
    pub(super) fn settle(
        &mut self,
        rule: &Rule,
        cleared: bool,
        at: UnixMillis,
        now: UnixMillis,
    ) -> Option<Open> {
        let hold = rule.hold.period;
        let matured = self.held.iter().take_while(|since| since.plus(hold) <= at).count();
        let next = self.held.get(matured).map(|since| since.plus(hold));
        if self.due.map(|due| due.at) != next {
            self.due = next.map(|due| Due { at: due, now: now.plus(due.since(at)) });
        }
        let moved = match self.open {
            None if matured == 0 => return None,
            None => Open { severity: rule.severity(matured), status: AlertStatus::Active, at },
            Some(open) if open.status == AlertStatus::Resolved => {
                self.open.take_if(|_| self.held.is_empty());
                return None;
            }
            Some(open) if cleared => {
                self.open = None;
                return Some(Open { status: AlertStatus::Resolved, at: at.max(open.at), ..open });
            }
            Some(open) => {
                open.shifted(rule.severity(matured), rule.severity(self.held.len()), at)?
            }
        };
        self.open = Some(moved);
        self.open
    }
}

impl Open {
    /// Returns the alert with a severity within limits, if its own is not.
    fn shifted(self, least: Severity, most: Severity, at: UnixMillis) -> Option<Self> {
        let severity = self.severity.clamp(least, most);
        let reactivated = severity > self.severity && self.status == AlertStatus::Acknowledged;
        let status = if reactivated { AlertStatus::Active } else { self.status };
        let at = at.max(self.at);
        (severity != self.severity).then_some(Self { severity, status, at })
    }
}
