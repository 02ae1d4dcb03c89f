//! From a body to numbered readings, whoever wrote it.

use super::{
    DecodeError::{self, Damaged, Invalid, TooMany},
    MAX_GROUPS, MAX_MEMBERS, MAX_SERIES, Row, TAG_DEVICE_SERIES, TAG_END, TAG_GROUP, TAG_ROW,
    TAG_RUN, TAG_SERIES,
    bytes::Reader,
    form::Past,
    group::Group,
};
use crate::{reading::TimeSource, time::UnixMillis, uplink::MAX_FRAME_READINGS, value::Value};

/// Reads one body after the other; knows series by their numbers only.
#[derive(Debug, Default)]
pub(super) struct Rows {
    series: Vec<Past>,
    /// Each with where its rows of the frame at hand begin.
    groups: Vec<Group<usize>>,
    members: usize,
    next_member: i64,
    last_group: Option<u32>,
    latest: i64,
    used: Vec<u32>,
    readings: usize,
    rows: Vec<Row>,
}

impl Rows {
    /// Returns the readings of the last body.
    pub(super) fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Returns the readings of the last body for good.
    pub(super) fn into_rows(self) -> Vec<Row> {
        self.rows
    }

    /// Forgets what was announced.
    pub(super) fn reset(&mut self) {
        let rows = std::mem::take(&mut self.rows);
        *self = Self { rows, ..Self::default() };
    }

    /// Reads a body; `announced` takes what describes a series off it.
    pub(super) fn read(
        &mut self,
        mut body: Reader<'_>,
        mut announced: impl FnMut(TimeSource, &mut Reader<'_>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        self.rows.clear();
        self.readings = 0;
        loop {
            match body.number()? {
                TAG_END => break,
                tag @ (TAG_SERIES | TAG_DEVICE_SERIES) => {
                    if self.series.len() >= MAX_SERIES {
                        return Err(TooMany("series"));
                    }
                    self.series.push(Past::default());
                    let receive = tag == TAG_SERIES;
                    let clock = if receive { TimeSource::Receive } else { TimeSource::Device };
                    announced(clock, &mut body)?;
                }
                TAG_GROUP => self.read_group(&mut body)?,
                TAG_RUN => {
                    for _ in 0..body.number()? {
                        let last = self.last_group.and_then(|last| self.groups.get(last as usize));
                        self.place(last.map_or(0, |group| group.next))?;
                    }
                }
                tag => self.place(u32::try_from(tag - TAG_ROW).map_err(|_| Damaged)?)?,
            }
        }
        self.read_columns(&mut body)?;
        if body.0.is_empty() { Ok(()) } else { Err(Damaged) }
    }

    fn read_group(&mut self, body: &mut Reader<'_>) -> Result<(), DecodeError> {
        let count = usize::try_from(body.number()?).map_err(|_| Damaged)?;
        // A member takes a byte at least.
        if count == 0 || count > body.0.len() {
            return Err(Damaged);
        }
        self.members += count;
        if self.groups.len() >= MAX_GROUPS || self.members > MAX_MEMBERS {
            return Err(TooMany("groups"));
        }
        let members = (0..count).map(|_| {
            let member = body.difference(self.next_member)?;
            let member = u32::try_from(member).map_err(|_| Damaged)?;
            self.next_member = i64::from(member) + 1;
            if member as usize >= self.series.len() {
                return Err(Damaged);
            }
            Ok(member)
        });
        let members = members.collect::<Result<Box<[u32]>, _>>()?;
        self.groups.push(Group::new(self.groups.len(), members));
        Ok(())
    }

    /// Notes that a row of this group comes next.
    fn place(&mut self, position: u32) -> Result<(), DecodeError> {
        let group = self.groups.get_mut(position as usize).ok_or(Damaged)?;
        if group.rows.is_empty() {
            self.used.push(position);
        }
        group.rows.push(self.readings);
        self.readings += group.members.len();
        if self.readings > MAX_FRAME_READINGS {
            return Err(TooMany("readings"));
        }
        if let Some(before) = self.last_group.and_then(|last| self.groups.get_mut(last as usize)) {
            before.next = position;
        }
        self.last_group = Some(position);
        Ok(())
    }

    fn read_columns(&mut self, body: &mut Reader<'_>) -> Result<(), DecodeError> {
        // A reading takes a byte at least.
        if self.readings > body.0.len() {
            return Err(Damaged);
        }
        let blank = Row { series: 0, timestamp: UnixMillis(0), value: Value::Bool(false) };
        self.rows.resize(self.readings, blank);
        for position in self.used.drain(..) {
            let group = self.groups.get_mut(position as usize).ok_or(Damaged)?;
            let begins = std::mem::take(&mut group.rows);
            for begin in &begins {
                let at = body.difference(group.expected(self.latest))?;
                group.saw(at);
                self.latest = at;
                let timestamp = UnixMillis(at);
                if !(UnixMillis::MIN..=UnixMillis::MAX).contains(&timestamp) {
                    return Err(Invalid("a time"));
                }
                let row = self.rows.get_mut(*begin..).ok_or(Damaged)?;
                for (row, series) in row.iter_mut().zip(&group.members) {
                    (row.series, row.timestamp) = (*series, timestamp);
                }
            }
            for (offset, series) in group.members.iter().enumerate() {
                let past = self.series.get_mut(*series as usize).ok_or(Damaged)?;
                for begin in &begins {
                    self.rows.get_mut(begin + offset).ok_or(Damaged)?.value = past.read(body)?;
                }
            }
            group.rows = begins;
            group.rows.clear();
        }
        Ok(())
    }
}
