//! Values by their type (specification, "Data Types").

use valtronics_protocol::{time::UnixMillis, value::Value};

use super::wire::Raw;

/// The numbers of the types that are carried as integers.
const INTEGERS: [(u32, bool, u32); 8] = [
    (1, true, 8),
    (2, true, 16),
    (3, true, 32),
    (4, true, 64),
    (5, false, 8),
    (6, false, 16),
    (7, false, 32),
    (8, false, 64),
];
const BOOLEAN: u32 = 11;
const DATE_TIME: u32 = 13;

/// Why a value is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacking {
    /// It is not a number.
    Absent,
    /// It is no single value, or none of its type.
    Unfit,
}

/// Makes a value of what lies in a payload.
///
/// Integers need their type, for a negative one is carried as a large one. Any other says itself
/// what it is. A time becomes text, for a number would not say that it is one.
///
/// # Errors
/// When it is no value.
pub fn value(datatype: Option<u32>, raw: Raw<'_>) -> Result<Value, Lacking> {
    let integer = match raw {
        Raw::Int(_) | Raw::Long(_) => integer(datatype, raw),
        // The shortest decimal that names it: 230.2, not 230.1999969482422.
        Raw::Float(single) => {
            let shortest = single.to_string().parse().ok().and_then(Value::finite);
            return shortest.ok_or(Lacking::Absent);
        }
        Raw::Double(double) => return Value::finite(double).ok_or(Lacking::Absent),
        Raw::Bool(truth) => Some(Value::Bool(truth)),
        Raw::Text(text) => Some(Value::Text(text.into())),
        Raw::Other => None,
    };
    integer.ok_or(Lacking::Unfit)
}

fn integer(datatype: Option<u32>, raw: Raw<'_>) -> Option<Value> {
    let bits = raw.as_integer()?;
    match datatype? {
        BOOLEAN => (bits < 2).then_some(Value::Bool(bits == 1)),
        DATE_TIME => {
            let moment = UnixMillis(i64::try_from(bits).ok()?);
            (moment <= UnixMillis::MAX).then(|| Value::Text(moment.to_string().into()))
        }
        datatype => {
            let (_, is_signed, width) =
                INTEGERS.into_iter().find(|(number, ..)| *number == datatype)?;
            if is_signed { signed(raw, width) } else { unsigned(bits, width) }
        }
    }
}

fn unsigned(bits: u64, width: u32) -> Option<Value> {
    (bits <= u64::MAX >> (64 - width)).then(|| bits.into())
}

/// Reads two's complement, be the sign in all bits of the carrier or only in those of the type.
fn signed(raw: Raw<'_>, width: u32) -> Option<Value> {
    let carried = match raw {
        Raw::Int(bits) => bits.cast_signed().into(),
        _ => raw.as_integer()?.cast_signed(),
    };
    let unused = 64 - width;
    let own = carried << unused >> unused;
    let fits = own == carried || carried.cast_unsigned() <= u64::MAX >> unused;
    fits.then_some(Value::Int(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_what_their_type_says() {
        let check = |datatype, raw, expected: Option<i64>| {
            let found = value(Some(datatype), raw);
            let expected = expected.map(Value::Int).ok_or(Lacking::Unfit);
            assert_eq!(found, expected, "{datatype} {raw:?}");
        };
        check(1, Raw::Int(0xffff_fff3), Some(-13));
        check(1, Raw::Int(0xf3), Some(-13));
        check(1, Raw::Int(0x1f3), None);
        check(2, Raw::Int(4_294_967_283), Some(-13));
        check(2, Raw::Int(0x8000), Some(-32768));
        check(2, Raw::Long(u64::MAX), Some(-1));
        check(3, Raw::Int(0x8000_0000), Some(i64::from(i32::MIN)));
        check(3, Raw::Long(0xffff_fff3), Some(-13));
        check(3, Raw::Long(0x1_0000_0000), None);
        check(4, Raw::Long(u64::MAX - 12), Some(-13));
        check(4, Raw::Int(0xffff_fff3), Some(-13));
        check(5, Raw::Int(255), Some(255));
        check(5, Raw::Int(256), None);
        check(7, Raw::Int(4_294_967_283), Some(4_294_967_283));
        check(9, Raw::Int(5), None);
        check(16, Raw::Int(5), None);
        assert_eq!(value(Some(8), Raw::Long(u64::MAX)), Ok(Value::UInt(u64::MAX)));
        assert_eq!(value(None, Raw::Int(5)), Err(Lacking::Unfit));
    }

    #[test]
    fn other_values_say_what_they_are() {
        assert_eq!(value(Some(9), Raw::Float(50.02)), Ok(Value::Float(50.02)));
        assert_eq!(value(None, Raw::Double(0.1)), Ok(Value::Float(0.1)));
        assert_eq!(value(None, Raw::Bool(true)), Ok(Value::Bool(true)));
        assert_eq!(value(Some(BOOLEAN), Raw::Int(1)), Ok(Value::Bool(true)));
        assert_eq!(value(Some(12), Raw::Text("BX-99")), Ok(Value::Text("BX-99".into())));
        let moment = value(Some(DATE_TIME), Raw::Long(1_704_110_400_000));
        assert_eq!(moment, Ok(Value::Text("2024-01-01T12:00:00Z".into())));
        assert_eq!(value(Some(DATE_TIME), Raw::Long(u64::MAX)), Err(Lacking::Unfit));
        for not_a_number in [Raw::Float(f32::NAN), Raw::Double(f64::INFINITY)] {
            assert_eq!(value(Some(10), not_a_number), Err(Lacking::Absent));
        }
        assert_eq!(value(Some(17), Raw::Other), Err(Lacking::Unfit));
    }
}
