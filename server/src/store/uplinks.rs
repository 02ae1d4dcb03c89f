//! What is known of agents beside their readings: what they have lost, and on which machines their
//! queues are.

use rusqlite::{Connection, Transaction, params};
use valtronics_protocol::{time::UnixMillis, uplink::GapReason};

use super::StoreError;
use crate::commit::{Lost, QueueMachine};

pub(super) fn write_lost(
    transaction: &Transaction<'_>,
    lost: &Lost,
    committed_at: UnixMillis,
) -> Result<(), StoreError> {
    let reason = match lost.reason {
        GapReason::Evicted => "evicted",
        GapReason::Corrupt => "corrupt",
        GapReason::Other => "other",
    };
    let readings = i64::try_from(lost.readings).unwrap_or(i64::MAX);
    transaction
        .prepare_cached(
            "INSERT INTO gaps (device, first_at, last_at, lost, reason, committed_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            lost.device.0.cast_signed(),
            lost.from.0,
            lost.to.0,
            readings,
            reason,
            committed_at.0
        ])?;
    Ok(())
}

pub(super) fn write_machine(
    transaction: &Transaction<'_>,
    QueueMachine { sub, queue, machine }: &QueueMachine,
) -> Result<(), StoreError> {
    transaction
        .prepare_cached(
            "INSERT OR REPLACE INTO queue_machines (sub, queue, machine) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![&**sub, &**queue, &**machine])?;
    Ok(())
}

pub(super) fn machines(db: &Connection) -> Result<Vec<QueueMachine>, StoreError> {
    let mut statement = db.prepare("SELECT sub, queue, machine FROM queue_machines")?;
    let found = statement.query_map([], |row| {
        Ok(QueueMachine { sub: row.get(0)?, queue: row.get(1)?, machine: row.get(2)? })
    })?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Forgets the machines of numberings that are forgotten.
pub(super) fn prune_machines(transaction: &Transaction<'_>) -> Result<(), StoreError> {
    let sql = "DELETE FROM queue_machines WHERE NOT EXISTS
               (SELECT 1 FROM queues WHERE (sub, queue) = (queue_machines.sub, queue_machines.queue))";
    transaction.prepare_cached(sql)?.execute([])?;
    Ok(())
}

/// Forgets what was lost so long ago that nothing is left around it.
pub(super) fn prune_lost(
    transaction: &Transaction<'_>,
    before: UnixMillis,
    most: usize,
) -> Result<usize, StoreError> {
    let sql = "DELETE FROM gaps WHERE id IN
               (SELECT id FROM gaps WHERE last_at < ?1 AND committed_at < ?1 ORDER BY id LIMIT ?2)";
    Ok(transaction.prepare_cached(sql)?.execute(params![before.0, most])?)
}
