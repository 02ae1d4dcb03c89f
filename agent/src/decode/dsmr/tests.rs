use valtronics_protocol::time::UnixMillis;

use super::*;
use crate::decode::{Decoder, Format, guess::Guess};

/// 2026-01-01T00:00:00Z.
const NOW: UnixMillis = UnixMillis(1_767_225_600_000);

const LINES: &[&str] = &[
    "1-3:0.2.8(50)",
    "0-0:1.0.0(250702192002S)",
    "0-0:96.1.1(4B384547303034303436333935353037)",
    "1-0:1.8.1(000004.426*kWh)",
    "1-0:1.7.0(00.244*kW)",
    "0-0:96.14.0(0002)",
    "1-0:99.97.0(1)(0-0:96.7.19)(190326095015W)(0000002014*s)",
    "0-0:98.1.0(1)(1-0:1.6.0)(1-0:1.6.0)(200501000000S)(200423192538S)(03.695*kW)",
    "1-0:1.6.0(250509134558S)(02.589*kW)",
    "0-0:96.13.0()",
    "1-0:32.7.0(0230.0*V)",
    "1-0:15.8.0(00001.5*kWh)",
    "0-1:24.1.0(003)",
    "0-1:96.1.0(4730303339)",
    "0-1:24.2.1(250102161005W)(00000.107*m3)",
    "0-2:24.1.0(007)",
    "0-2:96.1.0()",
];

/// Writes a telegram with its checksum.
fn telegram(lines: &[&str]) -> String {
    let content = format!("/ISK5\\2M550T-1012\r\n\r\n{}\r\n!", lines.join("\r\n"));
    format!("{content}{:04X}\r\n", crc16(content.bytes()))
}

fn read(bytes: &[u8], piece: usize, format: Format) -> (Vec<String>, [u64; 3]) {
    let mut decoder = Decoder::new(format, None);
    let mut samples = Vec::new();
    bytes.chunks(piece).for_each(|piece| decoder.feed(piece, NOW, &mut samples));
    decoder.finish(&mut samples);
    let shown = |sample: Sample| {
        let (device, unit) = (sample.device.unwrap_or_default(), sample.unit.unwrap_or_default());
        let at = sample.at.map_or(String::new(), |at| format!(" @{at}"));
        format!("{device} {}={}{unit}{at}", sample.metric, sample.value)
    };
    let counts = decoder.counts();
    (samples.into_iter().map(shown).collect(), [counts.good, counts.damaged, counts.foreign])
}

fn dsmr(text: &str) -> (Vec<String>, [u64; 3]) {
    read(text.as_bytes(), text.len(), Format::Dsmr(Dsmr::default()))
}

#[test]
fn objects_become_values_with_the_meters_own_time() {
    let at = " @2025-07-02T17:20:02Z";
    let (samples, counts) = dsmr(&telegram(LINES));
    let expected = [
        format!(" energy_import_tariff_1=4.426kWh{at}"),
        format!(" power_import=0.244kW{at}"),
        format!(" tariff=2{at}"),
        format!(" maximum_demand=2.589kW{at}"),
        format!(" voltage_l1=230.0V{at}"),
        format!(" 15.8.0=1.5kWh{at}"),
        "gas-G0039 gas=0.107m3 @2025-01-02T15:10:05Z".into(),
    ];
    assert_eq!(samples, expected);
    assert_eq!(counts, [1, 0, 0]);
    // The meter behind it says the same until its next hour.
    let again = dsmr(&telegram(LINES).repeat(3));
    assert_eq!((again.0.len(), again.1), (3 * 6 + 1, [3, 0, 0]));
}

#[test]
fn older_meters_have_no_checksum_and_a_value_of_its_own_line() {
    let text = "/ISk5\\2MT382-1004\r\n\r\n0-0:96.1.1(00000000000000)\r\n1-0:1.7.0(0001.01*kW)\r\n\
                0-1:24.1.0(3)\r\n0-1:96.1.0(000000000000)\r\n\
                0-1:24.3.0(161107190000)(00)(60)(1)(0-1:24.2.1)(m3)\r\n(00001.001)\r\n!\r\n";
    let expected = [" power_import=1.01kW", "gas-000000000000 gas=1.001m3"];
    assert_eq!(dsmr(text), (expected.map(String::from).to_vec(), [1, 0, 0]));
    let damaged = text.replace("1-0:1.7.0(", "1-0:1.7\".0(");
    assert_eq!(dsmr(&damaged), (vec![], [0, 1, 0]));
}

#[test]
fn storage_numbers_and_lines_behind_the_end() {
    let text = "/ESY5Q3DA1004 V3.04\r\n\r\n1-0:1.8.0*255(00032549.5061662*kWh)\r\n\
                1-0:96.5.5*255(80)\r\n!\r\n  25818685\r\nDE000003\r\n";
    assert_eq!(dsmr(text), (vec![" energy_import=32549.5061662kWh".into()], [1, 0, 2]));
}

#[test]
fn pieces_line_ends_and_guessing_change_nothing() {
    let text = telegram(LINES).repeat(4);
    let whole = dsmr(&text);
    for piece in [1, 2, 7, 16, 64, 5000] {
        for text in [text.clone(), text.replace("\r\n", "\n")] {
            let bytes = text.as_bytes();
            assert_eq!(read(bytes, piece, Format::Dsmr(Dsmr::default())), whole, "{piece}");
            assert_eq!(read(bytes, piece, Format::Guess(Guess::default())), whole, "{piece}");
        }
    }
}

#[test]
fn a_flipped_byte_costs_its_own_telegram_only() {
    let one = telegram(LINES);
    let clean = one.repeat(3);
    let kept = dsmr(&one.repeat(2)).0;
    for at in one.len()..2 * one.len() {
        let mut bytes = clean.clone().into_bytes();
        bytes[at] ^= 0x04;
        let (samples, counts) = read(&bytes, bytes.len(), Format::Dsmr(Dsmr::default()));
        // What ends lines does not count.
        let harmless = counts[0] == 3 && clean.as_bytes()[at].is_ascii_whitespace();
        assert!(samples == kept || harmless, "{at}: {samples:?} {counts:?}");
    }
}

#[test]
fn a_telegram_without_end_is_bounded() {
    let mut text = String::from("/ISK5\r\n");
    text.push_str(&"1-0:1.7.0(00.244*kW)\r\n".repeat(10_000));
    let (samples, counts) = dsmr(&(text + &telegram(LINES)));
    assert_eq!((samples.len(), counts[0], counts[1]), (7, 1, 1));
}
