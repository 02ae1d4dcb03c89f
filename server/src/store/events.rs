//! Changes of status and alerts on their way into the file: here they get their positions.
//!
//! [`Positions`] says what the next event is numbered and which alerts are open. A transaction
//! numbers on a [`Numbering`] of its own; only when it has committed do the positions move.

use std::{collections::HashMap, sync::Arc};

use rusqlite::{Connection, Statement, Transaction, params};
use valtronics_protocol::{
    event::{Alert, AlertMetadata, AlertStatus, DeviceStatusUpdate, Severity, StatusMetadata},
    filter::Channel,
    id::{AlertId, Seq},
    time::UnixMillis,
};

use super::{Restored, StoreError};
use crate::commit::{
    AlertDraft, AlertKey, CommittedAlert, CommittedEvent, EventDraft, Oldest, Severities,
    StatusDraft,
};

/// Where the committed events have come to.
#[derive(Debug)]
pub(super) struct Positions {
    last: Last,
    open: HashMap<AlertKey, OpenAlert>,
}

/// The last number of each kind.
#[derive(Debug, Clone, Copy)]
struct Last {
    alert_seq: Seq,
    device_seq: Seq,
    alert_id: AlertId,
}

#[derive(Debug, Clone, Copy)]
struct OpenAlert {
    id: AlertId,
    severity: Severity,
    had: Severities,
}

/// What a transaction makes of [`Positions`].
pub(super) struct Numbering<'a> {
    before: &'a Positions,
    moved: Moved,
}

/// The difference to [`Positions`]; an alert that is over is `None`.
pub(super) struct Moved {
    last: Last,
    alerts: HashMap<AlertKey, Option<OpenAlert>>,
}

impl Positions {
    /// Reads where the file's events have come to.
    pub(super) fn load(db: &Connection, restored: &Restored) -> Result<Self, StoreError> {
        let alert_id = "SELECT ifnull(max(id), 0) FROM alerts";
        let alert_id: i64 = db.query_row(alert_id, [], |row| row.get(0))?;
        let last = Last {
            alert_seq: restored.alert_seq,
            device_seq: restored.device_seq,
            alert_id: AlertId(alert_id.cast_unsigned()),
        };
        let open = restored.open_alerts.iter().map(|open| {
            let CommittedAlert { alert, had, .. } = open;
            let known = OpenAlert { id: alert.alert_id, severity: alert.severity, had: *had };
            (open.key(), known)
        });
        Ok(Self { last, open: open.collect() })
    }

    /// Takes over what a transaction that has committed made of them.
    pub(super) fn apply(&mut self, moved: Moved) {
        self.last = moved.last;
        for (key, open) in moved.alerts {
            match open {
                Some(open) => drop(self.open.insert(key, open)),
                None => drop(self.open.remove(&key)),
            }
        }
    }
}

impl<'a> Numbering<'a> {
    /// Goes on from where the committed events have come to.
    pub(super) fn after(before: &'a Positions) -> Self {
        Self { before, moved: Moved { last: before.last, alerts: HashMap::new() } }
    }

    /// Gives an event its position and writes it; `None` when it says nothing new.
    pub(super) fn write(
        &mut self,
        transaction: &Transaction<'_>,
        draft: &EventDraft,
    ) -> Result<Option<CommittedEvent>, StoreError> {
        match draft {
            EventDraft::Status(draft) => {
                let update = self.status(draft);
                write_status(transaction, &update)?;
                Ok(Some(CommittedEvent::Status(update)))
            }
            EventDraft::Alert(draft) => {
                let Some(committed) = self.alert(draft) else { return Ok(None) };
                write_alert(transaction, &committed)?;
                Ok(Some(CommittedEvent::Alert(committed)))
            }
        }
    }

    /// Returns what is to be applied once the transaction has committed.
    pub(super) fn finish(self) -> Moved {
        self.moved
    }

    fn status(&mut self, draft: &StatusDraft) -> DeviceStatusUpdate {
        self.moved.last.device_seq = self.moved.last.device_seq.next();
        DeviceStatusUpdate {
            channel: Channel::Devices,
            device_id: draft.device,
            old_status: draft.old,
            new_status: draft.new,
            timestamp: draft.at,
            reason: Arc::clone(&draft.reason),
            metadata: StatusMetadata { last_seen: draft.last_seen },
            seq: self.moved.last.device_seq,
            snapshot: false,
        }
    }

    fn alert(&mut self, draft: &AlertDraft) -> Option<CommittedAlert> {
        let known = match self.moved.alerts.get(&draft.key) {
            Some(moved) => *moved,
            None => self.before.open.get(&draft.key).copied(),
        };
        // What came too late for the alert that it meant must not open another one.
        if known.is_none() && draft.status != AlertStatus::Active {
            return None;
        }
        let resolved = draft.status == AlertStatus::Resolved;
        let risen = known.is_none_or(|known| draft.severity > known.severity);
        let last = &mut self.moved.last;
        let id = known.map_or_else(
            || {
                last.alert_id = AlertId(last.alert_id.0 + 1);
                last.alert_id
            },
            |known| known.id,
        );
        last.alert_seq = last.alert_seq.next();
        let had = known.map_or_else(Severities::default, |known| known.had).with(draft.severity);
        let open = (!resolved).then_some(OpenAlert { id, severity: draft.severity, had });
        self.moved.alerts.insert(draft.key.clone(), open);
        let alert = Alert {
            channel: Some(Channel::Alerts),
            alert_id: id,
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
            seq: last.alert_seq,
            snapshot: false,
        };
        Some(CommittedAlert { alert, announces: risen && !resolved, had })
    }
}

fn json(body: &impl serde::Serialize) -> String {
    serde_json::to_string(body).expect("our messages have text keys only")
}

fn write_status(
    transaction: &Transaction<'_>,
    update: &DeviceStatusUpdate,
) -> Result<(), StoreError> {
    let json = json(update);
    write_event(transaction, (Channel::Devices, update.seq), update.timestamp, &json, None)?;
    transaction
        .prepare_cached("UPDATE devices SET status = ?2 WHERE id = ?1")?
        .execute(params![update.device_id.0.cast_signed(), json])?;
    Ok(())
}

fn write_alert(
    transaction: &Transaction<'_>,
    committed: &CommittedAlert,
) -> Result<(), StoreError> {
    let CommittedAlert { alert, had, .. } = committed;
    let json = json(alert);
    let position = (Channel::Alerts, alert.seq);
    write_event(transaction, position, alert.timestamp, &json, Some(committed))?;
    transaction
        .prepare_cached(
            "INSERT INTO alerts (id, resolved, had, json, seq) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET resolved = excluded.resolved, had = excluded.had,
             json = excluded.json, seq = excluded.seq",
        )?
        .execute(params![
            alert.alert_id.0.cast_signed(),
            alert.status == AlertStatus::Resolved,
            had.0,
            json,
            alert.seq.0.cast_signed()
        ])?;
    Ok(())
}

fn write_event(
    transaction: &Transaction<'_>,
    (channel, seq): (Channel, Seq),
    at: UnixMillis,
    json: &str,
    alert: Option<&CommittedAlert>,
) -> Result<(), StoreError> {
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

/// Returns the oldest positions that are held.
pub(super) fn oldest(db: &Connection) -> Result<Oldest, StoreError> {
    let of = |channel: Channel| -> Result<Seq, StoreError> {
        let sql = "SELECT ifnull(min(seq), 1) FROM events WHERE channel = ?1";
        let seq: i64 = db.prepare_cached(sql)?.query_row([channel as u8], |row| row.get(0))?;
        Ok(Seq(seq.cast_unsigned()))
    };
    Ok(Oldest { alert: of(Channel::Alerts)?, device: of(Channel::Devices)? })
}

/// Reads the first events after a position, in order.
pub(super) fn after(
    db: &Connection,
    channel: Channel,
    after: Seq,
    most: usize,
) -> Result<Vec<CommittedEvent>, StoreError> {
    let sql = "SELECT json, announces, had FROM events
               WHERE channel = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
    let after = after.0.cast_signed();
    read(&mut *db.prepare_cached(sql)?, params![channel as u8, after, most])
}

/// Reads events whose columns are `json`, `announces` and `had`.
pub(super) fn read(
    statement: &mut Statement<'_>,
    params: impl rusqlite::Params,
) -> Result<Vec<CommittedEvent>, StoreError> {
    let rows = statement.query_map(params, |row| {
        let had = row.get::<_, Option<u8>>(2)?.unwrap_or_default();
        Ok((row.get::<_, String>(0)?, row.get::<_, Option<bool>>(1)?, had))
    })?;
    rows.map(|row| {
        let (json, announces, had) = row?;
        Ok(match announces {
            Some(announces) => CommittedEvent::Alert(CommittedAlert {
                alert: parse(&json)?,
                announces,
                had: Severities(had),
            }),
            None => CommittedEvent::Status(parse(&json)?),
        })
    })
    .collect()
}

/// Reads what this store wrote as JSON.
pub(super) fn parse<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, StoreError> {
    serde_json::from_str(json).map_err(|error| StoreError::Damaged(error.to_string()))
}
