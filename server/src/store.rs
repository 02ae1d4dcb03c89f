//! What survives: one SQLite file, one writer, one transaction a commit.
//!
//! A synchronous struct without threads of its own. Readings go into a journal, a blob a commit;
//! ids, `alert_id` and `seq` are given inside the transaction, so a commit that fails leaves no
//! hole. Deliberately not here: who asks, when, and what a reading means.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, Transaction, params};
use valtronics_protocol::{filter::Channel, id::Seq, time::UnixMillis};

use crate::commit::{Commit, Committed, CommittedEvent, Oldest, QueueKey, Row, RuleChange};

mod chunk;
mod column;
mod compact;
mod error;
mod events;
mod history;
mod journal;
mod prune;
mod registry;
mod restore;
mod schema;
mod seal;
mod summary;
#[cfg(test)]
mod tests;
mod uplinks;

pub use compact::{Change, Compactor};
pub use error::StoreError;
use events::{Numbering, Positions};
pub use history::{Cursor, Gap, Page, Points, Query, Reader};
use registry::Registry;
pub use registry::{RegisterError, Registered, RegistryLimits};
pub use restore::Restored;
pub use summary::{Numbers, Span};

/// The store.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    registry: Registry,
    positions: Positions,
    /// When the last commit was, by the server's clock, but later with each commit:
    /// so a reader can go on from where another ended.
    arrived: UnixMillis,
    _lock: std::fs::File,
}

impl Store {
    /// Opens the store of a data directory, or makes it, and returns what it holds.
    ///
    /// # Errors
    /// When the directory cannot be used, another server uses it, or a newer version made it.
    pub fn open(dir: &Path) -> Result<(Self, Restored), StoreError> {
        let lock = schema::lock(dir)?;
        let db = schema::open(dir)?;
        let registry = Registry::load(&db)?;
        let restored = restore::load(&db, &registry)?;
        let positions = Positions::load(&db, &restored)?;
        let arrived = history::last_arrived(&db)?;
        Ok((Self { db, registry, positions, arrived, _lock: lock }, restored))
    }

    /// Looks names up, or brings them into being in this order.
    ///
    /// # Errors
    /// When the token is not for a device, a limit is reached or the store cannot write; then nothing
    /// came into being.
    pub fn register(
        &mut self,
        registrant: &crate::store_task::Registrant,
        wanted: &[crate::store_task::Wanted],
        limits: RegistryLimits,
        now: UnixMillis,
    ) -> Result<Registered, RegisterError> {
        self.registry.register(&mut self.db, registrant, wanted, limits, now)
    }

    /// Makes a commit durable: all of it or nothing.
    ///
    /// # Errors
    /// When the store cannot write; the same commit may be tried again.
    pub fn commit(&mut self, commit: &Commit) -> Result<Committed, StoreError> {
        let transaction = self.db.transaction()?;
        let arrived = commit.received_at.max(UnixMillis(self.arrived.0 + 1));
        if !commit.readings.is_empty() {
            write_readings(&transaction, arrived, &commit.readings)?;
        }
        for (key, number) in &commit.queues {
            write_number(&transaction, key, *number)?;
        }
        for change in &commit.rules {
            write_rule(&transaction, change)?;
        }
        for lost in &commit.lost {
            uplinks::write_lost(&transaction, lost, arrived)?;
        }
        for machine in &commit.machines {
            uplinks::write_machine(&transaction, machine)?;
        }
        let mut numbering = Numbering::after(&self.positions);
        let mut events = Vec::with_capacity(commit.events.len());
        for draft in &commit.events {
            events.extend(numbering.write(&transaction, draft)?);
        }
        let moved = numbering.finish();
        transaction.commit()?;
        self.positions.apply(moved);
        self.arrived = arrived;
        Ok(Committed { events })
    }

    /// Writes last values down, so that the journal before need not be read again.
    ///
    /// # Errors
    /// When the store cannot write.
    pub fn checkpoint(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO last_values (one, upto, rows)
                 VALUES (1, (SELECT ifnull(max(id), 0) FROM journal), ?1)",
            )?
            .execute([journal::encode(rows)])?;
        Ok(())
    }

    /// Reads the first events of a channel after a position, in order and without holes.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn events_after(
        &self,
        channel: Channel,
        after: Seq,
        most: usize,
    ) -> Result<Vec<CommittedEvent>, StoreError> {
        events::after(&self.db, channel, after, most)
    }

    /// Returns the oldest events that are held.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn oldest(&self) -> Result<Oldest, StoreError> {
        events::oldest(&self.db)
    }

    /// Writes chunks and lets go of what is in them.
    ///
    /// # Errors
    /// When the store cannot write; then nothing has changed.
    pub fn compact(&mut self, change: &Change) -> Result<(), StoreError> {
        compact::write(&mut self.db, change)
    }

    /// Deletes some of what is older than is kept; true when there may be more.
    ///
    /// # Errors
    /// When the store cannot write.
    pub fn prune(&mut self, keep: Duration, now: UnixMillis) -> Result<bool, StoreError> {
        prune::prune(&mut self.db, keep, now)
    }
}

fn write_readings(
    transaction: &Transaction<'_>,
    arrived: UnixMillis,
    readings: &[Row],
) -> Result<(), StoreError> {
    let times = readings.iter().map(|row| row.at.0);
    let (first, last) = times.fold((i64::MAX, i64::MIN), |(a, b), at| (a.min(at), b.max(at)));
    transaction
        .prepare_cached(
            "INSERT INTO journal (received_at, first_at, last_at, count, rows)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![arrived.0, first, last, readings.len(), journal::encode(readings)])?;
    Ok(())
}

fn write_number(
    transaction: &Transaction<'_>,
    key: &QueueKey,
    number: u64,
) -> Result<(), StoreError> {
    // Numbers are unsigned and SQLite's are not: what looks negative is above what does not.
    transaction
        .prepare_cached(
            "INSERT INTO queues (sub, queue, lane, number) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET number = excluded.number
             WHERE (excluded.number < 0, excluded.number) > (number < 0, number)",
        )?
        .execute(params![&*key.sub, &*key.queue, key.lane as u8, number.cast_signed()])?;
    Ok(())
}

fn write_rule(transaction: &Transaction<'_>, change: &RuleChange) -> Result<(), StoreError> {
    let RuleChange { name, json } = change;
    match json {
        Some(json) => transaction
            .prepare_cached("INSERT OR REPLACE INTO rules (name, json) VALUES (?1, ?2)")?
            .execute(params![&**name, &**json])?,
        None => {
            transaction.prepare_cached("DELETE FROM rules WHERE name = ?1")?.execute([&**name])?
        }
    };
    Ok(())
}
