//! What the disk queue costs: how many readings a second go in and come out, how many bytes each
//! takes in the files, and how much is written for them.

use std::{hint::black_box, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use valtronics_agent::queue::{Config, Limits, Position, Queue};
use valtronics_protocol::{
    reading::{Reading, TimeSource},
    time::UnixMillis,
    value::Value,
};

/// 20 devices with 50 metrics each, all read once a second.
const DEVICES: usize = 20;
const METRICS: usize = 50;
/// How many seconds are gathered before the bytes are counted: about a segment.
const SECONDS: i64 = 900;
const START: i64 = 1_767_225_600_000;

/// Values as sensors print them: two decimals that wander, by a generator that repeats itself.
struct Plant {
    names: Vec<(Arc<str>, Arc<str>)>,
    hundredths: Vec<i64>,
    random: u64,
}

impl Plant {
    fn new() -> Self {
        let device = |device: usize| -> Arc<str> { format!("device-{device}").into() };
        let metrics: Vec<Arc<str>> =
            (0..METRICS).map(|metric| format!("metric_{metric}").into()).collect();
        let names = (0..DEVICES)
            .flat_map(|at| metrics.iter().map(move |metric| (device(at), Arc::clone(metric))))
            .collect();
        Self { names, hundredths: vec![2000; DEVICES * METRICS], random: 1 }
    }

    /// Returns what all devices say in one second, each a little after the one before.
    fn second(&mut self, second: i64) -> Vec<Vec<Reading>> {
        let mut readings = Vec::new();
        for (at, ((device, metric), value)) in
            self.names.iter().zip(&mut self.hundredths).enumerate()
        {
            self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Every second value stays, the others move by up to 0.07 either way.
            let step = (self.random >> 60).cast_signed() - 7;
            *value += if self.random >> 59 & 1 == 0 { 0 } else { step };
            readings.push(Reading {
                device: Arc::clone(device),
                metric: Arc::clone(metric),
                value: Value::Float(*value as f64 / 100.0),
                unit: None,
                timestamp: UnixMillis(START + second * 1000 + (at / METRICS) as i64 * 3),
                time_source: TimeSource::Receive,
            });
        }
        readings.chunks(METRICS).map(<[Reading]>::to_vec).collect()
    }
}

fn append(queue: &mut Queue, second: i64, devices: Vec<Vec<Reading>>) {
    for readings in devices {
        queue.append(UnixMillis(START + second * 1000), readings);
    }
    if let Some(job) = queue.job(false, None) {
        queue.finish(job.run());
    }
}

fn read(queue: &mut Queue, after: &mut Position) -> usize {
    let limits =
        Limits { readings: 3000, bytes: 64 * 1024, live_since: UnixMillis(i64::MAX), passed: 0 };
    let chunk = queue.read(*after, limits).or_else(|| {
        let job = queue.job(false, Some((*after, limits)))?;
        queue.finish(job.run())
    });
    let chunk = chunk.expect("it can be read");
    after.seq = if chunk.more { chunk.first + chunk.readings.len() as u64 - 1 } else { 0 };
    chunk.readings.len()
}

fn queue(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("there is room");
    let mut queue = Queue::open(&Config::default(), folder.path()).expect("nobody else has it");
    let (mut plant, mut next) = (Plant::new(), 0);
    for second in 0..SECONDS {
        append(&mut queue, second, plant.second(second));
        next = second + 1;
    }
    let files = std::fs::read_dir(folder.path()).expect("it is there").flatten();
    // A segment is zeros until it is written.
    let bytes: usize = files
        .map(|file| std::fs::read(file.path()).unwrap_or_default())
        .map(|file| file.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1))
        .sum();
    let readings = SECONDS * (DEVICES * METRICS) as i64;
    let each = bytes as f64 / readings as f64;
    let day = each * 86_400.0 * (DEVICES * METRICS) as f64 / 1024.0 / 1024.0;
    println!("queue: {each:.3} bytes a reading, {day:.0} MiB a day of 1,000 series at 1 Hz");

    let mut group = criterion.benchmark_group("queue");
    group.throughput(Throughput::Elements((DEVICES * METRICS) as u64));
    group.sample_size(20);
    group.bench_function("append and commit 1,000 readings", |bencher| {
        bencher.iter_batched(
            || {
                next += 1;
                (next, plant.second(next))
            },
            |(second, devices)| append(&mut queue, second, devices),
            BatchSize::PerIteration,
        );
    });
    group.throughput(Throughput::Elements(800));
    let mut after = Position::default();
    group.bench_function("read some 800 readings from the disk", |bencher| {
        bencher.iter(|| black_box(read(&mut queue, &mut after)));
    });
    group.finish();
}

criterion_group!(benches, queue);
criterion_main!(benches);
