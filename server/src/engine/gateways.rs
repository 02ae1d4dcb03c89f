//! Which gateways are connected: a gateway that is gone for long takes its devices with it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::oneshot;
use valtronics_protocol::time::UnixMillis;

use super::TooManyNames;
use crate::{commit::RegisteredDevice, domain::status::COME_BACK, state::Device};

/// After how much silence a gateway counts as offline, where nothing else is said.
pub(super) const OFFLINE_AFTER: Duration = Duration::from_secs(45);

/// A gateway: the subject of its token, and its name.
pub(super) type GatewayKey = (Arc<str>, Arc<str>);

/// A gateway wants to connect.
pub struct AdmitGateway {
    /// The subject of its token.
    pub sub: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// How many gateways the subject may have.
    pub most: usize,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Result<(), TooManyNames>>,
}

/// The gateways that are connected, and those whose devices are not told yet that they are gone.
#[derive(Debug, Default)]
pub(super) struct Gateways(HashMap<GatewayKey, Gateway>);

#[derive(Debug)]
struct Gateway {
    connections: usize,
    /// Since when it has no connection.
    gone_at: UnixMillis,
    /// Before this, its absence means nothing: the server has just started.
    patient_until: UnixMillis,
}

impl Gateway {
    fn is_away(&self, now: UnixMillis) -> bool {
        self.connections == 0 && self.patient_until <= now
    }
}

impl Gateways {
    /// Begins with the gateways of known devices: each has time to come back.
    pub(super) fn restore(devices: &[Device], now: UnixMillis) -> Self {
        let mut gateways = Self::default();
        for device in devices {
            if let Some(name) = &device.registered.gateway {
                let key = (Arc::clone(&device.registered.sub), Arc::clone(name));
                gateways.find(key, now).patient_until = now.plus(COME_BACK);
            }
        }
        gateways
    }

    /// Takes in a gateway that will connect at once; a new one only where the subject may have one
    /// more.
    pub(super) fn admit(&mut self, request: AdmitGateway, now: UnixMillis) {
        let AdmitGateway { sub, name, most, answer } = request;
        let count = || self.0.keys().filter(|(of, _)| *of == sub).count();
        let key = (Arc::clone(&sub), name);
        let room = self.0.contains_key(&key) || count() < most;
        if room {
            self.find(key, now);
        }
        // Whoever asked may have gone.
        let _ = answer.send(room.then_some(()).ok_or(TooManyNames { kind: "gateway", most }));
    }

    fn find(&mut self, key: GatewayKey, now: UnixMillis) -> &mut Gateway {
        self.0.entry(key).or_insert(Gateway { connections: 0, gone_at: now, patient_until: now })
    }

    /// Notes a connection more or less; returns the gateway if that was the first one or the last.
    pub(super) fn set(
        &mut self,
        sub: Arc<str>,
        name: Arc<str>,
        connected: bool,
        now: UnixMillis,
    ) -> Option<GatewayKey> {
        let key = (sub, name);
        let gateway = self.find(key.clone(), now);
        if connected {
            gateway.patient_until = now;
            gateway.connections += 1;
            return (gateway.connections == 1).then_some(key);
        }
        gateway.connections = gateway.connections.saturating_sub(1);
        gateway.gone_at = now;
        (gateway.connections == 0).then_some(key)
    }

    /// Takes out the gateways that count as offline from now on; what is declared of a gateway is
    /// declared of its own device.
    pub(super) fn newly_gone(&mut self, devices: &[Device], now: UnixMillis) -> Vec<GatewayKey> {
        if !self.0.values().any(|gateway| gateway.is_away(now)) {
            return Vec::new();
        }
        // Once over all devices: when a site is cut off, many gateways are away at once.
        let declared = devices.iter().filter_map(|device| {
            let RegisteredDevice { sub, name, .. } = &device.registered;
            let offline_after = device.health.offline_after()?;
            Some(((Arc::clone(sub), Arc::clone(name)), offline_after))
        });
        let declared: HashMap<GatewayKey, Duration> =
            declared.filter(|(key, _)| self.0.contains_key(key)).collect();
        let gone = self.0.extract_if(|key, gateway| {
            let offline_after = declared.get(key).copied().unwrap_or(OFFLINE_AFTER);
            gateway.is_away(now) && now.since(gateway.gone_at) >= offline_after
        });
        gone.map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_is_gone_makes_room() {
        let (mut gateways, sub) = (Gateways::default(), Arc::<str>::from("site"));
        let admitted = |gateways: &mut Gateways, name: &str, now| {
            let (answer, mut answered) = oneshot::channel();
            let (sub, name) = (Arc::clone(&sub), name.into());
            gateways.admit(AdmitGateway { sub, name, most: 1, answer }, now);
            answered.try_recv().unwrap().is_ok()
        };
        let now = UnixMillis::default();
        assert!(admitted(&mut gateways, "one", now) && admitted(&mut gateways, "one", now));
        assert!(gateways.set("site".into(), "one".into(), true, now).is_some());
        let later = now.plus(OFFLINE_AFTER);
        assert!(gateways.newly_gone(&[], later).is_empty());
        assert!(!admitted(&mut gateways, "two", later));
        gateways.set("site".into(), "one".into(), false, later);
        assert!(!admitted(&mut gateways, "two", later));
        let gone = gateways.newly_gone(&[], later.plus(OFFLINE_AFTER));
        assert_eq!(gone, [("site".into(), "one".into())]);
        assert!(admitted(&mut gateways, "two", later));
    }
}
