//! From names to ids: a connection's cache, so that a steady stream asks nobody.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use valtronics_protocol::{id::DeviceId, unit};

use crate::{
    auth::DeviceGrant,
    commit::MetricIndex,
    store_task::{Named, RegisterError, Registrant, StoreHandle, Wanted},
};

/// How many names are remembered, and those of a frame more: then the cache starts anew.
const MAX_NAMES: usize = 100_000;

/// What a connection knows of the names under its subject.
pub struct Names {
    registrant: Registrant,
    store: StoreHandle,
    devices: HashMap<Box<str>, KnownDevice, RandomState>,
    words: HashMap<Box<str>, Word, RandomState>,
    size: usize,
}

/// A metric's name or the spelling of a unit: devices have most of them in common, so that these few
/// are at hand when the devices themselves are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Word(u32);

/// A device whose id is known.
#[derive(Debug)]
pub struct KnownDevice {
    /// Its id.
    pub id: DeviceId,
    /// In the order of their names' words.
    metrics: Vec<KnownMetric>,
}

/// A metric whose index is known.
#[derive(Debug)]
struct KnownMetric {
    name: Word,
    /// As the agent spells it.
    unit: Option<Word>,
    index: MetricIndex,
}

impl Names {
    /// Begins with nothing known.
    #[must_use]
    pub fn new(registrant: Registrant, store: StoreHandle) -> Self {
        let (devices, words) = (HashMap::default(), HashMap::default());
        Self { registrant, store, devices, words, size: 0 }
    }

    /// Takes over which devices a new token is for; every name is judged anew.
    pub fn regrant(&mut self, devices: DeviceGrant) {
        self.registrant.devices = devices;
        self.forget();
    }

    /// Makes room before a frame: what is learned while it is taken in stays until its end.
    pub fn make_room(&mut self) {
        if self.size >= MAX_NAMES {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.devices.clear();
        self.words.clear();
        self.size = 0;
    }

    /// Finds a device.
    #[must_use]
    pub fn device(&self, name: &str) -> Option<&KnownDevice> {
        self.devices.get(name)
    }

    /// Finds a metric that is known with this spelling of its unit, or whose unit is not said.
    #[must_use]
    pub fn metric(
        &self,
        device: &KnownDevice,
        name: &str,
        unit: Option<&str>,
    ) -> Option<MetricIndex> {
        let metric = device.metrics.get(device.place_of(*self.words.get(name)?).ok()?)?;
        let is_spelled_so = match unit {
            None => true,
            Some(unit) => metric.unit.is_some() && metric.unit.as_ref() == self.words.get(unit),
        };
        is_spelled_so.then_some(metric.index)
    }

    /// Returns what of a device and these metrics is not known yet.
    #[must_use]
    pub fn unknown<'a>(
        &self,
        device: &str,
        metrics: impl Iterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Option<Wanted> {
        let known = self.device(device);
        let unknown: Vec<(String, Option<String>)> = metrics
            .filter(|(name, unit)| {
                known.is_none_or(|known| self.metric(known, name, *unit).is_none())
            })
            .map(|(name, unit)| (name.to_owned(), unit.map(str::to_owned)))
            .collect();
        let wanted = known.is_none() || !unknown.is_empty();
        wanted.then(|| Wanted { device: device.to_owned(), metrics: unknown })
    }

    /// Has names looked up, or brought into being in this order, and remembers them.
    ///
    /// # Errors
    /// When the token is not for a device, a limit is reached, or the store cannot; then nothing came
    /// into being.
    pub async fn learn(&mut self, wanted: Vec<Wanted>) -> Result<(), RegisterError> {
        if wanted.is_empty() {
            return Ok(());
        }
        let canonical = |unit: &String| unit::canonical(unit).into_owned();
        let canonical = wanted.iter().map(|Wanted { device, metrics }| Wanted {
            device: device.clone(),
            metrics: metrics
                .iter()
                .map(|(name, unit)| (name.clone(), unit.as_ref().map(canonical)))
                .collect(),
        });
        let canonical = canonical.collect();
        let named = self.store.register(self.registrant.clone(), canonical).await?;
        for (Wanted { device, metrics }, Named { id, indices }) in wanted.into_iter().zip(named) {
            self.remember(device, id, metrics.into_iter().zip(indices));
        }
        Ok(())
    }

    fn remember(
        &mut self,
        device: String,
        id: DeviceId,
        metrics: impl Iterator<Item = ((String, Option<String>), MetricIndex)>,
    ) {
        let mut word = |text: String| {
            let next = Word(u32::try_from(self.words.len()).unwrap_or(u32::MAX));
            *self.words.entry(text.into()).or_insert(next)
        };
        let known = self.devices.entry(device.into()).or_insert_with(|| {
            self.size += 1;
            KnownDevice { id, metrics: Vec::new() }
        });
        for ((name, unit), index) in metrics {
            let (name, unit) = (word(name), unit.map(&mut word));
            match known.place_of(name) {
                Ok(at) => {
                    if let Some(metric) = known.metrics.get_mut(at) {
                        *metric = KnownMetric { name, unit: unit.or(metric.unit), index };
                    }
                }
                Err(at) => {
                    self.size += 1;
                    known.metrics.insert(at, KnownMetric { name, unit, index });
                }
            }
        }
    }
}

impl KnownDevice {
    /// Returns where a metric stands, or where it would.
    fn place_of(&self, name: Word) -> Result<usize, usize> {
        self.metrics.binary_search_by_key(&name, |metric| metric.name)
    }
}
