//! What survives: one SQLite file, one writer, one transaction a commit.
//!
//! A synchronous struct without threads of its own. Readings go into a journal, a blob a commit;
//! ids, `alert_id` and `seq` are given inside the transaction, so a commit that fails leaves no
//! hole. Deliberately not here: who asks, when, and what a reading means.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use rusqlite::{Connection, Transaction, params};
use valtronics_protocol::{
    event::{Alert, AlertMetadata, AlertStatus, DeviceStatusUpdate, Severity, StatusMetadata},
    filter::Channel,
    id::{AlertId, Seq},
    time::UnixMillis,
};

use crate::{
    commit::{
        AlertDraft, AlertKey, Commit, Committed, CommittedAlert, CommittedEvent, EventDraft,
        QueueKey, Row, Severities, StatusDraft,
    },
    state::RING,
};

mod error;
mod journal;
mod registry;
mod restore;
mod schema;

pub use error::StoreError;
use registry::Registry;
pub use registry::{RegisterError, Registered, RegistryLimits};
pub use restore::Restored;

/// For how long events are kept (programs, `[history]`).
const KEEP_EVENTS: Duration = Duration::from_secs(365 * 86_400);
/// How many commits one call of [`Store::prune`] deletes: a few milliseconds' work.
const PRUNED_AT_ONCE: usize = 1000;

/// The store.
#[derive(Debug)]
pub struct Store {
    db: Connection,
    registry: Registry,
    counters: Counters,
    open_alerts: HashMap<AlertKey, OpenAlert>,
    _lock: std::fs::File,
}

/// What the next event is numbered.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    alert_seq: u64,
    device_seq: u64,
    alert_id: u64,
}

#[derive(Debug, Clone)]
struct OpenAlert {
    id: AlertId,
    severity: Severity,
    had: Severities,
}

/// What a transaction changes in memory once it has committed.
struct Changes {
    counters: Counters,
    alerts: Vec<(AlertKey, Option<OpenAlert>)>,
}

impl Store {
    /// Opens the store of a data directory, or makes it, and returns what it holds.
    ///
    /// # Errors
    /// When the directory cannot be used, another server uses it, or a newer version made it.
    pub fn open(dir: &Path, now: UnixMillis) -> Result<(Self, Restored), StoreError> {
        let lock = schema::lock(dir)?;
        let db = schema::open(dir)?;
        let registry = Registry::load(&db)?;
        let restored = restore::load(&db, &registry, now)?;
        let counters = Counters {
            alert_seq: restored.alert_seq.0,
            device_seq: restored.device_seq.0,
            alert_id: db
                .query_row("SELECT ifnull(max(id), 0) FROM alerts", [], |row| row.get(0))?,
        };
        let open_alerts = restored.open_alerts.iter().map(|open| {
            let CommittedAlert { alert, had, .. } = open;
            let key = AlertKey {
                rule: Arc::clone(&alert.metadata.rule),
                device: alert.device_id,
                metric: Arc::clone(&alert.metadata.metric),
            };
            (key, OpenAlert { id: alert.alert_id, severity: alert.severity, had: *had })
        });
        let open_alerts = open_alerts.collect();
        Ok((Self { db, registry, counters, open_alerts, _lock: lock }, restored))
    }

    /// Looks names up, or brings them into being in this order.
    ///
    /// # Errors
    /// When a limit is reached or the store cannot write; then nothing came into being.
    pub fn register(
        &mut self,
        sub: &Arc<str>,
        gateway: Option<&Arc<str>>,
        wanted: &[crate::store_task::Wanted],
        limits: RegistryLimits,
        now: UnixMillis,
    ) -> Result<Registered, RegisterError> {
        self.registry.register(&mut self.db, sub, gateway, wanted, limits, now)
    }

    /// Makes a commit durable: all of it or nothing.
    ///
    /// # Errors
    /// When the store cannot write; the same commit may be tried again.
    pub fn commit(&mut self, commit: &Commit) -> Result<Committed, StoreError> {
        let transaction = self.db.transaction()?;
        if !commit.readings.is_empty() {
            write_readings(&transaction, commit)?;
        }
        for (QueueKey { sub, queue, lane }, number) in &commit.queues {
            transaction
                .prepare_cached(
                    "INSERT INTO queues (sub, queue, lane, number) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT DO UPDATE SET number = max(number, excluded.number)",
                )?
                .execute(params![&**sub, &**queue, *lane as u8, number.cast_signed()])?;
        }
        for change in &commit.rules {
            let sql = match change.json {
                Some(_) => "INSERT OR REPLACE INTO rules (name, json) VALUES (?1, ?2)",
                None => "DELETE FROM rules WHERE name = ?1 AND ?2 IS NULL",
            };
            transaction.prepare_cached(sql)?.execute(params![&*change.name, change.json])?;
        }
        let mut changes = Changes { counters: self.counters, alerts: Vec::new() };
        let mut events = Vec::with_capacity(commit.events.len());
        for draft in &commit.events {
            match draft {
                EventDraft::Status(draft) => {
                    events.push(write_status(&transaction, draft, &mut changes.counters)?);
                }
                EventDraft::Alert(draft) => {
                    events.extend(write_alert(
                        &transaction,
                        draft,
                        &self.open_alerts,
                        &mut changes,
                    )?);
                }
            }
        }
        transaction.commit()?;
        self.counters = changes.counters;
        for (key, open) in changes.alerts {
            match open {
                Some(open) => drop(self.open_alerts.insert(key, open)),
                None => drop(self.open_alerts.remove(&key)),
            }
        }
        Ok(Committed { events })
    }

    /// Writes last values down, so that the journal before need not be read again.
    ///
    /// # Errors
    /// When the store cannot write.
    pub fn checkpoint(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        let upto: i64 =
            self.db.query_row("SELECT ifnull(max(id), 0) FROM journal", [], |row| row.get(0))?;
        self.db
            .prepare_cached(
                "INSERT OR REPLACE INTO last_values (one, upto, rows) VALUES (1, ?1, ?2)",
            )?
            .execute(params![upto, journal::encode(rows)])?;
        Ok(())
    }

    /// Deletes some of what is older than is kept; true when there may be more.
    ///
    /// # Errors
    /// When the store cannot write.
    pub fn prune(&mut self, keep: Duration, now: UnixMillis) -> Result<bool, StoreError> {
        let (readings, events) = (now.minus(keep), now.minus(KEEP_EVENTS));
        let transaction = self.db.transaction()?;
        let deleted = transaction.execute(
            "DELETE FROM journal WHERE id IN
             (SELECT id FROM journal WHERE received_at < ?1 ORDER BY id LIMIT ?2)",
            params![readings.0, PRUNED_AT_ONCE],
        )?;
        transaction.execute("DELETE FROM events WHERE at < ?1", params![events.0])?;
        transaction.commit()?;
        self.db.execute_batch("PRAGMA incremental_vacuum(1000)")?;
        Ok(deleted == PRUNED_AT_ONCE)
    }
}

fn write_readings(transaction: &Transaction<'_>, commit: &Commit) -> Result<(), StoreError> {
    let times = commit.readings.iter().map(|row| row.at.0);
    let (first, last) = times.fold((i64::MAX, i64::MIN), |(a, b), at| (a.min(at), b.max(at)));
    transaction
        .prepare_cached(
            "INSERT INTO journal (received_at, first_at, last_at, count, rows)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            commit.received_at.0,
            first,
            last,
            commit.readings.len(),
            journal::encode(&commit.readings)
        ])?;
    Ok(())
}

fn write_event(
    transaction: &Transaction<'_>,
    channel: Channel,
    seq: Seq,
    at: UnixMillis,
    body: &impl serde::Serialize,
    alert: Option<&CommittedAlert>,
) -> Result<(), StoreError> {
    let json = serde_json::to_string(body).expect("our messages have text keys only");
    transaction
        .prepare_cached(
            "INSERT INTO events (channel, seq, at, announces, had, json)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            channel as u8,
            seq.0.cast_signed(),
            at.0,
            alert.map(|alert| alert.announces),
            alert.map(|alert| alert.had.0),
            json
        ])?;
    Ok(())
}

fn write_status(
    transaction: &Transaction<'_>,
    draft: &StatusDraft,
    counters: &mut Counters,
) -> Result<CommittedEvent, StoreError> {
    counters.device_seq += 1;
    let update = DeviceStatusUpdate {
        channel: Channel::Devices,
        device_id: draft.device,
        old_status: draft.old,
        new_status: draft.new,
        timestamp: draft.at,
        reason: Arc::clone(&draft.reason),
        metadata: StatusMetadata { last_seen: draft.last_seen },
        seq: Seq(counters.device_seq),
        snapshot: false,
    };
    write_event(transaction, Channel::Devices, update.seq, draft.at, &update, None)?;
    transaction.prepare_cached("UPDATE devices SET status = ?2 WHERE id = ?1")?.execute(
        params![
            draft.device.0.cast_signed(),
            serde_json::to_string(&update).expect("our messages have text keys only")
        ],
    )?;
    Ok(CommittedEvent::Status(update))
}

fn write_alert(
    transaction: &Transaction<'_>,
    draft: &AlertDraft,
    open_alerts: &HashMap<AlertKey, OpenAlert>,
    changes: &mut Changes,
) -> Result<Option<CommittedEvent>, StoreError> {
    // Earlier drafts of this commit count before what was open when it began.
    let changed = changes.alerts.iter().rev().find(|(key, _)| *key == draft.key);
    let known = match changed {
        Some((_, open)) => open.clone(),
        None => open_alerts.get(&draft.key).cloned(),
    };
    let resolved = draft.status == AlertStatus::Resolved;
    if known.is_none() && resolved {
        return Ok(None);
    }
    let announces = !resolved && known.as_ref().is_none_or(|known| draft.severity > known.severity);
    let id = match &known {
        Some(known) => known.id,
        None => {
            changes.counters.alert_id += 1;
            AlertId(changes.counters.alert_id)
        }
    };
    changes.counters.alert_seq += 1;
    let had = known.map_or_else(Severities::default, |known| known.had).with(draft.severity);
    let seq = Seq(changes.counters.alert_seq);
    let committed = CommittedAlert { alert: numbered(draft, id, seq), announces, had };
    let alert = &committed.alert;
    write_event(transaction, Channel::Alerts, alert.seq, draft.at, alert, Some(&committed))?;
    transaction
        .prepare_cached(
            "INSERT INTO alerts (id, resolved, had, json) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET resolved = excluded.resolved, had = excluded.had,
             json = excluded.json",
        )?
        .execute(params![
            id.0.cast_signed(),
            resolved,
            had.0,
            serde_json::to_string(alert).expect("our messages have text keys only")
        ])?;
    let open = (!resolved).then_some(OpenAlert { id, severity: draft.severity, had });
    changes.alerts.push((draft.key.clone(), open));
    Ok(Some(CommittedEvent::Alert(committed)))
}

/// Makes the message of a transition.
fn numbered(draft: &AlertDraft, alert_id: AlertId, seq: Seq) -> Alert {
    Alert {
        channel: Some(Channel::Alerts),
        alert_id,
        device_id: draft.key.device,
        severity: draft.severity,
        title: Arc::clone(&draft.title),
        message: Arc::clone(&draft.message),
        timestamp: draft.at,
        metadata: AlertMetadata {
            threshold_value: draft.threshold.clone(),
            actual_value: draft.actual.clone(),
            metric: Arc::clone(&draft.key.metric),
            rule: Arc::clone(&draft.key.rule),
        },
        alert_type: Arc::clone(&draft.alert_type),
        status: draft.status,
        seq,
        snapshot: false,
    }
}
