//! Who may come in, and how soon one who was refused is answered.

use std::{
    collections::hash_map::RandomState,
    hash::BuildHasher as _,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use valtronics_protocol::error::TokenFault;

use super::{
    Config, MINUTE,
    recent::{Fading, Moments, Remembered, seconds_until},
};

/// How long the answer waits the first, second, ... time that a refusal repeats within a minute.
const REPEATED: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// Why somebody may not come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The server has as many connections as it may have.
    #[error("the server has as many connections as it may have")]
    Full,
    /// Too many handshakes from this address came to nothing, or brought bad tokens.
    #[error("too many attempts from this address came to nothing")]
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

/// Who may come in.
///
/// | who | calls |
/// | --- | --- |
/// | a handshake on `/ws*`, first | [`Admission::may_subscribe`] |
/// | every handshake | [`Admission::open`] |
/// | a subscriber's first good token | [`Admission::authenticated`] |
/// | an agent's good token | [`Admission::succeeded`] |
/// | a bad token, before it is answered | [`Admission::refused_token`] |
/// | an answer with 4429, before it is given | [`Admission::refused_user`] |
/// | the end of a connection, once for each `open` | [`Admission::close`] |
///
/// The first good token, `open` and `close` are called by [`crate::session::Entry`], which forgets no
/// `close`.
///
/// The answer to a refusal waits as long as the two `refused_` say, with the connection's deadline
/// for `auth` put off: it has been met.
#[derive(Debug)]
pub struct Admission {
    config: Config,
    open: usize,
    users: Remembered<Arc<str>, User>,
    addresses: Remembered<IpAddr, Address>,
    /// Refusals by a hash with a key of this process: no token is kept.
    refusals: Remembered<u64, Refusal>,
    hashing: RandomState,
}

#[derive(Debug, Default)]
struct User {
    open: usize,
    accepted: Moments,
}

#[derive(Debug, Default)]
struct Address {
    handshakes: Moments,
    /// Different tokens of the last minute, at most as many as are allowed.
    bad_tokens: Vec<(Instant, u64)>,
    shut_until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Refusal {
    last: Option<Instant>,
    repeated: usize,
}

impl Fading for User {
    fn is_live(&self, now: Instant) -> bool {
        self.open > 0 || self.accepted.is_live(now)
    }
}

impl Fading for Address {
    fn is_live(&self, now: Instant) -> bool {
        self.handshakes.is_live(now)
            || self.bad_tokens.last().is_some_and(|(at, _)| *at + MINUTE > now)
            || self.shut_until.is_some_and(|until| until > now)
    }
}

impl Fading for Refusal {
    fn is_live(&self, now: Instant) -> bool {
        self.last.is_some_and(|at| at + MINUTE > now)
    }
}

impl Admission {
    /// Begins with nobody inside.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            open: 0,
            users: Remembered::new(),
            addresses: Remembered::new(),
            refusals: Remembered::new(),
            hashing: RandomState::new(),
        }
    }

    /// Changes the limits for those who come from now on.
    pub fn set_limits(&mut self, config: Config) {
        self.config = config;
    }

    /// Returns how many names of queues and of gateways a subject may have.
    #[must_use]
    pub fn names_per_sub(&self) -> (usize, usize) {
        (self.config.queues_per_sub, self.config.gateways_per_sub)
    }

    /// Tells whether an address may come to subscribe.
    ///
    /// # Errors
    /// When it has brought too many bad tokens.
    pub fn may_subscribe(&mut self, address: IpAddr, now: Instant) -> Result<(), Refused> {
        let known = self.addresses.get_mut(&prefix(address));
        match known.and_then(|known| known.shut_until).filter(|until| *until > now) {
            Some(until) => Err(Refused::Address { retry_after: seconds_until(until, now) }),
            None => Ok(()),
        }
    }

    /// Counts a connection in.
    ///
    /// # Errors
    /// When there is no room, or too many handshakes from the address came to nothing.
    pub fn open(&mut self, address: IpAddr, now: Instant) -> Result<(), Refused> {
        if self.open >= self.config.connections {
            return Err(Refused::Full);
        }
        if let Some(known) = self.addresses.entry(prefix(address), now) {
            let handshakes = &mut known.handshakes;
            if handshakes.count(now) >= self.config.handshakes_per_minute_per_address {
                return Err(Refused::Address { retry_after: handshakes.retry_after(now) });
            }
            handshakes.push(now);
        }
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
        if let Some(known) = self.users.entry(Arc::clone(user), now) {
            if known.open >= self.config.connections_per_user {
                return Err(Refused::UserFull);
            }
            if known.accepted.count(now) >= self.config.connects_per_minute {
                return Err(Refused::UserRate { retry_after: known.accepted.retry_after(now) });
            }
            known.open += 1;
            known.accepted.push(now);
        }
        self.succeeded(address);
        Ok(())
    }

    /// Notes that a handshake of the address came to something.
    pub fn succeeded(&mut self, address: IpAddr) {
        if let Some(known) = self.addresses.get_mut(&prefix(address)) {
            known.handshakes.pop();
        }
    }

    /// Notes a bad token; returns how long its answer waits.
    ///
    /// Only who tries different tokens that nobody signed is shut out; who forgot to renew his
    /// token is slowed down.
    pub fn refused_token(
        &mut self,
        address: IpAddr,
        token: &str,
        fault: TokenFault,
        now: Instant,
    ) -> Duration {
        if fault == TokenFault::Missing {
            return Duration::ZERO;
        }
        let token = self.hashing.hash_one(("token", prefix(address), token));
        if matches!(fault, TokenFault::Malformed | TokenFault::Signature)
            && let Some(known) = self.addresses.entry(prefix(address), now)
        {
            known.bad_token(token, self.config.bad_tokens_per_minute, now);
        }
        self.repeated(token, now)
    }

    /// Notes that a user was refused by a limit; returns how long the answer waits.
    pub fn refused_user(&mut self, address: IpAddr, user: &str, now: Instant) -> Duration {
        self.repeated(self.hashing.hash_one(("user", prefix(address), user)), now)
    }

    fn repeated(&mut self, refused: u64, now: Instant) -> Duration {
        let Some(known) = self.refusals.entry(refused, now) else { return Duration::ZERO };
        let before = std::mem::replace(&mut known.repeated, 0);
        if known.last.replace(now).is_none_or(|last| last + MINUTE <= now) {
            return Duration::ZERO;
        }
        known.repeated = (before + 1).min(REPEATED.len());
        REPEATED.get(known.repeated - 1).copied().unwrap_or_default()
    }

    /// Counts a connection out, and the user's if it was one's.
    pub fn close(&mut self, user: Option<&str>) {
        self.open = self.open.saturating_sub(1);
        if let Some(known) = user.and_then(|user| self.users.get_mut(user)) {
            known.open = known.open.saturating_sub(1);
        }
    }
}

impl Address {
    fn bad_token(&mut self, token: u64, most: usize, now: Instant) {
        self.bad_tokens.retain(|(at, _)| *at + MINUTE > now);
        if self.bad_tokens.iter().any(|(_, known)| *known == token) {
            return;
        }
        if self.bad_tokens.len() >= most {
            self.bad_tokens.clear();
            self.shut_until = Some(now + MINUTE);
            return;
        }
        self.bad_tokens.push((now, token));
    }
}

/// An IPv6 host has a /64 for itself; an IPv4 one is the same however it is written.
fn prefix(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
    }
}
