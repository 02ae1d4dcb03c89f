use std::collections::BTreeSet;

use super::{super::Words, *};

/// The holding registers of a device, beginning at `base`.
struct Map {
    base: u16,
    words: Vec<u16>,
}

impl Map {
    fn new(base: u16, models: &[(u16, Vec<u16>)]) -> Self {
        let mut words = MARK.to_vec();
        for (id, content) in models {
            words.extend([*id, content.len() as u16]);
            words.extend(content);
        }
        words.extend([END, 0]);
        Self { base, words }
    }

    fn at(&self, span: Span) -> Option<&[u16]> {
        Words { first: self.base, words: &self.words }.at(span.first, span.count)
    }

    fn discover(&self) -> Step {
        let mut discovery = Discovery::new();
        for _ in 0..=MODELS + BASES.len() {
            match discovery.take(self.at(discovery.ask())) {
                Step::More => {}
                step @ (Step::Found(_) | Step::Nothing) => return step,
            }
        }
        panic!("it never ends")
    }

    fn shown(&self) -> Vec<String> {
        let Step::Found(registers) = self.discover() else { panic!("nothing found") };
        let words = Words { first: self.base, words: &self.words };
        let samples = registers.iter().filter_map(|register| register.sample(words));
        samples
            .map(|sample| {
                let unit = sample.unit.as_deref().unwrap_or_default().to_owned();
                format!("{} {} {unit}", sample.metric, sample.value)
            })
            .collect()
    }
}

/// The content of a model whose words say `absent` but for those given by their offsets.
fn model(length: usize, absent: u16, points: &[(usize, u16)]) -> Vec<u16> {
    let mut words = vec![absent; length];
    for (offset, word) in points {
        words[offset - 2] = *word;
    }
    words
}

#[test]
fn models_are_found_at_each_base_and_scaled() {
    let minus_1 = 0xffff;
    let inverter = model(
        50,
        0x8000,
        &[
            (2, 105),
            (3, 0xffff),
            (4, 0xffff),
            (5, 0xffff),
            (6, minus_1),
            (14, 0xfff0),
            (15, 2),
            (16, 5002),
            (17, 0xfffe),
            (24, 1),
            (25, 2),
            (26, 0),
            (38, 4),
        ],
    );
    let expected = [
        "current 10.5 A",
        "power -1600.0 W",
        "frequency 50.02 Hz",
        "energy 65538.0 Wh",
        "state 4 ",
    ];
    for base in BASES {
        let common = (1, vec![0; 66]);
        let map = Map::new(base, &[common, (103, inverter.clone()), (64_001, vec![0; 9])]);
        assert_eq!(map.shown(), expected, "{base}");
    }
}

#[test]
fn several_of_a_kind_have_names_of_their_own() {
    let float = |offset: usize| [(offset, 0x4366), (offset + 1, 0x3333)];
    let meter = model(124, 0x7fc0, &float(12));
    let mut nothing = meter.clone();
    nothing[10..12].copy_from_slice(&[0x7fc0, 0]);
    let module = |volts: u16| {
        let mut words = vec![0; 20];
        (words[9], words[10], words[11]) = (0xffff, volts, 0xffff);
        words[16] = 0x8000;
        words
    };
    let mut inputs = vec![0x8000, 0, 0, 0, 0, 0, 2, 0];
    inputs.extend([module(600), module(601)].concat());
    let map = Map::new(0, &[(213, meter.clone()), (213, nothing), (213, meter), (160, inputs)]);
    let shown = map.shown();
    let volts: Vec<_> = shown.iter().filter(|line| line.contains("voltage")).collect();
    assert_eq!(
        volts,
        [
            "meter_voltage_l1 230.2 V",
            "meter_3_voltage_l1 230.2 V",
            "input_1_voltage 600.0 V",
            "input_2_voltage 601.0 V"
        ]
    );
}

#[test]
fn what_is_no_chain_is_nothing() {
    assert_eq!(Map { base: 0, words: Vec::new() }.discover(), Step::Nothing);
    assert_eq!(Map { base: 0, words: vec![1; 40_100] }.discover(), Step::Nothing);
    assert_eq!(Map::new(0, &[]).discover(), Step::Found(Vec::new()));
    // It breaks off, it leads around, it leads beyond the end.
    let broken = |words: &[u16]| Map { base: 50_000, words: [&MARK, words].concat() };
    for words in [&[101_u16][..], &[101, 50], &[7; 500], &[101, 0xffff, 0, 0]] {
        let Step::Found(_) = broken(words).discover() else { panic!("{words:?}") };
    }
}

#[test]
fn every_point_is_a_register_with_a_name_of_its_own() {
    for points in [INVERTER, INVERTER_FLOAT, METER, METER_FLOAT, MODULE_POINTS] {
        let names: BTreeSet<_> = points.iter().map(|point| point.metric).collect();
        assert_eq!(names.len(), points.len());
        for point in points {
            assert!(point.register("", 0, point.scale).is_some(), "{}", point.metric);
        }
    }
}
