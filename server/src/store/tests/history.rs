//! History against a model: what was committed comes back, whatever became of it meanwhile.

use proptest::prelude::*;

use super::*;
use crate::store::{
    chunk::HOUR,
    history::{Page, Points, Query, Reader},
};

const KEEP: Duration = Duration::from_secs(30 * 86_400);

fn millis(at: i64) -> UnixMillis {
    UnixMillis(at)
}

fn row(device: u64, metric: u32, at: i64, value: Value) -> Row {
    Row { device: DeviceId(device), metric: MetricIndex(metric), at: millis(at), value }
}

/// Everything of a metric.
fn query(device: u64, metric: u32) -> Query {
    Query {
        device: DeviceId(device),
        metric: MetricIndex(metric),
        from: UnixMillis::MIN,
        to: UnixMillis::MAX,
        arrived_from: UnixMillis::MIN,
        step: None,
        limit: 1000,
        cursor: None,
    }
}

/// Compacts until nothing is left to do; returns how many changes that took.
fn compact(store: &mut Store, dir: &Path, keep: Duration, now: UnixMillis) -> usize {
    store.checkpoint(&[]).unwrap();
    let mut compactor = Compactor::open(dir).unwrap();
    let mut changes = 0;
    while let Some(change) = compactor.next(keep, now).unwrap() {
        store.compact(&change).unwrap();
        changes += 1;
    }
    changes
}

/// Reads every page.
fn read(dir: &Path, mut query: Query) -> (Vec<Page>, Vec<(i64, Value)>, Vec<Span>) {
    let mut reader = Reader::open(dir).unwrap();
    let (mut pages, mut readings, mut spans) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let page = reader.read(&query).unwrap();
        match page.points.clone() {
            Points::Readings(found) => {
                assert!(found.len() <= query.limit);
                readings.extend(found.into_iter().map(|(at, value)| (at.0, value)));
            }
            Points::Spans(found) => {
                assert!(found.len() <= query.limit);
                spans.extend(found);
            }
        }
        query.cursor = page.next;
        pages.push(page);
        if query.cursor.is_none() {
            return (pages, readings, spans);
        }
    }
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (-500..500_i32).prop_map(|n| Value::Float(f64::from(n) / 10.0)),
        2 => (-5..5_i64).prop_map(Value::Int),
        1 => any::<i64>().prop_map(Value::Int),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<f64>().prop_filter_map("finite", Value::finite),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => "\\PC{0,12}".prop_map(|text| Value::Text(text.into())),
        1 => prop_oneof![Just(-0.0), Just(0.0), Just(f64::MIN_POSITIVE)].prop_map(Value::Float),
    ]
}

/// A value so that equal means equal in every bit.
fn exact(value: &Value) -> String {
    match value {
        Value::Float(number) => format!("{:x}", number.to_bits()),
        other => format!("{other:?}"),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Commit(Vec<Row>),
    /// So many hours after the first.
    Compact(i64),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let any_row = (1..3_u64, prop_oneof![0..3_u32, 15..18_u32], -2..5_i64, 0..40_i64, value());
    let any_row = any_row.prop_map(|(device, metric, hour, tick, value)| {
        // Many of one moment, and the first and last moments of hours.
        let at = NOW.0 + hour * HOUR + if tick == 39 { HOUR - 1 } else { tick / 4 * 25_000 };
        row(device, metric, at, value)
    });
    prop_oneof![
        6 => prop::collection::vec(any_row, 1..60).prop_map(Step::Commit),
        2 => (0..6_i64).prop_map(Step::Compact),
        1 => Just(Step::Restart),
    ]
}

/// Readings of the model: each with the number of its commit.
type Model = Vec<(Row, usize)>;

/// Returns what a query without `step` should find from a moment, and a commit, on.
fn expected(model: &Model, query: &Query, commit: usize) -> Vec<(i64, Value)> {
    let is = |row: &Row| {
        (row.device, row.metric) == (query.device, query.metric)
            && (query.from..query.to).contains(&row.at)
    };
    let found = model.iter().filter(|(row, of)| is(row) && *of >= commit);
    let mut found: Vec<_> = found.map(|(row, _)| (row.at.0, row.value.clone())).collect();
    found.sort_by_key(|(at, _)| *at);
    found
}

/// Adds up what spans should say.
fn summed(readings: &[(i64, Value)], step: i64) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for (at, value) in readings {
        summary::gather(&mut spans, Span::of(at - at.rem_euclid(step), value.clone()));
    }
    spans
}

fn assert_same(found: &[(i64, Value)], expected: &[(i64, Value)]) {
    let shown = |readings: &[(i64, Value)]| -> Vec<_> {
        readings.iter().map(|(at, value)| (*at, exact(value))).collect()
    };
    assert_eq!(shown(found), shown(expected));
}

/// The same of spans, but for how sums were rounded.
fn assert_same_spans(found: &[Span], expected: &[Span]) {
    let shape = |span: &Span| {
        let numbers = span.numbers.as_ref();
        let numbers = numbers.map(|n| (n.min.as_f64(), n.max.as_f64(), n.count));
        (span.start, numbers, exact(&span.last), span.count)
    };
    let shapes = |spans: &[Span]| spans.iter().map(shape).collect::<Vec<_>>();
    assert_eq!(shapes(found), shapes(expected));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn what_was_committed_comes_back(
        steps in prop::collection::vec(step(), 1..25),
        limit in 1..50_usize,
        from in -2..4_i64,
        to in 0..6_i64,
        span in prop_oneof![Just(60_000_i64), Just(25_000), Just(300_000), Just(2 * HOUR)],
    ) {
        let dir = TempDir::new().unwrap();
        let (mut store, _) = Store::open(dir.path()).unwrap();
        let (mut model, mut marks) = (Model::new(), vec![UnixMillis::MIN]);
        for step in steps {
            match step {
                Step::Commit(rows) => {
                    model.extend(rows.iter().map(|row| (row.clone(), marks.len() - 1)));
                    store.commit(&readings(NOW, rows)).unwrap();
                    marks.push(read(dir.path(), query(1, 0)).0[0].as_of);
                }
                Step::Compact(hours) => {
                    compact(&mut store, dir.path(), KEEP, millis(NOW.0 + hours * HOUR + 120_000));
                }
                Step::Restart => {
                    drop(store);
                    store = Store::open(dir.path()).unwrap().0;
                }
            }
        }
        let (from, to) = (millis(NOW.0 + from * HOUR + 30_000), millis(NOW.0 + to * HOUR));
        for (device, metric) in [(1, 0), (1, 2), (1, 16), (2, 15)] {
            let all = Query { limit, ..query(device, metric) };
            let (pages, found, _) = read(dir.path(), all.clone());
            assert!(pages.iter().all(|page| page.damaged == 0));
            assert_same(&found, &expected(&model, &all, 0));
            let some = Query { from, to, ..all.clone() };
            let readings = expected(&model, &some, 0);
            assert_same(&read(dir.path(), some.clone()).1, &readings);
            let spans = Query { step: Some(Duration::from_millis(span.unsigned_abs())), ..some };
            assert_same_spans(&read(dir.path(), spans).2, &summed(&readings, span));
            for (commit, arrived_from) in marks.iter().enumerate() {
                let missed = Query { arrived_from: *arrived_from, ..all.clone() };
                assert_same(&read(dir.path(), missed).1, &expected(&model, &all, commit));
            }
        }
    }
}
