//! What limits clients (WebSocket API, section 6): the numbers here, who may come in and how fast
//! one may talk in the modules below. All of it is pure: `now` comes from the caller.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};
use valtronics_protocol::{request::MessageLimits, time::period};

use crate::session::SessionLimits;

mod admission;
mod recent;
mod token_bucket;

pub use admission::{Admission, Refused};
pub use token_bucket::TokenBucket;

const MINUTE: Duration = Duration::from_secs(60);

/// `[limits]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(remote = "Self", deny_unknown_fields, default)]
pub struct Config {
    /// Connections in all.
    #[serde(deserialize_with = "count")]
    pub connections: usize,
    /// Connections of one user.
    #[serde(deserialize_with = "count")]
    pub connections_per_user: usize,
    /// New connections of one user in any minute.
    #[serde(deserialize_with = "count")]
    pub connects_per_minute: usize,
    /// Handshakes from one address in any minute that did not end in a successful `auth`.
    #[serde(deserialize_with = "count")]
    pub handshakes_per_minute_per_address: usize,
    /// Different bad tokens from one address in any minute.
    #[serde(deserialize_with = "count")]
    pub bad_tokens_per_minute: usize,
    /// How long a handshake may take.
    #[serde(deserialize_with = "time")]
    pub handshake_within: Duration,
    /// How long `auth` may take.
    #[serde(deserialize_with = "time")]
    pub auth_within: Duration,
    /// Messages of one connection.
    #[serde(deserialize_with = "count")]
    pub messages_per_second: u32,
    /// Bytes of one message.
    #[serde(deserialize_with = "size")]
    pub message_bytes: usize,
    /// Messages of one batch.
    #[serde(deserialize_with = "count")]
    pub batch_messages: usize,
    /// Keys of one connection.
    #[serde(deserialize_with = "count")]
    pub subscriptions: usize,
    /// What may wait for one connection.
    #[serde(deserialize_with = "size")]
    pub queue_bytes: usize,
    /// After how much silence the server pings.
    #[serde(deserialize_with = "time")]
    pub ping_after: Duration,
    /// After how much silence the server ends a connection.
    #[serde(deserialize_with = "time")]
    pub silence: Duration,
    /// Devices of one subject.
    #[serde(deserialize_with = "count")]
    pub devices_per_sub: usize,
    /// Metrics of one device.
    #[serde(deserialize_with = "count")]
    pub metrics_per_device: usize,
    /// Names of queues of one subject, of which the store forgets none: ten for each device, since
    /// an agent that has lost its data comes with a new one.
    #[serde(deserialize_with = "count")]
    pub queues_per_sub: usize,
    /// Gateways of one subject that are connected, or have just gone: as many as devices.
    #[serde(deserialize_with = "count")]
    pub gateways_per_sub: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            connections: 1000,
            connections_per_user: 100,
            connects_per_minute: 10,
            handshakes_per_minute_per_address: 60,
            bad_tokens_per_minute: 20,
            handshake_within: Duration::from_secs(5),
            auth_within: SessionLimits::DEFAULT.auth_within,
            messages_per_second: SessionLimits::DEFAULT.messages_per_second,
            message_bytes: MessageLimits::DEFAULT.message_bytes,
            batch_messages: MessageLimits::DEFAULT.batch_messages,
            subscriptions: 1000,
            queue_bytes: 1024 * 1024,
            ping_after: SessionLimits::DEFAULT.ping_after,
            silence: SessionLimits::DEFAULT.silence,
            devices_per_sub: 1000,
            metrics_per_device: 1000,
            queues_per_sub: 10_000,
            gateways_per_sub: 1000,
        }
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // What the derive made: each field by itself.
        let config = Self::deserialize(deserializer)?;
        if config.silence <= config.ping_after {
            let why = "silence is longer than ping_after, or who is pinged cannot answer in time";
            return Err(de::Error::custom(why));
        }
        if config.message_bytes > FRAME_BYTES {
            return Err(de::Error::custom("message_bytes is at most 64KiB, as a frame is"));
        }
        Ok(config)
    }
}

/// The largest frame of a client (WebSocket API, section 6): no message can be larger.
const FRAME_BYTES: usize = 64 * 1024;
/// Below this no subscription fits a message, and no `telemetry_update` a queue.
const LEAST_SIZE_BYTES: usize = 256;
/// Shorter than this is shorter than a round trip.
const LEAST_TIME: Duration = Duration::from_millis(100);
/// Longer than this is as good as no limit.
const MOST_TIME: Duration = Duration::from_secs(86_400);

impl Config {
    /// Returns what limits one session.
    #[must_use]
    pub fn session(&self) -> SessionLimits {
        SessionLimits {
            message: MessageLimits {
                message_bytes: self.message_bytes,
                auth_bytes: MessageLimits::DEFAULT.auth_bytes.max(self.message_bytes),
                batch_messages: self.batch_messages,
            },
            messages_per_second: self.messages_per_second,
            auth_within: self.auth_within,
            ping_after: self.ping_after,
            silence: self.silence,
        }
    }
}

/// Reads a number of things, at least one.
fn count<'de, D: Deserializer<'de>, T: Deserialize<'de> + PartialOrd + From<u8>>(
    deserializer: D,
) -> Result<T, D::Error> {
    let count = T::deserialize(deserializer)?;
    if count < T::from(1) { Err(de::Error::custom("a limit is at least 1")) } else { Ok(count) }
}

/// Reads a period from 100 ms to a day.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let time = period::deserialize(deserializer)?;
    let fits = (LEAST_TIME..=MOST_TIME).contains(&time);
    if fits { Ok(time) } else { Err(de::Error::custom("a time is from 100ms to 24h")) }
}

/// Reads a size of 256 bytes or more: bytes, or a number with `KiB`, `MiB` or `GiB`.
fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Bytes(usize),
        Text(String),
    }
    let wanted = || de::Error::custom("a size is a number of bytes, or a text such as \"1MiB\"");
    let bytes = match Written::deserialize(deserializer).map_err(|_| wanted())? {
        Written::Bytes(bytes) => bytes,
        Written::Text(text) => bytes_of(&text).ok_or_else(wanted)?,
    };
    if bytes < LEAST_SIZE_BYTES {
        Err(de::Error::custom("a size is at least 256 bytes"))
    } else {
        Ok(bytes)
    }
}

fn bytes_of(text: &str) -> Option<usize> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let unit = units.into_iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, size)));
    let (number, unit): (&str, usize) = unit.unwrap_or((text, 1));
    number.trim().parse::<usize>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests;
