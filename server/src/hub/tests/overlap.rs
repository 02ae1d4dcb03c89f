//! Events of keys that overlap, come with snapshots, from positions, or are replaced while the
//! snapshot of another is under way: each is told once, in order, or was part of a snapshot.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::hub::events::about;

/// How somebody subscribes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Live,
    Snapshot,
    /// From so many events back.
    Since(u64),
}

/// What happens to the hub.
#[derive(Debug, Clone)]
enum Step {
    /// To a device, or to an alert of it.
    Happen(u64, usize),
    /// No devices: all.
    Subscribe(u64, Vec<u64>, How),
    Unsubscribe(u64),
    Read(u64, usize),
    Page(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let session = 0..2_u64;
    let devices = prop::sample::subsequence((1..=DEVICES).collect::<Vec<_>>(), 0..3);
    let how = prop_oneof![
        1 => Just(How::Live),
        2 => Just(How::Snapshot),
        2 => (0..30_u64).prop_map(How::Since),
    ];
    prop_oneof![
        8 => (1..=DEVICES, 0..12_usize).prop_map(|(device, pick)| Step::Happen(device, pick)),
        3 => (session.clone(), devices, how)
            .prop_map(|(session, devices, how)| Step::Subscribe(session, devices, how)),
        1 => session.clone().prop_map(Step::Unsubscribe),
        4 => (session, 0..60_000_usize).prop_map(|(session, bytes)| Step::Read(session, bytes)),
        2 => (1..6_usize).prop_map(Step::Page),
    ]
}

/// Lets something happen to a device: of its alerts one is raised, acknowledged or resolved.
fn happen(world: &mut World, channel: Channel, device: u64, pick: usize) {
    let device = DeviceId(device);
    if channel == Channel::Devices {
        let status = if pick.is_multiple_of(2) { Status::Online } else { Status::Warning };
        return world.change_status(device, status);
    }
    let open = world.state.open_alerts.iter();
    let open = open.filter(|(_, open)| open.alert.device_id == device).map(|(id, _)| *id);
    let open: Vec<_> = open.collect();
    match (pick % 3, open.get(pick % open.len().max(1))) {
        (0, _) | (_, None) => world.raise_alert(device),
        (1, Some(id)) => world.change_alert(*id, device, AlertStatus::Acknowledged),
        (_, Some(id)) => world.change_alert(*id, device, AlertStatus::Resolved),
    }
}

/// What somebody asked for, and how things stood then; `None` for `unsubscribe`.
type Asked = Option<(Vec<u64>, How, u64, Vec<CommittedEvent>)>;

/// What is to come for one session.
struct Model<'a> {
    stored: &'a [CommittedEvent],
    own: BTreeSet<u64>,
    /// Of each device with a subscription, the events with the ids that snapshots know.
    owed: BTreeMap<u64, BTreeSet<(u64, u64)>>,
    /// Of each device that a snapshot was asked for, what it has still to show.
    due: BTreeMap<u64, BTreeSet<u64>>,
    told: u64,
}

impl Model<'_> {
    fn answer(&mut self, asked: Asked) {
        self.told = 0;
        let Some((devices, how, last, open)) = asked else {
            (self.own, self.owed, self.due) = Default::default();
            return;
        };
        let counts: Vec<u64> = if devices.is_empty() {
            (1..=DEVICES).filter(|device| !self.own.contains(device)).collect()
        } else {
            devices.clone()
        };
        self.own.extend(devices);
        let all_of = |device: u64, events: &[CommittedEvent]| {
            let events = events.iter().filter(|event| about(event).0.0 == device);
            events.map(|event| (event.seq().0, about(event).1)).collect::<Vec<_>>()
        };
        for device in counts {
            let after = |position| {
                all_of(device, self.stored).into_iter().filter(move |(seq, _)| *seq > position)
            };
            match how {
                How::Since(back) => {
                    self.owed.insert(device, after(last.saturating_sub(back)).collect());
                }
                // What was owed stays owed.
                How::Live | How::Snapshot => {
                    self.owed.entry(device).or_insert_with(|| after(last).collect());
                }
            }
            self.due.remove(&device);
            if how == How::Snapshot {
                let open = all_of(device, &open).into_iter().map(|(_, id)| id);
                self.due.insert(device, open.collect());
            }
        }
    }

    fn take(&mut self, message: &Json) {
        let number = |key: &str| message[key].as_u64();
        let (device, seq) = (number("device_id").unwrap(), number("seq").unwrap());
        let id = number("alert_id").unwrap_or(device);
        let said = format!("event {seq} about {id}, device {device}");
        let owed = self.owed.get_mut(&device).expect("it was subscribed to");
        if message["snapshot"] == true {
            let due = self.due.get_mut(&device).expect("a snapshot was asked for");
            // What came into being meanwhile may be shown too.
            assert!(due.remove(&id) || owed.contains(&(seq, id)), "a snapshot is due: {said}");
            owed.retain(|(event, of)| *of != id || *event > seq);
        } else {
            assert_eq!(owed.pop_first(), Some((seq, id)), "{said}");
            assert!(seq > self.told, "in order: {said}");
            self.told = seq;
        }
    }
}

fn check(messages: &[Json], stored: &[CommittedEvent], asked: Vec<Asked>, open: &BTreeSet<u64>) {
    let (own, owed, due) = Default::default();
    let mut model = Model { stored, own, owed, due, told: 0 };
    let mut asked = asked.into_iter();
    for message in messages {
        if message["success"] == true {
            model.answer(asked.next().unwrap());
        } else {
            model.take(message);
        }
    }
    assert!(asked.next().is_none() && model.owed.values().all(BTreeSet::is_empty), "all came");
    let missing: Vec<_> = model.due.values().flatten().filter(|id| open.contains(id)).collect();
    assert!(missing.is_empty(), "of {missing:?} no snapshot came");
}

fn run(channel: Channel, steps: Vec<Step>) {
    let mut world = World::new(1 << 20);
    // Some fill an outbox, so that snapshots are under way for long.
    world.detail = "x".repeat(10_000).into();
    let (mut got, mut asked) = (vec![Vec::new(); 2], vec![Vec::new(); 2]);
    (0..2).for_each(|session| world.attach(session, DeviceGrant::All));
    for step in steps {
        match step {
            Step::Happen(device, pick) => happen(&mut world, channel, device, pick),
            Step::Subscribe(session, devices, how) => {
                let last = world.log(channel).last().0;
                let mut request = match how {
                    How::Live => json!({"snapshot": false}),
                    How::Snapshot => json!({}),
                    How::Since(back) => json!({"since": last.saturating_sub(back)}),
                };
                if !devices.is_empty() {
                    request["device_id"] = devices.clone().into();
                }
                let ask = Some((devices, how, last, world.open(channel)));
                asked[session as usize].push(ask);
                world.subscribe(session, channel, &request);
            }
            Step::Unsubscribe(session) => {
                asked[session as usize].push(None);
                world.unsubscribe(session, channel, None);
            }
            Step::Read(session, bytes) => {
                let read = world.read(session, bytes);
                got[session as usize].extend(read);
            }
            Step::Page(most) => _ = world.read_page(most),
        }
    }
    let open = world.open(channel).iter().map(|event| about(event).1).collect();
    for (session, mut asked) in asked.into_iter().enumerate() {
        let rest = world.read_all(session as u64);
        got[session].extend(rest);
        check(&got[session], &world.stored, std::mem::take(&mut asked), &open);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn overlapping_keys_get_every_alert_once(steps in prop::collection::vec(step(), 1..120)) {
        run(Channel::Alerts, steps);
    }

    #[test]
    fn overlapping_keys_get_every_status_once(steps in prop::collection::vec(step(), 1..120)) {
        run(Channel::Devices, steps);
    }
}
