//! Who is there, as messages of a broker say it.

use std::{collections::HashMap, sync::Arc};

use valtronics_protocol::{event::Status, time::UnixMillis};

use super::{StatusChange, outlet::DEVICES};
use crate::describe::Presence;

/// What was said of devices on this connection.
#[derive(Debug, Default)]
pub(super) struct Attendance(HashMap<Arc<str>, bool>);

impl Attendance {
    /// Begins anew.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Makes status changes of what is said of devices, unless it was said before.
    pub(super) fn changes(&mut self, said: &[Presence], now: UnixMillis) -> Vec<StatusChange> {
        let mut changes = Vec::new();
        for Presence { device, is_there, topic } in said {
            let is_new = self.0.len() < DEVICES || self.0.contains_key(device);
            if !is_new || self.0.insert(Arc::clone(device), *is_there) == Some(*is_there) {
                continue;
            }
            let (status, word) = match is_there {
                true => (Status::Online, "online"),
                false => (Status::Offline, "offline"),
            };
            changes.push(StatusChange {
                device: Arc::clone(device),
                status,
                reason: format!("Reported {word} on MQTT topic {topic}"),
                timestamp: now,
            });
        }
        changes
    }
}
