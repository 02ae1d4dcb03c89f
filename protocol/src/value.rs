//! What a reading says: a number, a truth or a text.
//!
//! A number that came in without fraction or exponent stays an integer, exact to 64 bits; any other
//! is a double that is written in its shortest form and keeps its `.0` (WebSocket API, section 5,
//! "Numbers"). NaN and infinity are no values.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The value of one reading.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A truth, such as a contact or a relay.
    Bool(bool),
    /// A number that came in without fraction or exponent.
    Int(i64),
    /// The same, above the range of [`Value::Int`]: always more than `i64::MAX`.
    UInt(u64),
    /// Any other number: always finite.
    Float(f64),
    /// A text, such as a state's name.
    Text(Box<str>),
}

impl Value {
    /// Returns a number, or `None` for NaN and infinity.
    #[must_use]
    pub fn finite(number: f64) -> Option<Self> {
        number.is_finite().then_some(Self::Float(number))
    }

    /// Reads a number as JSON would (`12`, `-3.50`, `1e3`), with a leading `+` or `.` forgiven.
    ///
    /// Returns `None` for anything else, NaN and infinity included.
    #[must_use]
    pub fn parse_number(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        let first = digits.bytes().next()?;
        if !first.is_ascii_digit() && first != b'.' {
            return None;
        }
        if digits.bytes().all(|byte| byte.is_ascii_digit()) {
            if let Ok(number) = text.parse::<i64>() {
                return Some(Self::Int(number));
            }
            if let Ok(number) = text.parse::<u64>() {
                return Some(Self::UInt(number));
            }
        }
        Self::finite(text.parse().ok()?)
    }

    /// Returns the number as a double; integers beyond 2^53 lose their last digits.
    #[must_use]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(*number as f64),
            Self::UInt(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Bool(_) | Self::Text(_) => None,
        }
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        i64::try_from(number).map_or(Self::UInt(number), Self::Int)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(truth) => truth.fmt(f),
            Self::Int(number) => number.fmt(f),
            Self::UInt(number) => number.fmt(f),
            // `Debug` is the shortest form that keeps `.0`.
            Self::Float(number) => fmt::Debug::fmt(number, f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Bool(truth) => serializer.serialize_bool(*truth),
            Self::Int(number) => serializer.serialize_i64(*number),
            Self::UInt(number) => serializer.serialize_u64(*number),
            Self::Float(number) => serializer.serialize_f64(*number),
            Self::Text(text) => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl de::Visitor<'_> for Scalar {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a finite number, a boolean or a text")
            }
            fn visit_bool<E: de::Error>(self, truth: bool) -> Result<Value, E> {
                Ok(Value::Bool(truth))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Value, E> {
                Ok(Value::Int(number))
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Value, E> {
                Ok(Value::from(number))
            }
            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Value, E> {
                Value::finite(number)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Float(number), &self))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
                Ok(Value::Text(text.into()))
            }
        }
        deserializer.deserialize_any(Scalar)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_keeps_its_form_through_json() {
        for text in ["30.0", "23.5", "-0.0", "0", "9007199254740993", "18446744073709551615"] {
            let value: Value = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
            assert_eq!(value.to_string(), text);
        }
    }

    #[test]
    fn reads_numbers_of_devices() {
        for (text, expected) in [
            ("12", Some(Value::Int(12))),
            ("+12", Some(Value::Int(12))),
            ("-3.50", Some(Value::Float(-3.5))),
            (".5", Some(Value::Float(0.5))),
            ("26.", Some(Value::Float(26.0))),
            ("1e3", Some(Value::Float(1000.0))),
            ("18446744073709551615", Some(Value::UInt(u64::MAX))),
            ("nan", None),
            ("inf", None),
            ("1e999", None),
            ("", None),
            ("-", None),
            (".", None),
            ("12V", None),
        ] {
            assert_eq!(Value::parse_number(text), expected, "{text}");
        }
    }
}
