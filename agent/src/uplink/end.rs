//! Why a connection to the server ends, and what its end asks for.

use std::{io, time::Duration};

use tokio_tungstenite::tungstenite::{self, protocol::CloseFrame};
use valtronics_protocol::close::CloseCode;

use crate::{dial::DialError, queue::keeper::Closed};

/// Why a connection has ended, or never began.
#[derive(Debug, thiserror::Error)]
pub enum End {
    /// Everything is committed and the agent stops.
    #[error("stopped")]
    Stopped,
    /// The token is no good.
    #[error("the server refuses the token: {0}")]
    Refused(String),
    /// Another agent uses the same numbering.
    #[error("another agent uses this queue, so it goes on under a new id: {0}")]
    QueueTaken(String),
    /// The server asks for a pause.
    #[error("the server asks to come back in {} s", .0.as_secs())]
    Limited(Duration),
    /// The server has closed the connection.
    #[error("connection lost: {0}")]
    Lost(String),
    /// Nothing came for `DEAD_AFTER`.
    #[error("connection lost: the server is silent")]
    Silent,
    /// There is no token to show.
    #[error("cannot read {0}: {1}")]
    TokenFile(String, io::Error),
    /// The server cannot be reached.
    #[error(transparent)]
    Dial(DialError),
    /// The connection has broken.
    #[error("connection lost: {0}")]
    Socket(#[from] Box<tungstenite::Error>),
    /// The queue is closed.
    #[error(transparent)]
    Queue(#[from] Closed),
}

impl From<tungstenite::Error> for End {
    fn from(error: tungstenite::Error) -> Self {
        Self::Socket(Box::new(error))
    }
}

impl From<DialError> for End {
    fn from(error: DialError) -> Self {
        let asked = match &error {
            DialError::Handshake(error) => retry_after_header(error),
            _ => None,
        };
        asked.map_or(Self::Dial(error), Self::Limited)
    }
}

/// Reads what a close frame asks for.
pub(super) fn closed(frame: Option<CloseFrame>) -> End {
    let Some(CloseFrame { code, reason }) = frame else {
        return End::Lost("the server has closed it".into());
    };
    let is = |own: CloseCode| u16::from(code) == own.as_u16();
    if is(CloseCode::InvalidToken) || is(CloseCode::Forbidden) && !names_queue(&reason) {
        return End::Refused(reason.to_string());
    }
    if is(CloseCode::Forbidden) {
        return End::QueueTaken(reason.to_string());
    }
    if is(CloseCode::Limited) {
        return End::Limited(asked_pause(&reason));
    }
    End::Lost(format!("{} {reason}", u16::from(code)))
}

/// A refusal of the numbering says so; any other is about the token.
pub(super) fn names_queue(reason: &str) -> bool {
    reason.contains("queue")
}

/// Reads `retry_after=SECONDS` in a close reason.
fn asked_pause(reason: &str) -> Duration {
    let digits = reason.split("retry_after=").nth(1).unwrap_or_default();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let seconds = digits.get(..end).and_then(|digits| digits.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

/// A server that is full says so before there is a WebSocket.
fn retry_after_header(error: &tungstenite::Error) -> Option<Duration> {
    let tungstenite::Error::Http(response) = error else {
        return None;
    };
    let seconds = response.headers().get(http::header::RETRY_AFTER)?;
    seconds.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::Utf8Bytes;

    use super::*;

    #[test]
    fn a_close_frame_says_what_to_do() {
        let check = |code: u16, reason: &'static str, expected: &str| {
            let frame = CloseFrame { code: code.into(), reason: Utf8Bytes::from_static(reason) };
            let end = format!("{:?}", closed(Some(frame)));
            assert!(end.starts_with(expected), "{code} {reason}: {end}");
        };
        check(4401, "expired", "Refused");
        check(4403, "the scope uplink is missing", "Refused");
        check(4403, "another connection uses this queue", "QueueTaken");
        check(4429, "retry_after=17", "Limited(17s)");
        check(4429, "limit; retry_after=3;", "Limited(3s)");
        check(4429, "", "Limited(0ns)");
        check(1001, "going away", "Lost");
    }
}
