//! What the server answers to the requests of a subscriber (WebSocket API, section 2).
//!
//! The failure of an `auth`, `subscribe` or `unsubscribe` is that request's response with
//! `success: false`; any other failure is [`Response::Error`].

use serde::Serialize;

use crate::{
    error::{ErrorCode, TokenFault},
    filter::{Channel, Filters},
    id::Seq,
    request::{Kind, MessageId},
    time::UnixMillis,
};

/// A message to one connection about its own requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Response {
    /// To `auth`.
    AuthResponse(AuthResponse),
    /// To `subscribe`; without `id` also to what the endpoint or a new token did by itself.
    SubscribeResponse(SubscribeResponse),
    /// To `unsubscribe`.
    UnsubscribeResponse(UnsubscribeResponse),
    /// To `ping`.
    Pong(Pong),
    /// The token expires soon: send `auth` with a new one.
    AuthExpiring {
        /// When it expires.
        expires_at: UnixMillis,
    },
    /// A request was not handled.
    Error(Failure),
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    /// Why not, as a code.
    pub error: ErrorCode,
    /// Why not, as one sentence that says what to do.
    pub message: String,
    /// What is wrong with the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<TokenFault>,
    /// After how many seconds another attempt makes sense.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
    /// The channel that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// The request's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<MessageId>,
}

/// The answer to `auth`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AuthResponse {
    /// Whether the connection may go on.
    pub success: bool,
    /// The token's subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// When the token expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixMillis>,
    /// The scopes that the token came to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<&'static str>>,
    /// Why not.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The request's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<MessageId>,
}

/// The answer to `subscribe`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SubscribeResponse {
    /// Whether the subscription stands.
    pub success: bool,
    /// The channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
    /// What the server understood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filters: Option<Filters>,
    /// The channel's last event at this moment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<Seq>,
    /// The id of the log in which `seq` counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// Whether every event after `since` follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed: Option<bool>,
    /// Why not.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The request's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<MessageId>,
}

/// The answer to `unsubscribe`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct UnsubscribeResponse {
    /// Whether nothing of it is subscribed any more.
    pub success: bool,
    /// The channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
    /// Why not.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// The request's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<MessageId>,
}

/// The answer to `ping`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pong {
    /// What the request carried, byte for byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// The server's clock.
    pub server_time: UnixMillis,
    /// The request's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<MessageId>,
}

impl Failure {
    /// Makes a failure of a code and a sentence.
    pub fn new(error: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            error,
            message: message.into(),
            reason: None,
            retry_after: None,
            channel: None,
            id: None,
        }
    }
}

impl Response {
    /// Makes the answer that a request of this kind gets when it fails.
    #[must_use]
    pub fn failed(kind: Kind, failure: Failure) -> Self {
        match kind {
            Kind::Auth => Self::AuthResponse(AuthResponse {
                failure: Some(failure),
                ..AuthResponse::default()
            }),
            Kind::Subscribe => Self::SubscribeResponse(SubscribeResponse {
                failure: Some(failure),
                ..SubscribeResponse::default()
            }),
            Kind::Unsubscribe => Self::UnsubscribeResponse(UnsubscribeResponse {
                failure: Some(failure),
                ..UnsubscribeResponse::default()
            }),
            Kind::Other => Self::Error(failure),
        }
    }
}
