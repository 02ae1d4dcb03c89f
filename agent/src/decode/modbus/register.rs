//! One value of a device: where it stands, and how its words become a number, a truth or a text.
//!
//! A configuration writes it in one line: `name unit? table address type order? scale? absent?`, such
//! as `energy kWh holding 0x100 u32 cdab /100`. The address is the one on the wire, from 0 on; where
//! the table is left out it is the number of a manual, which names its table and counts from 1:
//! `energy kWh 40257 u32`.

use std::{str::FromStr, sync::Arc};

use valtronics_protocol::{reading::is_name, value::Value};

use super::{Span, Table, Words};
use crate::decode::Sample;

/// One value of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Register {
    /// The metric.
    pub metric: Arc<str>,
    /// Its unit, as it was written.
    pub unit: Option<Arc<str>>,
    /// What has to be read for it.
    pub span: Span,
    /// Where its own words stand.
    place: Span,
    kind: Kind,
    order: Order,
    scale: Scale,
    /// What the words say when there is no value.
    absent: Option<u64>,
}

/// What the words are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bool,
    Bit(u8),
    Unsigned,
    Signed,
    Float,
    Text,
}

/// In which order the bytes of a number ABCD come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Order {
    /// The word with the lowest digits comes first.
    low_word_first: bool,
    /// In each word the low byte comes first.
    low_byte_first: bool,
}

/// Names of the orders, for one, two and four words.
const ORDERS: [([&str; 3], Order); 4] = [
    (["ab", "abcd", "abcdefgh"], Order { low_word_first: false, low_byte_first: false }),
    (["ab", "cdab", "ghefcdab"], Order { low_word_first: true, low_byte_first: false }),
    (["ba", "badc", "badcfehg"], Order { low_word_first: false, low_byte_first: true }),
    (["ba", "dcba", "hgfedcba"], Order { low_word_first: true, low_byte_first: true }),
];
/// The order of the standard.
const BIG_ENDIAN: Order = Order { low_word_first: false, low_byte_first: false };

/// What a number is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scale {
    One,
    /// A power of ten, which moves the decimal point and adds no digits of the machine's.
    Ten(i32),
    Factor(f64),
    /// The power of ten that another register holds.
    At(u16),
}

impl Register {
    /// Makes a sample of the words of a block; none where the device says that it has no value.
    #[must_use]
    pub fn sample(&self, words: Words<'_>) -> Option<Sample> {
        let scale = match self.scale {
            Scale::At(address) => Scale::power(words.at(address, 1)?)?,
            known @ (Scale::One | Scale::Ten(_) | Scale::Factor(_)) => known,
        };
        let value = self.value(words.at(self.place.first, self.place.count)?, scale)?;
        let (metric, unit) = (Arc::clone(&self.metric), self.unit.clone());
        Some(Sample { device: None, metric, value, unit, at: None, received: None })
    }

    fn value(&self, words: &[u16], scale: Scale) -> Option<Value> {
        let swapped = |word: &u16| match self.order.low_byte_first {
            true => word.swap_bytes(),
            false => *word,
        };
        if self.kind == Kind::Text {
            return text(words.iter().map(swapped));
        }
        let high_first = |raw: u64, word: u16| raw << 16 | u64::from(word);
        let raw = match self.order.low_word_first {
            true => words.iter().rev().map(swapped).fold(0, high_first),
            false => words.iter().map(swapped).fold(0, high_first),
        };
        if self.absent == Some(raw) {
            return None;
        }
        let unused = 64 - 16 * u32::from(self.place.count.min(4));
        match self.kind {
            Kind::Bool => Some(Value::Bool(raw != 0)),
            Kind::Bit(bit) => Some(Value::Bool(raw >> bit & 1 == 1)),
            Kind::Unsigned => scale.of(raw, raw.into()),
            Kind::Signed => {
                let signed = (raw << unused).cast_signed() >> unused;
                scale.of(signed, Value::Int(signed))
            }
            Kind::Float if self.place.count == 2 => {
                // The shortest decimal that names it: 230.2, not 230.1999969482422.
                let float = f32::from_bits(u32::try_from(raw).ok()?);
                scale.of(float, Value::finite(float.to_string().parse().ok()?)?)
            }
            Kind::Float => {
                let float = f64::from_bits(raw);
                scale.of(float, Value::finite(float)?)
            }
            // Texts were read above.
            Kind::Text => None,
        }
    }

    /// Says that the register at `address` holds the power of ten of its scale.
    #[must_use]
    pub fn scaled_at(mut self, address: u16) -> Self {
        let Span { first, count, .. } = self.span;
        let begin = first.min(address);
        let end = (first + (count - 1)).max(address);
        self.span = Span { first: begin, count: end - begin + 1, ..self.span };
        self.scale = Scale::At(address);
        self
    }
}

impl Scale {
    fn of(self, number: impl ToString, unscaled: Value) -> Option<Value> {
        match self {
            Self::One => Some(unscaled),
            Self::Ten(power) => {
                Value::finite(format!("{}e{power}", number.to_string()).parse().ok()?)
            }
            Self::Factor(factor) => Value::finite(unscaled.as_f64()? * factor),
            // Looked up before.
            Self::At(_) => None,
        }
    }

    /// Takes a scale factor of SunSpec: -10 to 10, anything else is none.
    fn power(words: &[u16]) -> Option<Self> {
        let power = words.first()?.cast_signed();
        (-10..=10).contains(&power).then_some(Self::Ten(power.into()))
    }

    /// Reads `/100` or `*0.1`.
    fn read(written: &str) -> Option<Self> {
        let (divides, number) = match written.split_at_checked(1)? {
            ("/", number) => (true, number),
            ("*", number) => (false, number),
            _ => return None,
        };
        let number: f64 = number.parse().ok().filter(|number: &f64| number.is_normal())?;
        let power = number.log10().round();
        let power = if divides { -power } else { power } as i32;
        let shown = format!("1e{}", if divides { -power } else { power });
        Some(match shown.parse() == Ok(number) {
            true => Self::Ten(power),
            false => Self::Factor(if divides { 1.0 / number } else { number }),
        })
    }
}

/// Two letters a word, up to the first that is none; a text without letters is no value.
fn text(words: impl Iterator<Item = u16>) -> Option<Value> {
    let bytes: Vec<u8> = words.flat_map(u16::to_be_bytes).take_while(|byte| *byte != 0).collect();
    let text = String::from_utf8_lossy(&bytes);
    let text = text.trim();
    (!text.is_empty()).then(|| Value::Text(text.into()))
}

/// Why a line describes no register.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRegister {
    /// Something is not there.
    #[error(
        "{0} is missing; expected \"name unit? table address type order? /scale\", such as \"energy kWh holding 0x100 u32 cdab /100\""
    )]
    Missing(&'static str),
    /// The first word is no name.
    #[error("`{0}` is no name of a metric")]
    Name(String),
    /// Neither a table nor the number of a manual.
    #[error("expected coil, discrete, input or holding, or a number such as 40001, not `{0}`")]
    Table(String),
    /// No address.
    #[error("expected an address of 0 to 65535, or 0x0 to 0xffff, not `{0}`")]
    Address(String),
    /// No type.
    #[error(
        "expected one of u16, i16, u32, i32, u64, i64, f32, f64, bool, bit N, text N, not `{0}`"
    )]
    Type(String),
    /// No number in a range.
    #[error("expected {0}")]
    Number(&'static str),
    /// A type that the table cannot hold.
    #[error("{0} holds bits: leave the type out, or say bool")]
    Bits(&'static str),
    /// It reaches beyond the table.
    #[error("it reaches beyond address 65535")]
    Beyond,
    /// Something that has no meaning there.
    #[error("`{0}` is no order (abcd, cdab, badc, dcba), no scale (/100, *0.1) and not `absent`")]
    Unknown(String),
}

impl FromStr for Register {
    type Err = BadRegister;

    fn from_str(line: &str) -> Result<Self, BadRegister> {
        let mut words = line.split_whitespace().peekable();
        let name = words.next().ok_or(BadRegister::Missing("the name"))?;
        if !is_name(name) {
            return Err(BadRegister::Name(name.into()));
        }
        let first = words.next().ok_or(BadRegister::Missing("the table"))?;
        let (unit, place) = match is_place(first) {
            true => (None, first),
            false => (Some(first), words.next().ok_or(BadRegister::Missing("the table"))?),
        };
        let (table, address) = match Table::ALL.into_iter().find(|table| table.as_str() == place) {
            Some(table) => (table, address(words.next())?),
            None => reference(place).ok_or_else(|| BadRegister::Table(place.into()))?,
        };
        let (kind, count) = match words.peek() {
            _ if table.is_bits() => match words.next_if(|word| *word == "bool") {
                None if words.peek().is_some() => return Err(BadRegister::Bits(table.as_str())),
                Some(_) | None => (Kind::Bool, 1),
            },
            Some(_) => kind(&mut words)?,
            None => return Err(BadRegister::Missing("the type")),
        };
        if u32::from(address) + u32::from(count) > 1 << 16 {
            return Err(BadRegister::Beyond);
        }
        let span = Span { table, first: address, count };
        let (metric, unit) = (name.into(), unit.map(Arc::from));
        let (order, scale, absent) = (BIG_ENDIAN, Scale::One, None);
        let mut register = Self { metric, unit, span, place: span, kind, order, scale, absent };
        while let Some(word) = words.next() {
            register.qualify(word, &mut words)?;
        }
        Ok(register)
    }
}

impl Register {
    /// Reads what may follow the type.
    fn qualify<'w>(
        &mut self,
        word: &str,
        rest: &mut impl Iterator<Item = &'w str>,
    ) -> Result<(), BadRegister> {
        let is_number = matches!(self.kind, Kind::Unsigned | Kind::Signed | Kind::Float);
        let width = match self.span.count {
            1 => 0,
            2 => 1,
            _ => 2,
        };
        // Two words say what one would; a text has any length.
        let named = |names: &[&str; 3]| names.get(width) == Some(&word) || names[1] == word;
        if word == "absent" {
            let wanted = BadRegister::Number("a number behind `absent`, such as 0x8000 or -1");
            let value = rest.next().and_then(number).ok_or(wanted)?;
            let unused = 64 - 16 * u32::from(self.span.count.min(4));
            self.absent = Some(value.cast_unsigned() << unused >> unused);
        } else if let Some((_, order)) = ORDERS.iter().find(|(names, _)| named(names)) {
            self.order = *order;
        } else if let Some(scale) = Scale::read(word).filter(|_| is_number) {
            self.scale = scale;
        } else {
            return Err(BadRegister::Unknown(word.into()));
        }
        Ok(())
    }
}

fn is_place(word: &str) -> bool {
    Table::ALL.iter().any(|table| table.as_str() == word) || word.parse::<u32>().is_ok()
}

/// Reads a number as manuals write it: 40001, or 400001, is the first holding register.
fn reference(word: &str) -> Option<(Table, u16)> {
    let number: u32 = word.parse().ok()?;
    let table = match (word.len(), word.get(..1)?) {
        (5 | 6, "0") => Table::Coil,
        (5 | 6, "1") => Table::Discrete,
        (5 | 6, "3") => Table::Input,
        (5 | 6, "4") => Table::Holding,
        _ => return None,
    };
    let unit = if word.len() == 5 { 10_000 } else { 100_000 };
    Some((table, u16::try_from((number % unit).checked_sub(1)?).ok()?))
}

fn address(word: Option<&str>) -> Result<u16, BadRegister> {
    let word = word.ok_or(BadRegister::Missing("the address"))?;
    let bad = || BadRegister::Address(word.into());
    number(word).and_then(|number| number.try_into().ok()).ok_or_else(bad)
}

/// Reads a decimal or hexadecimal number, as the bits of 64.
fn number(word: &str) -> Option<i64> {
    match word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok().map(u64::cast_signed),
        None => word.parse().ok(),
    }
}

fn kind<'w>(words: &mut impl Iterator<Item = &'w str>) -> Result<(Kind, u16), BadRegister> {
    let word = words.next().unwrap_or_default();
    let mut count = |range: std::ops::RangeInclusive<u16>, wanted| {
        let number = words.next().and_then(|word| word.parse().ok());
        number.filter(|number| range.contains(number)).ok_or(BadRegister::Number(wanted))
    };
    Ok(match word {
        "bool" => (Kind::Bool, 1),
        "bit" => (Kind::Bit(count(0..=15, "a bit of 0 to 15 behind `bit`")? as u8), 1),
        "text" => (Kind::Text, count(1..=125, "1 to 125 registers behind `text`")?),
        "u16" => (Kind::Unsigned, 1),
        "i16" => (Kind::Signed, 1),
        "u32" => (Kind::Unsigned, 2),
        "i32" => (Kind::Signed, 2),
        "u64" => (Kind::Unsigned, 4),
        "i64" => (Kind::Signed, 4),
        "f32" => (Kind::Float, 2),
        "f64" => (Kind::Float, 4),
        other => return Err(BadRegister::Type(other.into())),
    })
}

#[cfg(test)]
mod tests;
