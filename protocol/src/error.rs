//! Why a request is refused, as the codes of the API (WebSocket API, section 7).

use serde::{Deserialize, Serialize};

/// A code that a program can act on; it stands in `error` of responses and `error` messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Not JSON (under CBOR: not CBOR), not the frame type of the format, or a key stands twice.
    InvalidJson,
    /// The message has no `type`.
    MissingType,
    /// The message's `type` is not one of the API.
    UnknownType,
    /// A field is missing or of the wrong type.
    InvalidMessage,
    /// The channel is not one of the API.
    UnknownChannel,
    /// A filter or an option cannot be understood.
    InvalidFilter,
    /// The endpoint carries another channel.
    ChannelNotAvailable,
    /// The connection has not authenticated yet.
    AuthRequired,
    /// Something is wrong with the token; `reason` says what.
    InvalidToken,
    /// The token does not allow this.
    Forbidden,
    /// Too many messages or connections; come back after `retry_after`.
    RateLimited,
    /// Too many connections; come back after `retry_after`.
    ConnectionLimit,
    /// Too many subscriptions on this connection.
    SubscriptionLimit,
    /// The message has too many bytes.
    MessageTooLarge,
    /// The batch has too many messages.
    BatchTooLarge,
    /// A batch stands in a batch.
    NestedBatch,
    /// The server failed.
    Internal,
}

/// What is wrong with a token; it stands in `reason` beside `invalid_token`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenFault {
    /// There is no token.
    Missing,
    /// It is no JWT.
    Malformed,
    /// No key of the server signed it.
    Signature,
    /// Its algorithm is not one of the server's keys.
    Algorithm,
    /// It has expired.
    Expired,
    /// It is not valid yet.
    NotYetValid,
    /// Another one issued it.
    Issuer,
    /// It is meant for another one.
    Audience,
    /// A claim is missing or of the wrong type.
    Claims,
}
