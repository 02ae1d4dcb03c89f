//! What goes to the store, and what comes back: gathered while it is busy, handed over when it is not.

use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use super::Engine;
use crate::{
    commit::{Commit, Committed},
    ingest::Ticket,
};

/// How long a commit may gather under load while somebody waits for it: at this rate the store costs
/// little.
const COMMIT_EVERY: Duration = Duration::from_millis(20);
/// The same while nobody does: readings without numbers, which nothing acknowledges.
const COMMIT_UNHURRIED: Duration = Duration::from_millis(100);
/// How many readings a commit gathers at most before it is due: some milliseconds' work.
const COMMIT_READINGS: usize = 16_384;

impl Engine {
    /// Has the next commit tell, and free, what waits for it.
    pub(super) fn wait(&mut self, ticket: Option<Ticket>, permit: Option<OwnedSemaphorePermit>) {
        self.is_awaited |= ticket.is_some();
        self.pending_tickets.push((ticket, permit));
    }

    /// Returns when what is gathered is to be committed.
    pub(super) fn commit_at(&self) -> Instant {
        let urgent =
            self.is_awaited || !self.pending.events.is_empty() || !self.pending.rules.is_empty();
        match () {
            () if self.pending.readings.len() >= COMMIT_READINGS => self.committed_at,
            () if urgent => self.committed_at + COMMIT_EVERY,
            () => self.committed_at + COMMIT_UNHURRIED,
        }
    }

    /// Tells whether nothing waits for the store to be idle.
    pub(super) fn is_committed(&self) -> bool {
        self.pending_tickets.is_empty()
            && self.agents.is_committed()
            && self.pending == Commit { received_at: self.pending.received_at, ..Commit::default() }
    }

    /// Hands what is gathered to the store when it is idle and its time has come.
    pub(super) fn commit_if_due(&mut self, instant: Instant) {
        if self.committing.is_some() || self.is_committed() {
            return;
        }
        if self.commit_at() > instant && !self.stopping {
            return;
        }
        let agents = self.agents.take_changes();
        let keys = self.keys.take_pending();
        let commit = Commit { agents, keys, ..std::mem::take(&mut self.pending) };
        // The channel holds one commit and the store has none: there is room unless it has ended,
        // and then the process ends.
        if self.store.try_send(commit).is_ok() {
            self.committing = Some(std::mem::take(&mut self.pending_tickets));
            (self.is_awaited, self.requests) = (false, 0);
            self.committed_at = instant;
        }
    }

    /// Hands on what subscribers need of the store; when it has enough to do, its next page comes
    /// back here.
    pub(super) fn ask_pages(&mut self) {
        while let Some(page) = self.hub.next_page()
            && self.pages.try_send(page).is_ok()
        {
            self.hub.page_asked();
        }
    }

    /// Publishes what has become durable.
    pub(super) fn committed(&mut self, committed: Committed, now: Instant) {
        for (ticket, permit) in self.committing.take().unwrap_or_default() {
            if let Some(ticket) = ticket {
                self.queues.committed(&ticket);
            }
            drop(permit);
        }
        self.agents.committed();
        self.keys.committed();
        let any = !committed.events.is_empty();
        for event in committed.events {
            self.state.publish(event, now);
        }
        if any {
            self.hub.events_published(&self.state, now);
        }
    }
}
