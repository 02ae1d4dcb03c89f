//! One device, or what a node has itself: its birth, and what its messages then say.

use std::sync::Arc;

use valtronics_protocol::{
    reading::{MAX_NAME_BYTES, MAX_UNIT_BYTES},
    time::UnixMillis,
};

use super::{
    News, Presence,
    birth::{Birth, Meaning},
};
use crate::decode::{
    Sample,
    sparkplug::{
        is_control,
        topic::{Kind, Topic},
        value::{self, Lacking},
        wire::{Metric, Payload},
    },
};

/// The qualities that say that a value is none (specification, "Quality Codes"): bad and stale.
const WORTHLESS: [u64; 2] = [0, 500];

/// A device, or what a node has itself.
#[derive(Debug)]
pub(super) struct Device {
    /// Group, node and device.
    pub(super) name: Arc<str>,
    /// As long as it counts.
    pub(super) birth: Option<Birth>,
}

impl Device {
    /// Begins without a birth.
    pub(super) fn new(name: Arc<str>) -> Self {
        Self { name, birth: None }
    }

    /// Says that it is there, or not.
    pub(super) fn presence(&self, is_there: bool, topic: &Topic<'_>) -> Presence {
        Presence { device: Arc::clone(&self.name), is_there, topic: topic.whole.into() }
    }

    /// Reads a message; tells whether all of it is understood.
    pub(super) fn hear(
        &mut self,
        topic: &Topic<'_>,
        payload: &Payload<'_>,
        now: UnixMillis,
        news: &mut News,
    ) -> bool {
        match topic.kind {
            Kind::Birth => {
                self.birth = Some(Birth::new(payload));
                news.presences.push(self.presence(true, topic));
                self.read(payload, now, news);
                // Nobody could tell more than a birth does.
                true
            }
            Kind::Data => self.read(payload, now, news) && self.birth.is_some(),
            Kind::Death => {
                self.birth = None;
                news.presences.push(self.presence(false, topic));
                true
            }
        }
    }

    /// Counts what its birth names.
    pub(super) fn metrics(&self) -> usize {
        self.birth.as_ref().map_or(0, Birth::len)
    }

    /// Makes samples of what a payload holds; tells whether each alias means something.
    fn read(&self, payload: &Payload<'_>, now: UnixMillis, news: &mut News) -> bool {
        let mut knows_all = true;
        for metric in &payload.metrics {
            if metric.value.is_none() || metric.name.is_some_and(is_control) {
                continue;
            }
            knows_all &= metric.name.is_some() || self.meaning(metric).is_some();
            match self.sample(payload, metric, now) {
                Ok(sample) => news.samples.extend(sample),
                Err(Lacking::Absent) => {}
                Err(Lacking::Unfit) => news.unfit += 1,
            }
        }
        knows_all
    }

    fn meaning(&self, metric: &Metric<'_>) -> Option<Meaning<'_>> {
        self.birth.as_ref()?.meaning(metric)
    }

    /// Makes a sample; what names itself is read before any birth.
    fn sample(
        &self,
        payload: &Payload<'_>,
        metric: &Metric<'_>,
        now: UnixMillis,
    ) -> Result<Option<Sample>, Lacking> {
        let meaning = self.meaning(metric);
        let known = meaning.as_ref().map(|meaning| meaning.name);
        let name = known.map(|name| &**name).or(metric.name).unwrap_or_default();
        if is_control(name) {
            return Ok(None);
        }
        let is_worthless = metric.quality.is_some_and(|quality| WORTHLESS.contains(&quality));
        if is_worthless || name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(Lacking::Unfit);
        }
        let raw = metric.value.ok_or(Lacking::Absent)?;
        let datatype = metric.datatype.or(meaning.as_ref().and_then(|meaning| meaning.datatype));
        let value = value::value(datatype, raw)?;
        let at = payload.time_of(metric, now);
        // Of the past, and nothing says when.
        if metric.is_historical && at.is_none() {
            return Err(Lacking::Unfit);
        }
        let said = metric.unit.filter(|unit| unit.len() <= MAX_UNIT_BYTES).map(Arc::from);
        Ok(Some(Sample {
            device: Some(Arc::clone(&self.name)),
            metric: known.map_or_else(|| name.into(), Arc::clone),
            value,
            unit: said.or_else(|| meaning.and_then(|meaning| meaning.unit.cloned())),
            at,
            received: None,
        }))
    }
}
