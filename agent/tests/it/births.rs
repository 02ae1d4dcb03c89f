//! What Sparkplug's messages mean: no broker between.

mod limits;

use std::collections::HashMap;

use prost::Message;
use serde_json::Value as Json;
use valtronics_agent::{
    decode::sparkplug::{
        is_control,
        topic::{Kind, Topic},
    },
    describe::sparkplug::{News, Refused, Sparkplug},
};
use valtronics_protocol::{time::UnixMillis, value::Value as Reads};

use crate::{
    corpora::{NOW, files, folder},
    edge::{
        Metric, Payload, PropertyValue, THEN, Template, Value, bd_seq, by_alias, named, payload,
    },
};

/// A host, and what it makes of messages of node `p/n`.
#[derive(Default)]
struct Host(Sparkplug);

impl Host {
    fn try_hear(&mut self, kind: &str, device: &str, bytes: &[u8]) -> Result<News, Refused> {
        let end = if device.is_empty() { String::new() } else { format!("/{device}") };
        let topic = format!("spBv1.0/p/{kind}/n{end}");
        self.0.hear(&Topic::read(&topic).unwrap(), bytes, NOW)
    }

    fn hear(&mut self, kind: &str, device: &str, seq: u64, metrics: &[Metric]) -> News {
        self.try_hear(kind, device, &payload(seq, metrics)).unwrap()
    }

    /// A host that knows `temp` (alias 1) of device `p/n/d`, and expects `seq` 2.
    fn with_births() -> Self {
        let mut host = Self::default();
        host.hear("NBIRTH", "", 0, &[bd_seq(3)]);
        host.hear("DBIRTH", "d", 1, &[temperature()]);
        host
    }
}

fn temperature() -> Metric {
    named("temp", 9, Value::Float(21.5)).called(1).unit("°C")
}

/// The samples as "device metric value unit", and whether births are needed.
#[track_caller]
fn check(news: &News, expected: &[&str], is_unborn: bool) {
    let shown: Vec<String> = news
        .samples
        .iter()
        .map(|sample| {
            let unit = sample.unit.as_deref().unwrap_or("-");
            format!("{} {} {} {unit}", sample.device.as_ref().unwrap(), sample.metric, sample.value)
        })
        .collect();
    assert_eq!(shown, expected);
    assert_eq!(news.unborn.is_some(), is_unborn, "{:?}", news.unborn);
}

fn presences(news: &News) -> Vec<(&str, bool)> {
    let presences = news.presences.iter();
    presences.map(|presence| (&*presence.device, presence.is_there)).collect()
}

#[test]
fn births_say_what_data_means() {
    let mut host = Host::default();
    let own = named("cpu", 9, Value::Float(48.5)).called(7).unit("°C");
    let rebirth = named("Node Control/Rebirth", 11, Value::Bool(false)).called(8);
    let news = host.hear("NBIRTH", "", 0, &[rebirth, bd_seq(0), own]);
    check(&news, &["p/n cpu 48.5 °C"], false);
    assert_eq!(presences(&news), [("p/n", true)]);
    let news = host.hear("DBIRTH", "d", 1, &[temperature()]);
    check(&news, &["p/n/d temp 21.5 °C"], false);
    assert_eq!(presences(&news), [("p/n/d", true)]);

    let news = host.hear("DDATA", "d", 2, &[by_alias(1, Value::Float(22.5))]);
    check(&news, &["p/n/d temp 22.5 °C"], false);
    let data = [by_alias(7, Value::Float(50.25)), by_alias(8, Value::Bool(true))];
    check(&host.hear("NDATA", "", 3, &data), &["p/n cpu 50.25 °C"], false);
    // A name counts before an alias, and a unit is the message's own where it has one.
    let renamed = named("temp", 9, Value::Float(1.5)).called(9).unit("K");
    check(&host.hear("DDATA", "d", 4, &[renamed]), &["p/n/d temp 1.5 K"], false);
}

#[test]
fn without_a_birth_only_what_names_itself_is_read() {
    let mut host = Host::default();
    let data = [by_alias(1, Value::Float(22.5)), named("hum", 3, Value::Int(40))];
    let news = host.hear("DDATA", "d", 5, &data);
    check(&news, &["p/n/d hum 40 -"], true);
    assert_eq!((news.unfit, news.unborn.as_deref()), (1, Some("p/n")));
    // A device's birth alone is not its node's.
    check(&host.hear("DBIRTH", "d", 6, &[temperature()]), &["p/n/d temp 21.5 °C"], true);
    check(&host.hear("NBIRTH", "", 0, &[]), &[], false);
    // After its node's it has to come again.
    check(&host.hear("DDATA", "d", 1, &[by_alias(1, Value::Float(22.5))]), &[], true);
    check(&host.hear("DBIRTH", "d", 2, &[temperature()]), &["p/n/d temp 21.5 °C"], false);
    check(&host.hear("DDATA", "d", 3, &[by_alias(2, Value::Float(22.5))]), &[], true);
    // The type of an integer has to be known, since it says the sign.
    let untyped = Metric { datatype: None, ..named("depth", 3, Value::Int(4_294_967_283)) };
    assert_eq!(host.hear("DDATA", "d", 4, &[untyped]).unfit, 1);
}

#[test]
fn an_alias_means_what_the_last_birth_said() {
    let mut host = Host::with_births();
    host.hear("NBIRTH", "", 0, &[bd_seq(4)]);
    let pressure = named("pressure", 3, Value::Int(0)).called(1).unit("bar");
    host.hear("DBIRTH", "d", 1, &[pressure]);
    let data = [by_alias(1, Value::Int(4_294_967_283))];
    check(&host.hear("DDATA", "d", 2, &data), &["p/n/d pressure -13 bar"], false);
    // One that was given to two metrics means neither.
    let two =
        [named("a", 11, Value::Bool(true)).called(1), named("b", 11, Value::Bool(true)).called(1)];
    host.hear("DBIRTH", "d", 3, &two);
    check(&host.hear("DDATA", "d", 4, &[by_alias(1, Value::Bool(true))]), &[], true);
    // Messages may have been missed: nothing is known any more.
    let mut host = Host::with_births();
    host.0.disconnected();
    assert_eq!(host.0.unborn().map(|node| &**node).collect::<Vec<_>>(), ["p/n"]);
    check(&host.hear("DDATA", "d", 2, &[by_alias(1, Value::Float(2.5))]), &[], true);
}

#[test]
fn a_missed_message_makes_births_necessary_and_a_repeated_one_nothing() {
    let mut host = Host::with_births();
    let mut data = |seq, value, expected: &[&str], is_unborn| {
        let news = host.hear("DDATA", "d", seq, &[by_alias(1, Value::Float(value))]);
        check(&news, expected, is_unborn);
    };
    data(2, 1.5, &["p/n/d temp 1.5 °C"], false);
    data(3, 2.5, &["p/n/d temp 2.5 °C"], false);
    data(4, 3.5, &["p/n/d temp 3.5 °C"], false);
    // A sender that was not sure repeats all that was not acknowledged.
    data(3, 2.5, &[], false);
    data(4, 3.5, &[], false);
    let mut host = Host::with_births();
    host.hear("DDATA", "d", 2, &[by_alias(1, Value::Float(1.5))]);
    check(&host.hear("NBIRTH", "", 0, &[bd_seq(3)]), &[], false);
    check(&host.hear("DBIRTH", "d", 1, &[temperature()]), &[], false);
    let mut data = |seq, value, expected: &[&str], is_unborn| {
        let news = host.hear("DDATA", "d", seq, &[by_alias(1, Value::Float(value))]);
        check(&news, expected, is_unborn);
    };
    data(3, 4.5, &["p/n/d temp 4.5 °C"], false);
    // What comes behind a gap is read, and births are needed until they come.
    data(5, 5.5, &["p/n/d temp 5.5 °C"], true);
    data(6, 6.5, &["p/n/d temp 6.5 °C"], true);
    // Then they count, even if they are the same.
    check(&host.hear("NBIRTH", "", 0, &[bd_seq(3)]), &[], false);
    host.hear("DBIRTH", "d", 1, &[temperature()]);
    for seq in 2..600 {
        let data = by_alias(1, Value::Float(seq as f32)).at(THEN + seq);
        let news = host.hear("DDATA", "d", seq % 256, &[data]);
        assert_eq!((news.samples.len(), news.unborn), (1, None), "{seq}");
    }
}

#[test]
fn deaths_take_away_what_is_gone() {
    let mut host = Host::with_births();
    host.hear("DBIRTH", "e", 2, &[]);
    let news = host.hear("DDEATH", "d", 3, &[]);
    assert_eq!((presences(&news), &news.unborn), (vec![("p/n/d", false)], &None));
    check(&host.hear("DDATA", "d", 4, &[by_alias(1, Value::Float(2.5))]), &[], true);

    let mut die = |bd: Option<u64>| {
        let metrics: Vec<Metric> = bd.map(bd_seq).into_iter().collect();
        let death = Payload { metrics, ..Payload::default() }.encode_to_vec();
        let news = host.try_hear("NDEATH", "", &death).unwrap();
        let mut gone: Vec<_> =
            presences(&news).into_iter().map(|(name, _)| name.to_owned()).collect();
        gone.sort();
        gone
    };
    // The will of a connection before the birth says nothing.
    assert!(die(Some(2)).is_empty());
    assert_eq!(die(Some(3)), ["p/n", "p/n/d", "p/n/e"]);
    // Some nodes count one up before they say goodbye, and some say no number.
    assert_eq!(die(Some(4)).len(), 3);
    assert_eq!(die(None).len(), 3);
    assert_eq!(host.0.unborn().count(), 0);
    check(&host.hear("NDATA", "", 5, &[named("t", 9, Value::Float(0.5))]), &["p/n t 0.5 -"], true);
    // 0 comes after 255.
    host.hear("NBIRTH", "", 0, &[bd_seq(0)]);
    let death = payload(0, [bd_seq(255)]);
    assert_eq!(host.try_hear("NDEATH", "", &death).unwrap().presences, []);
}

#[test]
fn values_are_what_their_types_say() {
    let mut host = Host::default();
    let quality = |quality| PropertyValue { int: Some(quality), ..PropertyValue::default() };
    let metrics = [
        named("Int8", 1, Value::Int(0xffff_fff3)),
        named("Int16", 2, Value::Int(4_294_967_283)),
        named("Int32", 3, Value::Int(0x8000_0000)),
        named("Int64", 4, Value::Long(u64::MAX)),
        named("UInt8", 5, Value::Int(255)),
        named("UInt32", 7, Value::Int(u32::MAX)),
        named("UInt64", 8, Value::Long(u64::MAX)),
        named("Float", 9, Value::Float(230.2)),
        named("Double", 10, Value::Double(0.1)),
        named("Boolean", 11, Value::Bool(false)),
        named("String", 12, Value::Text("BX-99".into())),
        named("DateTime", 13, Value::Long(THEN)),
        named("good", 9, Value::Float(1.5)).property("Quality", quality(192)),
        // No values: null, not a number, none.
        Metric { is_null: Some(true), ..named("null", 9, Value::Float(0.0)) },
        named("nan", 9, Value::Float(f32::NAN)),
        Metric { value: None, ..named("none", 9, Value::Int(0)) },
        // Values, but none of a reading.
        named("Bytes", 17, Value::Bytes(vec![1, 2, 3])),
        named("Template", 19, Value::Template(Template { metrics: vec![temperature()] })),
        named("bad", 9, Value::Float(1.5)).unit("V").property("Quality", quality(0)),
        named("too large", 5, Value::Int(256)),
    ];
    let news = host.hear("NBIRTH", "", 0, &metrics);
    let expected = [
        "p/n Int8 -13 -",
        "p/n Int16 -13 -",
        "p/n Int32 -2147483648 -",
        "p/n Int64 -1 -",
        "p/n UInt8 255 -",
        "p/n UInt32 4294967295 -",
        "p/n UInt64 18446744073709551615 -",
        "p/n Float 230.2 -",
        "p/n Double 0.1 -",
        "p/n Boolean false -",
        "p/n String BX-99 -",
        "p/n DateTime 2024-01-01T12:00:00Z -",
        "p/n good 1.5 -",
    ];
    check(&news, &expected, false);
    assert_eq!(news.unfit, 4);
    assert_eq!(news.samples[9].value, Reads::Bool(false));
}

#[test]
fn times_are_the_metrics_own_or_the_payloads() {
    let mut host = Host::default();
    let metric = || named("t", 9, Value::Float(1.5));
    let historical = |metric| Metric { is_historical: Some(true), ..metric };
    let metrics = [
        metric(),
        metric().at(THEN - 60_000),
        historical(metric().at(THEN - 120_000)),
        // A clock that was never set, and one that is a day ahead.
        metric().at(32_000),
        metric().at(NOW.0 as u64 + 86_400_000),
        metric().at(u64::MAX),
        // Of the past, and nobody knows when.
        historical(metric()),
        historical(metric().at(32_000)),
    ];
    let news = host.hear("NBIRTH", "", 0, &metrics);
    let times: Vec<_> = news.samples.iter().map(|sample| sample.at).collect();
    let then = |before: u64| Some(UnixMillis((THEN - before) as i64));
    assert_eq!(times, [then(0), then(60_000), then(120_000), None, None, None]);
    assert_eq!(news.unfit, 2);
}

/// What a metric of a capture is worth, by its description beside it.
fn expected(metric: &Json, datatype: u64) -> Json {
    let number = |field: &str| metric.get(field).and_then(Json::as_u64);
    let long = metric["long_value"].as_str().map(|digits| digits.parse::<u64>().unwrap());
    match datatype {
        1..=3 => (number("int_value").unwrap() as i32).into(),
        4 => (long.unwrap() as i64).into(),
        5..=7 => number("int_value").or(long).into(),
        8 => long.into(),
        13 => UnixMillis(long.unwrap() as i64).to_string().into(),
        9 => metric["float_value"].clone(),
        10 => metric["double_value"].clone(),
        11 => metric["boolean_value"].clone(),
        _ => metric["string_value"].clone(),
    }
}

#[test]
fn captures_mean_what_is_said_beside_them() {
    let Some(folder) = folder("sparkplug-b") else { return };
    for file in files(&folder, ".jsonl") {
        let (mut host, mut births) = (Sparkplug::default(), HashMap::new());
        let lines = std::fs::read_to_string(&file).unwrap();
        for line in lines.lines().map(|line| serde_json::from_str::<Json>(line).unwrap()) {
            let topic = Topic::read(line["topic"].as_str().unwrap()).unwrap();
            let digits = line["payload_hex"].as_str().unwrap();
            let bytes: Vec<u8> = (0..digits.len() / 2)
                .map(|place| u8::from_str_radix(&digits[2 * place..2 * place + 2], 16).unwrap())
                .collect();
            let news = host.hear(&topic, &bytes, UnixMillis(NOW.0 + 365 * 86_400_000)).unwrap();
            let mut wanted = Vec::new();
            for metric in line["decoded"]["metrics"].as_array().into_iter().flatten() {
                let place = (topic.device, metric["alias"].as_str());
                if topic.kind == Kind::Birth && place.1.is_some() {
                    births.insert(
                        (place.0.map(str::to_owned), place.1.map(str::to_owned)),
                        metric.clone(),
                    );
                }
                let birth = births.get(&(place.0.map(str::to_owned), place.1.map(str::to_owned)));
                let said =
                    |field: &str| metric.get(field).or(birth.and_then(|birth| birth.get(field)));
                let name = said("name").unwrap().as_str().unwrap().to_owned();
                let datatype = said("datatype").unwrap().as_u64().unwrap();
                if !is_control(&name) && metric["is_null"] != true && datatype < 16 {
                    wanted.push((name, expected(metric, datatype)));
                }
            }
            if topic.kind == Kind::Death {
                wanted.clear();
            }
            let samples = news.samples.iter();
            let found: Vec<(String, Json)> = samples
                .map(|sample| {
                    (sample.metric.to_string(), serde_json::to_value(&sample.value).unwrap())
                })
                .collect();
            assert_eq!(found, wanted, "{}: {}", file.display(), topic.whole);
            assert!(news.samples.iter().all(|sample| sample.at.is_some()), "{}", topic.whole);
            assert_eq!(news.unborn, None, "{}", topic.whole);
            assert_eq!(news.presences.is_empty(), topic.kind == Kind::Data, "{}", topic.whole);
        }
        assert!(!births.is_empty(), "{}", file.display());
    }
}
