//! What alerts rules would have raised: they are tried on what is stored.
//!
//! The past is played as it came in, without backlogs, so what came late is passed over as it was
//! then. What only previews showed was never stored. Nothing was acknowledged, shelved or resolved by hand in it, and before it nothing had been heard.

use valtronics_protocol::{id::Seq, time::UnixMillis};

use crate::{
    clock,
    commit::{AlertDraft, Row},
    domain::{
        alerts::{Alerts, Before},
        rule::Rule,
    },
    engine::LEAD,
    state::{EventLog, LastValue, State},
    store::Past,
};

/// Rules, and what is known at a moment of the past.
pub struct Rehearsal {
    alerts: Alerts,
    state: State,
    from: UnixMillis,
}

impl Rehearsal {
    /// Begins at a moment with rules and nothing else.
    #[must_use]
    pub fn new(rules: Vec<Rule>, from: UnixMillis) -> Self {
        let mut alerts = Alerts::restore(Before::default(), from);
        alerts.set_rules(rules, from, &mut Vec::new());
        let log = || EventLog::restore(Seq(1), Seq(0), Vec::new(), clock::instant());
        Self { alerts, state: State::new(String::new(), log(), log()), from }
    }

    /// Plays a piece of the past; returns what became of alerts.
    pub fn play(&mut self, past: Past) -> Vec<AlertDraft> {
        let mut out = Vec::new();
        match past {
            Past::Names(names) => {
                for change in names {
                    self.state.register(change);
                }
                for device in self.state.devices_mut() {
                    device.watch(&mut self.alerts, self.from, &mut out);
                }
            }
            Past::Readings { received_at, rows } => {
                self.alerts.tick(received_at, &mut out);
                for row in rows {
                    self.reading(row, received_at, &mut out);
                }
            }
            Past::Status(update) => {
                let at = update.timestamp;
                self.alerts.tick(at, &mut out);
                let device = self.state.device(update.device_id);
                for rule in device.iter().flat_map(|device| &device.rules) {
                    let (id, status) = (update.device_id, update.new_status);
                    self.alerts.observe_status(*rule, id, status, (at, at), &mut out);
                }
            }
        }
        // Nothing of it is saved.
        drop(self.alerts.take_unsaved());
        out
    }

    /// Lets time go by; returns what became of alerts.
    pub fn wait(&mut self, until: UnixMillis) -> Vec<AlertDraft> {
        let mut out = Vec::new();
        self.alerts.tick(until, &mut out);
        out
    }

    /// Returns the key of the device that an alert is about.
    #[must_use]
    pub fn device_key(&self, draft: &AlertDraft) -> &str {
        self.state.device(draft.key.device).map_or("", |device| &device.key)
    }

    fn reading(&mut self, row: Row, received_at: UnixMillis, out: &mut Vec<AlertDraft>) {
        let Row { device, metric, at, value } = row;
        let known = self.state.device_mut(device).and_then(|of| of.metric_mut(metric));
        let Some(known) = known else {
            return;
        };
        let effective_at = at.min(received_at.plus(LEAD));
        if known.last.as_ref().is_some_and(|last| effective_at < last.effective_at) {
            return;
        }
        for rule in &known.rules {
            self.alerts.observe(*rule, device, &value, (at, received_at), out);
        }
        known.last = Some(LastValue { value, at, effective_at });
    }
}
