//! Which gateways are connected: a gateway that is gone for long takes its devices with it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use valtronics_protocol::time::UnixMillis;

use crate::state::Device;

/// After how much silence a gateway counts as offline, where nothing else is said.
pub(super) const OFFLINE_AFTER: Duration = Duration::from_secs(45);

/// A gateway: the subject of its token, and its name.
pub(super) type GatewayKey = (Arc<str>, Arc<str>);

/// The gateways that have ever connected.
#[derive(Debug, Default)]
pub(super) struct Gateways(HashMap<GatewayKey, Gateway>);

#[derive(Debug)]
struct Gateway {
    connections: usize,
    /// Since when it has no connection.
    gone_at: UnixMillis,
    announced: bool,
}

impl Gateways {
    /// Begins with the gateways of known devices: each has time to come back.
    pub(super) fn restore(devices: &[Device], now: UnixMillis) -> Self {
        let mut gateways = Self::default();
        for device in devices {
            if let Some(name) = &device.registered.gateway {
                let key = (Arc::clone(&device.registered.sub), Arc::clone(name));
                let gateway = Gateway { connections: 0, gone_at: now, announced: false };
                gateways.0.entry(key).or_insert(gateway);
            }
        }
        gateways
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
        let gateway = self.0.entry(key.clone()).or_insert(Gateway {
            connections: 0,
            gone_at: now,
            announced: false,
        });
        if connected {
            gateway.connections += 1;
            gateway.announced = false;
            return (gateway.connections == 1).then_some(key);
        }
        gateway.connections = gateway.connections.saturating_sub(1);
        gateway.gone_at = now;
        (gateway.connections == 0).then_some(key)
    }

    /// Returns the gateways that count as offline from now on.
    pub(super) fn newly_gone(
        &mut self,
        offline_after: impl Fn(&GatewayKey) -> Duration,
        now: UnixMillis,
    ) -> Vec<GatewayKey> {
        let mut gone = Vec::new();
        for (key, gateway) in &mut self.0 {
            let silent =
                gateway.connections == 0 && now.since(gateway.gone_at) >= offline_after(key);
            if silent && !gateway.announced {
                gateway.announced = true;
                gone.push(key.clone());
            }
        }
        gone
    }
}
