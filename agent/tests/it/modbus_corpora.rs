//! What others hold to be right Modbus, where it is at hand (see `corpora`): frames, word orders,
//! register maps.

use serde_json::Value;
use std::{collections::BTreeMap, fs};
use valtronics_agent::decode::{
    Sample,
    modbus::{
        Span, Table, Words,
        frame::{Answer, Exception, Framing, Request},
        profile,
        register::Register,
        sunspec::{Discovery, Step},
    },
};

use crate::corpora::folder;

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn lines(text: &str) -> impl Iterator<Item = Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap())
}

/// Reads a request back from its content: unit, function, first, count.
fn request(transaction: u16, content: &[u8]) -> Request {
    let word = |at: usize| u16::from_be_bytes([content[at], content[at + 1]]);
    let table = Table::ALL.into_iter().find(|table| table.function() == content[1]).unwrap();
    Request { transaction, unit: content[0], span: Span { table, first: word(2), count: word(4) } }
}

#[test]
fn frames_are_those_of_pymodbus() {
    let Some(folder) = folder("modbus/pymodbus") else { return };
    let (mut asked, mut compared) = (None, 0);
    let frames = fs::read_to_string(folder.join("frames.jsonl")).unwrap();
    for frame in lines(&frames) {
        let framing = match frame["framing"].as_str().unwrap() {
            "rtu" => Framing::Rtu,
            "socket" => Framing::Tcp,
            _ => continue,
        };
        let (raw, pdu) = (bytes(&frame["frame_hex"]), bytes(&frame["pdu_hex"]));
        let unit = u8::try_from(frame["unit"].as_u64().unwrap()).unwrap();
        let transaction = u16::try_from(frame["transaction"].as_u64().unwrap()).unwrap();
        compared += 1;
        if frame["direction"] == "request" {
            let own = request(transaction, &[vec![unit], pdu].concat());
            assert_eq!(own.encode(framing), raw, "{frame}");
            asked = Some(own);
            continue;
        }
        let expected = match frame["what"].as_str().unwrap() {
            "Exception" => Answer::Refused(Exception(2)),
            _ => Answer::Words(vec![0x8d, 0x8e]),
        };
        assert_eq!(asked.unwrap().answer(framing, &raw), expected, "{frame}");
    }
    assert_eq!(compared, 27);
}

#[test]
fn damaged_streams_hold_no_answer() {
    let Some(folder) = folder("modbus/pymodbus") else { return };
    let streams = fs::read_to_string(folder.join("trouble-streams.jsonl")).unwrap();
    for stream in lines(&streams).filter(|stream| stream["framing"] == "rtu") {
        let raw = bytes(&stream["stream_hex"]);
        // Those are exceptions to requests of holding registers, and a request, which is no answer.
        let asked = request(0, &[0, 3, 0, 0, 0, 1]);
        let expected = match stream["expect_frames"] == 0 || raw[0] != 0 {
            true => Answer::Incomplete,
            false => Answer::Refused(Exception(2)),
        };
        assert_eq!(asked.answer(Framing::Rtu, &raw), expected, "{stream}");
    }
}

#[test]
fn a_conversation_with_a_meter_has_its_values() {
    let Some(folder) = folder("modbus/captured-pymodbus") else { return };
    let conversation = fs::read_to_string(folder.join("sdm630-conversation.jsonl")).unwrap();
    let frames: Vec<_> = lines(&conversation).map(|frame| bytes(&frame["bytes"])).collect();
    let meter = profile::registers("sdm630").unwrap();
    let mut found = Vec::new();
    for pair in frames.chunks(2) {
        let asked = request(0, &pair[0]);
        assert_eq!(asked.encode(Framing::Rtu), pair[0]);
        match asked.answer(Framing::Rtu, &pair[1]) {
            Answer::Words(words) => {
                let words = Words { first: asked.span.first, words: &words };
                let samples = meter.iter().filter_map(|register| register.sample(words));
                found.extend(samples.map(|Sample { metric, value, unit, .. }| {
                    format!("{metric} {value} {}", unit.unwrap_or_default())
                }));
            }
            Answer::Refused(exception) => found.push(exception.to_string()),
            answer @ (Answer::Incomplete | Answer::Broken) => panic!("{answer:?}"),
        }
    }
    let expected = [
        "voltage_l1 230.2 V",
        "power 843.25 W",
        "frequency 50.02 Hz",
        "energy_import 1234.5 kWh",
        "exception 4 (device failure)",
        "exception 2 (address not supported)",
    ];
    assert_eq!(found, expected);
}

#[test]
fn word_orders_are_those_of_libmodbus() {
    let Some(folder) = folder("modbus/libmodbus") else { return };
    let vectors = fs::read_to_string(folder.join("unit-test-vectors.json")).unwrap();
    let vectors: Value = serde_json::from_str(&vectors).unwrap();
    let orders = vectors["float_123456.0_by_word_order"].as_object().unwrap();
    assert_eq!(orders.len(), 4);
    for (order, words) in orders {
        let word = |word: &Value| u16::from_str_radix(&word.as_str().unwrap()[2..], 16).unwrap();
        let words: Vec<u16> = words.as_array().unwrap().iter().map(word).collect();
        let line = format!("a holding 0 f32 {}", order.to_lowercase());
        let register: Register = line.parse().unwrap();
        let sample = register.sample(Words { first: 0, words: &words }).unwrap();
        assert_eq!(sample.value.as_f64(), Some(123_456.0), "{order}");
    }
}

#[test]
fn profiles_stand_where_the_register_maps_say() {
    let Some(folder) = folder("modbus/mbmd") else { return };
    let maps = fs::read_to_string(folder.join("register-maps.json")).unwrap();
    let maps: Value = serde_json::from_str(&maps).unwrap();
    for (name, map) in [
        ("sdm120", "sdm120"),
        ("sdm220", "sdm220"),
        ("sdm630", "sdm"),
        ("sdm72", "sdm72"),
        ("sdm72v2", "sdm72v2"),
        ("orno-we-504", "orno1p504"),
        ("orno-we-516", "orno3p"),
        ("orno-we-517", "orno3p"),
    ] {
        let map = maps[map]["registers"].as_object().unwrap();
        let units: BTreeMap<u64, Option<&str>> = map
            .values()
            .map(|register| (register["address"].as_u64().unwrap(), register["unit"].as_str()))
            .collect();
        let registers = profile::registers(name).unwrap();
        for register in &registers {
            let unit = units.get(&u64::from(register.span.first));
            assert_eq!(unit, Some(&register.unit.as_deref()), "{name}: {}", register.metric);
        }
        // Tariffs 3 and 4 of the ORNO meters are left out there, too.
        let tariffs = if name.starts_with("orno-we-51") { 12 } else { 0 };
        assert_eq!(registers.len(), map.len() - tariffs, "{name}");
    }
}

#[test]
fn sunspec_models_are_those_of_the_alliance() {
    let Some(folder) = folder("modbus/sunspec") else { return };
    for (id, values) in [(101, 24), (103, 24), (113, 24), (160, 10), (203, 37), (213, 37)] {
        let model = fs::read_to_string(folder.join(format!("model_{id}.json"))).unwrap();
        let model: Value = serde_json::from_str(&model).unwrap();
        let group = &model["group"];
        let scales = offsets(&group["points"], 0);
        let mut points = scales.clone();
        // Two modules of the inputs.
        for module in group["groups"].as_array().into_iter().flatten().cycle().take(2) {
            let end = points.last().map(|(_, offset, size)| offset + size).unwrap();
            points.extend(offsets(&module["points"], end));
        }
        let length = points.last().map(|(_, offset, size)| offset + size).unwrap() - 2;
        let expected: Vec<(u16, u16, Option<&str>)> = points
            .iter()
            .map(|(point, offset, size)| {
                let scale = scales.iter().find(|(scale, ..)| point["sf"] == scale["name"]);
                let scale = scale.map_or(*offset, |(_, offset, _)| *offset);
                let (begin, end) = (scale.min(*offset), (scale + 1).max(offset + size));
                (begin, end - begin, point["units"].as_str())
            })
            .collect();
        let Step::Found(registers) = discover(id, length) else { panic!("{id}") };
        assert_eq!(registers.len(), values, "{id}");
        for register in registers {
            let Span { first, count, .. } = register.span;
            let unit = match register.unit.as_deref() {
                Some("°C") => Some("C"),
                Some("%") if id == 213 => Some("PF"),
                Some("%") => Some("Pct"),
                unit => unit,
            };
            assert!(expected.contains(&(first - 2, count, unit)), "{id}: {register:?}");
        }
    }
}

/// Points with their offsets and sizes.
fn offsets(points: &Value, begin: u16) -> Vec<(&Value, u16, u16)> {
    let mut offset = begin;
    let mut places = Vec::new();
    for point in points.as_array().unwrap() {
        let size = u16::try_from(point["size"].as_u64().unwrap()).unwrap();
        places.push((point, offset, size));
        offset += size;
    }
    places
}

/// Lets a device at address 0 say that it has this model only.
fn discover(id: u16, length: u16) -> Step {
    let mut discovery = Discovery::new();
    assert_eq!(discovery.take(None), Step::More);
    assert_eq!(discovery.take(Some(&[0x5375, 0x6e53])), Step::More);
    assert_eq!(discovery.take(Some(&[id, length])), Step::More);
    discovery.take(Some(&[0xffff, 0]))
}
