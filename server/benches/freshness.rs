//! What freshness costs: noting a reading, in the way of every one, and looking at a metric.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use valtronics_protocol::time::UnixMillis;
use valtronics_server::domain::freshness::{Freshness, Hearing};

/// More than the processor's nearest caches hold.
const METRICS: u64 = 10_000;

fn benchmark(criterion: &mut Criterion) {
    let mut metrics = vec![Freshness::default(); METRICS as usize];
    let mut now = UnixMillis(1_700_000_000_000);
    let mut group = criterion.benchmark_group("freshness");
    group.throughput(Throughput::Elements(METRICS));
    group.bench_function("heard", |bencher| {
        bencher.iter(|| {
            now = now.plus(Duration::from_secs(1));
            metrics.iter_mut().for_each(|metric| {
                black_box(metric.heard(now));
            });
        });
    });
    let hearing = Hearing { least: Duration::from_secs(45), since: Some(now) };
    group.bench_function("look", |bencher| {
        bencher.iter(|| {
            let looks = metrics.iter_mut().map(|metric| metric.look(hearing, now));
            black_box(looks.flatten().min())
        });
    });
    group.finish();
}

criterion_group!(benches, benchmark);
criterion_main!(benches);
