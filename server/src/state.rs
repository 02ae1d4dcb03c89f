//! What the server knows: devices with their metrics and last values, and the published view.
//!
//! The **published view** (the last status of each device, unresolved alerts, the two event logs)
//! moves only by what the store has committed; last values move with each live reading. The engine
//! owns this state; the hub reads it for snapshots, late subscribers and slow readers.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use valtronics_protocol::{
    event::{AlertStatus, DeviceStatusUpdate, Status},
    id::{AlertId, DeviceId},
    time::UnixMillis,
    value::Value,
};

use crate::{
    commit::{
        AlertDraft, CommittedAlert, CommittedEvent, MetricIndex, Oldest, RegisteredDevice,
        RegisteredMetric, RegistryChange,
    },
    domain::{
        alerts::{Alerts, RuleIndex},
        freshness::Freshness,
        status::Health,
    },
};

mod event_log;
mod silence;

pub use event_log::{EventLog, LoggedEvent, RING, encode};

/// Everything that is known.
#[derive(Debug)]
pub struct State {
    devices: Vec<Device>,
    /// Alerts that are not resolved, oldest first.
    pub open_alerts: BTreeMap<AlertId, CommittedAlert>,
    /// The events of channel `alerts`.
    pub alert_log: EventLog,
    /// The events of channel `devices`.
    pub device_log: EventLog,
    /// The id of both logs, made with the data directory.
    pub log_id: String,
}

/// A device. As with its metrics, what each reading touches stands together.
#[derive(Debug)]
#[repr(C)]
pub struct Device {
    /// Its metrics in the order in which they were first named.
    pub metrics: Vec<Metric>,
    /// What makes its status.
    pub health: Health,
    /// Who it is.
    pub registered: RegisteredDevice,
    /// `{sub}/{name}`, by which patterns with a `/` know it.
    pub key: Box<str>,
    /// The last change of its status that is committed.
    pub status: Option<DeviceStatusUpdate>,
    /// The alert rules that watch its status.
    pub rules: Vec<RuleIndex>,
}

/// A metric of a device.
///
/// In this order: what each reading touches stands together, for of a hundred thousand metrics none is
/// in a cache when its next reading comes.
#[derive(Debug)]
#[repr(C)]
pub struct Metric {
    /// Its newest value.
    pub last: Option<LastValue>,
    /// The alert rules that watch it.
    pub rules: Vec<RuleIndex>,
    /// Whether it is heard as often as it usually is.
    pub freshness: Freshness,
    /// Its name.
    pub name: Arc<str>,
    /// The symbol of its unit; empty when unknown.
    pub unit: Arc<str>,
}

/// The newest value of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct LastValue {
    /// What was measured.
    pub value: Value,
    /// When, by the source's clock.
    pub at: UnixMillis,
    /// The same, but at most a little after the receipt: by this one, later readings are newer, so
    /// that a clock that runs ahead freezes nothing.
    pub effective_at: UnixMillis,
}

impl State {
    /// Makes the state of a server that knows nothing yet.
    #[must_use]
    pub fn new(log_id: String, alert_log: EventLog, device_log: EventLog) -> Self {
        let (devices, open_alerts) = (Vec::new(), BTreeMap::new());
        Self { devices, open_alerts, alert_log, device_log, log_id }
    }

    /// Returns the devices in the order of their ids.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// Returns the devices in the order of their ids, to be changed.
    pub fn devices_mut(&mut self) -> &mut [Device] {
        &mut self.devices
    }

    /// Finds a device.
    #[must_use]
    pub fn device(&self, id: DeviceId) -> Option<&Device> {
        self.devices.get(index_of(id)?)
    }

    /// Finds a device, to be changed.
    pub fn device_mut(&mut self, id: DeviceId) -> Option<&mut Device> {
        self.devices.get_mut(index_of(id)?)
    }

    /// Takes over a change of the registry; returns the device if it is new.
    ///
    /// Changes come in the order of their ids; one that would leave a hole is a bug.
    pub fn register(&mut self, change: RegistryChange) -> Option<DeviceId> {
        match change {
            RegistryChange::Device(registered) => {
                if let Some(known) = self.device_mut(registered.id) {
                    known.registered = registered;
                    return None;
                }
                let id = registered.id;
                assert_eq!(index_of(id), Some(self.devices.len()), "ids have no holes");
                self.devices.push(Device::new(registered));
                Some(id)
            }
            RegistryChange::Metric(registered) => {
                let device = self.device_mut(registered.device).expect("named before its metrics");
                device.register(registered);
                None
            }
        }
    }

    /// Notes what the store has let go of.
    pub fn forget_before(&mut self, oldest: Oldest) {
        self.alert_log.forget_before(oldest.alert);
        self.device_log.forget_before(oldest.device);
    }

    /// Takes over an event that is committed.
    pub fn publish(&mut self, event: CommittedEvent, now: Instant) {
        match &event {
            CommittedEvent::Status(update) => {
                if let Some(device) = self.device_mut(update.device_id) {
                    device.status = Some(update.clone());
                }
                self.device_log.append(event, now);
            }
            CommittedEvent::Alert(committed) => {
                let id = committed.alert.alert_id;
                if committed.alert.status == AlertStatus::Resolved {
                    self.open_alerts.remove(&id);
                } else {
                    self.open_alerts.insert(id, committed.clone());
                }
                self.alert_log.append(event, now);
            }
        }
    }
}

/// Returns where the device stands in a list of all.
fn index_of(id: DeviceId) -> Option<usize> {
    usize::try_from(id.0.checked_sub(1)?).ok()
}

impl Device {
    fn new(registered: RegisteredDevice) -> Self {
        let key = registered.key().into();
        let (metrics, health) = (Vec::new(), Health::default());
        Self { registered, key, metrics, health, status: None, rules: Vec::new() }
    }

    fn register(&mut self, registered: RegisteredMetric) {
        let RegisteredMetric { index, name, unit, .. } = registered;
        let at = index.0 as usize;
        if let Some(known) = self.metrics.get_mut(at) {
            known.unit = unit;
        } else {
            assert_eq!(at, self.metrics.len(), "indices have no holes");
            let (freshness, rules) = (Freshness::default(), Vec::new());
            self.metrics.push(Metric { last: None, rules, freshness, name, unit });
        }
    }

    /// Finds the rules that watch it and its metrics, and has them begin.
    pub fn watch(&mut self, alerts: &mut Alerts, now: UnixMillis, out: &mut Vec<AlertDraft>) {
        for index in (0..).map(MetricIndex).take(self.metrics.len()) {
            self.watch_metric(index, alerts, now);
        }
        self.rules = alerts.rules_for_status(&self.registered.name, &self.key);
        let Some(status) = self.health.announced() else {
            return;
        };
        let since = self.status.as_ref().filter(|update| update.new_status == status);
        let at = since.map_or(now, |update| update.timestamp.min(now));
        for rule in &self.rules {
            alerts.observe_status(*rule, self.id(), status, (at, now), out);
        }
    }

    /// Finds the rules that watch a metric, and has them begin.
    pub fn watch_metric(&mut self, index: MetricIndex, alerts: &mut Alerts, now: UnixMillis) {
        let (id, name, key) = (self.id(), &self.registered.name, &self.key);
        if let Some(metric) = self.metrics.get_mut(index.0 as usize) {
            metric.rules = alerts.rules_for(name, key, &metric.name);
            let last = metric.last.as_ref().map(|last| (&last.value, last.effective_at));
            for rule in &metric.rules {
                alerts.watch(*rule, id, last, now);
            }
        }
    }

    /// Returns the device's id.
    #[must_use]
    pub fn id(&self) -> DeviceId {
        self.registered.id
    }

    /// Finds a metric.
    #[must_use]
    pub fn metric(&self, index: MetricIndex) -> Option<&Metric> {
        self.metrics.get(index.0 as usize)
    }

    /// Finds a metric, to be changed.
    pub fn metric_mut(&mut self, index: MetricIndex) -> Option<&mut Metric> {
        self.metrics.get_mut(index.0 as usize)
    }

    /// Returns the status that is published; `offline` before the first change.
    #[must_use]
    pub fn published_status(&self) -> Status {
        self.status.as_ref().map_or(Status::Offline, |update| update.new_status)
    }
}
