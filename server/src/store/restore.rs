//! What a start finds.

use std::collections::{HashMap, hash_map::Entry};

use rusqlite::{Connection, OptionalExtension as _, params};
use valtronics_protocol::{
    event::DeviceStatusUpdate,
    filter::Channel,
    id::{DeviceId, Seq},
    time::UnixMillis,
};

use super::{
    StoreError, agents, alerts,
    events::{self, parse},
    journal,
    registry::Registry,
    uplinks,
};
use crate::{
    commit::{
        CommittedAlert, CommittedEvent, Lane, Mark, MetricIndex, Oldest, QueueKey, QueueMachine,
        RegistryChange, Row, Severities, WatchKey,
    },
    state::RING,
    tally::{AgentId, AgentKey, AgentRecord},
    used_key::{Digest, UsedKey},
};

/// What the store holds when it is opened.
#[derive(Debug)]
pub struct Restored {
    /// The id of the event logs, made with the data directory.
    pub log: String,
    /// Every device and metric, in the order of their ids.
    pub names: Vec<RegistryChange>,
    /// How far each numbering is committed.
    pub queues: Vec<(QueueKey, u64)>,
    /// What was counted of agents.
    pub agents: Vec<(AgentId, AgentKey, AgentRecord)>,
    /// Idempotency keys in the order in which they were used.
    pub keys: Vec<UsedKey>,
    /// On which machines they are, where that is known.
    pub machines: Vec<QueueMachine>,
    /// The last change of each device that ever changed.
    pub statuses: Vec<DeviceStatusUpdate>,
    /// The last transition of each alert that is not resolved.
    pub open_alerts: Vec<CommittedAlert>,
    /// The newest events of channel `alerts`, in order.
    pub alerts: Vec<CommittedEvent>,
    /// The newest events of channel `devices`, in order.
    pub devices: Vec<CommittedEvent>,
    /// The oldest positions that are held.
    pub oldest: Oldest,
    /// The last position in channel `alerts`.
    pub alert_seq: Seq,
    /// The last position in channel `devices`.
    pub device_seq: Seq,
    /// Rules that were edited over HTTP, as JSON.
    pub rules: Vec<(String, String)>,
    /// What is remembered of devices under rules, as JSON.
    pub watches: Vec<(WatchKey, String)>,
    /// The rules of files as they counted last, as a JSON array; `None`: that was never said.
    pub file_rules: Option<String>,
    /// The newest value of each metric, and from when on it counts as that.
    pub last_values: Vec<(Row, UnixMillis)>,
    /// How many blobs of readings could not be read.
    pub damaged: u64,
}

pub(super) fn load(db: &Connection, registry: &Registry) -> Result<Restored, StoreError> {
    let last_seq = |channel: Channel| -> Result<Seq, StoreError> {
        let sql = "SELECT ifnull(max(seq), 0) FROM events WHERE channel = ?1";
        let seq: i64 = db.query_row(sql, [channel as u8], |row| row.get(0))?;
        Ok(Seq(seq.cast_unsigned()))
    };
    let (last_values, damaged) = last_values(db)?;
    Ok(Restored {
        log: db.query_row("SELECT value FROM meta WHERE key = 'log'", [], |row| row.get(0))?,
        names: registry.all(),
        queues: queues(db)?,
        agents: agents::load(db)?,
        keys: keys(db)?,
        machines: uplinks::machines(db)?,
        statuses: statuses(db)?,
        open_alerts: open_alerts(db)?,
        alerts: newest_events(db, Channel::Alerts)?,
        devices: newest_events(db, Channel::Devices)?,
        oldest: events::oldest(db)?,
        alert_seq: last_seq(Channel::Alerts)?,
        device_seq: last_seq(Channel::Devices)?,
        rules: rules(db)?,
        watches: alerts::watches(db)?,
        file_rules: file_rules(db)?,
        last_values,
        damaged,
    })
}

fn queues(db: &Connection) -> Result<Vec<(QueueKey, u64)>, StoreError> {
    let mut queues = Vec::new();
    let mut statement = db.prepare("SELECT sub, queue, lane, number FROM queues")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let lane = if row.get::<_, u8>(2)? == 0 { Lane::Readings } else { Lane::Events };
        let key = QueueKey { sub: row.get(0)?, queue: row.get(1)?, lane };
        queues.push((key, row.get::<_, i64>(3)?.cast_unsigned()));
    }
    Ok(queues)
}

fn keys(db: &Connection) -> Result<Vec<UsedKey>, StoreError> {
    let mut statement = db.prepare("SELECT sub, key, body, at FROM used_keys ORDER BY at")?;
    let rows = statement.query_map([], |row| {
        let (key, body) = (Digest(row.get(1)?), Digest(row.get(2)?));
        Ok(UsedKey { sub: row.get(0)?, key, body, at: UnixMillis(row.get(3)?) })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn statuses(db: &Connection) -> Result<Vec<DeviceStatusUpdate>, StoreError> {
    let mut statement =
        db.prepare("SELECT status FROM devices WHERE status IS NOT NULL ORDER BY id")?;
    let texts = statement.query_map([], |row| row.get::<_, String>(0))?;
    texts.map(|text| parse(&text?)).collect()
}

fn open_alerts(db: &Connection) -> Result<Vec<CommittedAlert>, StoreError> {
    let mut statement =
        db.prepare("SELECT json, had FROM alerts WHERE NOT resolved ORDER BY id")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))?;
    rows.map(|row| {
        let (json, had) = row?;
        Ok(CommittedAlert { alert: parse(&json)?, announces: true, had: Severities(had) })
    })
    .collect()
}

fn newest_events(db: &Connection, channel: Channel) -> Result<Vec<CommittedEvent>, StoreError> {
    let sql =
        "SELECT json, announces, had FROM events WHERE channel = ?1 ORDER BY seq DESC LIMIT ?2";
    let mut events = events::read(&mut db.prepare(sql)?, params![channel as u8, RING])?;
    events.reverse();
    Ok(events)
}

fn rules(db: &Connection) -> Result<Vec<(String, String)>, StoreError> {
    let mut statement = db.prepare("SELECT name, json FROM rules ORDER BY name")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn file_rules(db: &Connection) -> Result<Option<String>, StoreError> {
    let sql = "SELECT value FROM meta WHERE key = 'file_rules'";
    Ok(db.query_row(sql, [], |row| row.get(0)).optional()?)
}

/// Reads the values that were written down, and plays what the journal holds since as the engine took
/// it in; returns them, and how many blobs are damaged.
fn last_values(db: &Connection) -> Result<(Vec<(Row, UnixMillis)>, u64), StoreError> {
    let (mut newest, mut damaged) = (HashMap::new(), 0);
    let mut take = |row: &rusqlite::Row<'_>| -> rusqlite::Result<()> {
        let [blob, marks] =
            [row.get_ref(0)?.as_blob_or_null()?, row.get_ref(1)?.as_blob_or_null()?];
        match journal::decode_marked(blob.unwrap_or_default(), marks) {
            Ok(rows) => rows.for_each(|(row, mark)| count(&mut newest, row, mark)),
            Err(_) => damaged += 1,
        }
        Ok(())
    };
    let written = "SELECT rows, marks, upto FROM last_values";
    let written = db.query_row(written, [], |row| {
        take(row)?;
        row.get(2)
    });
    let upto: i64 = written.optional()?.unwrap_or_default();
    let mut statement = db.prepare("SELECT rows, marks FROM journal WHERE id > ?1 ORDER BY id")?;
    let mut rows = statement.query([upto])?;
    while let Some(row) = rows.next()? {
        take(row)?;
    }
    Ok((newest.into_values().collect(), damaged))
}

/// The newest values, and from when on they count.
type Newest = HashMap<(DeviceId, MetricIndex), (Row, UnixMillis)>;

fn count(newest: &mut Newest, row: Row, mark: Option<Mark>) {
    let Some(effective_at) = Mark::effective(mark, row.at) else { return };
    match newest.entry((row.device, row.metric)) {
        Entry::Occupied(known) if effective_at < known.get().1 => {}
        Entry::Occupied(mut known) => *known.get_mut() = (row, effective_at),
        Entry::Vacant(unknown) => drop(unknown.insert((row, effective_at))),
    }
}
