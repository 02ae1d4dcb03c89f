//! What happened, in the order in which it came in: for rules that are to be tried on it.
//!
//! Reads beside a server that runs: nothing is locked, nothing is changed.

use std::path::Path;

use rusqlite::{Rows, params};
use valtronics_protocol::{event::DeviceStatusUpdate, filter::Channel, time::UnixMillis};

use super::{StoreError, events::parse, journal, registry::Registry, schema};
use crate::commit::{RegistryChange, Row};

/// A piece of the past.
#[derive(Debug)]
pub enum Past {
    /// Every device and metric that there is by now; once, before all else.
    Names(Vec<RegistryChange>),
    /// Readings that came in together.
    Readings {
        /// When.
        received_at: UnixMillis,
        /// In the order in which they came.
        rows: Vec<Row>,
    },
    /// The status of a device changed.
    Status(DeviceStatusUpdate),
}

/// Reads what came in since a moment.
///
/// # Errors
/// When there is no store, a newer version made it, or it cannot be read.
pub fn past(dir: &Path, from: UnixMillis, mut each: impl FnMut(Past)) -> Result<(), StoreError> {
    let db = schema::open_to_read(dir)?;
    each(Past::Names(Registry::load(&db)?.all()));
    let mut statuses =
        db.prepare("SELECT json FROM events WHERE channel = ?1 AND at >= ?2 ORDER BY seq")?;
    let mut statuses = statuses.query(params![Channel::Devices as u8, from.0])?;
    let mut journal =
        db.prepare("SELECT received_at, rows FROM journal WHERE received_at >= ?1 ORDER BY id")?;
    let mut journal = journal.query([from.0])?;
    let mut status = next_status(&mut statuses)?;
    while let Some(row) = journal.next()? {
        let received_at = UnixMillis(row.get(0)?);
        while let Some(update) = status.take_if(|update| update.timestamp <= received_at) {
            each(Past::Status(update));
            status = next_status(&mut statuses)?;
        }
        let rows = journal::decode(&row.get::<_, Vec<u8>>(1)?)?;
        each(Past::Readings { received_at, rows });
    }
    while let Some(update) = status {
        each(Past::Status(update));
        status = next_status(&mut statuses)?;
    }
    Ok(())
}

fn next_status(rows: &mut Rows<'_>) -> Result<Option<DeviceStatusUpdate>, StoreError> {
    let Some(row) = rows.next()? else { return Ok(None) };
    parse(&row.get::<_, String>(0)?).map(Some)
}
