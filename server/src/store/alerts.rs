//! Alerts as they stand, resolved ones too, and what is remembered of devices under rules.

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use valtronics_protocol::{
    event::{Alert, AlertStatus, Severity},
    id::{AlertId, DeviceId},
    time::UnixMillis,
};

use super::{StoreError, events::parse};
use crate::commit::WatchKey;

/// How many alerts one read looks at: some milliseconds, in which nothing is committed.
const A_READ: usize = 1024;

/// Which alerts are wanted.
#[derive(Debug, Clone, Default)]
pub struct WantedAlerts {
    /// From this one on, newest first.
    pub upto: Option<AlertId>,
    /// Where they stand.
    pub status: Option<AlertStatus>,
    /// How bad they are.
    pub severity: Option<Severity>,
    /// Of which device.
    pub device: Option<DeviceId>,
    /// Those that moved last at this moment or later.
    pub from: Option<UnixMillis>,
    /// Those that moved last before this moment.
    pub to: Option<UnixMillis>,
}

/// Some of the alerts that are wanted.
#[derive(Debug, Default)]
pub struct AlertPage {
    /// Newest first.
    pub alerts: Vec<Alert>,
    /// Where to go on, if there may be more.
    pub next: Option<AlertId>,
}

/// Reads the alerts that are wanted among the next [`A_READ`].
pub(super) fn list(db: &Connection, wanted: &WantedAlerts) -> Result<AlertPage, StoreError> {
    let upto = wanted.upto.map_or(i64::MAX, |id| i64::try_from(id.0).unwrap_or(i64::MAX));
    let mut statement =
        db.prepare_cached("SELECT id, json FROM alerts WHERE id <= ?1 ORDER BY id DESC LIMIT ?2")?;
    let mut rows = statement.query(params![upto, A_READ])?;
    let (mut page, mut looked_at) = (AlertPage::default(), 0);
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        looked_at += 1;
        page.next = (looked_at == A_READ && id > 1).then(|| AlertId((id - 1).cast_unsigned()));
        let alert: Alert = parse(&row.get::<_, String>(1)?)?;
        if wanted.matches(&alert) {
            page.alerts.push(alert);
        }
    }
    Ok(page)
}

/// Reads one alert.
pub(super) fn one(db: &Connection, id: AlertId) -> Result<Option<Alert>, StoreError> {
    let Ok(id) = i64::try_from(id.0) else { return Ok(None) };
    let mut statement = db.prepare_cached("SELECT json FROM alerts WHERE id = ?1")?;
    let json = statement.query_row([id], |row| row.get::<_, String>(0)).optional()?;
    json.map(|json| parse(&json)).transpose()
}

/// Writes what is to be remembered of a device under a rule.
pub(super) fn write_watch(
    transaction: &Transaction<'_>,
    (rule, device): &WatchKey,
    json: Option<&str>,
) -> Result<(), StoreError> {
    let device = device.0.cast_signed();
    match json {
        Some(json) => transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO watches (rule, device, json) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![&**rule, device, json])?,
        None => transaction
            .prepare_cached("DELETE FROM watches WHERE rule = ?1 AND device = ?2")?
            .execute(params![&**rule, device])?,
    };
    Ok(())
}

/// Reads what is remembered of devices under rules.
pub(super) fn watches(db: &Connection) -> Result<Vec<(WatchKey, String)>, StoreError> {
    let mut statement = db.prepare("SELECT rule, device, json FROM watches")?;
    let rows = statement.query_map([], |row| {
        let device = DeviceId(row.get::<_, i64>(1)?.cast_unsigned());
        Ok(((row.get(0)?, device), row.get(2)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl WantedAlerts {
    fn matches(&self, alert: &Alert) -> bool {
        self.status.is_none_or(|status| alert.status == status)
            && self.severity.is_none_or(|severity| alert.severity == severity)
            && self.device.is_none_or(|device| alert.device_id == device)
            && self.from.is_none_or(|from| alert.timestamp >= from)
            && self.to.is_none_or(|to| alert.timestamp < to)
    }
}
