use proptest::prelude::*;

use super::*;

fn hex(digits: &str) -> Vec<u8> {
    let digits = digits.replace(' ', "");
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}

fn request(unit: u8, table: Table, first: u16, count: u16) -> Request {
    Request { transaction: 1, unit, span: Span { table, first, count } }
}

#[test]
fn requests_are_those_of_the_standard() {
    let request = request(1, Table::Input, 0x34, 2);
    assert_eq!(request.encode(Framing::Rtu), hex("0104003400023005"));
    assert_eq!(request.encode(Framing::Tcp), hex("0001 0000 0006 01 04 0034 0002"));
}

fn check(framing: Framing, request: Request, answer: &str, expected: Answer) {
    let bytes = hex(answer);
    assert_eq!(request.answer(framing, &bytes), expected, "{answer}");
    for end in 0..bytes.len() {
        let part = request.answer(framing, &bytes[..end]);
        assert!(part == Answer::Incomplete || part == expected, "{answer} up to {end}: {part:?}");
    }
}

#[test]
fn answers_count_when_they_are_those_asked_for() {
    let volts = request(1, Table::Input, 0, 2);
    let words = Answer::Words(vec![0x4366, 0x3333]);
    let rtu = |answer: &str, expected| check(Framing::Rtu, volts, answer, expected);
    rtu("010404436633335afa", words.clone());
    rtu("018402c2c1", Answer::Refused(Exception(2)));
    // Noise in front, and behind.
    rtu("00ff010404436633335afa", words.clone());
    rtu("010404436633335afa00", words.clone());
    // A wrong checksum, and a right frame behind.
    rtu("010404436633335afb", Answer::Incomplete);
    rtu("010404436633335afb 010404436633335afa", words.clone());
    let own = |content: &str| {
        let mut bytes = hex(content);
        bytes.extend(checksum(&bytes).to_le_bytes());
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    // Of another unit, of another function, of another length.
    rtu(&own("02 04 04 43663333"), Answer::Incomplete);
    rtu(&own("01 03 04 43663333"), Answer::Incomplete);
    rtu(&own("01 04 02 4366"), Answer::Incomplete);
    rtu(&own("01 04 06 4366 3333 0000"), Answer::Incomplete);
    rtu(&own("01 83 02"), Answer::Incomplete);

    let tcp = |answer: &str, expected| check(Framing::Tcp, volts, answer, expected);
    tcp("0001 0000 0007 01 04 04 43663333", words.clone());
    tcp("0001 0000 0003 01 84 02", Answer::Refused(Exception(2)));
    // What is late comes first.
    tcp("0000 0000 0007 01 04 04 00000000 0001 0000 0007 01 04 04 43663333", words);
    tcp("0002 0000 0007 01 04 04 43663333", Answer::Incomplete);
    tcp("0001 0000 0007 02 04 04 43663333", Answer::Incomplete);
    tcp("0001 0000 0005 01 04 02 4366", Answer::Incomplete);
    tcp("0001 0001 0007", Answer::Broken);
    tcp("0001 0000 ffff", Answer::Broken);
}

#[test]
fn bits_come_lowest_first() {
    let coils = request(1, Table::Coil, 0, 10);
    let bytes = hex("0001 0000 0005 01 01 02 cd01");
    let expected = Answer::Words(vec![1, 0, 1, 1, 0, 0, 1, 1, 1, 0]);
    assert_eq!(coils.answer(Framing::Tcp, &bytes), expected);
}

proptest! {
    #[test]
    fn one_damaged_byte_loses_the_frame(
        words in prop::collection::vec(any::<u16>(), 1..125), place in any::<prop::sample::Index>(), flip in 1..=255_u8,
    ) {
        let asked = request(7, Table::Holding, 3, words.len() as u16);
        let mut bytes = vec![7, 3, 2 * words.len() as u8];
        bytes.extend(words.iter().flat_map(|word| word.to_be_bytes()));
        bytes.extend(checksum(&bytes).to_le_bytes());
        prop_assert_eq!(asked.answer(Framing::Rtu, &bytes), Answer::Words(words));
        let place = place.index(bytes.len());
        bytes[place] ^= flip;
        prop_assert_eq!(asked.answer(Framing::Rtu, &bytes), Answer::Incomplete);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), tcp in any::<bool>()) {
        let framing = if tcp { Framing::Tcp } else { Framing::Rtu };
        let _ = request(1, Table::Coil, 0, 10).answer(framing, &bytes);
    }
}
