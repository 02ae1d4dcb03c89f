//! From a device to those who get its telemetry.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use valtronics_protocol::id::DeviceId;

use super::{SessionId, projection::ProjectionId};
use crate::{
    message::{Packing, TelemetryFrame},
    outbox::{Outbox, Pushed},
};

/// Somebody who gets something.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) session: SessionId,
    pub(super) projection: ProjectionId,
    pub(super) packing: Packing,
    pub(super) outbox: Arc<Outbox>,
    /// The devices for which the session has keys of their own, sorted: for these, its key of all
    /// devices does not count.
    pub(super) own: Option<Arc<[DeviceId]>>,
}

impl Target {
    /// Tells whether the session gets a device's telemetry by a key of its own instead.
    pub(super) fn has_own(&self, device: DeviceId) -> bool {
        self.own.as_ref().is_some_and(|own| own.binary_search(&device).is_ok())
    }

    /// Adds readings to what waits for the session, as [`Outbox::push_telemetry`] does.
    pub(super) fn push<'a>(
        &self,
        frames: impl Iterator<Item = &'a Arc<TelemetryFrame>>,
        limit_bytes: usize,
        now: Instant,
        coalesce: Duration,
    ) -> Pushed {
        self.outbox.push_telemetry(frames, self.packing, limit_bytes, now, coalesce)
    }
}

/// Who gets the telemetry of which device.
#[derive(Debug, Default)]
pub(super) struct Index {
    all: Vec<Target>,
    by_device: HashMap<DeviceId, Vec<Target>, RandomState>,
    /// Under which keys a session stands.
    keys: HashMap<SessionId, Vec<Option<DeviceId>>, RandomState>,
}

impl Index {
    /// Adds a target for one device, or for all.
    pub(super) fn insert(&mut self, key: Option<DeviceId>, target: Target) {
        self.keys.entry(target.session).or_default().push(key);
        match key {
            None => self.all.push(target),
            Some(device) => self.by_device.entry(device).or_default().push(target),
        }
    }

    /// Removes everything of a session; returns the keys under which nobody stands any more.
    pub(super) fn remove(&mut self, session: SessionId) -> Vec<Option<DeviceId>> {
        let mut emptied = Vec::new();
        for key in self.keys.remove(&session).unwrap_or_default() {
            let targets = match key {
                None => Some(&mut self.all),
                Some(device) => self.by_device.get_mut(&device),
            };
            let Some(targets) = targets else { continue };
            if let Some(at) = targets.iter().position(|target| target.session == session) {
                targets.swap_remove(at);
            }
            if targets.is_empty() {
                emptied.push(key);
                if let Some(device) = key {
                    self.by_device.remove(&device);
                }
            }
        }
        emptied
    }

    /// Tells whether nobody stands here.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Tells whether somebody stands under "all devices".
    pub(super) fn has_all(&self) -> bool {
        !self.all.is_empty()
    }

    /// Lists those who get the telemetry of a device.
    pub(super) fn of(&self, device: DeviceId) -> impl Iterator<Item = &Target> {
        let of_all = self.all.iter().filter(move |target| !target.has_own(device));
        of_all.chain(self.of_one(device))
    }

    /// Lists those who stand under "all devices".
    pub(super) fn of_all(&self) -> &[Target] {
        &self.all
    }

    /// Lists those who stand under a device.
    pub(super) fn of_one(&self, device: DeviceId) -> &[Target] {
        self.by_device.get(&device).map(Vec::as_slice).unwrap_or_default()
    }
}
