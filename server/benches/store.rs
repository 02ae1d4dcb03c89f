//! How fast readings become durable: commits of 10,000 readings of 1,000 series.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use valtronics_protocol::{id::DeviceId, time::UnixMillis, value::Value};
use valtronics_server::{
    commit::{Commit, MetricIndex, Row},
    store::Store,
};

const READINGS: u64 = 10_000;
const SERIES: u64 = 1_000;

/// A number below 128 that nothing can pack (the mixer of SplitMix64).
fn noise(n: u64) -> u32 {
    let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    (mixed >> 57) as u32
}

/// Ten metrics of a hundred devices, ten times a second apart, with two decimals each.
fn commit() -> Commit {
    let readings = (0..READINGS).map(|n| Row {
        device: DeviceId(1 + n % SERIES / 10),
        metric: MetricIndex((n % 10) as u32),
        at: UnixMillis(1_704_110_400_000 + (n / SERIES * 1000).cast_signed()),
        value: Value::Float(f64::from(2000 + noise(n)) / 100.0),
    });
    Commit { readings: readings.collect(), ..Commit::default() }
}

fn benchmark(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let (mut store, _) = Store::open(dir.path()).expect("a new store can be made");
    let commit = commit();
    let mut group = criterion.benchmark_group("store");
    group.throughput(Throughput::Elements(READINGS));
    group.bench_function("commit", |bencher| {
        bencher.iter(|| store.commit(black_box(&commit)).expect("there is room"));
    });
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
