//! What a connection has subscribed to: keyed by device, or by "all devices".

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use valtronics_protocol::{
    filter::{Filters, Frequency, SystemMetric},
    id::{DeviceId, Seq},
};

use super::projection::ProjectionId;
use crate::{commit::CommittedEvent, message::Packing};

/// A key: one device, or all of them.
pub(super) type Key = Option<DeviceId>;

/// The subscriptions of one channel. For a device with a key of its own that one alone counts.
#[derive(Debug)]
pub(super) struct Keyed<T>(HashMap<Key, T, RandomState>);

impl<T> Default for Keyed<T> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<T> Keyed<T> {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn has(&self, key: Key) -> bool {
        self.0.contains_key(&key)
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        self.0.get(&key)
    }

    /// Finds the subscription that counts for a device.
    pub(super) fn for_device(&self, device: DeviceId) -> Option<&T> {
        self.get(Some(device)).or_else(|| self.get(None))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.0.iter().map(|(key, subscription)| (*key, subscription))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.values_mut()
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.0.keys().copied().collect()
    }

    /// Sets what counts for a key; returns what stood there.
    pub(super) fn insert(&mut self, key: Key, subscription: T) -> Option<T> {
        self.0.insert(key, subscription)
    }

    /// Removes these keys, or all; returns what stood there.
    pub(super) fn remove(&mut self, keys: Option<&[Key]>) -> Vec<T> {
        match keys {
            None => self.0.drain().map(|(_, subscription)| subscription).collect(),
            Some(keys) => keys.iter().filter_map(|key| self.0.remove(key)).collect(),
        }
    }
}

/// A subscription to telemetry.
#[derive(Debug)]
pub(super) struct TelemetrySubscription {
    pub(super) projection: ProjectionId,
    pub(super) frequency: Frequency,
    pub(super) historical: bool,
    pub(super) packing: Packing,
}

/// A subscription to alerts or to status changes.
#[derive(Debug, Clone)]
pub(super) struct EventSubscription {
    filters: Arc<Filters>,
    /// Only what comes after this position was asked for.
    after: Seq,
    pub(super) packing: Packing,
}

impl EventSubscription {
    pub(super) fn new(filters: Arc<Filters>, after: Seq, packing: Packing) -> Self {
        Self { filters, after, packing }
    }

    /// Returns the position after which it begins.
    pub(super) fn after(&self) -> Seq {
        self.after
    }

    /// Tells whether the event at a position was asked for.
    pub(super) fn follows(&self, seq: Seq) -> bool {
        seq > self.after
    }

    /// Notes that everything up to a position was sent: another's replay does not repeat it.
    pub(super) fn was_told(&mut self, upto: Seq) {
        self.after = self.after.max(upto);
    }

    /// Tells whether the filters, the device aside, let an event pass.
    pub(super) fn wants(&self, event: &CommittedEvent) -> bool {
        let filters = &self.filters;
        match event {
            CommittedEvent::Status(update) => {
                let wanted = filters.status_types.as_ref();
                wanted.is_none_or(|wanted| wanted.contains(&update.new_status))
            }
            CommittedEvent::Alert(committed) => {
                let severe = filters.severity.as_ref();
                let kinds = filters.alert_type.as_ref();
                // Who was told of an alert is told of its end, however bad it is by then.
                severe.is_none_or(|wanted| wanted.iter().any(|one| committed.had.contains(*one)))
                    && kinds.is_none_or(|kinds| {
                        kinds.iter().any(|k| **k == *committed.alert.alert_type)
                    })
            }
        }
    }
}

/// A subscription to system status.
#[derive(Debug)]
pub(super) struct SystemSubscription {
    pub(super) metrics: Vec<SystemMetric>,
    pub(super) period: Duration,
    pub(super) packing: Packing,
    pub(super) due_at: Instant,
}
