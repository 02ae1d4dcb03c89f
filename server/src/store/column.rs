//! Values, or whole numbers, as a column: exact, bit for bit.
//!
//! Doubles and integers are packed by `pco`, which was made for series. What is neither, or of
//! several kinds, is rare and goes through the batch codec, which has a column for every kind.

use pco::{ChunkConfig, data_types::Number, standalone};
use valtronics_protocol::{batch::journal, time::UnixMillis, value::Value};

const FLOATS: u8 = 0;
const INTS: u8 = 1;
const OTHERS: u8 = 2;

/// Writes values.
pub(super) fn encode(values: &[&Value]) -> Vec<u8> {
    let floats = values.iter().map(|value| match value {
        Value::Float(number) => Some(*number),
        Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Text(_) => None,
    });
    let ints = values.iter().map(|value| match value {
        Value::Int(number) => Some(*number),
        Value::Bool(_) | Value::UInt(_) | Value::Float(_) | Value::Text(_) => None,
    });
    let (kind, body) = if let Some(floats) = floats.collect::<Option<Vec<_>>>() {
        (FLOATS, pack(&floats))
    } else if let Some(ints) = ints.collect::<Option<Vec<_>>>() {
        (INTS, pack(&ints))
    } else {
        (OTHERS, journal::encode(values.iter().map(|value| (0, 0, UnixMillis(0), *value))))
    };
    [vec![kind], body].concat()
}

/// Reads values.
pub(super) fn decode(column: &[u8]) -> Option<Vec<Value>> {
    match column.split_first()? {
        (&FLOATS, body) => Some(unpack(body)?.into_iter().map(Value::Float).collect()),
        (&INTS, body) => Some(unpack(body)?.into_iter().map(Value::Int).collect()),
        (&OTHERS, body) => {
            let items = journal::decode(body).ok()?;
            Some(items.into_iter().map(|item| item.value).collect())
        }
        _ => None,
    }
}

/// Packs numbers.
pub(super) fn pack<N: Number>(numbers: &[N]) -> Vec<u8> {
    standalone::simple_compress(numbers, &ChunkConfig::default()).expect("the default is valid")
}

/// Unpacks numbers.
pub(super) fn unpack<N: Number>(body: &[u8]) -> Option<Vec<N>> {
    standalone::simple_decompress(body).ok()
}
