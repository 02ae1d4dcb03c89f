//! What a subscriber asks, read from one frame (WebSocket API, sections 2 and 3).
//!
//! A frame holds one message or a `batch` of them; each becomes a [`Message`] that knows how its
//! failure is to be answered, whatever is wrong with it.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value as Json, value::RawValue};

use crate::{
    error::{ErrorCode, TokenFault},
    filter::{self, Channel, Filters, InvalidFilter, Options},
    id::DeviceId,
    response::Failure,
};

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
    let map = match serde_json::from_str::<Strict>(frame) {
        Ok(Strict(Json::Object(map))) => map,
        _ if frame.len() > limits.message_bytes => return vec![too_large(Kind::Other, limits)],
        Ok(_) => return vec![Message::unreadable(ErrorCode::InvalidJson, NO_OBJECT)],
        Err(why) => {
            let why = format!("not JSON, or a key stands twice (column {})", why.column());
            return vec![Message::unreadable(ErrorCode::InvalidJson, why)];
        }
    };
    if map.get("type").and_then(Json::as_str) == Some("batch") {
        return parse_batch(frame, &map, limits);
    }
    vec![read(map, frame.len(), limits)]
}

const NO_OBJECT: &str = "a message is a JSON object such as {\"type\":\"ping\"}";

fn parse_batch(frame: &str, map: &Map<String, Json>, limits: &MessageLimits) -> Vec<Message> {
    #[derive(Deserialize)]
    struct Items<'a> {
        #[serde(borrow)]
        messages: Vec<&'a RawValue>,
    }
    let refuse = |error, why: String| {
        let id = message_id(map).unwrap_or_default();
        vec![Message { id, ..Message::unreadable(error, why) }]
    };
    let Ok(Items { messages }) = serde_json::from_str::<Items<'_>>(frame) else {
        return refuse(ErrorCode::InvalidMessage, "messages is an array of messages".into());
    };
    if messages.is_empty() {
        return refuse(ErrorCode::InvalidMessage, "messages holds no message".into());
    }
    if messages.len() > limits.batch_messages {
        let why = format!("a batch holds at most {} messages", limits.batch_messages);
        return refuse(ErrorCode::BatchTooLarge, why);
    }
    let item = |raw: &RawValue| match serde_json::from_str(raw.get()) {
        Ok(Json::Object(map)) => {
            if map.get("type").and_then(Json::as_str) == Some("batch") {
                let why = "a batch in a batch is not handled: send its messages by themselves";
                let id = message_id(&map).unwrap_or_default();
                return Message { id, ..Message::unreadable(ErrorCode::NestedBatch, why) };
            }
            read(map, raw.get().len(), limits)
        }
        _ if raw.get().len() > limits.message_bytes => too_large(Kind::Other, limits),
        _ => Message::unreadable(ErrorCode::InvalidMessage, NO_OBJECT),
    };
    messages.into_iter().map(item).collect()
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

/// JSON in which no object has a key twice: which of the two would count is anybody's guess.
struct Strict(Json);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Json;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, truth: bool) -> Result<Json, E> {
        Ok(truth.into())
    }
    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(number.into())
    }
    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(number.into())
    }
    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(number.into())
    }
    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(text.into())
    }
    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(items.into())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut map = Map::new();
        while let Some((key, Strict(value))) = entries.next_entry::<Cow<'_, str>, _>()? {
            if map.insert(key.into_owned(), value).is_some() {
                return Err(de::Error::custom("a key stands twice"));
            }
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(frame: &str) -> Message {
        let mut messages = parse(frame, &MessageLimits::default());
        assert_eq!(messages.len(), 1, "{frame}");
        messages.remove(0)
    }

    fn check(frame: &str, expected: Result<Request, ErrorCode>) {
        assert_eq!(one(frame).request.map_err(|(code, _)| code), expected, "{frame}");
    }

    #[test]
    fn refuses_with_the_code_that_fits() {
        for (frame, code) in [
            ("", ErrorCode::InvalidJson),
            ("nonsense", ErrorCode::InvalidJson),
            ("[]", ErrorCode::InvalidJson),
            (r#"{"type":"ping","type":"ping"}"#, ErrorCode::InvalidJson),
            (r#"{"type":"ping","x":{"a":1,"a":2}}"#, ErrorCode::InvalidJson),
            ("{}", ErrorCode::MissingType),
            (r#"{"type":1}"#, ErrorCode::InvalidMessage),
            (r#"{"type":"shout"}"#, ErrorCode::UnknownType),
            (r#"{"type":"ping","timestamp":1}"#, ErrorCode::InvalidMessage),
            (r#"{"type":"ping","id":1.5}"#, ErrorCode::InvalidMessage),
            (r#"{"type":"subscribe"}"#, ErrorCode::InvalidMessage),
            (r#"{"type":"subscribe","channel":"news"}"#, ErrorCode::UnknownChannel),
            (r#"{"type":"subscribe","channel":"alerts","severity":[]}"#, ErrorCode::InvalidFilter),
            (
                r#"{"type":"unsubscribe","channel":"alerts","device_id":"1"}"#,
                ErrorCode::InvalidFilter,
            ),
            (r#"{"type":"batch"}"#, ErrorCode::InvalidMessage),
            (r#"{"type":"batch","messages":[]}"#, ErrorCode::InvalidMessage),
            (r#"{"type":"batch","messages":[{"type":"batch"}]}"#, ErrorCode::NestedBatch),
        ] {
            check(frame, Err(code));
        }
    }

    #[test]
    fn reads_what_both_original_clients_send() {
        let expected = |filters: Filters| {
            Ok(Request::Subscribe(Subscribe {
                channel: Channel::Telemetry,
                filters,
                options: Options::default(),
            }))
        };
        let filters = Filters { device_id: Some(vec![DeviceId(1)]), ..Filters::default() };
        let javascript = r#"{"type":"subscribe","channel":"telemetry","device_id":1}"#;
        let python =
            r#"{"type": "subscribe", "channel": "telemetry", "filters": {"device_id": 1}}"#;
        check(javascript, expected(filters.clone()));
        check(python, expected(filters));
    }

    #[test]
    fn a_batch_is_its_messages() {
        let frame = r#"{"type":"batch","messages":[{"type":"ping","id":7},3,{"type":"no"}]}"#;
        let messages = parse(frame, &MessageLimits::default());
        assert_eq!(messages.len(), 3);
        assert_eq!(messages[0].id, Some(MessageId::Number(7)));
        assert_eq!(messages[0].request, Ok(Request::Ping { timestamp: None }));
        assert_eq!(messages[1].request.as_ref().unwrap_err().0, ErrorCode::InvalidMessage);
        assert_eq!(messages[2].request.as_ref().unwrap_err().0, ErrorCode::UnknownType);
        let many = vec![r#"{"type":"ping"}"#; 51].join(",");
        check(&format!(r#"{{"type":"batch","messages":[{many}]}}"#), Err(ErrorCode::BatchTooLarge));
    }

    #[test]
    fn sizes_count_as_the_bytes_stand() {
        let limits = MessageLimits::default();
        let of = |kind: &str, size: usize| {
            let empty = format!(r#"{{"type":"{kind}","token":""}}"#);
            let token = "x".repeat(size - empty.len());
            empty.replace("\"\"", &format!("\"{token}\""))
        };
        check(&of("ping", 1024), Ok(Request::Ping { timestamp: None }));
        check(&of("ping", 1025), Err(ErrorCode::MessageTooLarge));
        assert!(one(&of("auth", 8192)).request.is_ok());
        let refused = one(&of("auth", 8193));
        assert_eq!(refused.kind, Kind::Auth);
        assert_eq!(refused.request.unwrap_err().0, ErrorCode::MessageTooLarge);
        check(&"x".repeat(1025), Err(ErrorCode::MessageTooLarge));
        let item = of("ping", 1025);
        let batch = format!(r#"{{"type":"batch","messages":[{item}]}}"#);
        let messages = parse(&batch, &limits);
        assert_eq!(messages[0].request.as_ref().unwrap_err().0, ErrorCode::MessageTooLarge);
    }

    #[test]
    fn depth_is_bounded() {
        let deep = "{\"type\":\"batch\",\"messages\":[".repeat(10_000);
        check(&deep, Err(ErrorCode::MessageTooLarge));
        check(&"[".repeat(1000), Err(ErrorCode::InvalidJson));
    }
}
