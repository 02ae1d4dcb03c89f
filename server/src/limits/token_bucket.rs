//! How fast one connection may talk.

use std::time::Instant;

use super::MINUTE;

/// How many dropped messages a minute end a connection.
const FLOOD: u32 = 500;

/// How many messages a connection may send; the session asks for each, control frames included.
#[derive(Debug)]
pub struct TokenBucket {
    per_second: u32,
    tokens: f64,
    filled_at: Instant,
    dropped: u32,
    dropped_since: Instant,
}

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
