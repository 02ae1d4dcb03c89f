//! Why the server ends a connection (WebSocket API, section 7, close codes).

/// A close code and whether coming back makes sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum CloseCode {
    /// Normal: come back as you like.
    Normal = 1000,
    /// The server is going away: come back after a random delay.
    GoingAway = 1001,
    /// Protocol violation: mend the client.
    Protocol = 1002,
    /// A text that is not UTF-8: mend the client.
    NotUtf8 = 1007,
    /// A frame too big: mend the client.
    TooBig = 1009,
    /// Internal error: come back, backing off.
    Internal = 1011,
    /// No valid token, or it expired: come back with a new token only.
    InvalidToken = 4401,
    /// Not allowed: do not come back.
    Forbidden = 4403,
    /// Too slow to authenticate, or silent: come back.
    TimedOut = 4408,
    /// Read too slowly for its alerts and status changes: come back with `since`.
    TooSlow = 4413,
    /// A limit; the reason holds `retry_after=SECONDS`: come back after that.
    Limited = 4429,
}

impl CloseCode {
    /// Returns the number on the wire.
    #[must_use]
    pub fn as_u16(self) -> u16 {
        self as u16
    }
}
