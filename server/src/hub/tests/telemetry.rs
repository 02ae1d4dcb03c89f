//! Telemetry: the newest value always arrives, time never goes backwards, and nothing is lost
//! without being counted.

use valtronics_protocol::value::Value;

use super::*;
use crate::{outbox::HISTORICAL_BYTES, state::LastValue};

/// Sends live readings of a device.
pub(super) fn publish(world: &mut World, device: u64, readings: &[(u32, i64)]) {
    let (at, instant) = (world.now(), world.instant());
    let mut values = Vec::new();
    for (metric, value) in readings {
        let (metric, value) = (MetricIndex(*metric), Value::Int(*value));
        let device = world.state.device_mut(DeviceId(device)).unwrap();
        let last = LastValue { value: value.clone(), at, effective_at: at };
        device.metric_mut(metric).unwrap().last = Some(last);
        values.push((metric, value));
    }
    let changes = values.iter().map(|(metric, value)| Change {
        metric: *metric,
        value,
        at,
        arrived_at: None,
    });
    let changes: Vec<_> = changes.collect();
    world.hub.publish(world.state.device(DeviceId(device)).unwrap(), &changes, instant);
    world.hub.deliver(instant);
}

/// Sends a reading that came late.
pub(super) fn publish_late(world: &mut World, device: u64, value: i64) {
    let value = Value::Int(value);
    let change =
        Change { metric: MetricIndex(0), value: &value, at: UnixMillis(0), arrived_at: None };
    world.hub.publish_historical(world.state.device(DeviceId(device)).unwrap(), &[change]);
}

/// Lets time pass, as the engine does.
pub(super) fn pass(world: &mut World, millis: u64) {
    world.elapsed += millis;
    let now = world.instant();
    world.hub.tick(&world.state, now);
    world.hub.tell_lag(now);
}

/// What one reader has seen.
#[derive(Default)]
struct Seen {
    /// The newest value of each metric of each device.
    newest: HashMap<(u64, String), i64>,
    live: u64,
    late: Vec<i64>,
    dropped: u64,
    /// When the last live message of each device came.
    times: HashMap<u64, u64>,
}

impl Seen {
    /// Takes messages that came at a moment, at least a period after those of the same device.
    fn take(&mut self, messages: Vec<Json>, elapsed: u64, period: u64) {
        for message in messages {
            self.dropped += message["dropped"].as_u64().unwrap_or_default();
            let Some(device) = message["device_id"].as_u64() else { continue };
            if message["historical"] == true {
                self.late.push(message["telemetry"]["m0"]["value"].as_i64().unwrap());
                continue;
            }
            for (metric, reading) in message["telemetry"].as_object().unwrap() {
                let value = reading["value"].as_i64().unwrap();
                let before = self.newest.insert((device, metric.clone()), value);
                assert!(before.is_none_or(|before| before <= value), "{before:?} before {value}");
            }
            if message["snapshot"] != true {
                self.live += 1;
                let before = self.times.insert(device, elapsed);
                let early = before.is_some_and(|before| elapsed < before + period);
                assert!(!early, "{before:?} and {elapsed} of {device}");
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Publish { device: u64, metrics: Vec<u32> },
    Late(u64),
    Read(usize),
    Pass(u64),
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    let metrics = prop::sample::subsequence((0..METRICS).collect::<Vec<_>>(), 1..=METRICS as usize);
    prop_oneof![
        10 => (1..=DEVICES, metrics)
            .prop_map(|(device, metrics)| Step::Publish { device, metrics }),
        2 => (1..=DEVICES).prop_map(Step::Late),
        4 => (0..1500_usize).prop_map(Step::Read),
        2 => (1..3000_u64).prop_map(Step::Pass),
        1 => Just(Step::Snapshot),
    ]
}

const FILTERS: [&str; 4] = [
    r#"{"historical": true}"#,
    r#"{"metrics": ["m1", "m2"], "device_id": [1, 3]}"#,
    r#"{"frequency": "1s"}"#,
    r#"{"frequency": "5s", "metrics": ["m0"], "historical": true}"#,
];

proptest! {
    // Each case is some hundred steps.
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_newest_value_always_arrives(
        steps in prop::collection::vec(step(), 1..200),
        filters in prop::sample::select(FILTERS.to_vec()),
        queue_bytes in prop::sample::select(vec![300_usize, 2000, 1 << 20]),
    ) {
        let filters: Json = serde_json::from_str(filters).unwrap();
        let one_of = |key: &str, value: Json| {
            filters[key].as_array().is_none_or(|wanted| wanted.contains(&value))
        };
        let covers = |device: u64, metric: u32| {
            one_of("device_id", json!(device)) && one_of("metrics", json!(format!("m{metric}")))
        };
        let mut world = World::new(queue_bytes);
        world.attach(0, DeviceGrant::All);
        world.subscribe(0, Channel::Telemetry, &filters);
        let (mut seen, mut value, mut produced, mut late) = (Seen::default(), 0, 0, Vec::new());
        for step in steps {
            match step {
                Step::Publish { device, metrics } => {
                    value += 1;
                    produced += u64::from(metrics.iter().any(|metric| covers(device, *metric)));
                    let readings: Vec<_> = metrics.iter().map(|metric| (*metric, value)).collect();
                    publish(&mut world, device, &readings);
                }
                Step::Late(device) => {
                    late.push(value);
                    publish_late(&mut world, device, value);
                }
                Step::Read(bytes) => {
                    let read = world.read(0, bytes);
                    seen.take(read, world.elapsed, 0);
                }
                Step::Pass(millis) => pass(&mut world, millis),
                Step::Snapshot => world.subscribe(0, Channel::Telemetry, &filters),
            }
        }
        for _ in 0..3 {
            pass(&mut world, 6000);
            let rest = world.read_all(0);
            seen.take(rest, world.elapsed, 0);
        }
        for device in world.state.devices() {
            let id = device.id().0;
            for (metric, at) in device.metrics.iter().zip(0..).filter(|(_, at)| covers(id, *at)) {
                let last = metric.last.as_ref().map(|last| last.value.clone());
                let got = seen.newest.get(&(id, format!("m{at}")));
                prop_assert_eq!(got.map(|value| Value::Int(*value)), last);
            }
        }
        if filters["frequency"].is_null() {
            prop_assert_eq!(seen.live + seen.dropped, produced);
        }
        let wanted = if filters["historical"] == true { late } else { Vec::new() };
        prop_assert_eq!(seen.late, wanted);
    }

    #[test]
    fn a_period_has_one_message_a_device_and_the_last_value_of_a_burst(
        steps in prop::collection::vec((1..=DEVICES, 0..400_u64), 1..200),
    ) {
        let mut world = World::new(1 << 20);
        world.attach(0, DeviceGrant::All);
        world.subscribe(0, Channel::Telemetry, &json!({"frequency": "1s", "snapshot": false}));
        let (mut seen, mut last) = (Seen::default(), HashMap::new());
        let mut pauses = Vec::new();
        for ((device, pause), value) in steps.into_iter().zip(1..) {
            publish(&mut world, device, &[(0, value)]);
            last.insert((device, "m0".to_owned()), value);
            pauses.extend([0, pause]);
            for pause in pauses.drain(..) {
                pass(&mut world, pause);
                let read = world.read(0, usize::MAX);
                seen.take(read, world.elapsed, 1000);
            }
        }
        pass(&mut world, 1000);
        let read = world.read(0, usize::MAX);
        seen.take(read, world.elapsed, 1000);
        prop_assert_eq!(seen.newest, last);
    }
}

#[test]
fn a_long_snapshot_does_not_overtake_live_readings() {
    let mut world = World::new(1 << 20);
    let at = world.now();
    for device in world.state.devices_mut() {
        // Two of these fill what is sent at once.
        let value = Value::Text("x".repeat(20_000).into());
        device.metric_mut(MetricIndex(1)).unwrap().last =
            Some(LastValue { value, at, effective_at: at });
    }
    world.attach(0, DeviceGrant::All);
    world.subscribe(0, Channel::Telemetry, &json!({}));
    let (outbox, instant) = (Arc::clone(&world.outboxes[&SessionId(0)]), world.instant());
    assert!(outbox.take(usize::MAX, &mut Default::default(), Waker::noop(), instant).more);
    // The connection has drained; before the hub hears of it, readings come.
    (1..=3).for_each(|value| publish(&mut world, DEVICES, &[(0, value)]));
    world.hub.drained(SessionId(0), &world.state, instant);
    let values = world.read_all(0).into_iter().filter(|message| message["device_id"] == DEVICES);
    let values: Vec<_> = values.map(|it| it["telemetry"]["m0"]["value"].as_i64()).collect();
    assert_eq!(values, [1, 2, 3, 3].map(Some));
}

#[test]
fn a_long_replay_and_readings_take_turns() {
    for queue_bytes in [1 << 20, 300] {
        let mut world = World::new(queue_bytes);
        (0..3000).for_each(|_| world.change_status(DeviceId(1), Status::Online));
        world.attach(0, DeviceGrant::All);
        world.subscribe(0, Channel::Telemetry, &json!({"snapshot": false}));
        world.subscribe(0, Channel::Devices, &json!({"since": 0}));
        let (mut newest, mut events) = (0, 0);
        for value in 1..=300 {
            publish(&mut world, 1, &[(0, value)]);
            world.change_status(DeviceId(2), Status::Online);
            for message in world.read(0, 2000) {
                newest = message["telemetry"]["m0"]["value"].as_i64().unwrap_or(newest);
                events += u64::from(message["type"] == "device_status_update");
            }
            world.read_page(128);
            // What the urgent lane holds takes less than twenty of these reads.
            assert!(newest + 20 > value, "at {value} {newest} was the newest");
        }
        assert!((1000..3000).contains(&events), "{events}: the replay goes on, too");
    }
}

#[test]
fn late_readings_that_find_no_room_are_counted() {
    let mut world = World::new(1 << 20);
    world.attach(0, DeviceGrant::All);
    let request = json!({"historical": true, "snapshot": false});
    world.subscribe(0, Channel::Telemetry, &request);
    let produced = 10_000;
    (1..=produced).for_each(|value| publish_late(&mut world, 1, value));
    publish(&mut world, 1, &[(0, -1)]);
    let waiting = world.outboxes[&SessionId(0)].depth().queued_bytes;
    assert!(waiting < HISTORICAL_BYTES + 1024, "{waiting}");
    let first = world.read(0, 1000);
    assert!(
        first.iter().any(|message| message["device_id"] == 1 && message["historical"].is_null())
    );
    let mut seen = Seen::default();
    seen.take(first, 0, 0);
    pass(&mut world, 1000);
    let rest = world.read_all(0);
    seen.take(rest, 0, 0);
    assert_eq!(seen.newest[&(1, "m0".to_owned())], -1, "late readings are no last values");
    assert!(seen.dropped > 0 && seen.late.is_sorted());
    assert_eq!(seen.late.len() as u64 + seen.dropped, produced as u64);
}

#[test]
fn who_comes_back_to_a_period_begins_a_new_one() {
    let mut world = World::new(1 << 20);
    world.attach(0, DeviceGrant::All);
    let request = json!({"frequency": "1s", "snapshot": false});
    world.subscribe(0, Channel::Telemetry, &request);
    publish(&mut world, 1, &[(0, 1)]);
    pass(&mut world, 500);
    world.unsubscribe(0, Channel::Telemetry, None);
    world.subscribe(0, Channel::Telemetry, &request);
    publish(&mut world, 1, &[(0, 2)]);
    publish(&mut world, 1, &[(0, 3)]);
    for (pause, value) in [(600, 2), (400, 3)] {
        pass(&mut world, pause);
        let mut seen = Seen::default();
        seen.take(world.read_all(0), 0, 0);
        assert_eq!(seen.newest[&(1, "m0".to_owned())], value);
    }
}

#[test]
fn subscribing_ten_thousand_times_leaves_nothing() {
    let mut world = World::new(1 << 20);
    (0..3).for_each(|session| world.attach(session, DeviceGrant::All));
    // What a thing says of itself grows with it.
    let size = |world: &World| format!("{:?}", world.hub).len();
    let mut early = 0;
    for turn in 0..10_000_u64 {
        let session = turn % 3;
        let mut request = json!({"metrics": format!("m{}", turn % 500)});
        if turn % 4 != 0 {
            request["device_id"] = json!([turn % 7 + 1, 1000 + turn % 100]);
        }
        if turn % 2 == 0 {
            request["frequency"] = format!("{}s", turn % 50 + 1).into();
        }
        world.subscribe(session, Channel::Telemetry, &request);
        let request = json!({"device_id": [turn % 50 + 1, 100 + turn % 20]});
        world.subscribe(session, Channel::Devices, &request);
        world.change_status(DeviceId(turn % DEVICES + 1), Status::Online);
        publish(&mut world, turn % DEVICES + 1, &[(0, 1)]);
        world.read(session, 4000);
        if turn % 50 > 46 {
            world.unsubscribe(session, Channel::Telemetry, None);
            world.unsubscribe(session, Channel::Devices, None);
        }
        if turn == 2000 {
            early = size(&world);
        }
    }
    let late = size(&world);
    assert!(late < early + 500, "{early} bytes, then {late}: {:#?}", world.hub);
    for session in 0..3 {
        world.unsubscribe(session, Channel::Telemetry, None);
        world.unsubscribe(session, Channel::Devices, None);
        world.read_all(session);
    }
    let hub = &world.hub;
    assert!(hub.live.is_empty() && hub.historical.is_empty() && hub.pages.is_empty());
    assert_eq!(hub.deadline(), None, "no period runs");
    assert!(size(&world) < late, "{:#?}", world.hub);
}

#[test]
fn the_snapshot_of_all_passes_over_devices_with_a_key_of_their_own() {
    let mut world = World::new(1 << 20);
    world.attach(0, DeviceGrant::All);
    (1..=DEVICES).for_each(|device| publish(&mut world, device, &[(0, 1)]));
    world.subscribe(0, Channel::Telemetry, &json!({"device_id": 2, "snapshot": false}));
    world.subscribe(0, Channel::Telemetry, &json!({}));
    let messages = world.read_all(0);
    let shown = messages.iter().filter_map(|message| message["device_id"].as_u64());
    assert_eq!(shown.collect::<Vec<_>>(), [1, 3, 4]);
}
