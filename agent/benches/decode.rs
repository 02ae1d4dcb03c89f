//! How many readings one core decodes and normalises a second, by format.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use valtronics_agent::{
    decode::{
        Decoder, Format, csv::Csv, dsmr::Dsmr, nmea::Nmea, sparkplug::topic::Topic,
        vedirect::Vedirect,
    },
    describe::{Described, sparkplug::Sparkplug},
    normalize::{Normalizer, Rules},
    tally::Tally,
};
use valtronics_protocol::time::UnixMillis;

const NOW: UnixMillis = UnixMillis(1_704_110_400_000);
/// As many lines as a gateway with many fast sensors reads in a second.
const LINES: u64 = 1000;

fn formats() -> [(&'static str, Format, &'static str, u64); 7] {
    let pattern = "Humidity: {hum:%} *Temperature: {temp:°C}";
    let json = "{\"ts\":1704110399,\"temperature\":21.53,\"humidity\":48.2,\"co2\":612,\"battery\":3.301}\r\n";
    [
        ("json", Format::Json, json, 4),
        ("csv", Format::Csv(Csv::new(&[])), "21.53,48.2,612,3.301\r\n", 4),
        ("kv", Format::Kv, "temperature=21.53C;humidity=48.2%;co2=612;battery=3.301V\r\n", 4),
        (
            "pattern",
            Format::Pattern(pattern.parse().expect("the pattern is right")),
            "Humidity: 48.20 %  Temperature: 21.53 *C\r\n",
            2,
        ),
        ("nmea", Format::Nmea(Nmea::default()), "$IIMWV,074,T,05.85,N,A*2E\r\n", 2),
        ("vedirect", Format::Vedirect(Vedirect::default()), VEDIRECT, 4),
        ("dsmr", Format::Dsmr(Dsmr::default()), DSMR, 4),
    ]
}

/// A block whose bytes add up to 0, and a telegram without a checksum.
const VEDIRECT: &str = "\r\nV\t12530\r\nI\t620\r\nVPV\t33580\r\nPPV\t8\r\nChecksum\t0";
const DSMR: &str = "/ISk5\\2MT382\r\n\r\n1-0:1.8.1(00001.001*kWh)\r\n1-0:1.7.0(0001.01*kW)\r\n1-0:2.7.0(0000.00*kW)\r\n0-0:96.14.0(0001)\r\n!\r\n";

fn lines(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for (name, format, line, readings) in formats() {
        let bytes = line.repeat(LINES as usize);
        group.throughput(Throughput::Elements(LINES * readings));
        let mut decoder = Decoder::new(format, None);
        let mut samples = Vec::new();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                samples.clear();
                decoder.feed(black_box(bytes.as_bytes()), NOW, &mut samples);
                assert_eq!(samples.len() as u64, LINES * readings);
            });
        });
        let mut normalizer = Normalizer::new(Rules::default(), "greenhouse".into());
        group.bench_function(format!("normalize {name}"), |bencher| {
            bencher.iter_batched(
                || samples.clone(),
                |samples| normalizer.readings(samples, NOW, &mut Tally::default()),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

/// A message of a device whose four values are announced.
fn described(criterion: &mut Criterion) {
    let mut described = Described::new("homeassistant");
    for (field, template) in [
        ("temperature", "{{ value_json.temperature }}"),
        ("humidity", "{{ value_json[\"humidity\"] }}"),
        ("co2", "{{ value_json.co2 | float }}"),
        ("battery", "{{ value_json.battery }}"),
    ] {
        let topic = format!("homeassistant/sensor/porch/{field}/config");
        let template = template.replace('"', "'");
        let payload =
            format!(r#"{{"stat_t":"porch","val_tpl":"{template}","dev":{{"ids":["porch"]}}}}"#);
        described.announce(&topic, payload.as_bytes());
    }
    let payload = br#"{"temperature":21.53,"humidity":48.2,"co2":612,"battery":3.301}"#;
    let mut group = criterion.benchmark_group("describe");
    group.throughput(Throughput::Elements(4));
    group.bench_function("announced fields", |bencher| {
        bencher.iter(|| {
            let heard = described.hear("porch", black_box(payload), NOW);
            assert_eq!(heard.map_or(0, |heard| heard.samples.len()), 4);
        });
    });
}

/// A Sparkplug message of a device whose four doubles are known by their aliases.
fn sparkplug(criterion: &mut Criterion) {
    let value = b"\x69\x00\x00\x00\x00\x00\x00\x35\x40";
    let metric = |content: &[u8]| [&[0x12, content.len() as u8], content].concat();
    let named = |alias: u8| [b"\x0a\x01", &[b'a' + alias][..], b"\x10", &[alias], value].concat();
    let by_alias = |alias: u8| [b"\x10", &[alias][..], value].concat();
    let birth = (0..4).flat_map(|alias| metric(&named(alias))).collect::<Vec<_>>();
    let data = (0..4).flat_map(|alias| metric(&by_alias(alias))).collect::<Vec<_>>();
    let mut host = Sparkplug::default();
    let mut group = criterion.benchmark_group("describe");
    for (topic, payload) in [("spBv1.0/p/NBIRTH/n", &[][..]), ("spBv1.0/p/DBIRTH/n/d", &birth)] {
        let topic = Topic::read(topic).expect("the topic is right");
        host.hear(&topic, payload, NOW).expect("the payload is right");
    }
    group.throughput(Throughput::Elements(1));
    group.bench_function("Sparkplug messages", |bencher| {
        bencher.iter(|| {
            let topic = Topic::read(black_box("spBv1.0/p/DDATA/n/d")).expect("the topic is right");
            let news = host.hear(&topic, black_box(&data), NOW).expect("the payload is right");
            assert_eq!((news.samples.len(), news.unborn), (4, None));
        });
    });
}

criterion_group!(benches, lines, described, sparkplug);
criterion_main!(benches);
