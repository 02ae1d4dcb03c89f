use proptest::prelude::*;

use super::*;
use crate::{
    reading::{MAX_TEXT_BYTES, Reading},
    uplink::MAX_FRAME_READINGS,
};

fn reading(device: &str, metric: &str, at: i64, value: Value) -> Reading {
    Reading {
        device: device.into(),
        metric: metric.into(),
        value,
        unit: (metric != "state").then(|| "°C".into()),
        timestamp: UnixMillis(at),
        time_source: TimeSource::Device,
    }
}

/// Decodes a frame into readings again.
fn decode(decoder: &mut Decoder, frame: &[u8]) -> Result<Vec<Reading>, DecodeError> {
    decoder.decode(frame)?;
    let back = |row: &Row| {
        let Series { device, metric, unit, time_source } =
            decoder.series()[row.series as usize].clone();
        let (value, timestamp) = (row.value.clone(), row.timestamp);
        Reading { device, metric, value, unit, timestamp, time_source }
    };
    Ok(decoder.rows().iter().map(back).collect())
}

fn encode(readings: &[Reading]) -> Vec<u8> {
    let mut frame = Vec::new();
    Encoder::default().encode(readings, &mut frame);
    frame
}

/// `PartialEq` calls 0.0 and -0.0 equal.
fn same(one: &[Reading], other: &[Reading]) -> bool {
    format!("{one:?}") == format!("{other:?}")
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-100_i64..100).prop_map(Value::Int),
        any::<u64>().prop_map(Value::from),
        (-50_000_i32..50_000, 0..5)
            .prop_map(|(n, decimals)| Value::Float(f64::from(n) / 10_f64.powi(decimals))),
        any::<f64>().prop_filter_map("finite", Value::finite),
        any::<f32>().prop_filter_map("finite", |number| Value::finite(number.into())),
        prop::sample::select(vec![i64::MIN, i64::MAX, 0]).prop_map(Value::Int),
        prop::sample::select(vec![
            0.0,
            -0.0,
            30.0,
            f64::MAX,
            i64::MIN as f64,
            1e-320,
            9_007_199_254_740_993.0
        ])
        .prop_map(Value::Float),
        "[a-zä]{0,8}".prop_map(|text| Value::Text(text.into())),
        Just(Value::Text("x".repeat(MAX_TEXT_BYTES).into())),
    ]
}

prop_compose! {
    fn any_reading()(
        device in 0..3,
        metric in prop::sample::select(vec!["a", "b", "c", "state"]),
        unit in prop::option::weighted(0.1, Just(Arc::from("K"))),
        at in prop_oneof![
            3 => Just(1000),
            2 => 0..5000_i64,
            1 => UnixMillis::MIN.0..=UnixMillis::MAX.0,
        ],
        received in prop::bool::weighted(0.1),
        value in any_value(),
    ) -> Reading {
        let reading = reading(&format!("d{device}"), metric, at, value);
        let time_source = if received { TimeSource::Receive } else { TimeSource::Device };
        Reading { unit: unit.or(reading.unit), time_source, ..reading }
    }
}

/// Frames of what sensors say, round by round, and of anything.
fn any_frames() -> impl Strategy<Value = Vec<(Vec<Reading>, bool)>> {
    let anything = prop::collection::vec(any_reading(), 0..40);
    let steady = prop::collection::vec(prop::collection::vec(any_value(), 6), 1..8);
    let steady = steady.prop_map(|rounds| {
        let round = |(second, values): (usize, Vec<Value>)| {
            let at = 1_700_000_000_000 + second as i64 * 1000;
            let one = move |(series, value)| {
                reading(&format!("d{}", series / 3), &format!("m{}", series % 3), at, value)
            };
            values.into_iter().enumerate().map(one)
        };
        rounds.into_iter().enumerate().flat_map(round).collect()
    });
    prop::collection::vec((prop_oneof![anything, steady], any::<bool>()), 1..6)
}

proptest! {
    #[test]
    fn readings_come_back_in_order(frames in any_frames()) {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        for (readings, alone) in frames {
            let mut frame = Vec::new();
            if alone {
                encoder.encode_self_contained(&readings, &mut frame);
                prop_assert!(same(&decode(&mut Decoder::default(), &frame).unwrap(), &readings));
            } else {
                encoder.encode(&readings, &mut frame);
            }
            prop_assert!(same(&decode(&mut decoder, &frame).unwrap(), &readings));
        }
    }

    #[test]
    fn a_journal_comes_back(items in prop::collection::vec(
        (prop_oneof![0..5_u64, any::<u64>()], prop_oneof![0..5_u32, any::<u32>()], 0..3_i64,
         any_value()),
        0..60,
    )) {
        let item = |(device, metric, at, value): (u64, u32, i64, Value)| {
            journal::Item { device, metric, timestamp: UnixMillis(at), value }
        };
        let items: Vec<journal::Item> = items.into_iter().map(item).collect();
        let blob = journal_of(&items);
        prop_assert_eq!(format!("{:?}", journal::decode(&blob).unwrap()), format!("{items:?}"));
        for end in 1..blob.len() {
            prop_assert!(journal::decode(&blob[..end]).is_err());
        }
    }

    #[test]
    fn damage_is_an_error_or_other_readings(
        readings in prop::collection::vec(any_reading(), 1..20),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
        packed in any::<bool>(),
    ) {
        let mut frame = Vec::new();
        if packed {
            Encoder::default().encode_self_contained(&readings, &mut frame);
        } else {
            Encoder::default().encode(&readings, &mut frame);
        }
        for end in 0..frame.len() {
            prop_assert!(Decoder::default().decode(&frame[..end]).is_err());
        }
        let at = at.index(frame.len());
        frame[at] ^= 1_u8 << bit;
        if let Ok(rows) = Decoder::default().decode(&frame) {
            prop_assert!(rows.len() <= MAX_FRAME_READINGS);
        }
    }

    #[test]
    fn nonsense_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), tags in any::<bool>()) {
        // Small bytes are tags more often.
        let bytes: Vec<u8> = bytes.into_iter().map(|b| if tags { b % 8 } else { b }).collect();
        let _ = Decoder::default().decode(&bytes);
        let _ = journal::decode(&bytes);
    }
}

fn journal_of(items: &[journal::Item]) -> Vec<u8> {
    journal::encode(
        items.iter().map(|item| (item.device, item.metric, item.timestamp, &item.value)),
    )
}

#[test]
fn a_journal_may_be_longer_than_a_frame() {
    let item = |n: u64| {
        let timestamp = UnixMillis(n as i64 / 7);
        journal::Item { device: n % 300, metric: 7, timestamp, value: Value::Int(n as i64) }
    };
    let items: Vec<journal::Item> = (0..2 * MAX_FRAME_READINGS as u64 + 1).map(item).collect();
    assert_eq!(journal::decode(&journal_of(&items)).unwrap(), items);
}

#[test]
fn a_journal_of_long_texts_comes_back() {
    let item = |n: usize| {
        let value = Value::Text(format!("{n:0>MAX_TEXT_BYTES$}").into());
        journal::Item { device: 1, metric: 7, timestamp: UnixMillis(0), value }
    };
    let items: Vec<journal::Item> = (0..MAX_FRAME_READINGS).map(item).collect();
    assert_eq!(journal::decode(&journal_of(&items)).unwrap(), items);
}

/// Returns the sizes of a frame a second.
fn sizes(value: impl Fn(i64, i64) -> Value) -> Vec<usize> {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let size = |second: i64| {
        let at = 1_700_000_000_000 + second * 1000;
        let one = |series: i64| reading("boiler", &format!("t{series}"), at, value(second, series));
        let readings: Vec<Reading> = (0..50).map(one).collect();
        let mut frame = Vec::new();
        encoder.encode(&readings, &mut frame);
        assert!(same(&decode(&mut decoder, &frame).unwrap(), &readings));
        frame.len()
    };
    (0..20).map(size).collect()
}

#[test]
fn a_steady_stream_costs_a_byte_a_reading() {
    let decimal = |second, series| Value::Float((200 + series + second * series % 7) as f64 / 10.0);
    assert_eq!(sizes(decimal)[19], 54, "flags, a row, the end, time, and a byte for each of 50");
    let counter = |second, series| Value::Int(1_000_000 + second * series);
    assert_eq!(sizes(counter)[19], 54);
    let contact = |second, series| Value::Bool((second + series) % 3 == 0);
    assert_eq!(sizes(contact)[19], 54);
    let state = |_, series| Value::Text(format!("state {series}").into());
    assert_eq!(sizes(state)[19], 54);
}

#[test]
fn a_sensor_that_leaves_zeros_out_is_one_series() {
    let value = |second: i64, series: i64| {
        let tenths = 200 + (second + series) % 15;
        if tenths % 10 == 0 { Value::Int(tenths / 10) } else { Value::Float(tenths as f64 / 10.0) }
    };
    assert_eq!(sizes(value)[19], 54);
}

/// Every frame is taken, whatever becomes of the tables.
#[test]
fn an_encoder_begins_anew_before_a_limit() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let mut generations = Vec::new();
    for round in 0..4 {
        let one = |n: usize| {
            let n = n + round * MAX_FRAME_READINGS * 2 / 3;
            reading(&format!("d{n}"), "t", 0, Value::Int(n as i64))
        };
        let readings: Vec<Reading> = (0..MAX_FRAME_READINGS * 2 / 3).map(one).collect();
        let mut frame = Vec::new();
        encoder.encode(&readings, &mut frame);
        assert!(same(&decode(&mut decoder, &frame).unwrap(), &readings));
        generations.push(decoder.generation());
    }
    assert_eq!(generations, [1, 2, 3, 4]);
}

#[test]
fn what_no_reading_may_have_is_refused() {
    let check = |reading: Reading, expected: &str| {
        let error = Decoder::default().decode(&encode(&[reading])).unwrap_err();
        assert_eq!(error.to_string(), expected);
    };
    let good = reading("d", "t", 0, Value::Int(1));
    assert!(Decoder::default().decode(&encode(std::slice::from_ref(&good))).is_ok());
    let name = "the batch holds a name that no reading may have";
    check(Reading { device: "".into(), ..good.clone() }, name);
    check(Reading { metric: "a\nb".into(), ..good.clone() }, name);
    check(Reading { metric: "x".repeat(129).into(), ..good.clone() }, "the batch is damaged");
    let unit = "the batch holds a unit that no reading may have";
    check(Reading { unit: Some("x".repeat(33).into()), ..good.clone() }, unit);
    let time = "the batch holds a time that no reading may have";
    check(Reading { timestamp: UnixMillis(i64::MAX), ..good.clone() }, time);
    let number = "the batch holds a number that no reading may have";
    check(Reading { value: Value::Float(f64::NAN), ..good.clone() }, number);
    check(Reading { value: Value::Float(f64::INFINITY), ..good.clone() }, number);
    let text = "the batch holds a text that no reading may have";
    check(Reading { value: Value::Text("a\0".into()), ..good.clone() }, text);
    let long = Value::Text("x".repeat(MAX_TEXT_BYTES + 1).into());
    check(Reading { value: long, ..good.clone() }, "the batch is damaged");
    let one_more = vec![good; MAX_FRAME_READINGS + 1];
    let error = Decoder::default().decode(&encode(&one_more)).unwrap_err();
    assert_eq!(error, DecodeError::TooMany("readings"));
}

/// A few bytes that ask for much are refused before anything is reserved for them.
#[test]
fn a_bomb_is_refused() {
    let check = |body: &[u8], expected| {
        let mut frame = vec![FLAG_RESET | FLAG_PACKED];
        frame.extend(zstd::bulk::compress(body, 1).unwrap());
        assert!(frame.len() < 1000, "{}", frame.len());
        assert_eq!(Decoder::default().decode(&frame), Err(expected));
    };
    check(&vec![0; MAX_BODY_BYTES + 1], DecodeError::Damaged);
    let series = [1, 1, 1, b'd', 1, 1, b't', 0];
    let mut run = series.to_vec();
    run.extend([3, 1, 0, 5, 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    check(&run, DecodeError::Damaged);
    run.splice(11.., [5, 5, 4, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
    check(&run, DecodeError::TooMany("readings"));
    let mut groups = series.to_vec();
    groups.extend([3, 1, 0]);
    groups.extend(std::iter::repeat_n([3, 1, 1], MAX_GROUPS).flatten());
    check(&groups, DecodeError::TooMany("groups"));
}

/// These bytes are the format: once the wire is frozen they never change.
#[test]
fn golden_bytes() {
    let check = |frame: &[u8], expected: &str| {
        let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected.split_whitespace().collect::<String>());
    };
    let mut encoder = Encoder::default();
    let mut frame = Vec::new();
    let first = [
        reading("d", "t", 1000, Value::Float(21.5)),
        reading("d", "state", 1000, Value::Text("on".into())),
        reading("d", "t", 2000, Value::Float(21.6)),
    ];
    encoder.encode(&first, &mut frame);
    check(
        &frame,
        "01
         02 01 01 64  01 01 74  01 03 c2b0 43
         02 00  01 05 7374617465  00
         03 02 00 00
         03 01 03
         04 02
         00
         d00f  11 ae03  01 03 6f6e
         d00f  03",
    );
    frame.clear();
    let second =
        [reading("d", "t", 3000, Value::Int(22)), reading("d", "t", 4000, Value::Float(22.5))];
    encoder.encode(&second, &mut frame);
    check(&frame, "00  06 06  00  d00f 00  00 09 b803  0b");
    let items = [(7, 3, UnixMillis(1000), &Value::Bool(true))];
    check(&journal::encode(items), "0d 01  01 0e 06  03 01 00  05  00  d00f  00 01");
}
