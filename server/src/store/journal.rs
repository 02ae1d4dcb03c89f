//! Readings as a blob of the journal: the batch codec's form for a store, sealed.

use valtronics_protocol::{batch::journal, id::DeviceId};

use super::{StoreError, marks, seal};
use crate::commit::{Mark, MetricIndex, Row};

/// Writes rows as a blob.
pub(super) fn encode(rows: &[Row]) -> Vec<u8> {
    let items = rows.iter().map(|row| (row.device.0, row.metric.0, row.at, &row.value));
    seal::seal(journal::encode(items))
}

/// Reads a blob.
pub(super) fn decode(blob: &[u8]) -> Result<Vec<Row>, StoreError> {
    let damaged = || StoreError::Damaged("a blob of readings".into());
    let items = journal::decode(seal::open(blob).ok_or_else(damaged)?).map_err(|_| damaged())?;
    let row = |item: journal::Item| Row {
        device: DeviceId(item.device),
        metric: MetricIndex(item.metric),
        at: item.timestamp,
        value: item.value,
    };
    Ok(items.into_iter().map(row).collect())
}

/// Reads a blob and the marks beside it.
pub(super) fn decode_marked(
    blob: &[u8],
    marks: Option<&[u8]>,
) -> Result<impl Iterator<Item = (Row, Option<Mark>)>, StoreError> {
    let damaged = || StoreError::Damaged("the marks of readings".into());
    let marks = marks::decode(marks).ok_or_else(damaged)?;
    Ok(decode(blob)?.into_iter().zip(marks.into_places()))
}
