//! What a birth says of metrics: their names, aliases, types and units.

use std::{collections::HashMap, sync::Arc};

use valtronics_protocol::reading::{MAX_NAME_BYTES, MAX_UNIT_BYTES};

use crate::decode::sparkplug::wire::{Metric, Payload};

/// The metrics of one node or device.
#[derive(Debug)]
pub(super) struct Birth {
    by_name: HashMap<Arc<str>, Known>,
    /// `None` where a birth gave one alias to two metrics: then it means neither.
    by_alias: HashMap<u64, Option<Arc<str>>>,
}

#[derive(Debug)]
struct Known {
    datatype: Option<u32>,
    unit: Option<Arc<str>>,
}

/// What is known of a metric.
#[derive(Debug)]
pub(super) struct Meaning<'b> {
    pub(super) name: &'b Arc<str>,
    pub(super) datatype: Option<u32>,
    pub(super) unit: Option<&'b Arc<str>>,
}

impl Birth {
    /// Keeps what a payload says; of a name that is too long only that it is none.
    pub(super) fn new(payload: &Payload<'_>) -> Self {
        let (mut by_name, mut by_alias) = (HashMap::new(), HashMap::new());
        let mut units: HashMap<&str, Arc<str>> = HashMap::new();
        for metric in &payload.metrics {
            let fits = |name: &&str| name.len() <= MAX_NAME_BYTES;
            let name: Arc<str> = metric.name.filter(fits).unwrap_or_default().into();
            let unit = metric.unit.filter(|unit| unit.len() <= MAX_UNIT_BYTES);
            let unit = unit.map(|unit| Arc::clone(units.entry(unit).or_insert(unit.into())));
            if let Some(alias) = metric.alias {
                let meant = by_alias.entry(alias).or_insert_with(|| Some(Arc::clone(&name)));
                meant.take_if(|meant| *meant != name);
            }
            by_name.insert(name, Known { datatype: metric.datatype, unit });
        }
        Self { by_name, by_alias }
    }

    /// Counts the metrics.
    pub(super) fn len(&self) -> usize {
        self.by_name.len().max(self.by_alias.len())
    }

    /// Returns what a metric of data means: by its name, if it has one.
    pub(super) fn meaning(&self, metric: &Metric<'_>) -> Option<Meaning<'_>> {
        let by_alias = || self.by_alias.get(&metric.alias?)?.as_deref();
        let name = metric.name.or_else(by_alias)?;
        let (name, Known { datatype, unit }) = self.by_name.get_key_value(name)?;
        Some(Meaning { name, datatype: *datatype, unit: unit.as_ref() })
    }
}
