//! Alerts in the engine: what follows from a status, and what somebody asks for.

use std::sync::Arc;

use tokio::sync::oneshot;
use valtronics_protocol::{
    id::{AlertId, DeviceId},
    time::UnixMillis,
};

use super::Engine;
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
    pub answer: oneshot::Sender<bool>,
}

impl Engine {
    /// Changes an alert that is open.
    pub(super) fn change_alert(&mut self, wanted: AlertChange, now: UnixMillis) {
        let AlertChange { id, change, grant, ticket, answer } = wanted;
        let open = self.state.open_alerts.get(&id);
        let key = open.map(crate::commit::CommittedAlert::key).filter(|key| {
            let device = self.state.device(key.device);
            device.is_some_and(|of| grant.allows(of.id(), &of.registered.name, &of.key))
        });
        // Whoever asked may have gone.
        let _ = answer.send(key.is_some());
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
        let Some(device) = self.state.device_mut(id) else { return };
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
