//! One connection, as others see it while it lives.

use std::{
    net::IpAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU16, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use valtronics_protocol::{filter::Channel, time::UnixMillis};

use super::{figures::Figures, head};
use crate::{
    clock,
    hub::SessionId,
    outbox::{Depth, Outbox},
    socket::{Incoming, Message, Opcode},
};

/// Where the lines of connections go whose log level is raised; its own level is always on.
pub const MESSAGES_TARGET: &str = "valtronics_server::messages";

/// What stands for a close frame without a code, and for an end without a close frame (RFC 6455,
/// section 7.4.1); never on the wire.
const NO_CODE: u16 = 1005;
const ABNORMAL: u16 = 1006;

/// What a connection is there for.
#[derive(Debug)]
pub enum Role {
    /// A subscriber, and what waits for him.
    Subscriber(Arc<Outbox>),
    /// An agent.
    Uplink,
}

/// One connection, as others may see it.
#[derive(Debug)]
pub struct Connection {
    /// Its name.
    pub id: SessionId,
    /// The client's address.
    pub address: IpAddr,
    /// What it is there for.
    pub role: Role,
    /// When its handshake was done.
    pub connected_at: UnixMillis,
    /// What it has carried.
    pub figures: Figures,
    since: Instant,
    user: OnceLock<Arc<str>>,
    clock_offset_ms: OnceLock<i64>,
    /// The code of the first close frame, either way; 0 before.
    closed_by: AtomicU16,
    /// Until when its messages are logged, in milliseconds of its life; 0 is not at all.
    logged_until_ms: AtomicU64,
}

impl Connection {
    /// Begins with a connection whose handshake is done.
    pub(super) fn new(id: SessionId, address: IpAddr, role: Role) -> Self {
        Self {
            id,
            address,
            role,
            connected_at: clock::now(),
            figures: Figures::default(),
            since: clock::instant(),
            user: OnceLock::new(),
            clock_offset_ms: OnceLock::new(),
            closed_by: AtomicU16::new(0),
            logged_until_ms: AtomicU64::new(0),
        }
    }

    /// Returns who has authenticated.
    #[must_use]
    pub fn user(&self) -> Option<&Arc<str>> {
        self.user.get()
    }

    /// Notes who has authenticated; later tokens are the same user's.
    pub fn authenticated(&self, user: &Arc<str>) {
        self.user.get_or_init(|| Arc::clone(user));
    }

    /// Returns by how many milliseconds the gateway's clock was ahead of the server's when it
    /// introduced itself, give or take the way of its message; `None` of others.
    #[must_use]
    pub fn clock_offset_ms(&self) -> Option<i64> {
        self.clock_offset_ms.get().copied()
    }

    /// Notes what the gateway's clock says now.
    pub fn read_clock(&self, theirs: UnixMillis) {
        self.clock_offset_ms.get_or_init(|| theirs.0.saturating_sub(clock::now().0));
    }

    /// Returns for how long it has been open.
    #[must_use]
    pub fn age(&self) -> Duration {
        clock::instant().saturating_duration_since(self.since)
    }

    /// Returns what waits for a subscriber; `None` for others.
    #[must_use]
    pub fn depth(&self) -> Option<Depth> {
        match &self.role {
            Role::Subscriber(outbox) => Some(outbox.depth()),
            Role::Uplink => None,
        }
    }

    /// Logs each message from now on for so long; zero ends it.
    pub fn log_for(&self, period: Duration) {
        let until = if period.is_zero() { Duration::ZERO } else { self.age() + period };
        let until = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.logged_until_ms.store(until, Ordering::Relaxed);
    }

    /// Tells whether each message is logged.
    #[must_use]
    pub fn is_logged(&self) -> bool {
        let until = self.logged_until_ms.load(Ordering::Relaxed);
        until != 0 && self.age().as_millis() < u128::from(until)
    }

    /// Counts a message from the client.
    pub fn received(&self, message: &Incoming) {
        let (opcode, payload) = (message.opcode(), message.payload());
        if opcode.is_data() {
            self.figures.received.add(payload.len());
        }
        self.passed("received", opcode, payload);
    }

    /// Counts a message to the client.
    pub fn sent(&self, message: &Message) {
        let opcode = message.opcode();
        if opcode.is_data() {
            self.figures.sent(message.channel()).add(message.size());
        }
        self.passed("sent", opcode, message.payload());
    }

    fn passed(&self, direction: &'static str, opcode: Opcode, payload: &[u8]) {
        match opcode {
            Opcode::Text | Opcode::Binary => {}
            Opcode::Close => {
                let code = payload.first_chunk().copied().map_or(NO_CODE, u16::from_be_bytes);
                // The first one ends it, the other is the answer.
                let relaxed = Ordering::Relaxed;
                let _ = self.closed_by.compare_exchange(0, code, relaxed, relaxed);
            }
            Opcode::Ping | Opcode::Pong | Opcode::Continuation => return,
        }
        if self.is_logged() {
            self.log(direction, opcode, payload);
        }
    }

    /// Returns by which code it was closed, as it is counted.
    pub(super) fn close_code(&self) -> u16 {
        match self.closed_by.load(Ordering::Relaxed) {
            0 => ABNORMAL,
            code @ (1000..=1011 | 4401 | 4403 | 4408 | 4413 | 4429) => code,
            // A client may send any code: what no program of ours sends counts as one.
            _ => 0,
        }
    }

    /// Writes one line: what a message is, never what it says.
    fn log(&self, direction: &'static str, opcode: Opcode, payload: &[u8]) {
        let head = head::read(opcode, payload);
        tracing::debug!(
            target: MESSAGES_TARGET,
            connection = self.id.0,
            direction,
            "type" = head.kind,
            size = payload.len(),
            channel = head.channel.map(Channel::as_str),
        );
    }
}
