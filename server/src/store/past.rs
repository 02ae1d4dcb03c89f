//! What happened, in the order in which it came in: for rules that are to be tried on it.
//!
//! Reads beside a server that runs: nothing is locked, nothing is changed.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    path::Path,
};

use rusqlite::{Connection, Rows, params};
use valtronics_protocol::{
    event::DeviceStatusUpdate, filter::Channel, id::DeviceId, time::UnixMillis,
};

use super::{
    StoreError,
    chunk::{self, HOUR, METRICS, Point},
    compact,
    events::parse,
    history::last_arrived,
    journal,
    registry::Registry,
    schema,
};
use crate::commit::{Mark, MetricIndex, RegistryChange, Row};

/// A piece of the past.
#[derive(Debug)]
pub enum Past {
    /// Every device and metric that there is by now; once, before all else.
    Names(Vec<RegistryChange>),
    /// Readings that came in together; none of a backlog, of which rules saw nothing.
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
    let mut db = schema::open_to_read(dir)?;
    // What is compacted meanwhile would come twice.
    let db = db.transaction()?;
    each(Past::Names(Registry::load(&db)?.all()));
    let mut statuses =
        db.prepare("SELECT json FROM events WHERE channel = ?1 AND at >= ?2 ORDER BY seq")?;
    let mut statuses = statuses.query(params![Channel::Devices as u8, from.0])?;
    let mut status = next_status(&mut statuses)?;
    let (mut begin, last) = (first_arrived(&db)?.max(from.0), last_arrived(&db)?.0);
    while begin <= last {
        for (received_at, rows) in arrived(&db, begin, begin + HOUR)? {
            let received_at = UnixMillis(received_at);
            while let Some(update) = status.take_if(|update| update.timestamp <= received_at) {
                each(Past::Status(update));
                status = next_status(&mut statuses)?;
            }
            each(Past::Readings { received_at, rows });
        }
        begin += HOUR;
    }
    while let Some(update) = status {
        each(Past::Status(update));
        status = next_status(&mut statuses)?;
    }
    Ok(())
}

/// Returns when the oldest commit was of which something is held.
fn first_arrived(db: &Connection) -> Result<i64, StoreError> {
    let sql = "SELECT min(ifnull((SELECT min(received_at) FROM journal), ?1),
                          ifnull((SELECT min(first_arrived) FROM chunks), ?1))";
    Ok(db.query_row(sql, [i64::MAX], |row| row.get(0))?)
}

/// Reads what was committed in a span, by its moment; what is damaged is left out.
fn arrived(db: &Connection, begin: i64, end: i64) -> Result<BTreeMap<i64, Vec<Row>>, StoreError> {
    let mut commits = BTreeMap::<i64, Vec<Row>>::new();
    let mut chunks = db.prepare_cached(
        "SELECT device, part, readings FROM chunks WHERE last_arrived >= ?1 AND first_arrived < ?2",
    )?;
    let mut chunks = chunks.query([begin, end])?;
    while let Some(row) = chunks.next()? {
        let (device, part): (i64, u32) = (row.get(0)?, row.get(1)?);
        let device = DeviceId(device.cast_unsigned());
        let series = chunk::decode_all(row.get_ref(2)?.as_blob().unwrap_or_default());
        for (place, points) in series.unwrap_or_default() {
            let metric = MetricIndex(part * METRICS + place);
            for Point { at, arrived, historical, value } in points {
                if !historical && (begin..end).contains(&arrived) {
                    let row = Row { device, metric, at: UnixMillis(at), value };
                    commits.entry(arrived).or_default().push(row);
                }
            }
        }
    }
    // Each device's in the order of its moments.
    commits.values_mut().for_each(|rows| rows.sort_by_key(|row| (row.device, row.at)));
    let mut journal = db.prepare_cached(
        "SELECT id, received_at, rows, marks FROM journal
         WHERE received_at >= ?1 AND received_at < ?2",
    )?;
    let mut journal = journal.query([begin, end])?;
    let mut known = HashMap::new();
    while let Some(row) = journal.next()? {
        let (id, arrived): (i64, i64) = (row.get(0)?, row.get(1)?);
        let (blob, marks) = (row.get_ref(2)?.as_blob(), row.get_ref(3)?.as_blob_or_null());
        let rows = journal::decode_marked(blob.unwrap_or_default(), marks.unwrap_or_default());
        let live = |(row, mark)| (mark != Some(Mark::Historical)).then_some(row);
        for row in rows.into_iter().flatten().filter_map(live) {
            let (device, hour) = (row.device.0.cast_signed(), row.at.0.div_euclid(HOUR));
            let upto = match known.entry((device, hour)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(unknown) => *unknown.insert(compact::upto(db, device, hour)?),
            };
            if upto < id {
                commits.entry(arrived).or_default().push(row);
            }
        }
    }
    Ok(commits)
}

fn next_status(rows: &mut Rows<'_>) -> Result<Option<DeviceStatusUpdate>, StoreError> {
    let Some(row) = rows.next()? else { return Ok(None) };
    parse(&row.get::<_, String>(0)?).map(Some)
}
