//! The hours in which there are readings of a metric, one after the other.

use std::collections::{BTreeMap, HashMap, VecDeque};

use rusqlite::{Transaction, params};

use super::{HOUR, Point, Span, StoreError, Wanted, chunk};
use crate::store::{chunk::METRICS, compact, journal};

/// The hours of a query.
pub(super) struct Hours<'a> {
    transaction: &'a Transaction<'a>,
    wanted: Wanted,
    /// Chunks that are not yet read, by their hours.
    chunks: VecDeque<ChunkRow>,
    /// Rows of the journal that are not yet read, by their first moments.
    rows: VecDeque<JournalRow>,
    /// Readings of the journal in hours to come.
    pending: BTreeMap<i64, Vec<Point>>,
    /// Up to which commit chunks hold the hours of the device.
    upto: HashMap<i64, i64>,
    /// How many readings were looked at.
    pub(super) cost: usize,
    /// How many blobs could not be read.
    pub(super) damaged: u64,
}

/// An hour with readings.
pub(super) struct Hour {
    hour: i64,
    chunks: Vec<ChunkRow>,
    /// What the journal holds beyond the chunks.
    fresh: Vec<Point>,
}

struct ChunkRow {
    id: i64,
    hour: i64,
    first_arrived: i64,
    last_arrived: i64,
}

struct JournalRow {
    id: i64,
    first_at: i64,
    received_at: i64,
}

impl<'a> Hours<'a> {
    pub(super) fn open(
        transaction: &'a Transaction<'a>,
        wanted: Wanted,
    ) -> Result<Self, StoreError> {
        let Wanted { device, metric, from, to, arrived_from, as_of } = wanted;
        let mut statement = transaction.prepare_cached(
            "SELECT id, hour, first_arrived, last_arrived FROM chunks
             WHERE device = ?1 AND hour BETWEEN ?2 AND ?3 AND part = ?4
             AND last_arrived >= ?5 AND first_arrived < ?6 ORDER BY hour, id",
        )?;
        let (first, last) = (from.div_euclid(HOUR), to.saturating_sub(1).div_euclid(HOUR));
        let part = metric.0 / METRICS;
        let chunks = statement
            .query_map(params![device, first, last, part, arrived_from, as_of], |row| {
                let (id, hour) = (row.get(0)?, row.get(1)?);
                Ok(ChunkRow { id, hour, first_arrived: row.get(2)?, last_arrived: row.get(3)? })
            })?
            .collect::<Result<_, _>>()?;
        let mut statement = transaction.prepare_cached(
            "SELECT id, first_at, received_at FROM journal
             WHERE last_at >= ?1 AND first_at < ?2 AND received_at >= ?3 AND received_at < ?4
             ORDER BY first_at, id",
        )?;
        let rows = statement
            .query_map([from, to, arrived_from, as_of], |row| {
                let (id, first_at) = (row.get(0)?, row.get(1)?);
                Ok(JournalRow { id, first_at, received_at: row.get(2)? })
            })?
            .collect::<Result<_, _>>()?;
        let (pending, upto) = Default::default();
        let (cost, damaged) = Default::default();
        Ok(Self { transaction, wanted, chunks, rows, pending, upto, cost, damaged })
    }

    /// Returns the next hour's number.
    pub(super) fn peek(&mut self) -> Result<Option<i64>, StoreError> {
        loop {
            let chunk = self.chunks.front().map(|chunk| chunk.hour);
            let pending = self.pending.keys().next().copied();
            let known = [chunk, pending].into_iter().flatten().min();
            let first = |row: &JournalRow| row.first_at.max(self.wanted.from).div_euclid(HOUR);
            // What a row holds is known when it is read, and that is when it may come next.
            match self.rows.pop_front_if(|row| known.is_none_or(|known| first(row) <= known)) {
                Some(row) => self.read_row(&row)?,
                None => return Ok(known),
            }
        }
    }

    /// Takes the next hour.
    pub(super) fn next(&mut self) -> Result<Option<Hour>, StoreError> {
        let Some(hour) = self.peek()? else { return Ok(None) };
        let mut chunks = Vec::new();
        while let Some(chunk) = self.chunks.pop_front_if(|chunk| chunk.hour == hour) {
            chunks.push(chunk);
        }
        let fresh = self.pending.remove(&hour).unwrap_or_default();
        Ok(Some(Hour { hour, chunks, fresh }))
    }

    /// Reads the readings of an hour, in order.
    pub(super) fn readings(&mut self, hour: Hour) -> Result<Vec<Point>, StoreError> {
        let mut points = hour.fresh;
        for chunk in hour.chunks {
            let sql = "SELECT readings FROM chunks WHERE id = ?1";
            let mut statement = self.transaction.prepare_cached(sql)?;
            let place = self.wanted.metric.0 % METRICS;
            let read = statement.query_row([chunk.id], |row| {
                Ok(chunk::decode(row.get_ref(0)?.as_blob().unwrap_or_default(), place))
            })?;
            match read {
                Some(read) => {
                    self.cost += read.len();
                    points.extend(read);
                }
                None => self.damaged += 1,
            }
        }
        points.retain(|point| self.wanted.holds(point));
        chunk::sort(&mut points);
        Ok(points)
    }

    /// Reads the minutes of an hour, if they tell it all.
    pub(super) fn minutes(&mut self, hour: &Hour) -> Result<Option<Vec<Span>>, StoreError> {
        let Wanted { from, to, arrived_from, as_of, .. } = self.wanted;
        let is_whole = from <= hour.hour * HOUR && (hour.hour + 1) * HOUR <= to;
        let ([chunk], [], true) = (&*hour.chunks, &*hour.fresh, is_whole) else { return Ok(None) };
        if chunk.first_arrived < arrived_from || chunk.last_arrived >= as_of {
            return Ok(None);
        }
        let sql = "SELECT minutes FROM chunks WHERE id = ?1";
        let mut statement = self.transaction.prepare_cached(sql)?;
        let place = self.wanted.metric.0 % METRICS;
        let minutes = statement.query_row([chunk.id], |row| {
            Ok(chunk::decode_minutes(row.get_ref(0)?.as_blob().unwrap_or_default(), place))
        })?;
        self.cost += minutes.as_ref().map_or(0, Vec::len);
        // Damaged minutes can be had from the readings.
        Ok(minutes)
    }

    /// Reads a row of the journal: what is wanted of it, and in no chunk, waits for its hour.
    fn read_row(&mut self, row: &JournalRow) -> Result<(), StoreError> {
        let sql = "SELECT rows FROM journal WHERE id = ?1";
        let mut statement = self.transaction.prepare_cached(sql)?;
        let read = statement.query_row([row.id], |columns| {
            Ok(journal::decode(columns.get_ref(0)?.as_blob().unwrap_or_default()))
        })?;
        let Ok(readings) = read else {
            self.damaged += 1;
            return Ok(());
        };
        self.cost += readings.len();
        for reading in readings {
            let (device, at) = (reading.device.0.cast_signed(), reading.at.0);
            if (device, reading.metric) != (self.wanted.device, self.wanted.metric) {
                continue;
            }
            // Backlogs are history like all else.
            let (arrived, historical) = (row.received_at, false);
            let point = Point { at, arrived, historical, value: reading.value };
            let hour = at.div_euclid(HOUR);
            if self.wanted.holds(&point) && self.upto(hour)? < row.id {
                self.pending.entry(hour).or_default().push(point);
            }
        }
        Ok(())
    }

    /// Returns up to which commit chunks hold an hour of the device, whatever the part.
    fn upto(&mut self, hour: i64) -> Result<i64, StoreError> {
        if let Some(upto) = self.upto.get(&hour) {
            return Ok(*upto);
        }
        let upto = compact::upto(self.transaction, self.wanted.device, hour)?;
        self.upto.insert(hour, upto);
        Ok(upto)
    }
}
