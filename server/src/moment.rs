//! Moments as requests and commands name them: RFC 3339, or so long before now (`-24h`).

use valtronics_protocol::time::{UnixMillis, parse_period};

/// What is right, for who got it wrong.
pub const FORM: &str = "RFC 3339, or a period before now such as -24h";

/// Reads a moment; `None` when it has another form.
#[must_use]
pub fn parse(text: &str, now: UnixMillis) -> Option<UnixMillis> {
    match text.strip_prefix('-') {
        Some(period) => parse_period(period).ok().map(|period| now.minus(period)),
        None => text.parse().ok(),
    }
}
