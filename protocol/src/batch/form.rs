//! How the values of one series travel: each as its difference to the one before.
//!
//! A **form** says how a value becomes an unsigned number, and stays until a value does not fit.
//! Devices print `21` where they mean `21.0`, send `unavailable` for a number, and need one decimal
//! more than yesterday: all that is a change of form, not of the series.

use super::{
    DecodeError::{self, Damaged, Invalid},
    MAX_REMEMBERED_TEXT_BYTES,
    bytes::{Reader, put, unzigzag, zigzag},
};
use crate::{
    reading::{MAX_TEXT_BYTES, is_clean},
    value::Value,
};

/// The most decimals at which a number travels as an integer.
const MAX_DECIMALS: u8 = 6;
/// How many values ahead an encoder looks when it chooses a form: each change costs four bytes, each
/// look some nanoseconds.
const LOOK_AHEAD: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Bool,
    Text,
    UInt,
    /// The bits of a double that is exact in single precision.
    Single,
    /// The bits of a double.
    Double,
    /// An integer that counts units of the last decimal.
    Number {
        decimals: u8,
        /// Whether a number without fraction is [`Value::Int`]; otherwise it is a double as well.
        whole_is_int: bool,
    },
}

impl Form {
    /// Returns the narrowest form of a value.
    fn of(value: &Value) -> Self {
        match value {
            Value::Bool(_) => Self::Bool,
            Value::Text(_) => Self::Text,
            Value::UInt(_) => Self::UInt,
            Value::Int(_) => Self::Number { decimals: 0, whole_is_int: true },
            Value::Float(number) => match decimals(*number) {
                Some(decimals) => Self::Number { decimals, whole_is_int: false },
                None if single(*number).is_some() => Self::Single,
                None => Self::Double,
            },
        }
    }

    /// Returns the form that suits a value and, where it can, what surrounds it.
    fn choose<'a>(
        value: &Value,
        before: Option<Self>,
        after: impl Iterator<Item = &'a Value>,
    ) -> Self {
        let own = Self::of(value);
        let Self::Number { whole_is_int, .. } = own else {
            return own;
        };
        let around = before.into_iter().chain(after.take(LOOK_AHEAD).map(Self::of));
        let wide = around.fold(own, Self::widen);
        let candidates = [wide, wide.with_whole(whole_is_int)];
        candidates.into_iter().find(|form| form.integer(value).is_some()).unwrap_or(own)
    }

    fn widen(self, other: Self) -> Self {
        match (self, other) {
            (
                Self::Number { decimals, whole_is_int },
                Self::Number { decimals: more, whole_is_int: also },
            ) => Self::Number { decimals: decimals.max(more), whole_is_int: whole_is_int || also },
            (own, _) => own,
        }
    }

    fn with_whole(self, whole_is_int: bool) -> Self {
        match self {
            Self::Number { decimals, .. } => Self::Number { decimals, whole_is_int },
            other => other,
        }
    }

    /// Returns the integer that stands for a value in a form of numbers, if one does exactly.
    fn integer(self, value: &Value) -> Option<i64> {
        match (self, value) {
            (Self::UInt, Value::UInt(number)) => Some(number.cast_signed()),
            (Self::Number { decimals, whole_is_int: true }, Value::Int(number)) => {
                number.checked_mul(power(decimals))
            }
            (Self::Number { decimals, whole_is_int }, Value::Float(number)) => {
                scaled(*number, decimals)
                    .filter(|integer| !whole_is_int || integer % power(decimals) != 0)
            }
            _ => None,
        }
    }

    fn to_byte(self) -> u8 {
        match self {
            Self::Bool => 0,
            Self::Text => 1,
            Self::UInt => 2,
            Self::Single => 3,
            Self::Double => 4,
            Self::Number { decimals, whole_is_int: true } => 8 + decimals,
            Self::Number { decimals, whole_is_int: false } => 16 + decimals,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Bool,
            1 => Self::Text,
            2 => Self::UInt,
            3 => Self::Single,
            4 => Self::Double,
            8..=14 => Self::Number { decimals: byte - 8, whole_is_int: true },
            16..=22 => Self::Number { decimals: byte - 16, whole_is_int: false },
            _ => return None,
        })
    }
}

/// What both sides know of a series' values.
#[derive(Debug, Default)]
pub(super) struct Past {
    form: Option<Form>,
    /// The last integer, or the last bits; 0 after a change of form.
    number: i64,
    text: Box<str>,
}

impl Past {
    /// Appends values that follow each other.
    pub(super) fn write<'a>(
        &mut self,
        mut values: impl Iterator<Item = &'a Value> + Clone,
        body: &mut Vec<u8>,
    ) {
        while let Some(value) = values.next() {
            let code = self.form.and_then(|form| self.code(form, value));
            let code = if let Some(code) = code.filter(|code| *code < u64::MAX) {
                put(body, code + 1);
                code
            } else {
                if self.form.is_some() {
                    body.push(0);
                }
                let form = Form::choose(value, self.form, values.clone());
                (self.form, self.number) = (Some(form), 0);
                body.push(form.to_byte());
                let code = self.code(form, value).expect("the form was chosen for the value");
                put(body, code);
                code
            };
            if let Value::Text(text) = value
                && code != 0
            {
                body.extend(text.as_bytes());
                self.remember(text);
            }
        }
    }

    /// Returns the number that stands for a value, if it fits the form.
    fn code(&mut self, form: Form, value: &Value) -> Option<u64> {
        match (form, value) {
            (Form::Bool, Value::Bool(truth)) => Some(u64::from(*truth)),
            (Form::Text, Value::Text(text)) if *text == self.text => Some(0),
            (Form::Text, Value::Text(text)) => Some(text.len() as u64 + 1),
            (Form::Single, Value::Float(number)) => Some(self.change(single(*number)?.into())),
            // What has decimals again is better off in its own form.
            (Form::Double, Value::Float(number)) => {
                decimals(*number).is_none().then(|| self.change(number.to_bits()))
            }
            (Form::UInt | Form::Number { .. }, _) => {
                let integer = form.integer(value)?;
                let difference = integer.wrapping_sub(self.number);
                self.number = integer;
                Some(zigzag(difference))
            }
            _ => None,
        }
    }

    fn change(&mut self, bits: u64) -> u64 {
        let change = bits ^ self.number.cast_unsigned();
        self.number = bits.cast_signed();
        change
    }

    fn remember(&mut self, text: &str) {
        if text.len() <= MAX_REMEMBERED_TEXT_BYTES {
            self.text = text.into();
        }
    }

    /// Reads the next value.
    pub(super) fn read(&mut self, body: &mut Reader<'_>) -> Result<Value, DecodeError> {
        let known = match self.form {
            Some(form) => body.number()?.checked_sub(1).map(|code| (form, code)),
            None => None,
        };
        let (form, code) = match known {
            Some(known) => known,
            None => {
                let form = Form::from_byte(body.byte()?).ok_or(Damaged)?;
                (self.form, self.number) = (Some(form), 0);
                (form, body.number()?)
            }
        };
        match form {
            Form::Number { decimals, whole_is_int } => {
                let (integer, power) = (self.advance(code), power(decimals));
                Ok(if whole_is_int && integer % power == 0 {
                    Value::Int(integer / power)
                } else {
                    Value::Float(integer as f64 / power as f64)
                })
            }
            Form::UInt => Ok(Value::from(self.advance(code).cast_unsigned())),
            Form::Single => {
                let bits = u32::try_from(self.restore(code)).map_err(|_| Damaged)?;
                finite(f32::from_bits(bits).into())
            }
            Form::Double => finite(f64::from_bits(self.restore(code))),
            Form::Bool if code > 1 => Err(Damaged),
            Form::Bool => Ok(Value::Bool(code == 1)),
            Form::Text if code == 0 => Ok(Value::Text(self.text.clone())),
            Form::Text => {
                let text = body.text(code - 1, MAX_TEXT_BYTES)?;
                if !is_clean(text, MAX_TEXT_BYTES) {
                    return Err(Invalid("a text"));
                }
                self.remember(text);
                Ok(Value::Text(text.into()))
            }
        }
    }

    fn advance(&mut self, code: u64) -> i64 {
        self.number = self.number.wrapping_add(unzigzag(code));
        self.number
    }

    fn restore(&mut self, change: u64) -> u64 {
        self.number ^= change.cast_signed();
        self.number.cast_unsigned()
    }
}

fn finite(number: f64) -> Result<Value, DecodeError> {
    Value::finite(number).ok_or(Invalid("a number"))
}

fn power(decimals: u8) -> i64 {
    const POWERS: [i64; 7] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000];
    POWERS.get(usize::from(decimals)).copied().unwrap_or(1)
}

/// Returns how many decimals say the number exactly.
fn decimals(number: f64) -> Option<u8> {
    (0..=MAX_DECIMALS).find(|decimals| scaled(number, *decimals).is_some())
}

/// Returns the number at so many decimals as an integer, if that says it exactly.
fn scaled(number: f64, decimals: u8) -> Option<i64> {
    /// Up to here every integer is a double.
    const LARGEST: u64 = 1 << 53;
    let power = power(decimals) as f64;
    let number_scaled = number * power;
    // Rounds as `round` does, which is a call where the processor has no instruction for it.
    let integer = (number_scaled + 0.5_f64.copysign(number_scaled)) as i64;
    let exact = (integer as f64 / power).to_bits() == number.to_bits();
    (exact && integer.unsigned_abs() <= LARGEST).then_some(integer)
}

/// Returns the bits in single precision, if that says the number exactly.
fn single(number: f64) -> Option<u32> {
    let single = number as f32;
    (f64::from(single).to_bits() == number.to_bits()).then_some(single.to_bits())
}
