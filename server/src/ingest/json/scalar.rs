//! A JSON value that may be anything: what it is not, it is not refused for.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use valtronics_protocol::{
    reading::{MAX_TEXT_BYTES, is_clean, is_name},
    time::UnixMillis,
    value::Value,
};

use super::{Fault, TIMESTAMP, VALUE};

/// Any JSON value, as far as one of our fields could be it.
#[derive(Debug)]
pub(super) enum Scalar<'a> {
    Null,
    Value(Value),
    Text(Cow<'a, str>),
    Other,
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Scalar<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Null)
            }
            fn visit_bool<E>(self, truth: bool) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Value(Value::Bool(truth)))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Value(Value::Int(number)))
            }
            fn visit_u64<E>(self, number: u64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Value(Value::from(number)))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Scalar<'de>, E> {
                Ok(Value::finite(number).map_or(Scalar::Other, Scalar::Value))
            }
            fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Owned(text.to_owned())))
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Borrowed(text)))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar<'de>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl<'a> Scalar<'a> {
    pub(super) fn text(self, most: usize, fault: Fault) -> Result<Cow<'a, str>, Fault> {
        match self {
            Self::Text(text) if is_clean(&text, most) => Ok(text),
            _ => Err(fault),
        }
    }

    pub(super) fn name(self, fault: Fault) -> Result<Cow<'a, str>, Fault> {
        match self {
            Self::Text(text) if is_name(&text) => Ok(text),
            _ => Err(fault),
        }
    }

    pub(super) fn moment(self) -> Result<Option<UnixMillis>, Fault> {
        match self {
            Self::Null => Ok(None),
            Self::Text(text) => text.parse().map(Some).map_err(|_| TIMESTAMP),
            Self::Value(_) | Self::Other => Err(TIMESTAMP),
        }
    }

    pub(super) fn value(self) -> Result<Value, Fault> {
        match self {
            Self::Value(value) => Ok(value),
            Self::Text(text) if is_clean(&text, MAX_TEXT_BYTES) => {
                Ok(Value::Text(text.into_owned().into()))
            }
            _ => Err(VALUE),
        }
    }
}
