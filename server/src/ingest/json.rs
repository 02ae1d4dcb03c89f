//! The JSON dialect of `/uplink`, and the bodies of `POST /api/v1/telemetry`.
//!
//! A message is taken whole or not at all, and a bad one does not harm its neighbours. So nothing
//! but broken JSON makes the parser stop: a field of a wrong type is noted, and what follows is
//! read on. Reading a frame allocates nothing for each reading unless a text holds an escape.
//!
//! `scan` walks over the JSON, `scalar` is a value of which nothing is known, `fields` makes
//! messages of them; `usual` is the short way for readings spelled as most programs do.

use std::borrow::Cow;

use serde::de::{Error as _, IgnoredAny};
use serde_json::Error;
use valtronics_protocol::{
    event::Status, time::UnixMillis, uplink::MAX_FRAME_READINGS, value::Value,
};

mod fields;
mod scalar;
mod scan;
mod usual;

use scan::Scanner;

/// The most messages in one frame: of readings no more would fit, and each that is wrong is answered,
/// which takes a hundred times the room of a `0`.
const MAX_FRAME_MESSAGES: usize = MAX_FRAME_READINGS;
/// What a reading with its time takes; room for as many as that makes is got at once.
const USUAL_READING_BYTES: usize = 80;

/// Everything that one frame or body held.
#[derive(Debug, Default)]
pub struct Frame<'a> {
    /// The messages in order.
    pub messages: Vec<Message<'a>>,
    /// The readings of all of them.
    pub readings: Vec<Reading<'a>>,
    /// The frame was an array.
    pub is_array: bool,
}

/// A reading whose names are not resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading<'a> {
    /// The metric's name.
    pub metric: Cow<'a, str>,
    /// What was measured.
    pub value: Value,
    /// The unit as it was spelled.
    pub unit: Option<Cow<'a, str>>,
    /// When it was measured.
    pub at: Option<UnixMillis>,
}

/// One message of a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Message<'a> {
    /// Its number, if it has one.
    pub seq: Option<u64>,
    /// What it says, or what is wrong with it.
    pub content: Result<Content<'a>, Fault>,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq)]
pub enum Content<'a> {
    /// `auth`.
    Auth {
        /// The token.
        token: Cow<'a, str>,
        /// The name of the numbering.
        queue: Option<Cow<'a, str>>,
    },
    /// `readings`: these of the frame.
    Readings {
        /// The device's name.
        device: Cow<'a, str>,
        /// Which of the frame's readings.
        readings: std::ops::Range<usize>,
        /// They are a backlog.
        historical: bool,
    },
    /// `status`.
    Status {
        /// The device's name.
        device: Cow<'a, str>,
        /// Its status.
        status: Status,
        /// Why.
        reason: Option<Cow<'a, str>>,
        /// Since when.
        at: Option<UnixMillis>,
    },
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It has no `type`.
    #[error("a message needs a type: auth, readings or status")]
    MissingType,
    /// Its `type` is not known.
    #[error("type is auth, readings or status")]
    UnknownType,
    /// A field is missing or wrong.
    #[error("{0}")]
    Field(&'static str),
}

const NO_MESSAGE: Fault = Fault::Field("a message is an object");
const DEVICE: Fault = Fault::Field("device is a name of 1 to 128 bytes, no control characters");
const METRIC: Fault = Fault::Field("metric is a name of 1 to 128 bytes, no control characters");
const VALUE: Fault =
    Fault::Field("value is a finite number, true, false, or a text of at most 1024 bytes");
const UNIT: Fault = Fault::Field("unit is a text of at most 32 bytes");
const TIMESTAMP: Fault =
    Fault::Field("timestamp is RFC 3339 with a zone, such as 2024-01-01T12:00:00Z");
const READINGS: Fault = Fault::Field("readings is an array of {metric, value, unit?, timestamp?}");
const TOO_MANY: Fault = Fault::Field("a frame holds at most 10,000 readings");
const SEQ: Fault = Fault::Field("seq is an integer from 0");
const STATUS: Fault = Fault::Field("status is online, offline or warning");
const REASON: Fault = Fault::Field("reason is a text of at most 512 bytes");
const HISTORICAL: Fault = Fault::Field("historical is true or false");
const TOKEN: Fault = Fault::Field("auth needs a token");
const QUEUE: Fault = Fault::Field("queue is a name of 1 to 64 bytes, no control characters");

/// Reads a frame. With `bare`, messages without a `type` are readings (the bodies of HTTP).
///
/// # Errors
/// When it is not JSON, or holds more than 10,000 messages.
pub fn parse(frame: &str, bare: bool) -> Result<Frame<'_>, Error> {
    // What is wrong with the whole, and where, says more than what is wrong with the part at hand.
    read(&mut Scanner::new(frame), bare)
        .map_err(|error| serde_json::from_str::<IgnoredAny>(frame).err().unwrap_or(error))
}

fn read<'a>(scanner: &mut Scanner<'a>, bare: bool) -> Result<Frame<'a>, Error> {
    let mut frame = Frame { is_array: scanner.peek() == Some(b'['), ..Frame::default() };
    let Frame { messages, readings, is_array } = &mut frame;
    readings.reserve((scanner.len() / USUAL_READING_BYTES).min(MAX_FRAME_READINGS));
    if *is_array {
        scanner.array(|scanner| {
            let message = match scanner.peek() {
                Some(b'{') => fields::message(scanner, readings, bare)?,
                _ => {
                    scanner.scalar()?;
                    Message { seq: None, content: Err(NO_MESSAGE) }
                }
            };
            if messages.len() >= MAX_FRAME_MESSAGES {
                return Err(Error::custom("more than 10,000 messages"));
            }
            messages.push(message);
            Ok(())
        })?;
    } else {
        messages.push(fields::message(scanner, readings, bare)?);
    }
    scanner.end()?;
    Ok(frame)
}

#[cfg(test)]
mod tests;
