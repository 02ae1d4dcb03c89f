//! Bytes and nanoseconds a reading, of this protocol's batches and of what else could be spoken.
//!
//! `cargo bench -p valtronics-protocol` prints the sizes first. Two traces at 1 Hz: `sensors` is
//! synthetic (random walks with the decimals that sensors print, and jitter), `host` is recorded
//! (a Linux machine under load).

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot go on should stop")]

mod trace;

use std::{hint::black_box, iter};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use valtronics_protocol::{
    batch::{Decoder, Encoder, journal},
    reading::Reading,
    uplink::FrameHeader,
    value::Value,
};

/// A way to write readings, each time as one frame.
type Encode = fn(&mut Encoder, &[Reading]) -> Vec<u8>;

fn live(encoder: &mut Encoder, readings: &[Reading]) -> Vec<u8> {
    let mut frame = Vec::new();
    encoder.encode(readings, &mut frame);
    frame
}

fn backlog(encoder: &mut Encoder, readings: &[Reading]) -> Vec<u8> {
    let mut frame = Vec::new();
    encoder.encode_self_contained(readings, &mut frame);
    frame
}

fn json(_: &mut Encoder, readings: &[Reading]) -> Vec<u8> {
    let mut lines = Vec::new();
    for reading in readings {
        serde_json::to_writer(&mut lines, reading).unwrap();
        lines.push(b'\n');
    }
    lines
}

fn packed_json(encoder: &mut Encoder, readings: &[Reading]) -> Vec<u8> {
    zstd::bulk::compress(&json(encoder, readings), 3).unwrap()
}

/// Sparkplug B with aliases (1 to 2 bytes), without the names: a payload a device and moment.
fn sparkplug(_: &mut Encoder, readings: &[Reading]) -> Vec<u8> {
    let field = |message: &mut Vec<u8>, key: u8, bytes: &[u8]| {
        message.push(key);
        message.extend(bytes);
    };
    let mut frame = Vec::new();
    for row in readings.chunk_by(|a, b| (&a.device, a.timestamp) == (&b.device, b.timestamp)) {
        let time = varint(row.first().unwrap().timestamp.0.cast_unsigned());
        field(&mut frame, 0x08, &time);
        for (alias, reading) in (0..).zip(row) {
            let mut metric = Vec::new();
            field(&mut metric, 0x10, &varint(alias));
            field(&mut metric, 0x18, &time);
            match &reading.value {
                Value::Int(number) => {
                    field(&mut metric, 0x20, &[4]);
                    field(&mut metric, 0x58, &varint(number.cast_unsigned()));
                }
                value => {
                    field(&mut metric, 0x20, &[10]);
                    field(&mut metric, 0x69, &value.as_f64().unwrap().to_le_bytes());
                }
            }
            field(&mut frame, 0x12, &varint(metric.len() as u64));
            frame.extend(metric);
        }
        field(&mut frame, 0x18, &[0]);
    }
    frame
}

fn packed_sparkplug(encoder: &mut Encoder, readings: &[Reading]) -> Vec<u8> {
    zstd::bulk::compress(&sparkplug(encoder, readings), 3).unwrap()
}

/// The numbers are made from the names here, which takes a good part of the time.
fn store(_: &mut Encoder, readings: &[Reading]) -> Vec<u8> {
    let number = |reading: &Reading| {
        let hash =
            |name: &str| name.bytes().fold(0, |hash, byte| hash * 31 % 997 + u64::from(byte));
        (hash(&reading.device), hash(&reading.metric) as u32, reading.timestamp)
    };
    let items = readings.iter().map(|reading| (number(reading), &reading.value));
    journal::encode(items.map(|((device, metric, at), value)| (device, metric, at, value)))
}

fn varint(mut number: u64) -> Vec<u8> {
    let digits = iter::from_fn(|| {
        let digit = (number != 0).then_some(number as u8 & 0x7f)?;
        number >>= 7;
        Some(digit | u8::from(number != 0) << 7)
    });
    let bytes: Vec<u8> = digits.collect();
    if bytes.is_empty() { vec![0] } else { bytes }
}

/// The bytes of a batch as it goes over the wire: with its header and that of WebSocket.
fn on_the_wire(batch: &[u8]) -> usize {
    let mut frame = Vec::new();
    FrameHeader::Numbered { historical: false, first: 1_000_000 }.write(&mut frame);
    let payload = frame.len() + batch.len();
    payload + if payload < 126 { 6 } else { 8 }
}

/// Reads frames that follow each other and counts their readings.
type Decode = fn(&[Vec<u8>]) -> usize;

fn read(frames: &[Vec<u8>]) -> usize {
    let mut decoder = Decoder::default();
    frames.iter().map(|frame| decoder.decode(frame).unwrap().len()).sum()
}

fn read_store(blobs: &[Vec<u8>]) -> usize {
    blobs.iter().map(|blob| journal::decode(blob).unwrap().len()).sum()
}

/// The encodings that are compared, and how many readings a frame has; `None`: those of a second.
const FORMATS: [(&str, Option<usize>, Encode, Option<Decode>); 12] = [
    ("JSON lines, a second", None, json, None),
    ("JSON lines, 1,000", Some(1000), json, None),
    ("JSON lines + zstd-3, 1,000", Some(1000), packed_json, None),
    ("like Sparkplug, a second", None, sparkplug, None),
    ("like Sparkplug, 1,000", Some(1000), sparkplug, None),
    ("like Sparkplug + zstd-3, 1,000", Some(1000), packed_sparkplug, None),
    ("live, a second", None, live, Some(read)),
    ("backlog, a second", None, backlog, Some(read)),
    ("backlog, 1,000", Some(1000), backlog, Some(read)),
    ("backlog, 3,000", Some(3000), backlog, Some(read)),
    ("journal, 1,000", Some(1000), store, Some(read_store)),
    ("journal, 3,000", Some(3000), store, Some(read_store)),
];

fn compare(criterion: &mut Criterion) {
    for (name, seconds) in [("sensors", trace::sensors(600)), ("host", trace::host())] {
        let readings = seconds.concat();
        println!("{name}: {} series, {} seconds", seconds.first().unwrap().len(), seconds.len());
        for (format, size, encode, decode) in FORMATS {
            let chunks: Vec<&[Reading]> = match size {
                None => seconds.iter().map(Vec::as_slice).collect(),
                Some(size) => readings.chunks_exact(size).collect(),
            };
            let elements = chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
            let all = || {
                let mut encoder = Encoder::default();
                chunks.iter().map(|chunk| encode(&mut encoder, chunk)).collect::<Vec<_>>()
            };
            let frames = all();
            let bare = frames.iter().map(Vec::len).sum::<usize>() as f64 / elements as f64;
            let wire = frames.iter().map(|frame| on_the_wire(frame)).sum::<usize>() as f64;
            println!(
                "{format:32} {bare:6.2} B a reading, {:6.2} on the wire",
                wire / elements as f64
            );

            let mut group = criterion.benchmark_group(format!("{name}/{format}"));
            group.throughput(Throughput::Elements(elements as u64));
            group.bench_function("encode", |bench| bench.iter(|| black_box(all())));
            if let Some(decode) = decode {
                group.bench_function("decode", |bench| bench.iter(|| decode(&frames)));
            }
        }
    }
}

criterion_group!(benches, compare);
criterion_main!(benches);
