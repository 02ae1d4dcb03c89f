//! Which devices a connection may see, as its token is now.
//!
//! Patterns are slow to match, and subscribing needs the answer for every device: each is judged
//! once, when the token comes or when the device comes into being.

use valtronics_protocol::id::DeviceId;

use crate::{
    auth::DeviceGrant,
    state::{Device, State},
};

/// What a token lets a connection see.
#[derive(Debug)]
pub(super) struct Sight {
    grant: DeviceGrant,
    /// The devices that a narrow token covers, ascending; not more than there are devices.
    seen: Vec<DeviceId>,
}

impl Sight {
    /// Judges every device that there is.
    pub(super) fn new(grant: DeviceGrant, state: &State) -> Self {
        let mut sight = Self { grant, seen: Vec::new() };
        state.devices().iter().for_each(|device| sight.appeared(device));
        sight
    }

    /// Returns what the token says.
    pub(super) fn grant(&self) -> &DeviceGrant {
        &self.grant
    }

    /// Judges a device that has just come into being: its id is the highest.
    pub(super) fn appeared(&mut self, device: &Device) {
        let narrow = !self.grant.is_all();
        if narrow && self.grant.allows(device.id(), &device.registered.name, &device.key) {
            self.seen.push(device.id());
        }
    }

    /// Tells whether a device that exists is seen.
    pub(super) fn sees(&self, device: DeviceId) -> bool {
        self.grant.is_all() || self.seen.binary_search(&device).is_ok()
    }

    /// Tells whether a device that does not exist yet may be asked for.
    pub(super) fn may_come(&self, device: DeviceId) -> bool {
        self.grant.knows_id(device)
    }

    /// Lists what a narrow token sees; `None` is everything.
    pub(super) fn narrowed_to(&self) -> Option<&[DeviceId]> {
        (!self.grant.is_all()).then_some(&*self.seen)
    }
}
