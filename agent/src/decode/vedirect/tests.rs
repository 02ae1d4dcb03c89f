use valtronics_protocol::{time::UnixMillis, value::Value};

use super::*;
use crate::decode::{Decoder, Format, guess::Guess};

const CHARGER: &[(&str, &str)] = &[
    ("PID", "0xA042"),
    ("SER#", "HQ1411XXXXX"),
    ("V", "12530"),
    ("I", "-620"),
    ("PPV", "8"),
    ("LOAD", "ON"),
    ("H19", "8272"),
    ("TTG", "-1"),
    ("OR", "0x00000010"),
    ("NEW", "7"),
];
const MONITOR: &[&[(&str, &str)]] = &[
    &[("PID", "0x203"), ("V", "26201"), ("SOC", "876"), ("T", "---")],
    &[("H1", "-55466"), ("H18", "4242")],
];

/// Writes a block whose bytes add up to 0.
fn block(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (label, value) in lines {
        bytes.extend(format!("\r\n{label}\t{value}").bytes());
    }
    bytes.extend(b"\r\nChecksum\t");
    let sum = bytes.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    bytes.push(sum.wrapping_neg());
    bytes
}

/// Returns a letter that can be printed.
fn random_letter(state: &mut u32) -> char {
    *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    char::from_u32(33 + (*state >> 16) % 94).unwrap()
}

fn read(bytes: &[u8], piece: usize, format: Format) -> (Vec<Sample>, [u64; 3]) {
    let mut decoder = Decoder::new(format, None);
    let mut samples = Vec::new();
    bytes.chunks(piece).for_each(|piece| decoder.feed(piece, UnixMillis(0), &mut samples));
    decoder.finish(&mut samples);
    let counts = decoder.counts();
    (samples, [counts.good, counts.damaged, counts.foreign])
}

fn vedirect(bytes: &[u8]) -> (Vec<Sample>, [u64; 3]) {
    read(bytes, bytes.len(), Format::Vedirect(Vedirect::default()))
}

#[test]
fn labels_become_names_and_units() {
    let (samples, counts) = vedirect(&block(CHARGER));
    let shown: Vec<_> = samples
        .iter()
        .map(|s| format!("{}={}{}", s.metric, s.value, s.unit.as_deref().unwrap_or_default()))
        .collect();
    let expected = [
        "product_id=0xA042",
        "serial_number=HQ1411XXXXX",
        "battery_voltage=12.53V",
        "battery_current=-0.62A",
        "panel_power=8W",
        "load=true",
        "yield_total=82.72kWh",
        "off_reason=16",
        "NEW=7",
    ];
    assert_eq!(shown, expected);
    assert_eq!(counts, [1, 0, 0]);
}

#[test]
fn any_checksum_byte_any_pieces_and_hex_between() {
    let mut bytes = b"D\t0xA05F\r\nV\t1".to_vec();
    let mut blocks = 0;
    let mut sums = std::collections::BTreeSet::<u8>::new();
    let mut state = 1;
    for number in 0..600_u32 {
        // Colons of a text begin no HEX frame.
        let serial: String = (0..4).map(|_| random_letter(&mut state)).collect();
        let block = block(&[("SER#", &serial), ("V", "1"), ("I", "1")]);
        sums.extend(block.last());
        // In front of a block and inside of one.
        match number % 3 {
            0 => bytes.extend(b":A5010000104F\n".iter().chain(&block)),
            1 => {
                let (front, back) = block.split_at(12);
                bytes.extend(front.iter().chain(b":7F0ED0071\n").chain(back));
            }
            _ => bytes.extend(&block),
        }
        blocks += 1;
    }
    assert!(b"\r\n\t:".iter().all(|byte| sums.contains(byte)), "{sums:?}");
    let whole = vedirect(&bytes);
    assert_eq!(whole.1, [blocks - 1, 0, 1], "the first is torn");
    for piece in [1, 2, 7, 16, 64] {
        assert_eq!(read(&bytes, piece, Format::Vedirect(Vedirect::default())), whole);
        let guessed = read(&bytes, piece, Format::Guess(Guess::default()));
        assert_eq!(guessed.1[0], blocks - 1, "{piece}");
    }
}

#[test]
fn a_flipped_byte_costs_its_own_block_only() {
    let blocks: Vec<_> = (0..8).map(|at| block(MONITOR[at % 2])).collect();
    let clean: Vec<u8> = blocks.concat();
    let damaged = 4;
    let begin: usize = blocks[..damaged].iter().map(Vec::len).sum();
    let all = vedirect(&clean).0;
    let (before, after): (Vec<_>, Vec<_>) = {
        let counts: Vec<_> = blocks.iter().map(|block| vedirect(block).0.len()).collect();
        let first: usize = counts[..damaged].iter().sum();
        (all[..first].to_vec(), all[first + counts[damaged]..].to_vec())
    };
    let expected: Vec<_> = before.into_iter().chain(after).collect();
    for at in begin..begin + blocks[damaged].len() {
        for flip in [0x01, 0x08, 0x20, 0x80, 0x07] {
            let mut bytes = clean.clone();
            bytes[at] ^= flip;
            assert_eq!(vedirect(&bytes).0, expected, "{at} {flip:x}");
        }
    }
}

#[test]
fn garbage_takes_no_memory_and_makes_no_readings() {
    let mut blocks = Vedirect::default();
    let (mut context, mut out) = (Context::default(), Vec::new());
    let mut state = 7;
    for _ in 0..2_000_000 {
        let random = random_letter(&mut state);
        let byte = match state >> 29 {
            0 => b'\r',
            1 => b'\n',
            2 => b'\t',
            _ => random as u8,
        };
        blocks.next(&mut &[byte][..], &mut context, &mut out);
    }
    assert!(out.is_empty());
    assert!(blocks.block.lines.len() <= MAX_LINES && blocks.again.is_empty());
    assert!(blocks.line.capacity() <= 4 * MAX_LINE_BYTES);
    // And it finds its way back.
    let mut bytes = block(CHARGER).repeat(2);
    bytes.insert(0, b'x');
    let mut bytes = &bytes[..];
    while blocks.next(&mut bytes, &mut context, &mut out).is_some() {}
    assert_eq!(out.last().unwrap().value, Value::Int(7));
}
