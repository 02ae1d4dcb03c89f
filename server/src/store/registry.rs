//! Devices and metrics by name: in memory for looking up, in the file for ever.

use std::{collections::HashMap, sync::Arc};

use rusqlite::{Connection, Transaction, params};
use valtronics_protocol::{id::DeviceId, time::UnixMillis};

use super::StoreError;
use crate::{
    commit::{MetricIndex, RegisteredDevice, RegisteredMetric, RegistryChange},
    store_task::{Named, Registrant, Wanted},
};

/// How many names there may be.
#[derive(Debug, Clone, Copy)]
pub struct RegistryLimits {
    /// Devices of one subject.
    pub devices_per_sub: usize,
    /// Metrics of one device.
    pub metrics_per_device: usize,
}

/// What became of names.
#[derive(Debug)]
pub struct Registered {
    /// Their ids, as they were asked for.
    pub named: Vec<Named>,
    /// What is new or changed, in order.
    pub changes: Vec<RegistryChange>,
}

/// Why names did not come into being.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// A limit is reached.
    #[error("{0}")]
    Limit(String),
    /// The token is not for a device.
    #[error("{0}")]
    Forbidden(String),
    /// The store cannot write.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for RegisterError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Every name.
#[derive(Debug, Default)]
pub(super) struct Registry {
    devices: Vec<Device>,
    by_name: HashMap<(Arc<str>, Arc<str>), DeviceId>,
    by_sub: HashMap<Arc<str>, usize>,
}

#[derive(Debug)]
struct Device {
    registered: RegisteredDevice,
    units: Vec<Arc<str>>,
    by_name: HashMap<Arc<str>, MetricIndex>,
}

/// A registration under way: what it adds to what is known.
struct Registering<'a> {
    known: &'a Registry,
    registrant: &'a Registrant,
    limits: RegistryLimits,
    changes: Vec<RegistryChange>,
    /// The devices among the changes, as they are by now.
    devices: HashMap<Arc<str>, RegisteredDevice>,
    /// How many of them are new.
    added: usize,
    /// The metrics among the changes.
    metrics: HashMap<DeviceId, ChangedMetrics>,
}

/// The metrics of a device that a registration adds or changes, with their units.
#[derive(Default)]
struct ChangedMetrics {
    by_name: HashMap<Arc<str>, (MetricIndex, Arc<str>)>,
    /// How many of them are new.
    added: usize,
}

impl Registry {
    /// Reads every name.
    pub(super) fn load(db: &Connection) -> Result<Self, StoreError> {
        let mut registry = Self::default();
        let mut devices = db.prepare("SELECT id, sub, name, gateway FROM devices ORDER BY id")?;
        let mut rows = devices.query([])?;
        while let Some(row) = rows.next()? {
            registry.apply(RegistryChange::Device(RegisteredDevice {
                id: DeviceId(row.get::<_, i64>(0)?.cast_unsigned()),
                sub: row.get(1)?,
                name: row.get(2)?,
                gateway: row.get(3)?,
            }));
        }
        let mut metrics = db.prepare(
            "SELECT device, position, name, unit FROM metrics ORDER BY device, position",
        )?;
        let mut rows = metrics.query([])?;
        while let Some(row) = rows.next()? {
            registry.apply(RegistryChange::Metric(RegisteredMetric {
                device: DeviceId(row.get::<_, i64>(0)?.cast_unsigned()),
                index: MetricIndex(row.get(1)?),
                name: row.get(2)?,
                unit: row.get(3)?,
            }));
        }
        Ok(registry)
    }

    /// Lists every name, as if it had just come into being.
    pub(super) fn all(&self) -> Vec<RegistryChange> {
        let mut all = Vec::new();
        for device in &self.devices {
            all.push(RegistryChange::Device(device.registered.clone()));
            let mut names: Vec<_> = device.by_name.iter().collect();
            names.sort_by_key(|(_, index)| **index);
            all.extend(names.into_iter().zip(&device.units).map(|((name, index), unit)| {
                RegistryChange::Metric(RegisteredMetric {
                    device: device.registered.id,
                    index: *index,
                    name: Arc::clone(name),
                    unit: Arc::clone(unit),
                })
            }));
        }
        all
    }

    fn device(&self, id: DeviceId) -> Option<&Device> {
        self.devices.get(usize::try_from(id.0.checked_sub(1)?).ok()?)
    }

    fn apply(&mut self, change: RegistryChange) {
        match change {
            RegistryChange::Device(registered) => {
                let id = registered.id;
                let at = usize::try_from(id.0 - 1).expect("ids are few");
                if let Some(known) = self.devices.get_mut(at) {
                    known.registered = registered;
                    return;
                }
                let (sub, name) = (Arc::clone(&registered.sub), Arc::clone(&registered.name));
                *self.by_sub.entry(Arc::clone(&sub)).or_default() += 1;
                self.by_name.insert((sub, name), id);
                let (units, by_name) = (Vec::new(), HashMap::new());
                self.devices.push(Device { registered, units, by_name });
            }
            RegistryChange::Metric(RegisteredMetric { device, index, name, unit }) => {
                let at = usize::try_from(device.0 - 1).expect("ids are few");
                let Some(device) = self.devices.get_mut(at) else {
                    return;
                };
                match device.units.get_mut(index.0 as usize) {
                    Some(known) => *known = unit,
                    None => device.units.push(unit),
                }
                device.by_name.insert(name, index);
            }
        }
    }

    /// Looks names up, or brings them into being in this order, in one transaction.
    pub(super) fn register(
        &mut self,
        db: &mut Connection,
        registrant: &Registrant,
        wanted: &[Wanted],
        limits: RegistryLimits,
        now: UnixMillis,
    ) -> Result<Registered, RegisterError> {
        let mut registering = Registering::new(self, registrant, limits);
        let mut named = Vec::with_capacity(wanted.len());
        for Wanted { device, metrics } in wanted {
            let id = registering.device(device)?;
            let indices =
                metrics.iter().map(|(name, unit)| registering.metric(id, name, unit.as_deref()));
            let indices = indices.collect::<Result<_, _>>()?;
            named.push(Named { id, indices });
        }
        let changes = registering.changes;
        if !changes.is_empty() {
            let transaction = db.transaction()?;
            changes.iter().try_for_each(|change| write(&transaction, change, now))?;
            transaction.commit()?;
            changes.iter().cloned().for_each(|change| self.apply(change));
        }
        Ok(Registered { named, changes })
    }
}

impl<'a> Registering<'a> {
    fn new(known: &'a Registry, registrant: &'a Registrant, limits: RegistryLimits) -> Self {
        let (devices, metrics) = (HashMap::new(), HashMap::new());
        Self { known, registrant, limits, changes: Vec::new(), devices, added: 0, metrics }
    }

    fn device(&mut self, name: &str) -> Result<DeviceId, RegisterError> {
        let Registrant { sub, gateway, devices } = self.registrant;
        let forbidden = || RegisterError::Forbidden(format!("the token is not for {name:?}"));
        let known = self.known.by_name.get(&(Arc::clone(sub), Arc::from(name)));
        let known = known.and_then(|id| self.known.device(*id)).map(|device| &device.registered);
        if let Some(device) = self.devices.get(name).or(known) {
            let id = device.id;
            if !devices.allows(id, name, &device.key()) {
                return Err(forbidden());
            }
            if gateway.is_some() && device.gateway != *gateway {
                let moved = RegisteredDevice { gateway: gateway.clone(), ..device.clone() };
                self.change_device(moved);
            }
            return Ok(id);
        }
        let id = DeviceId((self.known.devices.len() + self.added) as u64 + 1);
        let (sub, gateway) = (Arc::clone(sub), gateway.clone());
        let new = RegisteredDevice { id, sub, name: name.into(), gateway };
        if !devices.allows_new(name, &new.key()) {
            return Err(forbidden());
        }
        let of_sub = self.known.by_sub.get(&new.sub).copied().unwrap_or_default() + self.added;
        if of_sub >= self.limits.devices_per_sub {
            return Err(RegisterError::Limit(format!(
                "device {name:?} is new, but {} has {} already, the most it may have",
                new.sub, self.limits.devices_per_sub
            )));
        }
        self.added += 1;
        self.change_device(new);
        Ok(id)
    }

    fn change_device(&mut self, device: RegisteredDevice) {
        self.devices.insert(Arc::clone(&device.name), device.clone());
        self.changes.push(RegistryChange::Device(device));
    }

    fn metric(
        &mut self,
        device: DeviceId,
        name: &str,
        unit: Option<&str>,
    ) -> Result<MetricIndex, RegisterError> {
        let known = self.known.device(device);
        let changed = self.metrics.entry(device).or_default();
        let found = changed.by_name.get(name).map(|(index, unit)| (*index, &**unit));
        let found = found.or_else(|| {
            let index = *known?.by_name.get(name)?;
            Some((index, &**known?.units.get(index.0 as usize)?))
        });
        let (index, unit) = match found {
            Some((index, known)) if unit.is_none_or(|unit| unit == known) => return Ok(index),
            Some((index, _)) => (index, unit.unwrap_or_default()),
            None => {
                let next = known.map_or(0, |device| device.units.len()) + changed.added;
                if next >= self.limits.metrics_per_device {
                    return Err(RegisterError::Limit(format!(
                        "metric {name:?} is new, but its device has {} already, the most it may have",
                        self.limits.metrics_per_device
                    )));
                }
                changed.added += 1;
                let index = u32::try_from(next).unwrap_or(u32::MAX);
                (MetricIndex(index), unit.unwrap_or_default())
            }
        };
        let (name, unit): (Arc<str>, Arc<str>) = (name.into(), unit.into());
        changed.by_name.insert(Arc::clone(&name), (index, Arc::clone(&unit)));
        self.changes.push(RegistryChange::Metric(RegisteredMetric { device, index, name, unit }));
        Ok(index)
    }
}

fn write(
    transaction: &Transaction<'_>,
    change: &RegistryChange,
    now: UnixMillis,
) -> Result<(), rusqlite::Error> {
    match change {
        RegistryChange::Device(device) => transaction
            .prepare_cached(
                "INSERT INTO devices (id, sub, name, gateway, created_at) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (id) DO UPDATE SET gateway = excluded.gateway",
            )?
            .execute(params![
                device.id.0.cast_signed(),
                &*device.sub,
                &*device.name,
                device.gateway,
                now.0
            ]),
        RegistryChange::Metric(metric) => transaction
            .prepare_cached(
                "INSERT INTO metrics (device, position, name, unit) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET unit = excluded.unit",
            )?
            .execute(params![
                metric.device.0.cast_signed(),
                metric.index.0,
                &*metric.name,
                &*metric.unit
            ]),
    }
    .map(drop)
}
