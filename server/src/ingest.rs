//! From a frame of an agent to one flat batch: checked, with names resolved.
//!
//! A batch is what one frame (or one HTTP body) held, in its order. Texts are borrowed from the
//! frame until names are resolved; after that a reading is a few numbers.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, watch};
use valtronics_protocol::{
    counters::Counters, event::Status, id::DeviceId, time::UnixMillis, uplink::Ack,
};

use crate::{
    commit::{Lost, QueueKey, Row},
    tally::{AgentId, Tally},
    used_key::Once,
};

pub mod json;
pub mod names;
pub mod resolve;

/// What one frame held.
#[derive(Debug, Default)]
pub struct Batch {
    /// When it came in.
    pub received_at: UnixMillis,
    /// The same by the clock that measures how long it stays.
    pub arrived_at: Option<Instant>,
    /// What it held, in order.
    pub items: Vec<Item>,
    /// The readings of its updates.
    pub rows: Vec<Row>,
    /// What is told when it is durable.
    pub ticket: Option<Ticket>,
    /// Its share of what may be under way; free again when it is durable.
    pub permit: Option<OwnedSemaphorePermit>,
    /// How many timestamps were replaced.
    pub replaced: u64,
    /// Whose it is, and what was counted of it.
    pub agent: Option<AgentId>,
    /// What its connection has counted.
    pub tally: Tally,
    /// What the agent itself has counted.
    pub reported: Option<Box<Counters>>,
    /// The key under which it is taken in once only.
    pub once: Option<Box<Once>>,
    /// The readings go ahead of their numbered ones: shown, not stored.
    pub preview: bool,
}

/// One thing of a batch.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// Readings of one device, which become one message: these rows of the batch.
    Update {
        /// Which rows; never empty, all of one device.
        rows: Range<usize>,
        /// The sender marked them as a backlog.
        historical: bool,
    },
    /// A device's status, as the device or its gateway knows it.
    Status(StatusReport),
    /// After how much silence a device counts as offline.
    OfflineAfter(DeviceId, Option<Duration>),
    /// Readings that will never come.
    Lost(Lost),
}

/// A device's status, as the device or its gateway knows it.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusReport {
    /// Which device.
    pub device: DeviceId,
    /// Its status.
    pub status: Status,
    /// Why, in one sentence.
    pub reason: Arc<str>,
    /// Since when.
    pub at: UnixMillis,
}

/// Who waits for a batch to become durable, and what for.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// Where the numbers go when they are committed; whoever is there reads them.
    pub progress: Arc<watch::Sender<Ack>>,
    /// The numbers that this batch reaches.
    pub reached: Ack,
    /// The numbering that remembers them, if the agent named one.
    pub queue: Option<OpenQueue>,
}

/// A connection's hold on a numbering.
#[derive(Debug, Clone)]
pub struct OpenQueue {
    /// The numbering of readings; that of events has the same name.
    pub key: QueueKey,
    /// Which connection: a newer one takes the numbering over.
    pub epoch: u64,
}

/// How far ahead of the server's clock a timestamp may be before the receipt replaces it
/// (WebSocket API, section 5).
pub const MAX_AHEAD: Duration = Duration::from_secs(60);

impl Batch {
    /// Tells whether there is nothing to take in, to acknowledge or to count.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let is_known = self.items.is_empty() && self.reported.is_none();
        is_known && self.ticket.is_none() && self.tally == Tally::default()
    }

    /// Replaces a timestamp from a clock that is far ahead by the moment of receipt, and counts that;
    /// where none was given it is the moment of receipt anyway.
    pub fn plausible(&mut self, at: Option<UnixMillis>) -> UnixMillis {
        let at = at.unwrap_or(self.received_at);
        if at <= self.received_at.plus(MAX_AHEAD) {
            return at;
        }
        self.replaced += 1;
        self.received_at
    }
}

/// Adds a reading to a batch: to the update that began at row `begin`, or, when that one holds the
/// metric already, to a new one.
pub fn push_row(batch: &mut Batch, begin: usize, row: Row, historical: bool) {
    let at = batch.rows.len();
    let update = batch.items.last_mut().and_then(|item| match item {
        Item::Update { rows, historical: marked } if rows.end == at && rows.start >= begin => {
            (*marked == historical).then_some(rows)
        }
        Item::Update { .. } | Item::Status(_) | Item::OfflineAfter(..) | Item::Lost(_) => None,
    });
    match update {
        Some(rows) if !has_metric(batch.rows.get(rows.clone()).unwrap_or_default(), &row) => {
            rows.end = at + 1;
        }
        Some(_) | None => batch.items.push(Item::Update { rows: at..at + 1, historical }),
    }
    batch.rows.push(row);
}

fn has_metric(rows: &[Row], row: &Row) -> bool {
    rows.iter().any(|known| known.metric == row.metric)
}
