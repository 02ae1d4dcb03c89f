//! What limits clients, and who may come in (WebSocket API, section 6).

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Deserializer, de};
use valtronics_protocol::{request::MessageLimits, time::period};

use crate::session::SessionLimits;

/// `[limits]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one user.
    pub connections_per_user: usize,
    /// New connections of one user in any minute.
    pub connects_per_minute: usize,
    /// Handshakes from one address in any minute that did not end in a successful `auth`.
    pub handshakes_per_minute_per_address: usize,
    /// Different bad tokens from one address in any minute.
    pub bad_tokens_per_minute: usize,
    /// How long a handshake may take.
    #[serde(with = "period")]
    pub handshake_within: Duration,
    /// How long `auth` may take.
    #[serde(with = "period")]
    pub auth_within: Duration,
    /// Messages of one connection.
    pub messages_per_second: u32,
    /// Bytes of one message.
    pub message_bytes: usize,
    /// Messages of one batch.
    pub batch_messages: usize,
    /// Keys of one connection.
    pub subscriptions: usize,
    /// What may wait for one connection.
    #[serde(deserialize_with = "size")]
    pub queue_bytes: usize,
    /// After how much silence the server pings.
    #[serde(with = "period")]
    pub ping_after: Duration,
    /// After how much silence the server ends a connection.
    #[serde(with = "period")]
    pub silence: Duration,
    /// Devices of one subject.
    pub devices_per_sub: usize,
    /// Metrics of one device.
    pub metrics_per_device: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections: 1000,
            connections_per_user: 100,
            connects_per_minute: 10,
            handshakes_per_minute_per_address: 60,
            bad_tokens_per_minute: 20,
            handshake_within: Duration::from_secs(5),
            auth_within: SessionLimits::DEFAULT.auth_within,
            messages_per_second: SessionLimits::DEFAULT.messages_per_second,
            message_bytes: MessageLimits::DEFAULT.message_bytes,
            batch_messages: MessageLimits::DEFAULT.batch_messages,
            subscriptions: 1000,
            queue_bytes: 1024 * 1024,
            ping_after: SessionLimits::DEFAULT.ping_after,
            silence: SessionLimits::DEFAULT.silence,
            devices_per_sub: 1000,
            metrics_per_device: 1000,
        }
    }
}

impl Config {
    /// Returns what limits one session.
    #[must_use]
    pub fn session(&self) -> SessionLimits {
        SessionLimits {
            message: MessageLimits {
                message_bytes: self.message_bytes,
                auth_bytes: MessageLimits::DEFAULT.auth_bytes.max(self.message_bytes),
                batch_messages: self.batch_messages,
            },
            messages_per_second: self.messages_per_second,
            auth_within: self.auth_within,
            ping_after: self.ping_after,
            silence: self.silence,
        }
    }
}

/// Reads a size: bytes, or a number with `KiB`, `MiB` or `GiB`.
fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Bytes(usize),
        Text(String),
    }
    let wanted = || de::Error::custom("a size is a number of bytes, or a text such as \"1MiB\"");
    let text = match Written::deserialize(deserializer).map_err(|_| wanted())? {
        Written::Bytes(bytes) => return Ok(bytes),
        Written::Text(text) => text,
    };
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let unit = units.into_iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, size)));
    let (number, unit) = unit.unwrap_or((&text, 1));
    let number: usize = number.trim().parse().map_err(|_| wanted())?;
    number.checked_mul(unit).ok_or_else(wanted)
}

/// Why somebody may not come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The server has as many connections as it may have.
    #[error("the server has as many connections as it may have")]
    Full,
    /// Too many handshakes from this address came to nothing.
    #[error("too many handshakes from this address came to nothing")]
    Address {
        /// When to come back.
        retry_after: u64,
    },
    /// The user has as many connections as one may have.
    #[error("this user has as many connections as one may have: close some")]
    UserFull,
    /// The user opens connections too fast.
    #[error("this user opens connections too fast")]
    UserRate {
        /// When to come back.
        retry_after: u64,
    },
}

impl Refused {
    /// Returns after how many seconds another attempt makes sense.
    #[must_use]
    pub fn retry_after_seconds(self) -> u64 {
        match self {
            Self::Full => 5,
            Self::UserFull => 60,
            Self::Address { retry_after } | Self::UserRate { retry_after } => retry_after,
        }
    }

    /// Returns the status that answers a handshake.
    #[must_use]
    pub fn http_status(self) -> u16 {
        if self == Self::Full { 503 } else { 429 }
    }
}

const MINUTE: Duration = Duration::from_secs(60);
/// How many addresses and users are remembered; beyond, those that are quiet are forgotten.
const MOST_REMEMBERED: usize = 100_000;

/// Who may come in.
///
/// A handshake calls [`Admission::open`], a good token [`Admission::authenticated`], and the end of
/// the connection [`Admission::close`], once each.
#[derive(Debug)]
pub struct Admission {
    config: Config,
    open: usize,
    users: HashMap<Arc<str>, User>,
    addresses: HashMap<IpAddr, VecDeque<Instant>>,
}

#[derive(Debug, Default)]
struct User {
    open: usize,
    accepted: VecDeque<Instant>,
}

impl Admission {
    /// Begins with nobody inside.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, open: 0, users: HashMap::new(), addresses: HashMap::new() }
    }

    /// Changes the limits for those who come from now on.
    pub fn set_limits(&mut self, config: Config) {
        self.config = config;
    }

    /// Counts a connection in.
    ///
    /// # Errors
    /// When there is no room, or too many handshakes from the address came to nothing.
    pub fn open(&mut self, address: IpAddr, now: Instant) -> Result<(), Refused> {
        if self.open >= self.config.connections {
            return Err(Refused::Full);
        }
        if self.addresses.len() >= MOST_REMEMBERED {
            self.addresses.retain(|_, recent| recent.back().is_some_and(|at| *at + MINUTE > now));
        }
        let recent = self.addresses.entry(prefix(address)).or_default();
        forget(recent, now);
        if recent.len() >= self.config.handshakes_per_minute_per_address {
            return Err(Refused::Address { retry_after: wait(recent, now) });
        }
        recent.push_back(now);
        self.open += 1;
        Ok(())
    }

    /// Counts a user's connection in.
    ///
    /// # Errors
    /// When the user has as many as he may have, or opens them too fast.
    pub fn authenticated(
        &mut self,
        address: IpAddr,
        user: &Arc<str>,
        now: Instant,
    ) -> Result<(), Refused> {
        self.succeeded(address);
        if self.users.len() >= MOST_REMEMBERED {
            let busy = |user: &User| user.accepted.back().is_some_and(|at| *at + MINUTE > now);
            self.users.retain(|_, user| user.open > 0 || busy(user));
        }
        let known = self.users.entry(Arc::clone(user)).or_default();
        if known.open >= self.config.connections_per_user {
            return Err(Refused::UserFull);
        }
        forget(&mut known.accepted, now);
        if known.accepted.len() >= self.config.connects_per_minute {
            return Err(Refused::UserRate { retry_after: wait(&known.accepted, now) });
        }
        known.open += 1;
        known.accepted.push_back(now);
        Ok(())
    }

    /// Notes that a handshake of the address came to something.
    pub fn succeeded(&mut self, address: IpAddr) {
        if let Some(recent) = self.addresses.get_mut(&prefix(address)) {
            recent.pop_back();
        }
    }

    /// Counts a connection out, and the user's if it was one's.
    pub fn close(&mut self, user: Option<&str>) {
        self.open = self.open.saturating_sub(1);
        if let Some(known) = user.and_then(|user| self.users.get_mut(user)) {
            known.open = known.open.saturating_sub(1);
        }
    }
}

/// An IPv6 host has a /64 for itself.
fn prefix(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
    }
}

fn forget(recent: &mut VecDeque<Instant>, now: Instant) {
    while recent.front().is_some_and(|at| *at + MINUTE <= now) {
        recent.pop_front();
    }
}

/// Returns in how many seconds the oldest leaves the window.
fn wait(recent: &VecDeque<Instant>, now: Instant) -> u64 {
    let left = recent.front().map(|at| (*at + MINUTE).saturating_duration_since(now));
    left.unwrap_or_default().as_secs() + 1
}

/// How many messages a connection may send.
#[derive(Debug)]
pub struct TokenBucket {
    per_second: u32,
    tokens: f64,
    filled_at: Instant,
    dropped: u32,
    dropped_since: Instant,
}

/// How many dropped messages a minute end a connection.
const FLOOD: u32 = 500;

impl TokenBucket {
    /// Begins full.
    #[must_use]
    pub fn new(per_second: u32, now: Instant) -> Self {
        let tokens = f64::from(per_second);
        Self { per_second, tokens, filled_at: now, dropped: 0, dropped_since: now }
    }

    /// Takes one; false when there is none.
    pub fn take(&mut self, now: Instant) -> bool {
        let rate = f64::from(self.per_second);
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + passed * rate).min(rate);
        self.filled_at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return true;
        }
        if self.dropped_since + MINUTE <= now {
            (self.dropped, self.dropped_since) = (0, now);
        }
        self.dropped += 1;
        false
    }

    /// Tells whether more were dropped in this minute than a client in good faith sends.
    #[must_use]
    pub fn is_flooded(&self) -> bool {
        self.dropped > FLOOD
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(config: Config) -> (Admission, Instant, IpAddr, Arc<str>) {
        let address = "192.0.2.1".parse().unwrap();
        (Admission::new(config), crate::clock::instant(), address, "ops".into())
    }

    #[test]
    fn a_user_opens_ten_a_minute_and_is_told_when_to_come_back() {
        let (mut admission, now, address, user) = admission(Config::default());
        for second in 0..10 {
            let at = now + Duration::from_secs(second);
            admission.open(address, at).unwrap();
            admission.authenticated(address, &user, at).unwrap();
        }
        let at = now + Duration::from_secs(10);
        admission.open(address, at).unwrap();
        let refused = admission.authenticated(address, &user, at);
        assert_eq!(refused, Err(Refused::UserRate { retry_after: 51 }));
        let later = now + MINUTE;
        assert_eq!(admission.authenticated(address, &user, later), Ok(()));
        assert!(admission.authenticated(address, &user, later).is_err());
    }

    #[test]
    fn room_comes_back_when_connections_end() {
        let config = Config { connections: 2, connections_per_user: 1, ..Config::default() };
        let (mut admission, now, address, user) = admission(config);
        admission.open(address, now).unwrap();
        admission.authenticated(address, &user, now).unwrap();
        admission.open(address, now).unwrap();
        assert_eq!(admission.authenticated(address, &user, now), Err(Refused::UserFull));
        assert_eq!(admission.open(address, now), Err(Refused::Full));
        admission.close(Some(&user));
        admission.open(address, now).unwrap();
        assert_eq!(admission.authenticated(address, &user, now), Ok(()));
    }

    #[test]
    fn handshakes_that_come_to_nothing_count_by_address() {
        let config = Config { handshakes_per_minute_per_address: 3, ..Config::default() };
        let (mut admission, now, _, user) = admission(config);
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let neighbour: IpAddr = "2001:db8::2".parse().unwrap();
        for _ in 0..5 {
            admission.open(one, now).unwrap();
            admission.authenticated(one, &user, now).unwrap();
        }
        for _ in 0..3 {
            admission.open(one, now).unwrap();
        }
        assert_eq!(admission.open(neighbour, now), Err(Refused::Address { retry_after: 61 }));
        assert_eq!(admission.open(neighbour, now + MINUTE), Ok(()));
    }

    #[test]
    fn a_bucket_refills_and_notices_a_flood() {
        let now = crate::clock::instant();
        let mut bucket = TokenBucket::new(100, now);
        assert_eq!((0..150).filter(|_| bucket.take(now)).count(), 100);
        let later = now + Duration::from_millis(500);
        assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 50);
        assert!(!bucket.is_flooded());
        assert!((0..500).all(|_| !bucket.take(later)));
        assert!(bucket.is_flooded());
    }
}
