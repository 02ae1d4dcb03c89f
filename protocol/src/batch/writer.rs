//! From numbered readings to a body: rows, groups, columns.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::{
    FLAG_PACKED, FLAG_RESET, MAX_BODY_BYTES, MAX_GROUPS, MAX_MEMBERS, MAX_SERIES, TAG_END,
    TAG_GROUP, TAG_ROW, TAG_RUN,
    bytes::{put, put_difference},
    form::Past,
    group::Group,
};
use crate::{time::UnixMillis, value::Value};

/// Writes one body after the other; knows series by their numbers only.
#[derive(Debug, Default)]
pub(super) struct Writer {
    series: Vec<Known>,
    groups: Vec<Group<Placed>>,
    by_members: HashMap<Box<[u32]>, u32, RandomState>,
    /// How many members all groups have.
    members: usize,
    /// Groups hold neighbours: what the next member of one is expected to be.
    next_member: i64,
    last_group: Option<u32>,
    latest: i64,
    body: Vec<u8>,
    /// The row that is being gathered.
    row: Vec<u32>,
    row_at: UnixMillis,
    row_number: u64,
    /// Readings in rows that are complete.
    placed: usize,
    /// Rows at the end whose groups were as expected, not written yet.
    run: u64,
    /// The groups of the frame at hand, in the order of their first rows.
    used: Vec<u32>,
}

#[derive(Debug, Default)]
struct Known {
    past: Past,
    /// The last row that it was in.
    row: u64,
}

/// A row: where its values begin among all of the frame.
#[derive(Debug, Clone, Copy)]
struct Placed {
    at: i64,
    begin: usize,
}

impl Writer {
    /// Tells whether nothing was announced yet.
    pub(super) fn is_new(&self) -> bool {
        self.series.is_empty()
    }

    /// Tells whether more was announced than a decoder takes.
    pub(super) fn is_overfull(&self) -> bool {
        self.series.len() > MAX_SERIES
            || self.groups.len() > MAX_GROUPS
            || self.members > MAX_MEMBERS
    }

    /// Announces the next series; what describes it is to be appended to the body.
    pub(super) fn announce(&mut self, tag: u64) -> &mut Vec<u8> {
        self.series.push(Known::default());
        put(&mut self.body, tag);
        &mut self.body
    }

    /// Puts the next reading in its row.
    pub(super) fn place(&mut self, series: u32, same_device: bool, at: UnixMillis) {
        let in_row = |known: &Known| known.row == self.row_number;
        let twice = self.series.get(series as usize).is_some_and(in_row);
        if twice || !same_device || at != self.row_at {
            self.end_row();
            self.row_at = at;
        }
        if let Some(known) = self.series.get_mut(series as usize) {
            known.row = self.row_number;
        }
        self.row.push(series);
    }

    /// Completes the frame with the values of the readings that were placed, in their order.
    pub(super) fn finish(&mut self, values: &[&Value]) -> &mut Vec<u8> {
        self.end_row();
        self.end_run();
        self.placed = 0;
        put(&mut self.body, TAG_END);
        for position in self.used.drain(..) {
            let Some(group) = self.groups.get_mut(position as usize) else {
                continue;
            };
            let rows = std::mem::take(&mut group.rows);
            for row in &rows {
                put_difference(&mut self.body, row.at, group.expected(self.latest));
                group.saw(row.at);
                self.latest = row.at;
            }
            for (offset, series) in group.members.iter().enumerate() {
                let column = rows.iter().filter_map(|row| values.get(row.begin + offset));
                if let Some(known) = self.series.get_mut(*series as usize) {
                    known.past.write(column.copied(), &mut self.body);
                }
            }
            group.rows = rows;
            group.rows.clear();
        }
        &mut self.body
    }

    fn end_row(&mut self) {
        if self.row.is_empty() {
            // Rows count from 1: a new series is in none.
            self.row_number += 1;
            return;
        }
        let position = self.find_group();
        let Some(group) = self.groups.get_mut(position as usize) else {
            return;
        };
        if group.rows.is_empty() {
            self.used.push(position);
        }
        group.rows.push(Placed { at: self.row_at.0, begin: self.placed });
        self.placed += self.row.len();
        self.row.clear();
        self.row_number += 1;
        if self.next_group() == position {
            self.run += 1;
        } else {
            self.end_run();
            put(&mut self.body, TAG_ROW + u64::from(position));
            if let Some(before) =
                self.last_group.and_then(|last| self.groups.get_mut(last as usize))
            {
                before.next = position;
            }
        }
        self.last_group = Some(position);
    }

    fn end_run(&mut self) {
        match (std::mem::take(&mut self.run), self.last_group) {
            (0, _) | (_, None) => {}
            (1, Some(last)) => put(&mut self.body, TAG_ROW + u64::from(last)),
            (run, Some(_)) => {
                put(&mut self.body, TAG_RUN);
                put(&mut self.body, run);
            }
        }
    }

    fn next_group(&self) -> u32 {
        let last = self.last_group.and_then(|last| self.groups.get(last as usize));
        last.map_or(0, |group| group.next)
    }

    /// Finds the group of the gathered row, or announces it.
    fn find_group(&mut self) -> u32 {
        let guess = self.next_group();
        if self.groups.get(guess as usize).is_some_and(|group| *group.members == *self.row) {
            return guess;
        }
        if let Some(known) = self.by_members.get(&*self.row) {
            return *known;
        }
        put(&mut self.body, TAG_GROUP);
        put(&mut self.body, self.row.len() as u64);
        for member in &self.row {
            let member = i64::from(*member);
            put_difference(&mut self.body, member, self.next_member);
            self.next_member = member + 1;
        }
        self.members += self.row.len();
        let members: Box<[u32]> = self.row.as_slice().into();
        let position = self.groups.len();
        self.groups.push(Group::new(position, members.clone()));
        let position = u32::try_from(position).expect("a frame's rows are few");
        self.by_members.insert(members, position);
        position
    }
}

/// Appends a body as it is to a frame, and empties it.
pub(super) fn append(reset: bool, body: &mut Vec<u8>, frame: &mut Vec<u8>) {
    frame.push(if reset { FLAG_RESET } else { 0 });
    frame.append(body);
}

/// Appends a body that can be read by itself to a frame, packed where that pays, and empties it.
pub(super) fn append_packed(body: &mut Vec<u8>, frame: &mut Vec<u8>) {
    // Nobody unpacks more than that.
    let packed = (body.len() <= MAX_BODY_BYTES).then(|| zstd::bulk::compress(body, 1).ok());
    match packed.flatten() {
        Some(packed) if packed.len() < body.len() => {
            frame.push(FLAG_RESET | FLAG_PACKED);
            frame.extend(packed);
            body.clear();
        }
        Some(_) | None => append(true, body, frame),
    }
}
