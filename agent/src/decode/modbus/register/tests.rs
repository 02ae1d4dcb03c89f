use proptest::prelude::*;

use super::*;

fn check(line: &str, words: &[u16], expected: Option<Value>) {
    let register: Register = line.parse().unwrap();
    let words = Words { first: register.span.first, words };
    assert_eq!(register.sample(words).map(|sample| sample.value), expected, "{line}");
}

fn float(number: f64) -> Option<Value> {
    Some(Value::Float(number))
}

#[test]
fn numbers_in_every_type_and_order() {
    check("a holding 0 u16", &[0xfffe], Some(Value::Int(65534)));
    check("a holding 0 i16", &[0xfffe], Some(Value::Int(-2)));
    check("a holding 0 u16 ba", &[0x0100], Some(Value::Int(1)));
    check("a holding 0 u16 badc", &[0x0100], Some(Value::Int(1)));
    check("a holding 0 u32", &[0x8000, 1], Some(Value::Int(0x8000_0001)));
    check("a holding 0 i32", &[0xffff, 0xfffe], Some(Value::Int(-2)));
    check("a holding 0 u32 cdab", &[1, 0x8000], Some(Value::Int(0x8000_0001)));
    check("a holding 0 u64", &[0xffff; 4], Some(Value::UInt(u64::MAX)));
    check("a holding 0 i64", &[0xffff; 4], Some(Value::Int(-1)));
    check("a holding 0 u64 cdab", &[1, 2, 0, 0], Some(Value::Int(0x2_0001)));
    check("a holding 0 u64 hgfedcba", &[0x0100, 0, 0, 0], Some(Value::Int(1)));
    for (order, words) in [
        ("", [0x47f1, 0x2000]),
        ("abcd", [0x47f1, 0x2000]),
        ("cdab", [0x2000, 0x47f1]),
        ("badc", [0xf147, 0x0020]),
        ("dcba", [0x0020, 0xf147]),
    ] {
        check(&format!("a holding 0 f32 {order}"), &words, float(123_456.0));
    }
    check("a input 0 f64", &[0x4059, 0, 0, 0], float(100.0));
    check("a coil 0", &[1], Some(Value::Bool(true)));
    check("a discrete 0 bool", &[0], Some(Value::Bool(false)));
    check("a holding 0 bool", &[7], Some(Value::Bool(true)));
    check("a holding 0 bit 15", &[0x8000], Some(Value::Bool(true)));
    check("a holding 0 bit 0", &[0x8000], Some(Value::Bool(false)));
    let text = |text: &str| Some(Value::Text(text.into()));
    check("a holding 0 text 3", &[0x4142, 0x4320, 0], text("ABC"));
    check("a holding 0 text 2 badc", &[0x4241, 0x0043], text("ABC"));
}

#[test]
fn scales_move_the_decimal_point_and_add_no_digits() {
    check("a holding 0 u16 /100", &[12345], float(123.45));
    check("a holding 0 i16 /10", &[0xffff], float(-0.1));
    check("a holding 0 u16 *0.1", &[3], float(0.3));
    check("a holding 0 u16 *10", &[3], float(30.0));
    check("a holding 0 u16 *2.5", &[3], float(7.5));
    check("a holding 0 u16 /4", &[3], float(0.75));
    check("a holding 0 u16 *-1", &[3], float(-3.0));
    check("a holding 0 u16 /0.01", &[3], float(300.0));
    check("a holding 0 f32", &[0x4366, 0x3333], float(230.2));
    check("a holding 0 f32 *1000", &[0x3f80, 0x20c5], float(1001.0));
    check("a holding 0 u64 /1000", &[0xffff; 4], float(18_446_744_073_709_551.615));
}

#[test]
fn a_scale_may_stand_beside_its_value() {
    let register: Register = "a holding 65534 i32".parse().unwrap();
    let register = register.scaled_at(65530);
    assert_eq!((register.span.first, register.span.count), (65530, 6));
    for (power, expected) in
        [(0xffff, float(12.3)), (2, float(12300.0)), (0, float(123.0)), (0x8000, None), (11, None)]
    {
        let words = Words { first: 65530, words: &[power, 9, 9, 9, 0, 123] };
        assert_eq!(register.sample(words).map(|sample| sample.value), expected, "{power}");
    }
}

#[test]
fn an_absent_value_is_no_sample() {
    check("a holding 0 f32", &[0x7fc0, 0], None);
    check("a holding 0 f32 *10", &[0x7f80, 0], None);
    check("a holding 0 f64", &[0x7ff8, 0, 0, 0], None);
    check("a holding 0 u16 absent 0xffff", &[0xffff], None);
    check("a holding 0 i16 /10 absent -32768", &[0x8000], None);
    check("a holding 0 i32 cdab absent 0x80000000", &[0, 0x8000], None);
    check("a holding 0 i16 absent 0x8000", &[0x8001], Some(Value::Int(-32767)));
    check("a holding 0 text 2", &[0, 0x4142], None);
    check("a holding 0 u32", &[1], None);
}

#[test]
fn places_are_those_on_the_wire_or_a_manuals() {
    for (line, table, first) in [
        ("a holding 0x100 u16", Table::Holding, 256),
        ("a V input 30 u16", Table::Input, 30),
        ("a holding 40001 u16", Table::Holding, 40001),
        ("a 40001 u16", Table::Holding, 0),
        ("a kWh 30257 u32", Table::Input, 256),
        ("a 465536 u16", Table::Holding, 65535),
        ("a 00010", Table::Coil, 9),
        ("a 100001", Table::Discrete, 0),
    ] {
        let register: Register = line.parse().unwrap();
        assert_eq!((register.span.table, register.span.first), (table, first), "{line}");
    }
}

#[test]
fn a_mistake_says_what_would_be_right() {
    for (line, expected) in [
        ("", "the name is missing"),
        ("a", "the table is missing"),
        ("a V", "the table is missing"),
        ("a V W holding 1 u16", "expected coil, discrete, input or holding"),
        ("a 12 u16", "expected coil, discrete, input or holding, or a number such as 40001"),
        ("a 465537 u16", "expected coil, discrete, input or holding"),
        ("a 40000 u16", "expected coil, discrete, input or holding"),
        ("a holding", "the address is missing"),
        ("a holding 65536 u16", "expected an address of 0 to 65535"),
        ("a holding -1 u16", "expected an address of 0 to 65535"),
        ("a holding 0x u16", "expected an address of 0 to 65535"),
        ("a holding 65535 u32", "it reaches beyond address 65535"),
        ("a holding 1", "the type is missing"),
        ("a holding 1 u8", "expected one of u16"),
        ("a holding 1 bit", "expected a bit of 0 to 15"),
        ("a holding 1 bit 16", "expected a bit of 0 to 15"),
        ("a holding 1 text 126", "expected 1 to 125 registers"),
        ("a coil 1 u16", "coil holds bits"),
        ("a holding 1 u16 /0", "`/0` is no order"),
        ("a holding 1 u16 acbd", "`acbd` is no order"),
        ("a holding 1 u16 *x", "`*x` is no order"),
        ("a holding 1 bool /10", "`/10` is no order"),
        ("a holding 1 u16 absent", "expected a number behind `absent`"),
        ("a holding 1 u16 é", "`é` is no order"),
    ] {
        let said = line.parse::<Register>().unwrap_err().to_string();
        assert!(said.starts_with(expected), "{line}: {said}");
    }
}

proptest! {
    #[test]
    fn no_line_and_no_words_make_it_panic(
        line in "[a-z]{1,4} (holding|input|coil|4[0-9]{4,5}|.{0,3}) ?(0x)?[0-9a-f]{0,6} ?[uif0-9a-z /*.-]{0,24}",
        words in prop::collection::vec(any::<u16>(), 0..8),
    ) {
        if let Ok(register) = line.parse::<Register>() {
            let _ = register.sample(Words { first: register.span.first, words: &words });
        }
    }

    #[test]
    fn orders_are_those_of_the_bytes(number in any::<i32>()) {
        let [a, b, c, d] = number.to_be_bytes();
        for (order, bytes) in
            [("abcd", [a, b, c, d]), ("cdab", [c, d, a, b]), ("badc", [b, a, d, c]), ("dcba", [d, c, b, a])]
        {
            let words = [[bytes[0], bytes[1]], [bytes[2], bytes[3]]].map(u16::from_be_bytes);
            check(&format!("a holding 0 i32 {order}"), &words, Some(Value::Int(number.into())));
        }
    }
}
