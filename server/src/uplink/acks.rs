//! When an uplink is told how far its numbers are committed.

use std::time::{Duration, Instant};

use tokio::sync::watch;
use valtronics_protocol::uplink::Ack;

use super::Admitted;

/// How long acknowledgements gather.
const ACK_EVERY: Duration = Duration::from_millis(100);

/// The acknowledgements that one connection is owed.
pub(super) struct Acks {
    pub(super) progress: watch::Receiver<Ack>,
    /// What the other side knows to be committed.
    pub(super) told: Ack,
    pub(super) due: bool,
    sent_at: Option<Instant>,
}

impl Acks {
    /// Owes what was committed since `auth_response` told.
    pub(super) fn new(admitted: &Admitted) -> Self {
        let (progress, told) = (admitted.progress.subscribe(), admitted.told);
        let due = *progress.borrow() != told;
        Self { progress, told, due, sent_at: None }
    }

    /// Returns when the next one is to be sent, if one is owed.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.due.then(|| self.sent_at.map_or(now, |at| at + ACK_EVERY))
    }

    /// Takes the numbers that are committed by now, if there are any.
    pub(super) fn take(&mut self, now: Instant) -> Option<Ack> {
        self.due = false;
        self.sent_at = Some(now);
        self.told = *self.progress.borrow_and_update();
        (self.told != Ack::default()).then_some(self.told)
    }
}
