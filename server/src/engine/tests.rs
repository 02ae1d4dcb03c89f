//! The engine with a store of its own, without their tasks.

use proptest::prelude::*;
use tempfile::TempDir;
use valtronics_protocol::{id::DeviceId, id::Seq, value::Value};

use super::*;
use crate::{
    auth::DeviceGrant,
    commit::{Mark, MetricIndex, Row},
    ingest::{Batch, push_row},
    state::EventLog,
    store::{RegistryLimits, Store},
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
        let mut found = Store::open(self.dir.path()).unwrap().1.last_values;
        found.sort_by_key(|(row, _)| row.metric);
        [known, found]
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
