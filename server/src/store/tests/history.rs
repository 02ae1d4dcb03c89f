//! History against a model: what was committed comes back, whatever became of it meanwhile.

use proptest::prelude::*;

use valtronics_protocol::uplink::GapReason;

use super::*;
use crate::commit::{Lost, Mark};
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

/// Compacts until nothing is left to do, or as if the server had died after so many changes;
/// returns how many blobs could not be read.
fn compact(store: &mut Store, dir: &Path, now: UnixMillis, most: usize) -> u64 {
    store.checkpoint(&[], &Marks::default()).unwrap();
    let mut compactor = Compactor::open(dir).unwrap();
    for _ in 0..most {
        let Some(change) = compactor.next(KEEP, now).unwrap() else { break };
        store.compact(&change).unwrap();
    }
    compactor.take_damaged()
}

/// Reads every page.
fn read(dir: &Path, mut query: Query) -> (Vec<Page>, Vec<(i64, Value)>, Vec<Span>) {
    let mut reader = Reader::open(dir).unwrap();
    let (mut pages, mut readings, mut spans) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        let page = reader.read(&query, || false).unwrap();
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

#[test]
fn late_readings_join_their_hour() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let later =
        |hours: u32| NOW.plus(Duration::from_millis(HOUR.unsigned_abs()) * hours + DAY / 100);
    let at = |minute: i64| NOW.0 + minute * 60_000;
    for minute in [0, 59, 61] {
        store.commit(&readings(NOW, vec![reading(0, at(minute), minute)])).unwrap();
    }
    compact(&mut store, dir.path(), later(1), 1000);
    let chunks = |store: &Store| (rows_of(store, "chunks"), rows_of(store, "journal"));
    assert_eq!(chunks(&store), (1, 1), "the second hour is open");
    store.commit(&readings(NOW, vec![reading(0, at(30), 30), reading(0, at(59), 590)])).unwrap();
    store.commit(&readings(NOW, vec![reading(0, at(90), 90)])).unwrap();
    let mut late = Query { from: millis(at(1)), ..query(1, 0) };
    let found = |late: &Query| {
        let (_, found, _) = read(dir.path(), late.clone());
        found.into_iter().map(|(_, value)| value.as_f64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(found(&late), [30.0, 59.0, 590.0, 61.0, 90.0]);
    // The chunk is there, the rows of the journal are not gone yet, and then the merge is missing.
    for changes in [1, 1, 1000] {
        compact(&mut store, dir.path(), later(2), changes);
        assert_eq!(found(&late), [30.0, 59.0, 590.0, 61.0, 90.0]);
    }
    assert_eq!(chunks(&store), (2, 1));
    assert_eq!(rows_of(&store, "merges"), 0);
    late.arrived_from = NOW.plus(Duration::from_millis(3));
    assert_eq!(found(&late), [30.0, 590.0, 90.0], "what came with the fourth commit, and since");
    let mut came = Vec::new();
    let each = |piece| {
        if let Past::Readings { received_at, rows } = piece {
            let values = rows.into_iter().map(|row| row.value.as_f64().unwrap());
            came.push((received_at.0 - NOW.0, values.collect::<Vec<_>>()));
        }
    };
    past(dir.path(), NOW.plus(Duration::from_millis(1)), each).unwrap();
    let expected = [(1, vec![59.0]), (2, vec![61.0]), (3, vec![30.0, 590.0]), (4, vec![90.0])];
    assert_eq!(came, expected, "rules are tried on it as it came");
}

#[test]
fn a_page_that_is_late_ends_with_its_hour() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let at = |half_hour: i64| NOW.0 + half_hour * HOUR / 2;
    for half_hour in 0..8 {
        let rows = vec![reading(0, at(half_hour), half_hour)];
        store.commit(&readings(NOW, rows)).unwrap();
        if half_hour == 3 {
            compact(&mut store, dir.path(), NOW.plus(DAY / 12 + DAY / 100), 1000);
        }
    }
    let mut reader = Reader::open(dir.path()).unwrap();
    let mut pages = |query: Query, is_late: bool| {
        let (mut query, mut pages) = (query, Vec::new());
        loop {
            let page = reader.read(&query, || is_late).unwrap();
            query.cursor = page.next;
            pages.push(page.points);
            if query.cursor.is_none() {
                return pages;
            }
        }
    };
    let count = |points: &Points| match points {
        Points::Readings(found) => found.len(),
        Points::Spans(found) => found.len(),
    };
    for step in [None, Some(DAY / 48), Some(DAY / 12), Some(DAY)] {
        let query = Query { step, ..query(1, 0) };
        let whole = pages(query.clone(), false);
        let late = pages(query, true);
        let sum = |pages: &[Points]| pages.iter().map(count).sum::<usize>();
        assert_eq!((whole.len(), sum(&whole)), (1, sum(&late)), "{step:?} {late:?}");
        match step {
            None => assert_eq!(late.len(), 4, "an hour each: {late:?}"),
            Some(DAY) => assert_eq!(late.len(), 1, "a step is never cut"),
            Some(_) => assert!(late.len() > 1, "{late:?}"),
        }
    }
}

#[test]
fn hours_go_when_they_are_old() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    let old = NOW.minus(KEEP);
    let rows = [-2 * HOUR, -1, 0, HOUR].map(|after| reading(0, old.0 + after, after));
    store.commit(&readings(NOW, rows[1..].to_vec())).unwrap();
    compact(&mut store, dir.path(), NOW.minus(DAY), 1000);
    store.commit(&readings(NOW, vec![rows[0].clone()])).unwrap();
    store.commit(&readings(NOW, vec![reading(1, NOW.0, 0)])).unwrap();
    compact(&mut store, dir.path(), NOW.minus(DAY), 1000);
    assert_eq!(rows_of(&store, "chunks"), 4);
    while store.prune(KEEP, NOW).unwrap() {}
    assert_eq!(rows_of(&store, "chunks"), 2, "an hour goes as a whole");
    // What is too old when it comes needs no chunk.
    store.commit(&readings(NOW, vec![rows[0].clone(), reading(0, NOW.0, 7)])).unwrap();
    store.commit(&readings(NOW, vec![reading(1, NOW.0, 0)])).unwrap();
    compact(&mut store, dir.path(), NOW.plus(DAY / 12), 1000);
    let times = read(dir.path(), query(1, 0)).1.into_iter().map(|(at, _)| at - old.0);
    assert_eq!(times.collect::<Vec<_>>(), [0, HOUR, NOW.0 - old.0]);
}

#[test]
fn gaps_are_told_once() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    names::register(&mut store, "gw", &[("boiler", &[]), ("pump", &[])]).unwrap();
    let lost = |device: u64, from: i64, to: i64, lost: u64| Commit {
        received_at: NOW,
        lost: vec![Lost {
            device: DeviceId(device),
            from: millis(from),
            to: millis(to),
            readings: lost,
            reason: GapReason::Evicted,
        }],
        ..Commit::default()
    };
    let rows = (0..10).map(|at| reading(0, at * 10, at)).collect();
    store.commit(&readings(NOW, rows)).unwrap();
    let before = read(dir.path(), query(1, 0)).0[0].as_of;
    for commit in [lost(1, 5, 25, 3), lost(2, 5, 25, 7), lost(1, 70, 200, 4)] {
        store.commit(&commit).unwrap();
    }
    let told = |query: Query| -> Vec<u64> {
        let (pages, ..) = read(dir.path(), query);
        pages.iter().flat_map(|page| &page.gaps).map(|gap| gap.lost).collect()
    };
    let all = Query { limit: 3, ..query(1, 0) };
    assert_eq!(told(all.clone()), [3, 4]);
    assert_eq!(told(Query { to: millis(70), ..all.clone() }), [3]);
    assert_eq!(told(Query { from: millis(26), ..all.clone() }), [4]);
    assert_eq!(told(Query { arrived_from: before, ..all.clone() }), [3, 4]);
    drop(store);
    Store::open(dir.path()).unwrap();
    let since = read(dir.path(), all.clone()).0[0].as_of;
    assert_eq!(told(Query { arrived_from: since, ..all }), [0; 0]);
}

#[test]
fn what_is_damaged_is_left_out_and_counted() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path()).unwrap();
    for hour in 0..3 {
        let at = NOW.0 + hour * HOUR;
        store.commit(&readings(NOW, vec![reading(0, at, hour), reading(0, at + 1, hour)])).unwrap();
    }
    compact(&mut store, dir.path(), NOW.plus(DAY), 1000);
    store.commit(&readings(NOW, vec![reading(0, NOW.0 + 5 * HOUR, 5)])).unwrap();
    let damage = |table: &str, column: &str, at: usize, id: i64| {
        let sql = format!("SELECT {column} FROM {table} WHERE id = ?1");
        let mut blob: Vec<u8> = store.db.query_row(&sql, [id], |row| row.get(0)).unwrap();
        let at = at % blob.len();
        blob[at] ^= 0x10;
        let sql = format!("UPDATE {table} SET {column} = ?1 WHERE id = ?2");
        store.db.execute(&sql, params![blob, id]).unwrap();
    };
    // Minutes can be had from the readings.
    (0..40).for_each(|at| damage("chunks", "minutes", at * 7, 1));
    let spans = Query { step: Some(DAY), ..query(1, 0) };
    let (pages, _, found) = read(dir.path(), spans.clone());
    assert_eq!((pages[0].damaged, found[0].count), (0, 7));
    damage("chunks", "readings", 9, 2);
    damage("journal", "rows", 9, 3);
    let (pages, _, found) = read(dir.path(), spans);
    assert_eq!((pages[0].damaged, found[0].count), (1, 5), "minutes are there");
    let (pages, found, _) = read(dir.path(), query(1, 0));
    assert_eq!((pages[0].damaged, found.len()), (2, 3));
    assert_eq!(compact(&mut store, dir.path(), NOW.plus(DAY), 1000), 1);
    assert_eq!(rows_of(&store, "journal"), 2, "what cannot be read stays where it is");
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
    /// Readings, each a backlog's or not.
    Commit(Vec<(Row, bool)>),
    /// So many hours after the first, until so many changes are made.
    Compact(i64, usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let any_row = (1..3_u64, prop_oneof![0..3_u32, 15..18_u32], -2..5_i64, 0..40_i64, value());
    let any_row =
        (any_row, any::<bool>()).prop_map(|((device, metric, hour, tick, value), late)| {
            // Many of one moment, and the first and last moments of hours.
            let at = NOW.0 + hour * HOUR + if tick == 39 { HOUR - 1 } else { tick / 4 * 25_000 };
            (row(device, metric, at, value), late)
        });
    prop_oneof![
        6 => prop::collection::vec(any_row, 1..60).prop_map(Step::Commit),
        2 => (0..6_i64, prop_oneof![0..5_usize, Just(1000)])
            .prop_map(|(hours, changes)| Step::Compact(hours, changes)),
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
    #![proptest_config(ProptestConfig { cases: 10, ..ProptestConfig::default() })]
    #[test]
    fn what_was_committed_comes_back(
        steps in prop::collection::vec(step(), 1..25),
        limit in 4..60_usize,
        from in -2..4_i64,
        to in 0..6_i64,
        span in prop_oneof![Just(60_000_i64), Just(25_000), Just(300_000), Just(2 * HOUR)],
    ) {
        let dir = TempDir::new().unwrap();
        let (mut store, _) = Store::open(dir.path()).unwrap();
        let (mut model, mut marks) = (Model::new(), vec![UnixMillis::MIN]);
        let mut live = Vec::new();
        for step in steps {
            match step {
                Step::Commit(rows) => {
                    let mut commit = readings(NOW, Vec::new());
                    for (place, (row, late)) in rows.into_iter().enumerate() {
                        match late {
                            true => commit.marks.push(place, Some(Mark::Historical)),
                            false => live.push((marks.len() as i64 - 1, row.clone())),
                        }
                        commit.readings.push(row);
                    }
                    let rows = &commit.readings;
                    model.extend(rows.iter().map(|row| (row.clone(), marks.len() - 1)));
                    store.commit(&commit).unwrap();
                    marks.push(read(dir.path(), query(1, 0)).0[0].as_of);
                }
                Step::Compact(hours, most) => {
                    let now = millis(NOW.0 + hours * HOUR + 120_000);
                    compact(&mut store, dir.path(), now, most);
                }
                Step::Restart => {
                    drop(store);
                    store = Store::open(dir.path()).unwrap().0;
                }
            }
        }
        let mut came = Vec::new();
        past(dir.path(), NOW, |piece| {
            if let Past::Readings { received_at, rows } = piece {
                came.extend(rows.into_iter().map(|row| (received_at.0 - NOW.0, row)));
            }
        })
        .unwrap();
        for came in [&mut came, &mut live] {
            came.sort_by_cached_key(|(at, row)| {
                (*at, row.device, row.metric, row.at, exact(&row.value))
            });
        }
        let shown = |came: &[(i64, Row)]| -> Vec<_> {
            came.iter().map(|(at, row)| (*at, row.metric, row.at, exact(&row.value))).collect()
        };
        assert_eq!(shown(&came), shown(&live), "rules are tried on what was live");
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
            for (commit, arrived_from) in marks.iter().enumerate().step_by(3) {
                let missed = Query { arrived_from: *arrived_from, ..all.clone() };
                assert_same(&read(dir.path(), missed).1, &expected(&model, &all, commit));
            }
        }
    }
}
