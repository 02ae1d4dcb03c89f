//! Alerts in the engine: what follows from a status, and what somebody asks for.

use std::sync::Arc;

use tokio::sync::oneshot;
use valtronics_protocol::{
    id::{AlertId, DeviceId},
    time::UnixMillis,
};

use super::{Engine, TICK};
use crate::{
    auth::DeviceGrant,
    commit::{AlertDraft, Commit, EventDraft},
    domain::alerts::{Alerts, Change},
    ingest::Ticket,
};

/// Somebody acknowledges, shelves or resolves an alert.
pub struct AlertChange {
    /// Which alert.
    pub id: AlertId,
    /// What is to become of it.
    pub change: Change,
    /// Of which devices he may change alerts.
    pub grant: DeviceGrant,
    /// Told when everything that came before is durable, whatever came of the change.
    pub ticket: Ticket,
    /// Whether there is such an alert among those that are open; others are in the store.
    pub answer: oneshot::Sender<Result<bool, Behind>>,
}

/// The store has been unable to write for so long that nothing more can wait for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too much waits for the store, which cannot write now")]
pub struct Behind;

/// How many events a commit gathers, some 20 MiB: while the store cannot write, what a status or an
/// alert is by then is announced when there is room. What comes of one input may go beyond it.
pub(super) const MOST_EVENTS: usize = 65_536;
/// How many requests over HTTP wait for a commit: more are refused.
pub(super) const MOST_REQUESTS: usize = 1000;

impl Engine {
    /// Tells whether no more events may wait for the store.
    pub(super) fn is_full(&self) -> bool {
        self.pending.events.len() >= MOST_EVENTS
    }

    /// Notes a request that changes rules or alerts, if it may wait for the store.
    pub(super) fn request(&mut self) -> Result<(), Behind> {
        if self.is_full() || self.requests >= MOST_REQUESTS {
            return Err(Behind);
        }
        self.requests += 1;
        Ok(())
    }

    /// Changes an alert that is open.
    pub(super) fn change_alert(&mut self, wanted: AlertChange, now: UnixMillis) {
        let AlertChange { id, change, grant, ticket, answer } = wanted;
        if let Err(behind) = self.request() {
            // Whoever asked may have gone.
            let _ = answer.send(Err(behind));
            return;
        }
        let open = self.state.open_alerts.get(&id);
        let key = open.map(crate::commit::CommittedAlert::key).filter(|key| {
            let device = self.state.device(key.device);
            device.is_some_and(|of| grant.allows(of.id(), &of.registered.name, &of.key))
        });
        // Whoever asked may have gone.
        let _ = answer.send(Ok(key.is_some()));
        if let Some(key) = key {
            let mut drafts = Vec::new();
            self.alerts.change(&key, change, now, &mut drafts);
            self.draft(drafts);
        }
        self.wait(Some(ticket), None);
    }

    /// Has the next commit hold what came of alerts.
    pub(super) fn draft(&mut self, drafts: Vec<AlertDraft>) {
        // Each update comes by here, and nearly none has anything.
        if !drafts.is_empty() || self.alerts.has_unsaved() {
            draft(&mut self.alerts, &mut self.pending, drafts);
        }
    }

    /// Announces the status of a device if it has changed, and what follows from that; then its
    /// silence counts otherwise.
    pub(super) fn announce(&mut self, id: DeviceId, now: UnixMillis) {
        let is_full = self.is_full();
        let Some(device) = self.state.device_mut(id) else { return };
        if is_full {
            return self.schedule.look_by(id, now.plus(TICK));
        }
        let Some(transition) = device.health.transition(id, now) else { return };
        let (status, at, mut drafts) = (transition.new, transition.at, Vec::new());
        self.pending.events.push(EventDraft::Status(transition));
        for rule in &device.rules {
            self.alerts.observe_status(*rule, id, status, (at, now), &mut drafts);
        }
        draft(&mut self.alerts, &mut self.pending, drafts);
        self.schedule.look_by(id, now);
    }
}

fn draft(alerts: &mut Alerts, pending: &mut Commit, drafts: Vec<AlertDraft>) {
    pending.events.extend(drafts.into_iter().map(EventDraft::Alert));
    for (key, saved) in alerts.take_unsaved() {
        let json = |saved| serde_json::to_string(&saved).expect("it has text keys only");
        pending.watches.insert(key, saved.map(|saved| Arc::from(json(saved))));
    }
}
