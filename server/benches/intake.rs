//! How fast frames of the JSON dialect are read: a hundred messages of two readings each, beside what
//! reading them into a tree would cost.

use std::{fmt::Write as _, hint::black_box};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use valtronics_server::ingest::json;

const MESSAGES: u64 = 100;
const READINGS: u64 = 2 * MESSAGES;

/// A frame as an agent sends it, with all that a reading may have.
fn frame() -> String {
    let mut frame = String::from("[");
    for n in 0..MESSAGES {
        let comma = if n == 0 { "" } else { "," };
        let at = format!("2024-01-01T12:00:00.{n:03}Z");
        write!(
            frame,
            r#"{comma}{{"type":"readings","seq":{n},"device":"sensor-{n}","readings":[{{"metric":"temperature","value":23.{n},"unit":"°C","timestamp":"{at}"}},{{"metric":"pulses","value":1{n:02},"timestamp":"{at}"}}]}}"#
        )
        .expect("a string takes everything");
    }
    frame + "]"
}

fn benchmark(criterion: &mut Criterion) {
    let frame = frame();
    let parsed = json::parse(&frame, false).expect("the frame is JSON");
    assert_eq!(parsed.readings.len() as u64, READINGS);
    let mut group = criterion.benchmark_group("intake");
    group.throughput(Throughput::Elements(READINGS));
    group.bench_function("frame", |bencher| {
        bencher.iter(|| json::parse(black_box(&frame), false));
    });
    group.bench_function("tree", |bencher| {
        bencher.iter(|| serde_json::from_str::<serde_json::Value>(black_box(&frame)));
    });
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
