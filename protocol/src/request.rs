//! What a subscriber asks, read from one frame (WebSocket API, sections 2 and 3).
//!
//! A frame holds one message or a `batch` of them; each becomes a [`Message`] that knows how its
//! failure is to be answered, whatever is wrong with it.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::{
    cbor,
    error::{ErrorCode, TokenFault},
    filter::{self, Channel, Filters, InvalidFilter, Options},
    format::Format,
    id::DeviceId,
    response::Failure,
};

mod json;

/// What limits the messages of a subscriber (WebSocket API, section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageLimits {
    /// The most bytes of one message, or of one item of a batch.
    pub message_bytes: usize,
    /// The same of an `auth`, since real identity providers' tokens are larger.
    pub auth_bytes: usize,
    /// The most messages of a batch.
    pub batch_messages: usize,
}

impl MessageLimits {
    /// The documented limits.
    pub const DEFAULT: Self = Self { message_bytes: 1024, auth_bytes: 8192, batch_messages: 50 };
}

impl Default for MessageLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a request carries so that its answer can be told from others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum MessageId {
    /// At most 64 bytes.
    Text(String),
    /// An integer within 2^53.
    Number(i64),
}

/// The kinds of request that are answered each in its own way when they fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Answered by `auth_response`.
    Auth,
    /// Answered by `subscribe_response`.
    Subscribe,
    /// Answered by `unsubscribe_response`.
    Unsubscribe,
    /// Answered by `error`.
    Other,
}

/// What is asked.
#[derive(Clone, PartialEq)]
pub enum Request {
    /// Prove who you are.
    Auth(Result<String, TokenFault>),
    /// Send me this.
    Subscribe(Subscribe),
    /// Send me this no more.
    Unsubscribe(Unsubscribe),
    /// Are you there?
    Ping {
        /// Comes back byte for byte.
        timestamp: Option<String>,
    },
    /// The client met an error; the text is its description, cut to 512 bytes.
    ErrorReport(String),
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auth(_) => f.write_str("Auth(..)"),
            Self::Subscribe(subscribe) => subscribe.fmt(f),
            Self::Unsubscribe(unsubscribe) => unsubscribe.fmt(f),
            Self::Ping { timestamp } => f.debug_tuple("Ping").field(timestamp).finish(),
            Self::ErrorReport(text) => f.debug_tuple("ErrorReport").field(text).finish(),
        }
    }
}

/// A `subscribe`.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscribe {
    /// The channel.
    pub channel: Channel,
    /// What narrows it.
    pub filters: Filters,
    /// What shapes it.
    pub options: Options,
}

/// An `unsubscribe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// The channel.
    pub channel: Channel,
    /// These devices only; otherwise the whole channel.
    pub devices: Option<Vec<DeviceId>>,
}

/// One message of a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// What the answer carries back.
    pub id: Option<MessageId>,
    /// How a failure is answered.
    pub kind: Kind,
    /// The channel as it was written.
    pub channel: Option<String>,
    /// What is asked, or why it cannot be done.
    pub request: Result<Request, (ErrorCode, String)>,
}

impl Message {
    /// Makes the failure of this message, with what it carried.
    pub fn failure(&self, error: ErrorCode, message: impl Into<String>) -> Failure {
        Failure {
            channel: self.channel.clone(),
            id: self.id.clone(),
            ..Failure::new(error, message)
        }
    }

    fn unreadable(error: ErrorCode, why: impl Into<String>) -> Self {
        Self { id: None, kind: Kind::Other, channel: None, request: Err((error, why.into())) }
    }
}

/// Reads a text frame: its messages in order.
///
/// Never empty: a frame that cannot be read is one message that failed.
#[must_use]
pub fn parse(frame: &str, limits: &MessageLimits) -> Vec<Message> {
    parse_frame(json::read(frame), frame.len(), || json::item_sizes(frame), limits)
}

/// Reads a binary frame, which holds the same in CBOR.
///
/// A message has as many bytes as it stands with in the frame, tags included; so has an item of a
/// batch. Never empty, as above.
#[must_use]
pub fn parse_cbor(frame: &[u8], limits: &MessageLimits) -> Vec<Message> {
    let value = cbor::from_slice(frame).map_err(|malformed| malformed.to_string());
    parse_frame(value, frame.len(), || cbor::item_sizes(frame, "messages"), limits)
}

/// Makes the message that a frame of the other format's kind is: one that failed.
#[must_use]
pub fn misplaced(format: Format) -> Message {
    let why = match format {
        Format::Json => "a binary frame is not JSON: send text frames",
        Format::Cbor => "a text frame is not CBOR: send binary frames",
    };
    Message::unreadable(ErrorCode::InvalidJson, why)
}

const NO_OBJECT: &str = "a message is a map such as {\"type\":\"ping\"}";

fn parse_frame(
    value: Result<Json, String>,
    size: usize,
    item_sizes: impl FnOnce() -> Vec<usize>,
    limits: &MessageLimits,
) -> Vec<Message> {
    let map = match value {
        Ok(Json::Object(map)) => map,
        _ if size > limits.message_bytes => return vec![too_large(Kind::Other, limits)],
        Ok(_) => return vec![Message::unreadable(ErrorCode::InvalidJson, NO_OBJECT)],
        Err(why) => return vec![Message::unreadable(ErrorCode::InvalidJson, why)],
    };
    if is_batch(&map) {
        return parse_batch(map, item_sizes, limits);
    }
    vec![read(map, size, limits)]
}

fn is_batch(map: &Map<String, Json>) -> bool {
    map.get("type").and_then(Json::as_str) == Some("batch")
}

fn parse_batch(
    mut map: Map<String, Json>,
    sizes: impl FnOnce() -> Vec<usize>,
    limits: &MessageLimits,
) -> Vec<Message> {
    let messages = map.remove("messages");
    let refuse = |error, why: String| {
        let id = message_id(&map).unwrap_or_default();
        vec![Message { id, ..Message::unreadable(error, why) }]
    };
    let Some(Json::Array(messages)) = messages else {
        return refuse(ErrorCode::InvalidMessage, "messages is an array of messages".into());
    };
    if messages.is_empty() {
        return refuse(ErrorCode::InvalidMessage, "messages holds no message".into());
    }
    if messages.len() > limits.batch_messages {
        let why = format!("a batch holds at most {} messages", limits.batch_messages);
        return refuse(ErrorCode::BatchTooLarge, why);
    }
    let item = |(message, size)| match message {
        Json::Object(map) if is_batch(&map) => {
            let why = "a batch in a batch is not handled: send its messages by themselves";
            let id = message_id(&map).unwrap_or_default();
            Message { id, ..Message::unreadable(ErrorCode::NestedBatch, why) }
        }
        Json::Object(map) => read(map, size, limits),
        _ if size > limits.message_bytes => too_large(Kind::Other, limits),
        _ => Message::unreadable(ErrorCode::InvalidMessage, NO_OBJECT),
    };
    messages.into_iter().zip(sizes()).map(item).collect()
}

fn too_large(kind: Kind, limits: &MessageLimits) -> Message {
    let most = if kind == Kind::Auth { limits.auth_bytes } else { limits.message_bytes };
    let why = format!("a message has at most {most} bytes: split it, or send less");
    Message { kind, ..Message::unreadable(ErrorCode::MessageTooLarge, why) }
}

/// Reads one message that took `size` bytes in its frame.
fn read(map: Map<String, Json>, size: usize, limits: &MessageLimits) -> Message {
    let name = map.get("type").map(Json::as_str);
    let kind = match name {
        Some(Some("auth")) => Kind::Auth,
        Some(Some("subscribe")) => Kind::Subscribe,
        Some(Some("unsubscribe")) => Kind::Unsubscribe,
        _ => Kind::Other,
    };
    let (id, id_fault) = match message_id(&map) {
        Ok(id) => (id, None),
        Err(why) => (None, Some((ErrorCode::InvalidMessage, why.to_owned()))),
    };
    let channel = map.get("channel").and_then(Json::as_str);
    let channel = channel.filter(|name| name.len() <= 64).map(str::to_owned);
    let most = if kind == Kind::Auth { limits.auth_bytes } else { limits.message_bytes };
    if size > most {
        return Message { id, channel, ..too_large(kind, limits) };
    }
    let request = match (id_fault, name) {
        (Some(fault), _) => Err(fault),
        (None, None) => {
            Err((ErrorCode::MissingType, "a message needs a type, such as \"subscribe\"".into()))
        }
        (None, Some(None)) => Err((ErrorCode::InvalidMessage, "type is a text".into())),
        (None, Some(Some(name))) => request(name, &map),
    };
    Message { id, kind, channel, request }
}

fn request(name: &str, map: &Map<String, Json>) -> Result<Request, (ErrorCode, String)> {
    match name {
        "auth" => Ok(Request::Auth(match map.get("token") {
            None | Some(Json::Null) => Err(TokenFault::Missing),
            Some(Json::String(token)) => Ok(token.clone()),
            Some(_) => Err(TokenFault::Malformed),
        })),
        "subscribe" => {
            let channel = channel(map)?;
            let (filters, options) = filter::parse(channel, map).map_err(invalid_filter)?;
            Ok(Request::Subscribe(Subscribe { channel, filters, options }))
        }
        "unsubscribe" => {
            let channel = channel(map)?;
            let nested = map.get("filters").and_then(|filters| filters.get("device_id"));
            let devices = nested.or(map.get("device_id")).map(filter::device_ids).transpose();
            Ok(Request::Unsubscribe(Unsubscribe {
                channel,
                devices: devices.map_err(invalid_filter)?,
            }))
        }
        "ping" => match map.get("timestamp") {
            None => Ok(Request::Ping { timestamp: None }),
            Some(Json::String(text)) if text.len() <= 64 => {
                Ok(Request::Ping { timestamp: Some(text.clone()) })
            }
            Some(_) => {
                Err((ErrorCode::InvalidMessage, "timestamp is a text of at most 64 bytes".into()))
            }
        },
        "error_report" => {
            let error = map.get("error").map(|error| match error {
                Json::String(text) => text.clone(),
                other => other.to_string(),
            });
            error.map(|text| Request::ErrorReport(printable(&text))).ok_or_else(|| {
                (ErrorCode::InvalidMessage, "error_report needs error, a description".into())
            })
        }
        _ => Err((
            ErrorCode::UnknownType,
            "type is auth, subscribe, unsubscribe, ping, batch or error_report".into(),
        )),
    }
}

/// Keeps what may stand in a log line.
fn printable(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    let end = clean.floor_char_boundary(crate::reading::MAX_SENTENCE_BYTES);
    clean.get(..end).unwrap_or_default().to_owned()
}

fn invalid_filter(InvalidFilter(why): InvalidFilter) -> (ErrorCode, String) {
    (ErrorCode::InvalidFilter, why)
}

fn channel(map: &Map<String, Json>) -> Result<Channel, (ErrorCode, String)> {
    const KNOWN: &str = "channel is telemetry, alerts, devices or system";
    let name = match map.get("channel") {
        Some(Json::String(name)) => name,
        Some(_) | None => return Err((ErrorCode::InvalidMessage, KNOWN.into())),
    };
    Channel::from_name(name).ok_or_else(|| (ErrorCode::UnknownChannel, KNOWN.into()))
}

fn message_id(map: &Map<String, Json>) -> Result<Option<MessageId>, &'static str> {
    const LARGEST: i64 = 1 << 53;
    match map.get("id") {
        None => Ok(None),
        Some(Json::String(text)) if text.len() <= 64 => Ok(Some(MessageId::Text(text.clone()))),
        Some(Json::Number(number)) => match number.as_i64() {
            Some(id) if (-LARGEST..=LARGEST).contains(&id) => Ok(Some(MessageId::Number(id))),
            Some(_) | None => Err("id is an integer within 2^53, or a text of at most 64 bytes"),
        },
        Some(_) => Err("id is a text of at most 64 bytes, or an integer"),
    }
}

#[cfg(test)]
mod tests;
