//! When a connection has to do something although nothing came: its deadlines.
//!
//! Those of subscribers and of agents alike; pure, what is due comes out.

use std::time::{Duration, Instant};

use valtronics_protocol::{close::CloseCode, time::UnixMillis};

use crate::{auth::LEEWAY, session::SessionLimits};

/// How long before its expiry a client is told to renew its token.
const WARN_BEFORE: Duration = Duration::from_secs(60);

/// The deadlines of a connection.
#[derive(Debug)]
pub struct Timing {
    ping_after: Duration,
    silence: Duration,
    /// Until when it has to authenticate.
    authenticate_by: Option<Instant>,
    token: Option<Token>,
    heard_at: Instant,
    pinged: bool,
}

#[derive(Debug)]
struct Token {
    expires_at: UnixMillis,
    warn_at: Option<Instant>,
    end_at: Instant,
}

/// What is due.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// Ask for a sign of life.
    Ping,
    /// The token expires at this moment: ask for a new one.
    TokenExpires(UnixMillis),
    /// End the connection.
    End(CloseCode, &'static str),
}

impl Timing {
    /// Begins with a connection that has to authenticate.
    #[must_use]
    pub fn new(now: Instant, limits: &SessionLimits) -> Self {
        Self {
            ping_after: limits.ping_after,
            silence: limits.silence,
            authenticate_by: Some(now + limits.auth_within),
            token: None,
            heard_at: now,
            pinged: false,
        }
    }

    /// Notes that a token was taken.
    pub fn authenticated(&mut self, expires_at: UnixMillis, wall: UnixMillis, now: Instant) {
        self.authenticate_by = None;
        // A century is as good as for ever, and an `Instant` can hold it.
        let left = expires_at.since(wall).min(Duration::from_secs(100 * 365 * 86_400));
        let expired_for = wall.since(expires_at);
        let warn_at = Some(now + left.saturating_sub(WARN_BEFORE));
        let end_at = now + (left + LEEWAY).saturating_sub(expired_for);
        self.token = Some(Token { expires_at, warn_at, end_at });
    }

    /// Notes that the client has sent something.
    pub fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.pinged = false;
    }

    /// Returns when [`Timing::due`] is to be asked next.
    ///
    /// What the client sends may move it later; it is then asked in vain, once.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let quiet = if self.pinged { self.silence } else { self.ping_after.min(self.silence) };
        let token = self.token.as_ref().map(|token| token.warn_at.unwrap_or(token.end_at));
        let others = [self.authenticate_by, token].into_iter().flatten();
        others.fold(self.heard_at + quiet, Instant::min)
    }

    /// Returns what is due.
    pub fn due(&mut self, now: Instant) -> Option<Due> {
        if self.authenticate_by.is_some_and(|by| by <= now) {
            return Some(Due::End(CloseCode::TimedOut, "no auth within the time: send it first"));
        }
        if let Some(token) = &mut self.token {
            if token.warn_at.is_some_and(|at| at <= now) {
                token.warn_at = None;
                return Some(Due::TokenExpires(token.expires_at));
            }
            if token.end_at <= now {
                return Some(Due::End(CloseCode::InvalidToken, "the token has expired"));
            }
        }
        if self.heard_at + self.silence <= now {
            return Some(Due::End(CloseCode::TimedOut, "silent for too long"));
        }
        if !self.pinged && self.heard_at + self.ping_after <= now {
            self.pinged = true;
            return Some(Due::Ping);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: SessionLimits = SessionLimits::DEFAULT;

    #[test]
    fn a_silent_client_is_pinged_and_then_ended() {
        let start = crate::clock::instant();
        let mut timing = Timing::new(start, &LIMITS);
        timing.authenticated(UnixMillis(10_000_000), UnixMillis(0), start);
        assert_eq!(timing.deadline(), start + LIMITS.ping_after);
        assert_eq!(timing.due(start + LIMITS.ping_after), Some(Due::Ping));
        assert_eq!(timing.due(start + LIMITS.ping_after), None);
        assert_eq!(timing.deadline(), start + LIMITS.silence);
        let end = timing.due(start + LIMITS.silence);
        assert!(matches!(end, Some(Due::End(CloseCode::TimedOut, _))));
        timing.heard(start + LIMITS.silence);
        assert_eq!(timing.due(start + LIMITS.silence), None);
    }

    #[test]
    fn a_token_warns_once_and_ends_with_leeway() {
        let start = crate::clock::instant();
        let second = Duration::from_secs(1);
        let mut timing = Timing::new(start, &LIMITS);
        assert_eq!(timing.deadline(), start + LIMITS.auth_within);
        // Valid for two seconds: the warning is due at once.
        timing.authenticated(UnixMillis(2000), UnixMillis(0), start);
        assert_eq!(timing.due(start), Some(Due::TokenExpires(UnixMillis(2000))));
        assert_eq!(timing.due(start + 31 * second), Some(Due::Ping));
        let end = timing.due(start + 32 * second);
        assert!(matches!(end, Some(Due::End(CloseCode::InvalidToken, _))));
    }
}
