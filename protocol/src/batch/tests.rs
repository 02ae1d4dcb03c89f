use proptest::prelude::*;

use super::*;

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
    let series = decoder.series().to_vec();
    let back = |row: &Row| {
        let Series { device, metric, unit, time_source } = series[row.series as usize].clone();
        let (value, timestamp) = (row.value.clone(), row.timestamp);
        Reading { device, metric, value, unit, timestamp, time_source }
    };
    Ok(decoder.rows().iter().map(back).collect())
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        any::<u64>().prop_map(Value::from),
        (-50_000_i32..50_000, 0_u8..4).prop_map(|(n, k)| Value::Float(unscaled(n.into(), k))),
        any::<f64>().prop_filter_map("finite", Value::finite),
        Just(Value::Float(-0.0)),
        "[a-z]{0,8}".prop_map(|text| Value::Text(text.into())),
    ]
}

prop_compose! {
    fn any_reading()(
        device in 0..3,
        metric in prop::sample::select(vec!["a", "b", "state"]),
        at in prop_oneof![Just(1000_i64), 0..5000_i64],
        value in any_value(),
    ) -> Reading {
        reading(&format!("d{device}"), metric, at, value)
    }
}

/// `PartialEq` calls 0.0 and -0.0 equal.
fn same(one: &[Reading], other: &[Reading]) -> bool {
    format!("{one:?}") == format!("{other:?}")
}

proptest! {
    #[test]
    fn readings_come_back_in_order(frames in prop::collection::vec(
        (prop::collection::vec(any_reading(), 0..30), any::<bool>()), 1..6,
    )) {
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
    fn damage_never_panics(
        readings in prop::collection::vec(any_reading(), 1..20),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut frame = Vec::new();
        Encoder::default().encode(&readings, &mut frame);
        for end in 0..frame.len() {
            let _ = Decoder::default().decode(&frame[..end]);
        }
        let at = at.index(frame.len());
        frame[at] ^= 1_u8 << bit;
        let _ = Decoder::default().decode(&frame);
    }

    #[test]
    fn nonsense_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Decoder::default().decode(&bytes);
    }
}

#[test]
fn a_steady_stream_costs_a_byte_a_reading() {
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
    let mut sizes = Vec::new();
    for second in 0..10 {
        let metric = |series: i64| {
            let value = Value::Float(unscaled(200 + series + (second * series) % 7, 1));
            reading("boiler", &format!("t{series}"), 1_700_000_000_000 + second * 1000, value)
        };
        let readings: Vec<Reading> = (0..50).map(metric).collect();
        let mut frame = Vec::new();
        encoder.encode(&readings, &mut frame);
        assert!(same(&decode(&mut decoder, &frame).unwrap(), &readings));
        sizes.push(frame.len());
    }
    assert_eq!(sizes[9], 53, "flags, row, time, and a byte for each of 50: {sizes:?}");
}

/// These bytes are the format: once the wire is frozen they never change.
#[test]
fn golden_bytes() {
    let readings = [
        reading("d", "t", 1000, Value::Float(21.5)),
        reading("d", "state", 1000, Value::Text("on".into())),
        reading("d", "t", 2000, Value::Float(21.6)),
    ];
    let mut frame = Vec::new();
    Encoder::default().encode(&readings, &mut frame);
    let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    let expected = concat!(
        "01",
        "00",
        "0164",
        "0174",
        "03c2b043",
        "27",
        "00",
        "0164",
        "057374617465",
        "00",
        "0d",
        "01",
        "02",
        "00",
        "02",
        "02",
        "d00f",
        "af03",
        "036f6e",
        "01",
        "01",
        "00",
        "03",
        "a01f",
        "03",
    );
    assert_eq!(hex, expected);
}
