//! From messages of JSON to the rows of a batch.

use std::collections::HashMap;

use super::{
    Batch, Item, StatusReport,
    json::{Content, Reading},
    names::{KnownDevice, Names},
    push_row,
};
use crate::{
    commit::{MetricIndex, Row},
    store_task::Wanted,
};

/// Adds a message to a batch; `None`, and nothing is added, when a name of it is not known, or a
/// metric's unit is spelled as it was not before.
#[must_use]
pub fn take(
    names: &Names,
    content: &Content<'_>,
    readings: &[Reading<'_>],
    batch: &mut Batch,
) -> Option<()> {
    let find = |known: &KnownDevice, reading: &Reading<'_>| {
        names.metric(known, &reading.metric, reading.unit.as_deref())
    };
    add(names, content, readings, batch, find)
}

/// Adds a message whose names have just been learned. Where it spells the unit of a metric in two
/// ways, only the last of them is known by now, and both count.
#[must_use]
pub fn take_learned(
    names: &Names,
    content: &Content<'_>,
    readings: &[Reading<'_>],
    batch: &mut Batch,
) -> Option<()> {
    let find =
        |known: &KnownDevice, reading: &Reading<'_>| names.metric(known, &reading.metric, None);
    add(names, content, readings, batch, find)
}

fn add(
    names: &Names,
    content: &Content<'_>,
    readings: &[Reading<'_>],
    batch: &mut Batch,
    find: impl Fn(&KnownDevice, &Reading<'_>) -> Option<MetricIndex>,
) -> Option<()> {
    match content {
        Content::Auth { .. } => {}
        Content::Readings { device, readings: range, historical } => {
            let known = names.device(device)?;
            let (items, begin, replaced) = (batch.items.len(), batch.rows.len(), batch.replaced);
            for reading in readings.get(range.clone()).unwrap_or_default() {
                let Some(metric) = find(known, reading) else {
                    batch.items.truncate(items);
                    batch.rows.truncate(begin);
                    batch.replaced = replaced;
                    return None;
                };
                let at = batch.plausible(reading.at);
                let row = Row { device: known.id, metric, at, value: reading.value.clone() };
                push_row(batch, begin, row, *historical);
            }
        }
        Content::Status { device, status, reason, at } => {
            let reason = reason.as_deref().unwrap_or("Reported by the device");
            let device = names.device(device)?.id;
            let at = batch.plausible(*at);
            let report = StatusReport { device, status: *status, reason: reason.into(), at };
            batch.items.push(Item::Status(report));
        }
    }
    Some(())
}

/// Returns what of a message's names is not known yet.
pub fn unknown(names: &Names, content: &Content<'_>, readings: &[Reading<'_>]) -> Option<Wanted> {
    match content {
        Content::Auth { .. } => None,
        Content::Readings { device, readings: range, .. } => {
            let readings = readings.get(range.clone()).unwrap_or_default();
            names.unknown(device, readings.iter().map(|r| (&*r.metric, r.unit.as_deref())))
        }
        Content::Status { device, .. } => names.unknown(device, std::iter::empty()),
    }
}

/// Joins what is wanted of the same device, in the order of first naming.
pub fn merge(wanted: Vec<Wanted>) -> Vec<Wanted> {
    let mut at = HashMap::new();
    let mut merged: Vec<Wanted> = Vec::new();
    for Wanted { device, metrics } in wanted {
        let place = *at.entry(device.clone()).or_insert_with(|| {
            merged.push(Wanted { device, metrics: Vec::new() });
            merged.len() - 1
        });
        if let Some(joined) = merged.get_mut(place) {
            joined.metrics.extend(metrics);
        }
    }
    merged
}
