//! Snapshots under way: walks over the ids of devices or alerts.
//!
//! A walk begun later supersedes what an earlier one would still show of the same devices, so that
//! however often a connection subscribes, it is owed each device in one list at most.

use std::{collections::VecDeque, sync::Arc};

use valtronics_protocol::id::{DeviceId, Seq};

use super::subscription::Key;
use crate::state::State;

/// The snapshots that a connection is owed of one channel, in order.
#[derive(Debug, Default)]
pub(super) struct Walks(VecDeque<Walk>);

/// One snapshot: over all ids, or those of some devices.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    devices: Option<Arc<[DeviceId]>>,
    /// The lowest id that is not done yet.
    pub(super) next: u64,
    /// Up to which id the snapshot showed the log's state at which position.
    shown: Vec<(u64, Seq)>,
}

impl Walks {
    /// Owes a snapshot of these devices, or of all.
    pub(super) fn owe(&mut self, devices: Option<Vec<DeviceId>>) {
        match &devices {
            None => self.0.clear(),
            Some(devices) => self.forget(|device| devices.contains(&device)),
        }
        self.0.push_back(Walk::new(devices));
    }

    /// Owes nothing of the devices with these keys, or nothing at all.
    pub(super) fn remove(&mut self, keys: Option<&[Key]>) {
        match keys {
            None => self.0.clear(),
            Some(keys) => self.forget(|device| keys.contains(&Some(device))),
        }
    }

    fn forget(&mut self, gone: impl Fn(DeviceId) -> bool) {
        for walk in &mut self.0 {
            if let Some(devices) = &walk.devices
                && devices.iter().any(|device| gone(*device))
            {
                let rest = devices.iter().copied().filter(|device| !gone(*device));
                walk.devices = Some(rest.collect());
            }
        }
        self.0.retain(|walk| walk.devices.as_ref().is_none_or(|devices| !devices.is_empty()));
    }

    /// Returns the walk that is under way.
    pub(super) fn front_mut(&mut self) -> Option<&mut Walk> {
        self.0.front_mut()
    }

    /// Ends the walk that is under way.
    pub(super) fn pop_front(&mut self) -> Option<Walk> {
        self.0.pop_front()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Walk {
    fn new(devices: Option<Vec<DeviceId>>) -> Self {
        let devices = devices.map(|mut devices| {
            devices.sort();
            devices.into()
        });
        Self { devices, next: 1, shown: Vec::new() }
    }

    pub(super) fn covers(&self, device: DeviceId) -> bool {
        self.devices.as_ref().is_none_or(|devices| devices.binary_search(&device).is_ok())
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

    /// Notes that everything up to this id was shown as it was at this position of the log.
    pub(super) fn note(&mut self, upto: u64, position: Seq) {
        match self.shown.last_mut() {
            Some((last, at)) if *at == position => *last = upto,
            Some(_) | None => self.shown.push((upto, position)),
        }
    }

    /// Tells whether what an event says was part of the snapshot.
    pub(super) fn has_shown(&self, device: DeviceId, id: u64, seq: Seq) -> bool {
        let shown = self.shown.iter().find(|(upto, _)| id <= *upto);
        self.covers(device) && shown.is_some_and(|(_, position)| seq <= *position)
    }

    /// Tells whether events after this position may have been part of the snapshot.
    pub(super) fn reaches_beyond(&self, position: Seq) -> bool {
        self.shown.last().is_some_and(|(_, shown)| *shown > position)
    }
}
