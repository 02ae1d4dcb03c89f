//! Snapshots under way: walks over the ids of devices or alerts.
//!
//! A walk belongs to the keys that asked for it. When one of them is set again or removed it shows
//! nothing for it any more, and the walk of "all devices" passes over devices with a key of their own:
//! however often a connection subscribes, it is owed each device in two lists at most.

use std::collections::VecDeque;

use valtronics_protocol::id::DeviceId;

use super::{
    subscribe::keys_of,
    subscription::{Key, Keyed},
};
use crate::state::State;

/// The snapshots that a connection is owed of one channel, in order.
#[derive(Debug, Default)]
pub(super) struct Walks(VecDeque<Walk>);

/// One snapshot: over all ids, or those of some devices.
#[derive(Debug)]
pub(super) struct Walk {
    /// In order of their ids.
    devices: Option<Vec<DeviceId>>,
    /// The lowest id that is not done yet.
    pub(super) next: u64,
}

impl Walks {
    /// Owes a snapshot of these devices, or of all.
    pub(super) fn owe(&mut self, devices: Option<Vec<DeviceId>>) {
        self.remove(Some(&keys_of(devices.as_deref())));
        self.0.push_back(Walk::new(devices));
    }

    /// Owes nothing for these keys any more, or nothing at all.
    pub(super) fn remove(&mut self, keys: Option<&[Key]>) {
        let Some(keys) = keys else {
            return self.0.clear();
        };
        self.0.retain_mut(|walk| match &mut walk.devices {
            None => !keys.contains(&None),
            Some(devices) => {
                devices.retain(|device| !keys.contains(&Some(*device)));
                !devices.is_empty()
            }
        });
    }

    /// Returns the walk that is under way.
    pub(super) fn front_mut(&mut self) -> Option<&mut Walk> {
        self.0.front_mut()
    }

    /// Ends the walk that is under way.
    pub(super) fn pop_front(&mut self) {
        self.0.pop_front();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Walk {
    fn new(devices: Option<Vec<DeviceId>>) -> Self {
        let devices = devices.map(|mut devices| {
            devices.sort();
            devices
        });
        Self { devices, next: 1 }
    }

    /// Tells whether it is for the subscription that counts for a device.
    pub(super) fn is_for<T>(&self, device: DeviceId, keyed: &Keyed<T>) -> bool {
        match &self.devices {
            None => !keyed.has(Some(device)),
            Some(devices) => devices.binary_search(&device).is_ok(),
        }
    }

    /// Moves on to the next device, if there is one.
    pub(super) fn next_device(&mut self, state: &State) -> Option<DeviceId> {
        let id = match &self.devices {
            None => DeviceId(self.next),
            Some(devices) => {
                *devices.get(devices.partition_point(|device| device.0 < self.next))?
            }
        };
        let last = state.devices().len() as u64;
        if id.0 > last {
            return None;
        }
        self.next = id.0 + 1;
        Some(id)
    }
}
