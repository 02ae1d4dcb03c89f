//! Readings as a blob of the journal: the batch codec's form for a store, sealed.

use valtronics_protocol::{batch::journal, id::DeviceId};

use super::{StoreError, seal};
use crate::commit::{MetricIndex, Row};

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
