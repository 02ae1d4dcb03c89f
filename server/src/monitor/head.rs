//! What a message is, without what it says: its type and channel.

use serde::Deserialize;
use valtronics_protocol::filter::Channel;

use crate::socket::Message;

/// The type and the channel of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// A type of the API. Whatever else a client calls a type is `unknown`: it may be anything, a
    /// token too.
    pub(super) kind: &'static str,
    pub(super) channel: Option<Channel>,
}

/// The types of the WebSocket API.
const KINDS: [&str; 18] = [
    "alert",
    "alert_update",
    "auth",
    "auth_expiring",
    "auth_response",
    "batch",
    "device_status_update",
    "error",
    "error_report",
    "lagged",
    "ping",
    "pong",
    "subscribe",
    "subscribe_response",
    "system_status_update",
    "telemetry_update",
    "unsubscribe",
    "unsubscribe_response",
];

/// Returns the channel of an event on its way out, by its first bytes: our own messages begin with
/// their type. Answers belong to none.
pub(super) fn event_channel(message: &Message) -> Option<Channel> {
    // Nearly all that is sent, so it is looked for first.
    if matches!(message, Message::Text(text) if text.starts_with(r#"{"type":"telemetry_update""#)) {
        return Some(Channel::Telemetry);
    }
    match leading_type(message)? {
        b"telemetry_update" => Some(Channel::Telemetry),
        b"alert" | b"alert_update" => Some(Channel::Alerts),
        b"device_status_update" => Some(Channel::Devices),
        b"system_status_update" => Some(Channel::System),
        _ => None,
    }
}

/// Reads what a message is.
pub(super) fn read(message: &Message) -> Head {
    #[derive(Deserialize)]
    struct Written {
        r#type: Option<String>,
        channel: Option<String>,
    }
    let written = match message {
        Message::Text(text) => serde_json::from_str::<Written>(text.as_str()).ok(),
        Message::Close(_) => return Head { kind: "close", channel: None },
        Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => None,
    };
    let kind = match &written {
        Some(written) => written.r#type.as_deref().map(str::as_bytes),
        None => leading_type(message),
    };
    let known = kind.and_then(|kind| KINDS.into_iter().find(|known| known.as_bytes() == kind));
    let channel = written.and_then(|written| Channel::from_name(&written.channel?));
    Head { kind: known.unwrap_or("unknown"), channel: channel.or_else(|| event_channel(message)) }
}

/// Returns the type of a message that begins with it, in JSON or CBOR (RFC 8949, section 3).
fn leading_type(message: &Message) -> Option<&[u8]> {
    match message {
        Message::Text(text) => {
            let rest = text.as_bytes().strip_prefix(b"{\"type\":\"")?;
            rest.split(|byte| *byte == b'"').next()
        }
        Message::Binary(bytes) => {
            let (map, rest) = bytes.split_first()?;
            let rest = match map {
                0xa1..=0xb7 => rest,
                0xb8 => rest.get(1..)?,
                _ => return None,
            };
            match rest.strip_prefix(b"\x64type")?.split_first()? {
                (text @ 0x60..=0x77, rest) => rest.get(..usize::from(text - 0x60)),
                (0x78, rest) => {
                    rest.split_first().and_then(|(n, rest)| rest.get(..usize::from(*n)))
                }
                _ => None,
            }
        }
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(message: impl Into<Message>, kind: &'static str, channel: Option<Channel>) {
        assert_eq!(read(&message.into()), Head { kind, channel });
    }

    #[test]
    fn a_message_is_known_by_its_type_whatever_its_form() {
        check(r#"{"type":"alert","title":"x"}"#, "alert", Some(Channel::Alerts));
        check(
            r#"{"channel":"devices", "type" : "subscribe"}"#,
            "subscribe",
            Some(Channel::Devices),
        );
        check(r#"{"type":"pong"}"#, "pong", None);
        check(
            b"\xa2\x64type\x70telemetry_update\x61x\x01".to_vec(),
            "telemetry_update",
            Some(Channel::Telemetry),
        );
        check(b"\xb8\x18\x64type\x64ping".to_vec(), "ping", None);
        check(Message::Close(None), "close", None);
    }

    #[test]
    fn what_a_client_calls_a_type_is_not_repeated() {
        for text in [r#"{"type":"eyJhbGciOiJIUzI1NiJ9.e30.x"}"#, r#"{"type":1}"#, "eyJ", "", "[]"] {
            check(text, "unknown", None);
        }
        for bytes in [&b""[..], b"\xa1", b"\xa1\x64type", b"\xa1\x64type\x78", b"\xa1\x64type\x6fx"]
        {
            check(bytes.to_vec(), "unknown", None);
        }
        check(r#"{"type":"subscribe","channel":"eyJ"}"#, "subscribe", None);
    }
}
