//! A device and its metrics in simulated time, looked at as the engine does.

use proptest::prelude::*;
use valtronics_protocol::{
    event::StatusMetadata,
    filter::Channel,
    id::{DeviceId, Seq},
};

use super::*;
use crate::{
    commit::{MetricIndex, RegisteredDevice, RegisteredMetric, StatusDraft},
    domain::status::COME_BACK,
};

const METRICS: [&str; 3] = ["t", "p", "rpm"];

/// A device, and when the engine would look at it.
struct World {
    device: Device,
    now: UnixMillis,
    look_at: UnixMillis,
    told: Vec<StatusDraft>,
}

impl World {
    fn new() -> Self {
        let (id, sub, name) = (DeviceId(1), "site".into(), "boiler".into());
        let mut device = Device::new(RegisteredDevice { id, sub, name, gateway: None });
        for (index, name) in (0..).zip(METRICS) {
            let (index, name, unit) = (MetricIndex(index), name.into(), "".into());
            device.register(RegisteredMetric { device: id, index, name, unit });
        }
        let now = UnixMillis(0);
        Self { device, now, look_at: UnixMillis::MAX, told: Vec::new() }
    }

    fn heard(&mut self, metrics: &[usize]) {
        let mut returned = false;
        for metric in metrics {
            returned |= self.device.metrics[*metric].freshness.heard(self.now);
        }
        self.device.health.heard(self.now);
        if returned {
            self.device.miss_metric(self.now);
        }
        self.announce();
    }

    fn announce(&mut self) {
        if let Some(draft) = self.device.health.transition(DeviceId(1), self.now) {
            self.told.push(draft);
            self.look_at = self.now;
        }
    }

    /// Lets so many seconds pass; some metrics are heard at each.
    fn pass(&mut self, seconds: i64, metrics: &[usize]) {
        for _ in 0..seconds {
            self.now.0 += 1000;
            if !metrics.is_empty() {
                self.heard(metrics);
            }
            while self.look_at <= self.now {
                self.look_at = self.device.look_around(self.now).max(self.now.plus(SECOND));
                self.announce();
            }
        }
    }

    /// Returns what was told since the last call.
    fn told(&mut self) -> Vec<String> {
        let told = self.told.drain(..);
        told.map(|told| format!("{} {:?}: {}", told.at.0 / 1000, told.new, told.reason)).collect()
    }

    fn stale(&self) -> Vec<&str> {
        let stale = self.device.metrics.iter().filter(|metric| metric.freshness.is_stale());
        stale.map(|metric| &*metric.name).collect()
    }
}

const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

#[test]
fn a_metric_that_is_missed_is_named_until_it_speaks() {
    let mut world = World::new();
    world.pass(10, &[0, 1, 2]);
    world.pass(100, &[1, 2]);
    assert_eq!(world.told(), ["1 Online: Receiving data", "57 Warning: No data from t for 45 s"]);
    assert_eq!(world.stale(), ["t"]);
    world.pass(100, &[2]);
    assert_eq!((world.told(), world.stale()), (vec![], vec!["t", "p"]));
    world.pass(1, &[0, 2]);
    assert!(world.told().is_empty(), "the next is missed still");
    world.pass(1, &[1, 2]);
    assert_eq!(world.told(), ["212 Online: Receiving data"]);
    assert_eq!(world.stale(), [""; 0]);
}

#[test]
fn three_usual_intervals_count_or_what_the_agent_declares() {
    let mut world = World::new();
    let minutes = |world: &mut World, count| {
        for _ in 0..count {
            world.pass(59, &[1]);
            world.pass(1, &[0, 1]);
        }
    };
    minutes(&mut world, 4);
    world.pass(181, &[1]);
    assert_eq!(world.told(), ["1 Online: Receiving data"]);
    world.pass(1, &[1]);
    assert_eq!(world.told(), ["422 Warning: No data from t for 3 min"]);
    world.device.health.declare_offline_after(Some(300 * SECOND));
    minutes(&mut world, 1);
    assert_eq!(world.told().len(), 1);
    world.pass(301, &[1]);
    assert!(world.told().is_empty());
    world.pass(1, &[1]);
    assert_eq!(world.told(), ["784 Warning: No data from t for 5 min"]);
}

#[test]
fn what_was_said_a_few_times_only_is_never_missed() {
    let mut world = World::new();
    world.pass(3, &[0, 1]);
    world.pass(10_000, &[1]);
    assert_eq!((world.told().len(), world.stale()), (1, vec![]));
}

#[test]
fn a_device_that_stops_is_offline_and_misses_nothing_when_it_is_back() {
    let mut world = World::new();
    world.pass(10, &[0, 1, 2]);
    world.pass(3600, &[]);
    assert_eq!(world.told(), ["1 Online: Receiving data", "55 Offline: No data for 45 s"]);
    assert_eq!(world.stale(), METRICS);
    world.pass(5, &[0]);
    assert_eq!((world.told().len(), world.stale()), (1, vec!["p", "rpm"]), "they may follow");
    world.pass(60, &[0, 1]);
    assert_eq!(world.told(), ["3658 Warning: No data from rpm for 45 s"]);
}

#[test]
fn a_gateway_that_is_away_explains_the_silence_of_metrics() {
    let mut world = World::new();
    world.pass(10, &[0, 1, 2]);
    world.pass(50, &[0, 1]);
    assert_eq!(world.told().len(), 2);
    world.device.health.gateway_away(world.now);
    world.pass(100, &[]);
    world.device.health.gateway_back(world.now);
    world.pass(10, &[0]);
    assert!(world.told().is_empty(), "rpm is missed still, p may follow");
    world.pass(1, &[2]);
    assert_eq!(world.told(), ["171 Online: Receiving data"]);
    world.pass(40, &[0, 2]);
    assert_eq!(world.told(), ["207 Warning: No data from p for 45 s"]);
}

fn restored(status: Status, reason: &str) -> World {
    let mut world = World::new();
    let update = DeviceStatusUpdate {
        channel: Channel::Devices,
        device_id: DeviceId(1),
        old_status: Status::Online,
        new_status: status,
        timestamp: world.now,
        reason: reason.into(),
        metadata: StatusMetadata { last_seen: Some(world.now) },
        seq: Seq(1),
        snapshot: false,
    };
    world.device.restore(&update, world.now);
    world.look_at = world.now;
    world
}

#[test]
fn a_restart_keeps_what_is_missed_and_waits_for_agents() {
    let mut world = restored(Status::Warning, "No data from t for 45 s");
    world.pass(100, &[1]);
    assert_eq!((world.told(), world.stale()), (vec![], vec!["t"]));
    world.pass(1, &[0]);
    assert_eq!(world.told(), ["101 Online: Receiving data"]);

    let mut reported = restored(Status::Warning, "Battery low");
    reported.pass(100, &[0]);
    assert!(reported.told().is_empty());
    assert_eq!(restored(Status::Offline, "Cut").stale(), METRICS);

    let mut early = restored(Status::Online, "Receiving data");
    early.device.health.configure_offline_after(Some(SECOND));
    early.pass(COME_BACK.as_secs() as i64 - 1, &[]);
    assert!(early.told().is_empty());
    early.pass(1, &[]);
    assert_eq!(early.told(), ["30 Offline: No data for 1 s"]);
}

/// Something that happens, after some seconds in which a metric may be heard.
#[derive(Debug, Clone)]
enum Step {
    Pass(i64, Vec<usize>),
    Report(Status),
    Away,
    Lost,
    Back,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let metrics = prop::sample::subsequence(vec![0, 1, 2], 0..=3);
    let status = prop::sample::select(vec![Status::Online, Status::Offline, Status::Warning]);
    prop::collection::vec(
        prop_oneof![
            6 => (1..120_i64, metrics).prop_map(|(seconds, heard)| Step::Pass(seconds, heard)),
            2 => status.prop_map(Step::Report),
            1 => Just(Step::Away),
            1 => Just(Step::Lost),
            2 => Just(Step::Back),
        ],
        1..80,
    )
}

proptest! {
    #[test]
    fn the_worst_that_is_known_is_shown(steps in steps()) {
        let mut world = World::new();
        let (mut lost, mut heard_at, mut before) = (false, [0; 3], None);
        for step in steps {
            match &step {
                Step::Pass(seconds, metrics) => {
                    world.pass(*seconds, metrics);
                    metrics.iter().for_each(|metric| heard_at[*metric] = world.now.0);
                }
                Step::Report(status) => {
                    world.device.health.reported(*status, &"Said so".into(), world.now);
                }
                Step::Away => world.device.health.gateway_away(world.now),
                Step::Lost => world.device.health.gateway_lost("Gateway offline", world.now),
                Step::Back => world.device.health.gateway_back(world.now),
            }
            world.look_at = world.now;
            let is_heard = matches!(&step, Step::Pass(_, metrics) if !metrics.is_empty());
            lost = (lost || matches!(step, Step::Lost)) && !matches!(step, Step::Back) && !is_heard;
            world.announce();
            for told in world.told.drain(..) {
                prop_assert_eq!(told.old, before.unwrap_or(Status::Offline));
                prop_assert!(told.new != told.old || before.is_none(), "no two equal neighbours");
                prop_assert!(!told.reason.is_empty() && told.at <= world.now);
                before = Some(told.new);
            }
            let Some((status, reason)) = world.device.health.verdict(world.now) else { continue };
            prop_assert_eq!(Some(status), before);
            prop_assert!(!lost || (status, &*reason) == (Status::Offline, "Gateway offline"));
            prop_assert!(!matches!(step, Step::Report(reported) if rank(status) < rank(reported)));
            let named = reason.strip_prefix("No data from ").and_then(|rest| rest.split(' ').next());
            let named = named.and_then(|name| METRICS.iter().position(|metric| *metric == name));
            if let Some(metric) = named {
                prop_assert_eq!(status, Status::Warning);
                prop_assert!(world.now.0 - heard_at[metric] >= 45_000, "{} was heard", metric);
            }
        }
    }
}

fn rank(status: Status) -> u8 {
    match status {
        Status::Online => 0,
        Status::Warning => 1,
        Status::Offline => 2,
    }
}
