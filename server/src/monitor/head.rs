//! What a message is, without what it says: its type and channel.

use serde::Deserialize;
use valtronics_protocol::filter::Channel;

use crate::socket::Opcode;

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

/// Reads what a message is.
pub(super) fn read(opcode: Opcode, payload: &[u8]) -> Head {
    #[derive(Deserialize)]
    struct Written {
        r#type: Option<String>,
        channel: Option<String>,
    }
    let (kind, channel) = match opcode {
        Opcode::Close => return Head { kind: "close", channel: None },
        Opcode::Text => match serde_json::from_slice(payload) {
            Ok(Written { r#type, channel }) => (r#type.map(String::into_bytes), channel),
            Err(_) => (None, None),
        },
        Opcode::Binary => (leading_type(payload).map(<[u8]>::to_vec), None),
        Opcode::Ping | Opcode::Pong | Opcode::Continuation => (None, None),
    };
    let known = |kind: Vec<u8>| KINDS.into_iter().find(|known| known.as_bytes() == kind);
    let kind = kind.and_then(known).unwrap_or("unknown");
    let channel = channel.and_then(|name| Channel::from_name(&name));
    Head { kind, channel: channel.or_else(|| channel_of(kind)) }
}

/// Returns the channel to which all messages of a type belong.
fn channel_of(kind: &str) -> Option<Channel> {
    match kind {
        "telemetry_update" => Some(Channel::Telemetry),
        "alert" | "alert_update" => Some(Channel::Alerts),
        "device_status_update" => Some(Channel::Devices),
        "system_status_update" => Some(Channel::System),
        _ => None,
    }
}

/// Returns the type of a message in CBOR that begins with it (RFC 8949, section 3).
fn leading_type(bytes: &[u8]) -> Option<&[u8]> {
    let (map, rest) = bytes.split_first()?;
    let rest = match map {
        0xa1..=0xb7 => rest,
        0xb8 => rest.get(1..)?,
        _ => return None,
    };
    match rest.strip_prefix(b"\x64type")?.split_first()? {
        (text @ 0x60..=0x77, rest) => rest.get(..usize::from(text - 0x60)),
        (0x78, rest) => rest.split_first().and_then(|(n, rest)| rest.get(..usize::from(*n))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use Opcode::{Binary, Close, Text};

    fn check(
        opcode: Opcode,
        payload: impl AsRef<[u8]>,
        kind: &'static str,
        channel: Option<Channel>,
    ) {
        assert_eq!(read(opcode, payload.as_ref()), Head { kind, channel });
    }

    #[test]
    fn a_message_is_known_by_its_type_whatever_its_form() {
        check(Text, r#"{"type":"alert","title":"x"}"#, "alert", Some(Channel::Alerts));
        check(
            Text,
            r#"{"channel":"devices", "type" : "subscribe"}"#,
            "subscribe",
            Some(Channel::Devices),
        );
        check(Text, r#"{"type":"pong"}"#, "pong", None);
        check(
            Binary,
            b"\xa2\x64type\x70telemetry_update\x61x\x01",
            "telemetry_update",
            Some(Channel::Telemetry),
        );
        check(Binary, b"\xb8\x18\x64type\x64ping", "ping", None);
        check(Close, "", "close", None);
    }

    #[test]
    fn what_a_client_calls_a_type_is_not_repeated() {
        for text in [r#"{"type":"eyJhbGciOiJIUzI1NiJ9.e30.x"}"#, r#"{"type":1}"#, "eyJ", "", "[]"] {
            check(Text, text, "unknown", None);
        }
        for bytes in [&b""[..], b"\xa1", b"\xa1\x64type", b"\xa1\x64type\x78", b"\xa1\x64type\x6fx"]
        {
            check(Binary, bytes, "unknown", None);
        }
        check(Text, r#"{"type":"subscribe","channel":"eyJ"}"#, "subscribe", None);
    }
}
