//! The JSON dialect of `/uplink`, and the bodies of `POST /api/v1/telemetry`.
//!
//! A message is taken whole or not at all, and a bad one does not harm its neighbours. So nothing
//! but broken JSON makes the parser stop: a field of a wrong type is noted, and what follows is
//! read on. Reading a frame allocates nothing for each reading unless a text holds an escape.

use std::{borrow::Cow, fmt};

use serde::{
    Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use valtronics_protocol::{
    event::Status,
    reading::{MAX_SENTENCE_BYTES, MAX_UNIT_BYTES},
    time::UnixMillis,
    uplink::MAX_FRAME_READINGS,
    value::Value,
};

mod scalar;

use scalar::{Key, Scalar};

/// The most messages in one frame: of readings no more would fit, and each that is wrong is answered,
/// which takes a hundred times the room of a `0`.
const MAX_FRAME_MESSAGES: usize = MAX_FRAME_READINGS;

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
pub fn parse(frame: &str, bare: bool) -> Result<Frame<'_>, serde_json::Error> {
    let mut parsed = Frame::default();
    let mut deserializer = serde_json::Deserializer::from_str(frame);
    Messages { parsed: &mut parsed, bare }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(parsed)
}

/// One message or an array of them.
struct Messages<'p, 'a> {
    parsed: &'p mut Frame<'a>,
    bare: bool,
}

impl<'de> DeserializeSeed<'de> for Messages<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Messages<'_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message or an array of messages")
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let message = read_message(map, &mut self.parsed.readings, self.bare)?;
        self.parsed.messages.push(message);
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.parsed.is_array = true;
        while let Some(message) =
            seq.next_element_seed(Element { readings: &mut self.parsed.readings, bare: self.bare })?
        {
            if self.parsed.messages.len() >= MAX_FRAME_MESSAGES {
                return Err(A::Error::custom("more than 10,000 messages"));
            }
            self.parsed.messages.push(message);
        }
        Ok(())
    }
}

/// One element of an array of messages.
struct Element<'p, 'a> {
    readings: &'p mut Vec<Reading<'a>>,
    bare: bool,
}

/// Says what to do with a JSON value that is no object: skip it.
macro_rules! skip_scalars {
    ($made:expr) => {
        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok($made)
        }
        fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
            Ok($made)
        }
        fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
            Ok($made)
        }
        fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
            Ok($made)
        }
        fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
            Ok($made)
        }
        fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
            Ok($made)
        }
    };
}

impl<'de> DeserializeSeed<'de> for Element<'_, 'de> {
    type Value = Message<'de>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Message<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Element<'_, 'de> {
    type Value = Message<'de>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a message")
    }
    skip_scalars!(Message { seq: None, content: Err(NO_MESSAGE) });
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Message<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Message { seq: None, content: Err(NO_MESSAGE) })
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Message<'de>, A::Error> {
        read_message(map, self.readings, self.bare)
    }
}

/// The fields of a message as they come, and the first thing that is wrong.
#[derive(Default)]
struct Fields<'a> {
    kind: Option<Scalar<'a>>,
    seq: Option<Scalar<'a>>,
    device: Option<Scalar<'a>>,
    readings: Option<Result<std::ops::Range<usize>, Fault>>,
    historical: Option<Scalar<'a>>,
    status: Option<Scalar<'a>>,
    reason: Option<Scalar<'a>>,
    timestamp: Option<Scalar<'a>>,
    token: Option<Scalar<'a>>,
    queue: Option<Scalar<'a>>,
}

fn read_message<'de, A: MapAccess<'de>>(
    mut map: A,
    readings: &mut Vec<Reading<'de>>,
    bare: bool,
) -> Result<Message<'de>, A::Error> {
    let begin = readings.len();
    let mut fields = Fields::default();
    while let Some(Key(key)) = map.next_key()? {
        let field = match &*key {
            "type" => &mut fields.kind,
            "seq" => &mut fields.seq,
            "device" => &mut fields.device,
            "historical" => &mut fields.historical,
            "status" => &mut fields.status,
            "reason" => &mut fields.reason,
            "timestamp" => &mut fields.timestamp,
            "token" => &mut fields.token,
            "queue" => &mut fields.queue,
            "readings" => {
                readings.truncate(begin);
                fields.readings = Some(map.next_value_seed(Readings(readings))?);
                continue;
            }
            _ => {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
        };
        *field = Some(map.next_value()?);
    }
    let seq = match fields.seq.take() {
        None | Some(Scalar::Null) => Ok(None),
        Some(Scalar::Value(Value::Int(seq))) => u64::try_from(seq).map(Some).map_err(|_| SEQ),
        Some(Scalar::Value(Value::UInt(seq))) => Ok(Some(seq)),
        Some(_) => Err(SEQ),
    };
    let content = match &seq {
        Ok(_) => fields.content(bare),
        Err(fault) => Err(*fault),
    };
    if !matches!(content, Ok(Content::Readings { .. })) {
        readings.truncate(begin);
    }
    Ok(Message { seq: seq.unwrap_or_default(), content })
}

impl<'a> Fields<'a> {
    fn content(self, bare: bool) -> Result<Content<'a>, Fault> {
        let kind = match self.kind {
            None if bare => Cow::Borrowed("readings"),
            None => return Err(Fault::MissingType),
            Some(Scalar::Text(kind)) => kind,
            Some(_) => return Err(Fault::UnknownType),
        };
        let device = || self.device.map_or(Err(DEVICE), |device| device.name(DEVICE));
        match &*kind {
            "auth" if !bare => {
                let token = self.token.map_or(Err(TOKEN), |token| token.text(8192, TOKEN))?;
                let queue = match self.queue {
                    None | Some(Scalar::Null) => None,
                    Some(queue) => Some(queue.text(64, QUEUE)?),
                };
                if queue.as_ref().is_some_and(|queue| queue.is_empty()) {
                    return Err(QUEUE);
                }
                Ok(Content::Auth { token, queue })
            }
            "readings" => {
                let historical = match self.historical {
                    None => false,
                    Some(Scalar::Value(Value::Bool(historical))) => historical,
                    Some(_) => return Err(HISTORICAL),
                };
                let (device, readings) = (device()?, self.readings.unwrap_or(Err(READINGS))?);
                Ok(Content::Readings { device, readings, historical })
            }
            "status" if !bare => {
                let status = match &self.status {
                    Some(Scalar::Text(text)) => match &**text {
                        "online" => Status::Online,
                        "offline" => Status::Offline,
                        "warning" => Status::Warning,
                        _ => return Err(STATUS),
                    },
                    _ => return Err(STATUS),
                };
                let reason = self.reason.map(|reason| reason.text(MAX_SENTENCE_BYTES, REASON));
                let at = self.timestamp.map_or(Ok(None), Scalar::moment)?;
                Ok(Content::Status { device: device()?, status, reason: reason.transpose()?, at })
            }
            _ => Err(Fault::UnknownType),
        }
    }
}

/// The array of a message's readings.
struct Readings<'p, 'a>(&'p mut Vec<Reading<'a>>);

type Read = Result<std::ops::Range<usize>, Fault>;

impl<'de> DeserializeSeed<'de> for Readings<'_, 'de> {
    type Value = Read;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Read, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Readings<'_, 'de> {
    type Value = Read;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("readings")
    }
    skip_scalars!(Err(READINGS));
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Read, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Err(READINGS))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Read, A::Error> {
        let begin = self.0.len();
        let mut fault = None;
        while let Some(reading) = seq.next_element_seed(OneReading)? {
            match reading {
                _ if fault.is_some() => {}
                Ok(_) if self.0.len() >= MAX_FRAME_READINGS => fault = Some(TOO_MANY),
                Ok(reading) => self.0.push(reading),
                Err(wrong) => fault = Some(wrong),
            }
        }
        Ok(match fault {
            Some(fault) => Err(fault),
            None if self.0.len() == begin => Err(READINGS),
            None => Ok(begin..self.0.len()),
        })
    }
}

struct OneReading;

impl<'de> DeserializeSeed<'de> for OneReading {
    type Value = Result<Reading<'de>, Fault>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneReading {
    type Value = Result<Reading<'de>, Fault>;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a reading")
    }
    skip_scalars!(Err(READINGS));
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Err(READINGS))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut metric, mut value, mut unit, mut at) = (None, None, None, None);
        while let Some(Key(key)) = map.next_key()? {
            let field = match &*key {
                "metric" => &mut metric,
                "value" => &mut value,
                "unit" => &mut unit,
                "timestamp" => &mut at,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *field = Some(map.next_value::<Scalar<'de>>()?);
        }
        Ok(reading(metric, value, unit, at))
    }
}

fn reading<'a>(
    metric: Option<Scalar<'a>>,
    value: Option<Scalar<'a>>,
    unit: Option<Scalar<'a>>,
    at: Option<Scalar<'a>>,
) -> Result<Reading<'a>, Fault> {
    let unit = match unit {
        None | Some(Scalar::Null) => None,
        Some(unit) => Some(unit.text(MAX_UNIT_BYTES, UNIT)?),
    };
    Ok(Reading {
        metric: metric.map_or(Err(METRIC), |metric| metric.name(METRIC))?,
        value: value.map_or(Err(VALUE), Scalar::value)?,
        unit,
        at: at.map_or(Ok(None), Scalar::moment)?,
    })
}

#[cfg(test)]
mod tests;
