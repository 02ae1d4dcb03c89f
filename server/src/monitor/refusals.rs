//! Who was not let in: counted by reason, and logged so that nobody can fill the log.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

use crate::clock;

/// How often one address is logged at most (WebSocket API, section 9).
const LOG_EVERY: Duration = Duration::from_secs(1);
/// How many addresses are logged in one such period: an operator reads no more, and whoever has
/// many addresses fills no disk. Beyond, refusals are counted only.
const MOST_LOGGED: usize = 64;

/// The refused handshakes and `auth`s.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    handshakes: BTreeMap<String, u64>,
    auths: BTreeMap<String, u64>,
    logged_at: HashMap<IpAddr, Instant>,
}

impl Refusals {
    fn known(&self) -> MutexGuard<'_, Known> {
        // A panic while the lock is held leaves counts that are still counts.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a handshake was refused.
    pub fn handshake(&self, address: IpAddr, reason: &str) {
        let may_log = {
            let mut known = self.known();
            *known.handshakes.entry(reason.to_owned()).or_default() += 1;
            known.may_log(address, clock::instant())
        };
        if may_log {
            tracing::warn!(%address, reason, "refused a handshake");
        }
    }

    /// Notes that an `auth` was refused; the reason is an [`ErrorCode`] or a [`TokenFault`].
    ///
    /// [`ErrorCode`]: valtronics_protocol::error::ErrorCode
    /// [`TokenFault`]: valtronics_protocol::error::TokenFault
    pub fn auth(&self, address: IpAddr, sub: Option<&str>, reason: impl Serialize) {
        let name = serde_json::to_value(reason).ok();
        let reason = name.as_ref().and_then(|name| name.as_str()).unwrap_or("other");
        let may_log = {
            let mut known = self.known();
            *known.auths.entry(reason.to_owned()).or_default() += 1;
            known.may_log(address, clock::instant())
        };
        if may_log {
            tracing::warn!(%address, sub, reason, "refused an auth");
        }
    }

    /// Returns how many handshakes, and how many `auth`s, were refused for which reason.
    #[must_use]
    pub fn counts(&self) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
        let known = self.known();
        (known.handshakes.clone(), known.auths.clone())
    }
}

impl Known {
    fn may_log(&mut self, address: IpAddr, now: Instant) -> bool {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < LOG_EVERY;
        if self.logged_at.get(&address).is_some_and(recent) {
            return false;
        }
        if self.logged_at.len() >= MOST_LOGGED {
            self.logged_at.retain(|_, at| recent(at));
        }
        let room = self.logged_at.len() < MOST_LOGGED || self.logged_at.contains_key(&address);
        if room {
            self.logged_at.insert(address, now);
        }
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_logged_once_a_second_and_many_addresses_are_not_all_logged() {
        let (mut known, now) = (Known::default(), clock::instant());
        let address = |n: u32| IpAddr::from(std::net::Ipv4Addr::from_bits(n));
        assert!(known.may_log(address(0), now));
        assert!(!known.may_log(address(0), now + LOG_EVERY / 2));
        assert!(known.may_log(address(1), now));
        assert!(known.may_log(address(0), now + LOG_EVERY));
        let logged = (2..1000).filter(|n| known.may_log(address(*n), now + LOG_EVERY)).count();
        assert!(logged < MOST_LOGGED, "{logged}");
        assert!(known.may_log(address(5000), now + 2 * LOG_EVERY));
    }
}
