//! The engine with a store of its own, without their tasks.

use proptest::prelude::*;
use tempfile::TempDir;
use valtronics_protocol::{
    event::AlertStatus,
    id::{DeviceId, Seq},
    uplink::Ack,
    value::Value,
};

use super::{
    alerts::{MOST_EVENTS, MOST_REQUESTS},
    *,
};
use crate::{
    auth::DeviceGrant,
    commit::{EventDraft, Mark, MetricIndex, Row},
    domain::rule::Rule,
    ingest::{Batch, push_row},
    state::EventLog,
    store::{RegistryLimits, Restored, Store, StoreError},
    store_task::{Registrant, Wanted, last_values},
};

const NOW: UnixMillis = UnixMillis(1_704_110_400_000);
const METRICS: u32 = 3;

/// An engine that nobody runs, and its store with one device.
struct Bench {
    engine: Engine,
    _handle: EngineHandle,
    store: Store,
    dir: TempDir,
    now: UnixMillis,
}

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let (mut store, restored) = Store::open(dir.path()).unwrap();
        let registrant = Registrant { sub: "gw".into(), gateway: None, devices: DeviceGrant::All };
        let metrics = (0..METRICS).map(|n| (n.to_string(), None)).collect();
        let wanted = [Wanted { device: "boiler".into(), metrics }];
        let limits = RegistryLimits { devices_per_sub: 10, metrics_per_device: 10 };
        let names = store.register(&registrant, &wanted, limits, NOW).unwrap().changes;
        let log = || EventLog::restore(Seq(1), Seq(0), Vec::new(), clock::instant());
        let (mut engine, _handle) = Engine::new(Parts {
            state: State::new(restored.log, log(), log()),
            alerts: Alerts::default(),
            drafts: Vec::new(),
            rules: Rules::default(),
            file_rules: None,
            queues: Vec::new(),
            agents: Vec::new(),
            keys: Vec::new(),
            machines: Vec::new(),
            limits: HubLimits { subscriptions: 1, queue_bytes: 1, coalesce: Duration::ZERO },
            keep: Duration::from_secs(86_400),
            offline_after: None,
            store: mpsc::channel(1).0,
            pages: mpsc::channel(1).0,
            sample: Arc::default(),
        });
        engine.registered(names, NOW);
        Self { engine, _handle, store, dir, now: NOW }
    }

    fn batch(&mut self, rows: &[Row], historical: bool, preview: bool) {
        let mut batch = Batch { received_at: self.now, preview, ..Batch::default() };
        rows.iter().for_each(|row| push_row(&mut batch, 0, row.clone(), historical));
        self.engine.batch(batch, self.now, clock::instant());
    }

    fn commit(&mut self) {
        self.store.commit(&std::mem::take(&mut self.engine.pending)).unwrap();
    }

    fn checkpoint(&mut self) {
        let (rows, marks) = last_values(&self.engine.state);
        self.store.checkpoint(&rows, &marks).unwrap();
    }

    /// The last values and from when on they count: as they are, and as a start finds them.
    fn last_values(self) -> [Vec<(Row, UnixMillis)>; 2] {
        let (rows, marks) = last_values(&self.engine.state);
        let moments = marks.into_places().zip(&rows);
        let moments = moments.map(|(mark, row)| Mark::effective(mark, row.at).unwrap());
        let moments: Vec<_> = moments.collect();
        let known = rows.into_iter().zip(moments).collect();
        drop(self.store);
        let mut found = reopened(self.dir.path()).last_values;
        found.sort_by_key(|(row, _)| row.metric);
        [known, found]
    }
}

/// Opens a store again. A child that another test starts holds its lock, too, until it has begun.
fn reopened(dir: &std::path::Path) -> Restored {
    let deadline = clock::instant() + Duration::from_secs(10);
    loop {
        match Store::open(dir) {
            Err(StoreError::Locked(_)) if clock::instant() < deadline => std::thread::yield_now(),
            opened => return opened.unwrap().1,
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Live(Vec<(u32, i64, i64)>),
    Backlog(Vec<(u32, i64, i64)>),
    Preview(Vec<(u32, i64, i64)>),
    Wait(u64),
    Commit,
    Checkpoint,
}

fn step() -> impl Strategy<Value = Step> {
    // Metrics, how far the source's clock is from the server's, values.
    let reading = (0..METRICS, prop_oneof![-5..60_i64, 50..60_i64], 0..4_i64);
    let readings = prop::collection::vec(reading, 1..5);
    prop_oneof![
        4 => readings.clone().prop_map(Step::Live),
        2 => readings.clone().prop_map(Step::Backlog),
        1 => readings.prop_map(Step::Preview),
        2 => (0..3000_u64).prop_map(Step::Wait),
        2 => Just(Step::Commit),
        1 => Just(Step::Checkpoint),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn last_values_come_back_as_they_were(steps in prop::collection::vec(step(), 1..40)) {
        let mut bench = Bench::new();
        let mut shown = Vec::new();
        for step in steps {
            let now = bench.now.0;
            let rows = |readings: Vec<(u32, i64, i64)>| -> Vec<Row> {
                let row = |(metric, ahead, value)| Row {
                    device: DeviceId(1),
                    metric: MetricIndex(metric),
                    at: UnixMillis(now + ahead * 1000),
                    value: Value::Int(value),
                };
                readings.into_iter().map(row).collect()
            };
            match step {
                Step::Live(readings) => bench.batch(&rows(readings), false, false),
                Step::Backlog(readings) => bench.batch(&rows(readings), true, false),
                Step::Preview(readings) => {
                    let rows = rows(readings);
                    bench.batch(&rows, false, true);
                    shown.extend(rows);
                }
                Step::Wait(millis) => bench.now = bench.now.plus(Duration::from_millis(millis)),
                Step::Commit => bench.commit(),
                Step::Checkpoint => bench.checkpoint(),
            }
        }
        // What previews have shown follows with its numbers.
        bench.batch(&shown, true, false);
        bench.commit();
        let [known, found] = bench.last_values();
        prop_assert_eq!(known, found);
    }
}

/// Rules on the first metric, each with its bound.
fn rules(count: usize) -> Vec<Rule> {
    let rule = |n| {
        let json = r#"{"metric":"0","kind":"threshold","above":30}"#;
        Rule::parse_json(json, Some(&format!("r{n}"))).unwrap()
    };
    (0..count).map(rule).collect()
}

/// What became of alerts in a commit.
fn alerts_of(commit: &Commit) -> Vec<AlertStatus> {
    let status = |event: &EventDraft| match event {
        EventDraft::Alert(alert) => Some(alert.status),
        EventDraft::Status(_) => None,
    };
    commit.events.iter().filter_map(status).collect()
}

#[test]
fn alerts_that_cannot_be_stored_wait_within_a_bound() {
    const RULES: usize = 500;
    let mut bench = Bench::new();
    bench.engine.edit_rules(RuleEdit::Files(rules(RULES)), NOW);
    let mut row = Row {
        device: DeviceId(1),
        metric: MetricIndex(0),
        at: NOW.minus(Duration::from_secs(86_000)),
        value: Value::Int(0),
    };
    let mut read = |bench: &mut Bench, value: i64| {
        // Far enough apart that none of them flaps.
        (row.at, row.value) = (row.at.plus(Duration::from_secs(601)), Value::Int(value));
        bench.batch(std::slice::from_ref(&row), false, false);
    };
    for n in 1..140 {
        read(&mut bench, if n % 2 == 1 { 31 } else { 29 });
    }
    let full = bench.engine.pending.events.len();
    assert!((MOST_EVENTS..MOST_EVENTS + RULES).contains(&full), "{full}");
    let last = *alerts_of(&bench.engine.pending).last().unwrap();
    // What became of the alerts meanwhile is told by the first reading for which there is room.
    let (meanwhile, expected) = match last {
        AlertStatus::Active => (29, AlertStatus::Resolved),
        _ => (31, AlertStatus::Active),
    };
    read(&mut bench, meanwhile);
    assert_eq!(bench.engine.pending.events.len(), full);
    assert!(bench.engine.request().is_err(), "nor may anybody change alerts or rules");
    bench.commit();
    read(&mut bench, meanwhile);
    assert_eq!(alerts_of(&bench.engine.pending), vec![expected; RULES]);
}

#[test]
fn requests_that_cannot_be_stored_wait_within_a_bound() {
    let mut bench = Bench::new();
    let mut delete = || {
        let progress = Arc::new(tokio::sync::watch::channel(Ack::default()).0);
        let ticket = Ticket { progress, reached: Ack::default(), queue: None };
        let (answer, mut answered) = tokio::sync::oneshot::channel();
        bench.engine.edit_rules(RuleEdit::Delete("none".into(), ticket, answer), NOW);
        (answered.try_recv().unwrap(), bench.engine.pending_tickets.len())
    };
    for n in 1..=MOST_REQUESTS {
        assert_eq!(delete(), (Ok(false), n));
    }
    assert_eq!(delete(), (Err(NotEdited::Behind(Behind)), MOST_REQUESTS));
}
