//! What the connections carry, for whoever watches the server: the metrics, the list of connections,
//! and the lines of those whose log level is raised.
//!
//! Each connection writes its own [`Figures`] and nobody else does, so counting is an addition
//! without a lock; whoever wants to know adds all of them up. What ended connections carried is
//! kept as a sum, so no total ever falls.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use crate::{hub::SessionId, outbox::Depth};

mod connection;
mod figures;
mod head;
mod refusals;

pub use connection::{Connection, MESSAGES_TARGET, Role};
pub use figures::{Count, Counter, Figures, Histogram, LATENCY_BOUNDS};
pub use refusals::Refusals;

/// Watches every WebSocket connection.
#[derive(Debug, Default)]
pub struct Monitor {
    /// Who was not let in.
    pub refusals: Refusals,
    /// Timestamps that came over HTTP, lay far ahead, and were replaced by the time of receipt.
    pub replaced_over_http: AtomicU64,
    registry: Mutex<Registry>,
}

#[derive(Debug, Default)]
struct Registry {
    open: BTreeMap<SessionId, Arc<Connection>>,
    ended: Sums,
}

/// The connections of one role, added up.
#[derive(Debug, Clone, Default)]
pub struct Sum {
    /// How many are open.
    pub open: u64,
    /// How many of those have authenticated.
    pub authenticated: u64,
    /// For how long those have been open, together.
    pub lived: Duration,
    /// How many there have been.
    pub accepted: u64,
    /// How many of those had authenticated.
    pub admitted: u64,
    /// What all of them have carried.
    pub figures: Figures,
    /// What waits for them, and what was merged away.
    pub depth: Depth,
}

/// All connections, added up.
#[derive(Debug, Clone, Default)]
pub struct Sums {
    /// Those of subscribers.
    pub subscribers: Sum,
    /// Those of agents.
    pub uplinks: Sum,
    /// How many ended by which close code: 1006 is without one, 0 is one of the client's own.
    pub closed: BTreeMap<u16, u64>,
}

/// A connection in the registry, for as long as this lives.
#[derive(Debug)]
pub struct Registered {
    connection: Arc<Connection>,
    monitor: Arc<Monitor>,
}

impl Monitor {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        // A panic while the lock is held leaves sums that are still sums.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a connection whose handshake is done.
    #[must_use]
    pub fn register(self: &Arc<Self>, id: SessionId, address: IpAddr, role: Role) -> Registered {
        let connection = Arc::new(Connection::new(id, address, role));
        self.registry().open.insert(id, Arc::clone(&connection));
        Registered { connection, monitor: Arc::clone(self) }
    }

    /// Adds everything up.
    #[must_use]
    pub fn sums(&self) -> Sums {
        let registry = self.registry();
        let mut sums = registry.ended.clone();
        for connection in registry.open.values() {
            let sum = sums.of(connection);
            sum.carry(connection);
            sum.open += 1;
            sum.depth.queued_bytes += connection.depth().unwrap_or_default().queued_bytes;
            if connection.user().is_some() {
                sum.authenticated += 1;
                sum.lived += connection.age();
            }
        }
        sums
    }

    /// Returns up to `most` open connections of subscribers from this one on, by their ids.
    #[must_use]
    pub fn subscribers(&self, from: SessionId, most: usize) -> Vec<Arc<Connection>> {
        let registry = self.registry();
        let open = registry.open.range(from..).map(|(_, connection)| connection);
        open.filter(|connection| matches!(connection.role, Role::Subscriber(_)))
            .take(most)
            .cloned()
            .collect()
    }

    /// Finds an open connection of a subscriber.
    #[must_use]
    pub fn subscriber(&self, id: SessionId) -> Option<Arc<Connection>> {
        self.subscribers(id, 1).pop().filter(|connection| connection.id == id)
    }
}

impl Sums {
    fn of(&mut self, connection: &Connection) -> &mut Sum {
        match connection.role {
            Role::Subscriber(_) => &mut self.subscribers,
            Role::Uplink => &mut self.uplinks,
        }
    }
}

impl Sum {
    /// Adds what a connection has carried.
    fn carry(&mut self, connection: &Connection) {
        self.accepted += 1;
        self.admitted += u64::from(connection.user().is_some());
        self.figures.absorb(&connection.figures);
        let depth = connection.depth().unwrap_or_default();
        self.depth.merged_telemetry += depth.merged_telemetry;
        self.depth.merged_system += depth.merged_system;
    }
}

impl Deref for Registered {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut registry = self.monitor.registry();
        registry.open.remove(&self.id);
        registry.ended.of(&self.connection).carry(&self.connection);
        *registry.ended.closed.entry(self.close_code()).or_default() += 1;
    }
}
