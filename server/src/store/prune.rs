//! Lets go of what is older than is kept, a slice at a time.
//!
//! The newest of everything that is numbered stays for ever, however old: from it the next number
//! follows after a start.

use std::time::Duration;

use rusqlite::{Connection, Transaction, params};
use valtronics_protocol::{filter::Channel, time::UnixMillis};

use super::{StoreError, chunk::HOUR, uplinks};

/// For how long events are kept (programs, `[history]`).
const KEEP_EVENTS: Duration = Duration::from_secs(365 * 86_400);
/// For how long a numbering is remembered in which nothing is numbered any more: far longer than an
/// agent is away and still has something to send.
const KEEP_QUEUES: Duration = Duration::from_secs(365 * 86_400);
/// For how long idempotency keys are kept (programs, `POST /api/v1/telemetry`).
const KEEP_KEYS: Duration = Duration::from_secs(86_400);
/// How many commits, and events of a channel, one call deletes: a few milliseconds' work, and more
/// than what comes in between two calls a second apart.
const DELETED_AT_ONCE: usize = 1000;
/// How many hours of a device one call deletes, for the same reason: each is some tens of KiB.
const CHUNKS_AT_ONCE: usize = 100;
/// How many pages one call gives back to the file system (4 MiB), for the same reason.
const PAGES_AT_ONCE: usize = 1024;

/// Deletes a slice; true when there may be more.
pub(super) fn prune(
    db: &mut Connection,
    keep: Duration,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let transaction = db.transaction()?;
    let commits = readings(&transaction, now.minus(keep))?;
    let chunks = chunks(&transaction, now.minus(keep))?;
    let mut events = 0;
    for channel in [Channel::Alerts, Channel::Devices] {
        events = events.max(events_of(&transaction, channel, now.minus(KEEP_EVENTS))?);
    }
    let keys = used_keys(&transaction, now.minus(KEEP_KEYS))?;
    let gaps = uplinks::prune_lost(&transaction, now.minus(keep), DELETED_AT_ONCE)?;
    transaction
        .prepare_cached("DELETE FROM queues WHERE seen_at < ?1")?
        .execute([now.minus(KEEP_QUEUES).0])?;
    transaction.commit()?;
    let pages = give_back(db)?;
    let most = commits.max(events).max(keys).max(gaps);
    Ok(most == DELETED_AT_ONCE || chunks == CHUNKS_AT_ONCE || pages == PAGES_AT_ONCE)
}

fn readings(transaction: &Transaction<'_>, before: UnixMillis) -> Result<usize, StoreError> {
    let sql = "DELETE FROM journal WHERE id < (SELECT max(id) FROM journal) AND id IN
               (SELECT id FROM journal WHERE received_at < ?1 ORDER BY received_at LIMIT ?2)";
    Ok(transaction.prepare_cached(sql)?.execute(params![before.0, DELETED_AT_ONCE])?)
}

/// Deletes hours that lie before a moment as a whole.
fn chunks(transaction: &Transaction<'_>, before: UnixMillis) -> Result<usize, StoreError> {
    let sql = "DELETE FROM chunks WHERE id IN
               (SELECT id FROM chunks WHERE hour < ?1 ORDER BY hour LIMIT ?2)";
    let first_kept = before.0.div_euclid(HOUR);
    Ok(transaction.prepare_cached(sql)?.execute(params![first_kept, CHUNKS_AT_ONCE])?)
}

fn used_keys(transaction: &Transaction<'_>, before: UnixMillis) -> Result<usize, StoreError> {
    let sql = "DELETE FROM used_keys WHERE (sub, key) IN
               (SELECT sub, key FROM used_keys WHERE at < ?1 ORDER BY at LIMIT ?2)";
    Ok(transaction.prepare_cached(sql)?.execute(params![before.0, DELETED_AT_ONCE])?)
}

/// Deletes from the beginning up to the first event that is young enough: never a hole.
fn events_of(
    transaction: &Transaction<'_>,
    channel: Channel,
    before: UnixMillis,
) -> Result<usize, StoreError> {
    let sql = "SELECT seq, at FROM events WHERE channel = ?1 ORDER BY seq LIMIT ?2";
    let mut statement = transaction.prepare_cached(sql)?;
    let mut rows = statement.query(params![channel as u8, DELETED_AT_ONCE + 1])?;
    let mut first_kept: i64 = 0;
    while let Some(row) = rows.next()? {
        first_kept = row.get(0)?;
        if row.get::<_, i64>(1)? >= before.0 {
            break;
        }
    }
    if channel == Channel::Alerts {
        let sql = "DELETE FROM alerts WHERE resolved AND seq < ?1
                   AND id < (SELECT max(id) FROM alerts)";
        transaction.prepare_cached(sql)?.execute([first_kept])?;
    }
    let sql = "DELETE FROM events WHERE channel = ?1 AND seq < ?2";
    Ok(transaction.prepare_cached(sql)?.execute(params![channel as u8, first_kept])?)
}

/// Shrinks the file; returns by how many pages.
fn give_back(db: &Connection) -> Result<usize, StoreError> {
    // Each step of the statement gives one page back.
    let mut statement = db.prepare(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
    let mut steps = statement.query([])?;
    let mut pages = 0;
    while steps.next()?.is_some() {
        pages += 1;
    }
    Ok(pages)
}
