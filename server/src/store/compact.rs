//! Turns closed hours of the journal into chunks: what is to be written, not the writing.
//!
//! A **sweep** goes through the journal once an hour, range by range, from its beginning. The
//! readings of a range become chunks, one for each device, hour and part; a chunk says up to which
//! commit (`upto`) it holds its device's hour, so a reader never counts a reading twice, and the
//! journal's rows may go later than their readings become chunks. Commits that hold readings of the
//! hour under way stay until that is closed. After the sweep, hours of several chunks are merged.
//!
//! It reads on a connection of its own and holds nothing that is not in the file: after a failure
//! the sweep begins anew. What cannot be read is left where it is until it is old enough to go.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension as _, Transaction, params};
use valtronics_protocol::time::UnixMillis;

use super::{
    StoreError,
    chunk::{self, HOUR, METRICS, Point, Series},
    journal, schema,
};
use crate::commit::{Mark, Row};

/// How long after its end an hour is closed: what was measured at its end has come in, and last
/// values are written down, which happens each minute.
const GRACE: Duration = Duration::from_secs(120);
/// How many readings of the journal are held at a time: 40 MB, and an hour of 140 series at 1 Hz.
const RANGE: usize = 500_000;
/// How many readings of chunks one change holds, when it has more than one device's: a few
/// milliseconds of the writer.
const CHANGE: usize = 50_000;
/// How many rows of the journal one change deletes: some milliseconds where they are large.
const DELETED_AT_ONCE: usize = 100;
/// Chunks that together hold more readings are not merged: memory.
const MERGED: usize = 1_000_000;

/// What one transaction of the writer is to do.
#[derive(Debug, Default)]
pub struct Change {
    /// Chunks that are new.
    pub(super) chunks: Vec<Chunk>,
    /// Chunks whose readings are in the new ones.
    pub(super) replaced: Vec<i64>,
    /// Commits of which nothing is missing in chunks.
    pub(super) compacted: Vec<i64>,
    /// An hour that has been merged, or cannot be.
    pub(super) merged: Option<Key>,
}

/// Of what a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) device: i64,
    pub(super) hour: i64,
    pub(super) part: u32,
}

/// A row of the table.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) key: Key,
    /// The last commit that was looked at for it.
    pub(super) upto: i64,
    pub(super) first_arrived: i64,
    pub(super) last_arrived: i64,
    pub(super) count: usize,
    pub(super) readings: Vec<u8>,
    pub(super) minutes: Vec<u8>,
}

/// Finds what is to be compacted.
#[derive(Debug)]
pub struct Compactor {
    db: Connection,
    sweep: Option<Sweep>,
    /// The hour that was under way at the last sweep.
    swept: Option<i64>,
    /// How many blobs could not be read in this sweep.
    damaged: u64,
}

/// A pass over the journal.
#[derive(Debug, Default)]
struct Sweep {
    /// Its last row.
    end: i64,
    /// The last row that was read.
    cursor: i64,
    /// The hour that is under way.
    open: i64,
    /// The first hour that is kept.
    first_kept: i64,
    /// What [`upto`] said since the range began.
    upto: HashMap<(i64, i64), i64>,
    /// Readings of the range, by device and hour, and their metrics.
    groups: BTreeMap<(i64, i64), BTreeMap<u32, Vec<Point>>>,
    /// Rows that may go when the groups have become chunks.
    compacted: Vec<i64>,
}

impl Compactor {
    /// Opens the store of a data directory beside its writer.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let db = schema::open_to_read(dir)?;
        Ok(Self { db, sweep: None, swept: None, damaged: 0 })
    }

    /// Finds the next change; it is to be written before the next call. Without one, there is
    /// nothing to do until a minute has passed.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn next(&mut self, keep: Duration, now: UnixMillis) -> Result<Option<Change>, StoreError> {
        let open = now.minus(GRACE).0.div_euclid(HOUR);
        if self.sweep.is_none() && self.swept.is_none_or(|swept| swept < open) {
            let end = end_of_sweep(&self.db)?;
            let first_kept = now.minus(keep).0.div_euclid(HOUR);
            self.sweep = Some(Sweep { end, open, first_kept, ..Sweep::default() });
            self.swept = Some(open);
        }
        if let Some(sweep) = &mut self.sweep {
            while sweep.is_empty() && sweep.cursor < sweep.end {
                self.damaged += sweep.read_range(&self.db)?;
            }
            if !sweep.is_empty() {
                return Ok(Some(sweep.next()));
            }
            self.sweep = None;
        }
        next_merge(&self.db)
    }

    /// Returns how many blobs could not be read since this was asked.
    pub fn take_damaged(&mut self) -> u64 {
        std::mem::take(&mut self.damaged)
    }

    /// Begins anew: a change could not be written.
    pub fn reset(&mut self) {
        (self.sweep, self.swept) = (None, None);
    }
}

/// Returns the last row of the journal that may be looked at: not the newest, from whose number the
/// next follows, and none whose last values are not written down.
fn end_of_sweep(db: &Connection) -> Result<i64, StoreError> {
    let sql = "SELECT ifnull(max(id), 0) FROM journal
               WHERE id < (SELECT max(id) FROM journal)
               AND id <= (SELECT upto FROM last_values)";
    Ok(db.query_row(sql, [], |row| row.get(0))?)
}

/// Returns up to which commit chunks hold an hour of a device: its journal counts from there.
pub(super) fn upto(db: &Connection, device: i64, hour: i64) -> Result<i64, StoreError> {
    let sql = "SELECT ifnull(max(upto), 0) FROM chunks WHERE device = ?1 AND hour = ?2";
    Ok(db.prepare_cached(sql)?.query_row([device, hour], |row| row.get(0))?)
}

impl Sweep {
    fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.compacted.is_empty()
    }

    /// Reads some of the journal; returns how many rows are damaged.
    fn read_range(&mut self, db: &Connection) -> Result<u64, StoreError> {
        self.upto.clear();
        let sql = "SELECT id, received_at, rows, marks, count FROM journal WHERE id > ?1 AND id <= ?2 ORDER BY id";
        let mut statement = db.prepare_cached(sql)?;
        let mut rows = statement.query([self.cursor, self.end])?;
        let (mut count, mut damaged) = (0, 0);
        while count < RANGE {
            let Some(row) = rows.next()? else {
                self.cursor = self.end;
                break;
            };
            self.cursor = row.get(0)?;
            let (blob, marks) = (row.get_ref(2)?.as_blob(), row.get_ref(3)?.as_blob_or_null());
            match journal::decode_marked(blob.unwrap_or_default(), marks.unwrap_or_default()) {
                Ok(readings) => {
                    count += row.get::<_, usize>(4)?;
                    self.take_row(db, row.get(1)?, readings)?;
                }
                Err(_) => damaged += 1,
            }
        }
        Ok(damaged)
    }

    /// Takes what no chunk holds of the row at the cursor.
    fn take_row(
        &mut self,
        db: &Connection,
        arrived: i64,
        readings: impl Iterator<Item = (Row, Option<Mark>)>,
    ) -> Result<(), StoreError> {
        let mut is_closed = true;
        for (Row { device, metric, at, value }, mark) in readings {
            let (device, hour) = (device.0.cast_signed(), at.0.div_euclid(HOUR));
            if hour == self.open {
                is_closed = false;
            } else if hour >= self.first_kept && self.upto(db, device, hour)? < self.cursor {
                let historical = mark == Some(Mark::Historical);
                let point = Point { at: at.0, arrived, historical, value };
                let group = self.groups.entry((device, hour)).or_default();
                group.entry(metric.0).or_default().push(point);
            }
        }
        if is_closed {
            self.compacted.push(self.cursor);
        }
        Ok(())
    }

    /// Returns up to which commit chunks hold an hour of a device.
    fn upto(&mut self, db: &Connection, device: i64, hour: i64) -> Result<i64, StoreError> {
        if let Some(upto) = self.upto.get(&(device, hour)) {
            return Ok(*upto);
        }
        let upto = upto(db, device, hour)?;
        self.upto.insert((device, hour), upto);
        Ok(upto)
    }

    /// Takes some of the groups, then some of the rows.
    fn next(&mut self) -> Change {
        let (mut change, mut count) = (Change::default(), 0);
        while count < CHANGE
            && let Some(((device, hour), metrics)) = self.groups.pop_first()
        {
            let mut parts = BTreeMap::<u32, Series>::new();
            for (metric, mut points) in metrics {
                chunk::sort(&mut points);
                count += points.len();
                parts.entry(metric / METRICS).or_default().insert(metric % METRICS, points);
            }
            let chunk =
                |(part, series)| Chunk::new(Key { device, hour, part }, self.cursor, &series);
            change.chunks.extend(parts.into_iter().map(chunk));
        }
        if change.chunks.is_empty() {
            let some = self.compacted.len().min(DELETED_AT_ONCE);
            change.compacted = self.compacted.drain(..some).collect();
        }
        change
    }
}

impl Chunk {
    fn new(key: Key, upto: i64, series: &Series) -> Self {
        let arrived = || series.values().flatten().map(|point| point.arrived);
        Self {
            key,
            upto,
            first_arrived: arrived().min().unwrap_or_default(),
            last_arrived: arrived().max().unwrap_or_default(),
            count: series.values().map(Vec::len).sum(),
            readings: chunk::encode(series),
            minutes: chunk::encode_minutes(series),
        }
    }
}

/// Makes a change durable.
pub(super) fn write(db: &mut Connection, change: &Change) -> Result<(), StoreError> {
    let transaction = db.transaction()?;
    for chunk in &change.chunks {
        write_chunk(&transaction, chunk, change.merged.is_none())?;
    }
    for id in &change.replaced {
        transaction.prepare_cached("DELETE FROM chunks WHERE id = ?1")?.execute([id])?;
    }
    for id in &change.compacted {
        transaction.prepare_cached("DELETE FROM journal WHERE id = ?1")?.execute([id])?;
    }
    if let Some(Key { device, hour, part }) = change.merged {
        let sql = "DELETE FROM merges WHERE device = ?1 AND hour = ?2 AND part = ?3";
        transaction.prepare_cached(sql)?.execute(params![device, hour, part])?;
    }
    Ok(transaction.commit()?)
}

fn write_chunk(
    transaction: &Transaction<'_>,
    chunk: &Chunk,
    is_new: bool,
) -> Result<(), StoreError> {
    let Key { device, hour, part } = chunk.key;
    if is_new {
        let sql = "INSERT OR IGNORE INTO merges SELECT device, hour, part FROM chunks
                   WHERE device = ?1 AND hour = ?2 AND part = ?3 LIMIT 1";
        transaction.prepare_cached(sql)?.execute(params![device, hour, part])?;
    }
    let sql = "INSERT INTO chunks (device, hour, part, upto, first_arrived, last_arrived, count,
               readings, minutes) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    transaction.prepare_cached(sql)?.execute(params![
        device,
        hour,
        part,
        chunk.upto,
        chunk.first_arrived,
        chunk.last_arrived,
        chunk.count,
        chunk.readings,
        chunk.minutes
    ])?;
    Ok(())
}

/// Merges an hour that has several chunks.
fn next_merge(db: &Connection) -> Result<Option<Change>, StoreError> {
    let sql = "SELECT device, hour, part FROM merges LIMIT 1";
    let key = db
        .prepare_cached(sql)?
        .query_row([], |row| Ok(Key { device: row.get(0)?, hour: row.get(1)?, part: row.get(2)? }));
    let Some(key) = key.optional()? else { return Ok(None) };
    let mut change = Change { merged: Some(key), ..Change::default() };
    let mut statement = db.prepare_cached(
        "SELECT id, upto, count, readings FROM chunks
         WHERE device = ?1 AND hour = ?2 AND part = ?3",
    )?;
    let mut rows = statement.query(params![key.device, key.hour, key.part])?;
    let (mut series, mut last, mut count) = (Series::new(), 0, 0);
    while let Some(row) = rows.next()? {
        count += row.get::<_, usize>(2)?;
        let readings = chunk::decode_all(row.get_ref(3)?.as_blob().unwrap_or_default());
        let (Some(readings), true) = (readings, count <= MERGED) else {
            // They stay as they are.
            return Ok(Some(Change { merged: Some(key), ..Change::default() }));
        };
        for (place, points) in readings {
            series.entry(place).or_default().extend(points);
        }
        last = row.get::<_, i64>(1)?.max(last);
        change.replaced.push(row.get(0)?);
    }
    series.values_mut().for_each(|points| chunk::sort(points));
    if !series.is_empty() {
        change.chunks.push(Chunk::new(key, last, &series));
    }
    Ok(Some(change))
}
