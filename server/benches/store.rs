//! How fast readings become durable, how much room they take, and how fast they come back.
//!
//! The traces are synthetic: 50 series (five devices with ten metrics) that walk at random in steps
//! of a tenth, once a second with a jitter of some milliseconds. `-- --test` runs a small part.

use std::{hint::black_box, path::Path, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use valtronics_protocol::{id::DeviceId, time::UnixMillis, value::Value};
use valtronics_server::{
    commit::{Commit, Marks, MetricIndex, Row},
    store::{Compactor, Points, Query, Reader, Store},
};

const DEVICES: u64 = 5;
const METRICS: u32 = 10;
/// 2024-01-01T00:00:00Z.
const BEGIN: i64 = 1_704_067_200_000;
const KEEP: Duration = Duration::from_secs(3650 * 86_400);

/// Numbers that nothing can pack (SplitMix64).
struct Noise(u64);

impl Noise {
    fn below(&mut self, bound: u64) -> i64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ mixed >> 31) % bound).cast_signed()
    }
}

/// The 50 series.
struct Trace {
    noise: Noise,
    tenths: Vec<i64>,
    devices: u64,
}

impl Trace {
    fn new(devices: u64) -> Self {
        let series = devices as usize * METRICS as usize;
        Self {
            noise: Noise(7),
            tenths: (0..series as i64).map(|n| 150 + n * 10).collect(),
            devices,
        }
    }

    /// Everything of a second.
    fn second(&mut self, second: i64) -> Vec<Row> {
        let mut rows = Vec::with_capacity(self.tenths.len());
        let mut tenths = self.tenths.iter_mut();
        for device in 1..=self.devices {
            let at = UnixMillis(BEGIN + second * 1000 + self.noise.below(5));
            for (metric, tenths) in (0..METRICS).map(MetricIndex).zip(tenths.by_ref()) {
                *tenths += self.noise.below(5) - 2;
                let value = Value::Float(*tenths as f64 / 10.0);
                rows.push(Row { device: DeviceId(device), metric, at, value });
            }
        }
        rows
    }
}

/// Fills a store with so many hours, ten seconds a commit, and compacts it.
fn fill(dir: &Path, devices: u64, hours: i64) -> u64 {
    let (mut store, _) = Store::open(dir).expect("a new store can be made");
    let mut trace = Trace::new(devices);
    let (mut readings, mut count) = (Vec::new(), 0);
    for second in 0..=hours * 3600 {
        readings.extend(trace.second(second));
        if second % 10 == 0 {
            let received_at = UnixMillis(BEGIN + second * 1000 + 100);
            count += readings.len() as u64;
            let readings = std::mem::take(&mut readings);
            let commit = Commit { received_at, readings, ..Commit::default() };
            store.commit(&commit).expect("there is room");
        }
        if second % 36_000 == 0 {
            compact(&mut store, dir, second);
        }
    }
    compact(&mut store, dir, hours * 3600 + 300);
    count
}

fn compact(store: &mut Store, dir: &Path, second: i64) {
    store.checkpoint(&[], &Marks::default()).expect("there is room");
    let mut compactor = Compactor::open(dir).expect("there is a store");
    let now = UnixMillis(BEGIN + second * 1000);
    while let Some(change) = compactor.next(KEEP, now).expect("it can be read") {
        store.compact(&change).expect("there is room");
    }
    while store.prune(KEEP, now).expect("there is room") {}
}

fn intake(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let (mut store, _) = Store::open(dir.path()).expect("a new store can be made");
    let mut trace = Trace::new(100);
    let readings: Vec<Row> = (0..10).flat_map(|second| trace.second(second)).collect();
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(readings.len() as u64));
    let commit = Commit { readings, ..Commit::default() };
    group.bench_function("commit", |bencher| {
        bencher.iter(|| store.commit(black_box(&commit)).expect("there is room"));
    });
    group.finish();
}

fn history(criterion: &mut Criterion) {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let days = if is_test { 1 } else { 2 };
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let count = fill(dir.path(), DEVICES, 24 * days);
    let file = dir.path().join("valtronics.db");
    let bytes = file.metadata().expect("there is a file").len();
    println!("store: {count} readings of 50 synthetic series take {bytes} bytes after compaction,");
    println!("       {:.3} bytes a reading", bytes as f64 / count as f64);

    let mut reader = Reader::open(dir.path()).expect("there is a store");
    let at = |second: i64| UnixMillis(BEGIN + second * 1000);
    let mut query = Query {
        device: DeviceId(2),
        metric: MetricIndex(3),
        from: at(0),
        to: at(86_400),
        arrived_from: UnixMillis::MIN,
        step: None,
        limit: 100_000,
        cursor: None,
    };
    let mut group = criterion.benchmark_group("history");
    let read = |reader: &mut Reader, query: &Query| {
        let page = reader.read(query, || false).expect("it can be read");
        assert!(page.next.is_none() && page.damaged == 0);
        match page.points {
            Points::Readings(readings) => readings.len(),
            Points::Spans(spans) => spans.len(),
        }
    };
    assert_eq!(read(&mut reader, &query), 86_400);
    group.bench_function("a day of a series", |bencher| {
        bencher.iter(|| read(&mut reader, black_box(&query)));
    });

    let days = if is_test { 1 } else { 30 };
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    fill(dir.path(), 1, 24 * days);
    let mut reader = Reader::open(dir.path()).expect("there is a store");
    query.device = DeviceId(1);
    query.to = at(days * 86_400);
    query.step = Some(Duration::from_secs(44 * 60));
    println!("a month in {} steps", read(&mut reader, &query));
    group.bench_function("a month in 1,000 steps, from minutes", |bencher| {
        bencher.iter(|| read(&mut reader, black_box(&query)));
    });
    query.step = Some(Duration::from_secs(2593));
    group.bench_function("a month in 1,000 steps, from readings", |bencher| {
        bencher.iter(|| {
            let (mut query, mut points) = (query.clone(), 0);
            loop {
                let page = reader.read(black_box(&query), || false).expect("it can be read");
                let Points::Spans(spans) = page.points else { unreachable!("there is a step") };
                points += spans.len();
                query.cursor = page.next;
                if query.cursor.is_none() {
                    return points;
                }
            }
        });
    });
    group.finish();
}

criterion_group!(benches, intake, history);
criterion_main!(benches);
