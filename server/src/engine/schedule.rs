//! When each device is to be looked at: silence does not report itself.

use std::collections::BTreeSet;

use valtronics_protocol::{id::DeviceId, time::UnixMillis};

use crate::state::Device;

/// The next look at each device: one entry a device.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    looks: BTreeSet<(UnixMillis, DeviceId)>,
    /// Where in `looks` a device stands, by its id.
    places: Vec<Option<UnixMillis>>,
}

impl Schedule {
    /// Begins with a look at each known device.
    pub(super) fn of(devices: &[Device], now: UnixMillis) -> Self {
        let mut schedule = Self::default();
        devices.iter().for_each(|device| schedule.look_by(device.id(), now));
        schedule
    }

    /// Has a device looked at by then, if not before.
    pub(super) fn look_by(&mut self, device: DeviceId, at: UnixMillis) {
        let index = usize::try_from(device.0).expect("devices are held in memory");
        if self.places.len() <= index {
            self.places.resize(index + 1, None);
        }
        let Some(place) = self.places.get_mut(index) else { return };
        if place.is_none_or(|known| at < known) {
            place.take().map(|known| self.looks.remove(&(known, device)));
            *place = Some(at);
            self.looks.insert((at, device));
        }
    }

    /// Takes out a device that is to be looked at by now.
    pub(super) fn take_due(&mut self, now: UnixMillis) -> Option<DeviceId> {
        let entry = self.looks.first().copied().filter(|(at, _)| *at <= now)?;
        self.looks.remove(&entry);
        let (_, device) = entry;
        let index = usize::try_from(device.0).ok()?;
        self.places.get_mut(index).and_then(Option::take);
        Some(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_is_looked_at_once_at_its_earliest_moment() {
        let mut schedule = Schedule::default();
        for (device, at) in [(1, 50), (2, 20), (1, 10), (1, 30), (2, 20)] {
            schedule.look_by(DeviceId(device), UnixMillis(at));
        }
        assert_eq!(schedule.take_due(UnixMillis(9)), None);
        assert_eq!(schedule.take_due(UnixMillis(25)), Some(DeviceId(1)));
        assert_eq!(schedule.take_due(UnixMillis(25)), Some(DeviceId(2)));
        assert_eq!(schedule.take_due(UnixMillis::MAX), None);
        schedule.look_by(DeviceId(1), UnixMillis(60));
        assert_eq!(schedule.take_due(UnixMillis(60)), Some(DeviceId(1)), "and again");
    }
}
