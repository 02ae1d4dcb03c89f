//! Reads readings back: chunks and journal as one, in pages.
//!
//! A page is a transaction. It goes hour by hour; an hour's readings are those of its chunks and
//! those that the journal holds beyond them. Readings of one moment stand in the order in which they
//! were committed, so a moment and an ordinal say where a page ends; what is committed after the
//! first page is in none of them (`as_of`).

use std::{path::Path, time::Duration};

use rusqlite::{Connection, params};
use valtronics_protocol::{id::DeviceId, time::UnixMillis, value::Value};

use super::{
    StoreError,
    chunk::{self, HOUR, Point},
    schema,
    summary::{MINUTE, Span, gather},
};
use crate::commit::MetricIndex;

mod hours;

use hours::Hours;

/// How many gaps a page tells at most: more in so little time say no more than that there are many.
const MOST_GAPS: usize = 1000;
/// After how many readings looked at a page ends, full or not: some 100 ms.
const COST: usize = 2_000_000;

/// What is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Of which device.
    pub device: DeviceId,
    /// Of which metric.
    pub metric: MetricIndex,
    /// From when on.
    pub from: UnixMillis,
    /// Until before when.
    pub to: UnixMillis,
    /// Only what was committed from here on.
    pub arrived_from: UnixMillis,
    /// What each so long span came to, instead of readings.
    pub step: Option<Duration>,
    /// How many points at most.
    pub limit: usize,
    /// Where the page before ended.
    pub cursor: Option<Cursor>,
}

/// Where a page ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The moment of the next point.
    pub at: i64,
    /// Which reading of that moment.
    pub ordinal: u64,
    /// [`Page::as_of`] of the first page.
    pub as_of: UnixMillis,
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Page {
    /// In order.
    pub points: Points,
    /// All that was committed before is in here, and nothing that was committed later.
    pub as_of: UnixMillis,
    /// What agents have lost between the page's beginning and the next page's, of any metric of the
    /// device.
    pub gaps: Vec<Gap>,
    /// Where the next page begins.
    pub next: Option<Cursor>,
    /// How many blobs could not be read.
    pub damaged: u64,
}

/// Points of either kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Points {
    /// Moments and values.
    Readings(Vec<(UnixMillis, Value)>),
    /// Spans that hold readings.
    Spans(Vec<Span>),
}

/// Readings that were lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The earliest of their moments.
    pub from: UnixMillis,
    /// The latest of their moments.
    pub to: UnixMillis,
    /// How many.
    pub lost: u64,
}

/// Reads the store beside its writer.
#[derive(Debug)]
pub struct Reader {
    db: Connection,
}

impl Reader {
    /// Opens the store of a data directory.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Ok(Self { db: schema::open_to_read(dir)? })
    }

    /// Reads a page; ends it where it stands, but for the hour that is being read, when it is late.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn read(&mut self, query: &Query, is_late: impl Fn() -> bool) -> Result<Page, StoreError> {
        let transaction = self.db.transaction()?;
        let as_of = match query.cursor {
            Some(cursor) => cursor.as_of,
            None => UnixMillis(last_arrived(&transaction)?.0 + 1),
        };
        let wanted = Wanted::new(query, as_of);
        let mut hours = Hours::open(&transaction, wanted)?;
        let (points, next) = match query.step {
            None => readings(&mut hours, query, is_late)?,
            Some(step) => spans(&mut hours, query, step, is_late)?,
        };
        let gaps = gaps(&transaction, wanted, next.map_or(wanted.to, |(at, _)| at))?;
        let next = next.map(|(at, ordinal)| Cursor { at, ordinal, as_of });
        Ok(Page { points, as_of, gaps, next, damaged: hours.damaged })
    }
}

/// Which readings a page may hold.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    device: i64,
    metric: MetricIndex,
    from: i64,
    to: i64,
    arrived_from: i64,
    as_of: i64,
}

impl Wanted {
    fn new(query: &Query, as_of: UnixMillis) -> Self {
        // A cursor among spans is a span's beginning, which may lie before what is asked for.
        let from = query.cursor.map_or(query.from.0, |cursor| cursor.at.max(query.from.0));
        Self {
            device: query.device.0.cast_signed(),
            metric: query.metric,
            from,
            to: query.to.0,
            arrived_from: query.arrived_from.0,
            as_of: as_of.0,
        }
    }

    fn holds(&self, point: &Point) -> bool {
        (self.from..self.to).contains(&point.at)
            && (self.arrived_from..self.as_of).contains(&point.arrived)
    }
}

/// Returns when the last commit was that history shows.
pub(super) fn last_arrived(db: &Connection) -> Result<UnixMillis, StoreError> {
    // The newest row of the journal stays, and moments follow each other as numbers do.
    let sql = "SELECT max(
        ifnull((SELECT received_at FROM journal ORDER BY id DESC LIMIT 1), 0),
        ifnull((SELECT committed_at FROM gaps ORDER BY id DESC LIMIT 1), 0))";
    Ok(UnixMillis(db.query_row(sql, [], |row| row.get(0))?))
}

/// Reads the gaps of a page: each is told by the page in which it ends.
fn gaps(db: &Connection, wanted: Wanted, end: i64) -> Result<Vec<Gap>, StoreError> {
    let Wanted { device, from, to, arrived_from, as_of, .. } = wanted;
    let mut statement = db.prepare_cached(
        "SELECT first_at, last_at, lost FROM gaps
         WHERE device = ?1 AND last_at >= ?2 AND (last_at < ?3 OR ?3 = ?4) AND first_at < ?4
         AND committed_at >= ?5 AND committed_at < ?6 ORDER BY last_at, id LIMIT ?7",
    )?;
    let found = statement.query_map(
        params![device, from, end, to, arrived_from, as_of, MOST_GAPS],
        |row| {
            let (from, to) = (UnixMillis(row.get(0)?), UnixMillis(row.get(1)?));
            Ok(Gap { from, to, lost: row.get(2)? })
        },
    )?;
    Ok(found.collect::<Result<_, _>>()?)
}

/// Where the next page begins, if there is one.
type Next = Option<(i64, u64)>;

fn readings(
    hours: &mut Hours<'_>,
    query: &Query,
    is_late: impl Fn() -> bool,
) -> Result<(Points, Next), StoreError> {
    let begin = query.cursor.map_or((i64::MIN, 0), |cursor| (cursor.at, cursor.ordinal));
    let mut found = Vec::new();
    let mut before = (i64::MIN, 0);
    while let Some(hour) = hours.next()? {
        for point in hours.readings(hour)? {
            let ordinal = if before.0 == point.at { before.1 + 1 } else { 0 };
            before = (point.at, ordinal);
            if before < begin {
                continue;
            }
            if found.len() == query.limit {
                return Ok((Points::Readings(found), Some(before)));
            }
            found.push((UnixMillis(point.at), point.value));
        }
        if (hours.cost >= COST || is_late())
            && let Some(next) = hours.peek()?
        {
            return Ok((Points::Readings(found), Some((next * HOUR, 0))));
        }
    }
    Ok((Points::Readings(found), None))
}

fn spans(
    hours: &mut Hours<'_>,
    query: &Query,
    step: Duration,
    is_late: impl Fn() -> bool,
) -> Result<(Points, Next), StoreError> {
    let step = i64::try_from(step.as_millis()).unwrap_or(i64::MAX).max(1);
    let start = |at: i64| at.saturating_sub(at.rem_euclid(step));
    let mut found = Vec::new();
    while let Some(hour) = hours.next()? {
        let ready = if step % MINUTE == 0 { hours.minutes(&hour)? } else { None };
        let parts = match ready {
            Some(minutes) => minutes,
            None => {
                let readings = hours.readings(hour)?;
                readings.into_iter().map(|point| Span::of(point.at, point.value)).collect()
            }
        };
        for mut part in parts {
            part.start = start(part.start);
            gather(&mut found, part);
            if found.len() > query.limit {
                break;
            }
        }
        // The last one may not be whole.
        let is_costly = (hours.cost >= COST || is_late()) && found.len() > 1;
        if found.len() > query.limit || is_costly && hours.peek()?.is_some() {
            let next = found.pop().map(|span| (span.start, 0));
            return Ok((Points::Spans(found), next));
        }
    }
    Ok((Points::Spans(found), None))
}
