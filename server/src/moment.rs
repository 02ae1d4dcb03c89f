//! Moments as requests and commands name them: RFC 3339, or so long before now (`-24h`).

use std::{str::FromStr, time::Duration};

use valtronics_protocol::time::{UnixMillis, parse_period};

/// What is right, for who got it wrong.
pub const FORM: &str = "RFC 3339, or a period before now such as -24h";

/// A moment as it was named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// This one.
    At(UnixMillis),
    /// So long before now.
    Ago(Duration),
}

impl Moment {
    /// Returns which moment that is.
    #[must_use]
    pub fn at(self, now: UnixMillis) -> UnixMillis {
        match self {
            Self::At(at) => at,
            Self::Ago(period) => now.minus(period),
        }
    }
}

impl FromStr for Moment {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix('-') {
            Some(period) => parse_period(period).map(Self::Ago).map_err(|_| FORM),
            None => text.parse().map(Self::At).map_err(|_| FORM),
        }
    }
}
