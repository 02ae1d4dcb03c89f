//! What survives: one SQLite file, one writer, one transaction a commit.
//!
//! A synchronous struct without threads of its own. Readings go into a journal, a blob a commit;
//! ids, `alert_id` and `seq` are given inside the transaction, so a commit that fails leaves no
//! hole. Deliberately not here: who asks, when, and what a reading means.

use std::{path::Path, time::Duration};

use rusqlite::{Connection, Transaction, params};
use valtronics_protocol::{
    event::Alert,
    filter::Channel,
    id::{AlertId, Seq},
    time::UnixMillis,
};

use crate::{
    commit::{Commit, Committed, CommittedEvent, Marks, Oldest, QueueKey, Row, RuleChange},
    used_key::UsedKey,
};

mod agents;
mod alerts;
mod ballast;
mod chunk;
mod column;
mod compact;
mod error;
mod events;
mod history;
mod journal;
mod marks;
mod past;
mod prune;
mod registry;
mod restore;
mod schema;
mod seal;
mod summary;
#[cfg(test)]
mod tests;
mod uplinks;

pub use alerts::{AlertPage, WantedAlerts};
use ballast::Ballast;
pub use compact::{Change, Compactor};
pub use error::StoreError;
use events::{Numbering, Positions};
pub use history::{Cursor, Gap, Page, Points, Query, Reader};
pub use past::{Past, past};
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
    ballast: Ballast,
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
        let ballast = Ballast::new(dir);
        Ok((Self { db, registry, positions, arrived, ballast, _lock: lock }, restored))
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
        let registered = self.registry.register(&mut self.db, registrant, wanted, limits, now);
        match registered {
            Err(RegisterError::Store(StoreError::DiskFull)) if self.ballast.let_go() => {
                self.registry.register(&mut self.db, registrant, wanted, limits, now)
            }
            registered => registered,
        }
    }

    /// Tells whether the room that is kept for a full disk is needed: it is taken again when there
    /// is enough.
    pub fn is_short(&mut self) -> bool {
        if self.ballast.is_missed() {
            self.ballast.take();
        }
        self.ballast.is_missed()
    }

    /// Makes a commit durable: all of it or nothing.
    ///
    /// # Errors
    /// When the store cannot write; the same commit may be tried again.
    pub fn commit(&mut self, commit: &Commit) -> Result<Committed, StoreError> {
        match self.try_commit(commit) {
            Err(StoreError::DiskFull) if self.ballast.let_go() => self.try_commit(commit),
            tried => tried,
        }
    }

    fn try_commit(&mut self, commit: &Commit) -> Result<Committed, StoreError> {
        let transaction = self.db.transaction()?;
        let arrived = commit.received_at.max(UnixMillis(self.arrived.0 + 1));
        if !commit.readings.is_empty() {
            write_readings(&transaction, arrived, commit)?;
        }
        for (key, number) in &commit.queues {
            write_number(&transaction, key, *number, commit.received_at)?;
        }
        for change in &commit.rules {
            write_rule(&transaction, change)?;
        }
        if let Some(json) = &commit.file_rules {
            let sql = "INSERT OR REPLACE INTO meta (key, value) VALUES ('file_rules', ?1)";
            transaction.prepare_cached(sql)?.execute([&**json])?;
        }
        for change in &commit.agents {
            agents::write(&transaction, change)?;
        }
        for used in &commit.keys {
            write_key(&transaction, used)?;
        }
        for (key, json) in &commit.watches {
            alerts::write_watch(&transaction, key, json.as_deref())?;
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
    pub fn checkpoint(&mut self, rows: &[Row], marks: &Marks) -> Result<(), StoreError> {
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO last_values (one, upto, rows, marks)
                 VALUES (1, (SELECT ifnull(max(id), 0) FROM journal), ?1, ?2)",
            )?
            .execute(params![journal::encode(rows), marks::encode(marks)])?;
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

    /// Reads alerts, newest first: those that are wanted among some of all.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn alerts(&self, wanted: &WantedAlerts) -> Result<AlertPage, StoreError> {
        alerts::list(&self.db, wanted)
    }

    /// Reads an alert.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn alert(&self, id: AlertId) -> Result<Option<Alert>, StoreError> {
        alerts::one(&self.db, id)
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
    Commit { readings, marks, .. }: &Commit,
) -> Result<(), StoreError> {
    let times = readings.iter().map(|row| row.at.0);
    let (first, last) = times.fold((i64::MAX, i64::MIN), |(a, b), at| (a.min(at), b.max(at)));
    transaction
        .prepare_cached(
            "INSERT INTO journal (received_at, first_at, last_at, count, rows, marks)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            arrived.0,
            first,
            last,
            readings.len(),
            journal::encode(readings),
            marks::encode(marks)
        ])?;
    Ok(())
}

fn write_number(
    transaction: &Transaction<'_>,
    key: &QueueKey,
    number: u64,
    now: UnixMillis,
) -> Result<(), StoreError> {
    // Numbers are unsigned and SQLite's are not: what looks negative is above what does not.
    transaction
        .prepare_cached(
            "INSERT INTO queues (sub, queue, lane, number, seen_at) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET number = excluded.number, seen_at = excluded.seen_at
             WHERE (excluded.number < 0, excluded.number) > (number < 0, number)",
        )?
        .execute(params![&*key.sub, &*key.queue, key.lane as u8, number.cast_signed(), now.0])?;
    Ok(())
}

fn write_key(transaction: &Transaction<'_>, used: &UsedKey) -> Result<(), StoreError> {
    // One that is older than a day may still be there.
    let sql = "INSERT OR REPLACE INTO used_keys (sub, key, body, at) VALUES (?1, ?2, ?3, ?4)";
    let UsedKey { sub, key, body, at } = used;
    transaction.prepare_cached(sql)?.execute(params![&**sub, key.0, body.0, at.0])?;
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
