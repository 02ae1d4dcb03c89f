//! Events: nothing is missed or repeated, and who does not read them is ended.

use super::*;

fn seqs(messages: &[Json]) -> Vec<u64> {
    messages.iter().filter_map(|message| message["seq"].as_u64()).collect()
}

/// What happens to the hub.
#[derive(Debug, Clone)]
enum Step {
    Change(u64, bool),
    Subscribe { session: u64, device: Option<u64>, back: Option<u64> },
    Read(u64, usize),
    Page(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let session = 0..3_u64;
    let subscribe = (session.clone(), prop::option::of(1..=2_u64), prop::option::of(0..40_u64));
    prop_oneof![
        6 => (1..=DEVICES, any::<bool>()).prop_map(|(device, up)| Step::Change(device, up)),
        1 => subscribe
            .prop_map(|(session, device, back)| Step::Subscribe { session, device, back }),
        3 => (session, 0..2000_usize).prop_map(|(session, bytes)| Step::Read(session, bytes)),
        3 => (1..6_usize).prop_map(Step::Page),
    ]
}

/// Checks what one session got: after each answer what it asked for, in order; all of it at the end.
fn check(messages: &[Json], stored: &[CommittedEvent], requests: &[(Option<u64>, u64)]) {
    let mut requests = requests.iter();
    let mut expected = Vec::new().into_iter();
    for message in messages {
        if message["type"] != "subscribe_response" {
            assert_eq!(message["seq"].as_u64(), expected.next(), "{message}");
            continue;
        }
        let (wanted, since) = requests.next().unwrap();
        let matching = |event: &CommittedEvent| match event {
            CommittedEvent::Status(update) => wanted
                .is_none_or(|wanted| update.device_id.0 == wanted)
                .then_some(update.seq.0)
                .filter(|seq| seq > since),
            CommittedEvent::Alert(_) => None,
        };
        expected = stored.iter().filter_map(matching).collect::<Vec<_>>().into_iter();
    }
    assert_eq!((requests.next(), expected.next()), (None, None), "everything came");
}

proptest! {
    // Each case is some hundred steps.
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn whoever_subscribes_gets_every_event_once(steps in prop::collection::vec(step(), 1..150)) {
        let mut world = World::new(1 << 20);
        let (mut got, mut asked) = (vec![Vec::new(); 3], vec![Vec::new(); 3]);
        (0..3).for_each(|session| world.attach(session, DeviceGrant::All));
        for step in steps {
            match step {
                Step::Change(device, up) => {
                    let status = if up { Status::Online } else { Status::Warning };
                    world.change_status(DeviceId(device), status);
                }
                Step::Subscribe { session, device, back } => {
                    // One key at a time, so that what is expected is easy to say.
                    world.unsubscribe(session, Channel::Devices, None);
                    let last = world.state.device_log.last().0;
                    let since = back.map(|back| last.saturating_sub(back));
                    let mut request = json!({"snapshot": false});
                    if let Some(since) = since {
                        request["since"] = since.into();
                    }
                    if let Some(device) = device {
                        request["device_id"] = device.into();
                    }
                    world.subscribe(session, Channel::Devices, &request);
                    asked[session as usize].push((device, since.unwrap_or(last)));
                }
                Step::Read(session, bytes) => {
                    let read = world.read(session, bytes);
                    got[session as usize].extend(read);
                }
                Step::Page(most) => _ = world.read_page(most),
            }
        }
        for session in 0..3 {
            let rest = world.read_all(session);
            let got = &mut got[session as usize];
            got.extend(rest);
            got.retain(|message| message["type"] != "unsubscribe_response");
            check(got, &world.stored, &asked[session as usize]);
        }
    }
}

#[test]
fn a_replay_of_one_device_repeats_nothing_of_another() {
    let mut world = World::new(1 << 20);
    world.attach(0, DeviceGrant::All);
    world.subscribe(0, Channel::Devices, &json!({"device_id": 1, "snapshot": false}));
    for _ in 0..20 {
        world.change_status(DeviceId(1), Status::Online);
        world.change_status(DeviceId(2), Status::Online);
    }
    assert_eq!(seqs(&world.read_all(0)[1..]).len(), 20);
    world.subscribe(0, Channel::Devices, &json!({"device_id": 2, "since": 30}));
    assert_eq!(seqs(&world.read_all(0)[1..]), [32, 34, 36, 38, 40]);
    world.change_status(DeviceId(1), Status::Offline);
    assert_eq!(seqs(&world.read_all(0)), [41]);
}

#[test]
fn a_snapshot_is_not_told_again_by_the_events_that_it_has_seen() {
    let mut world = World::new(1 << 20);
    world.attach(0, DeviceGrant::All);
    (0..3).for_each(|_| world.change_status(DeviceId(1), Status::Online));
    world.subscribe(0, Channel::Devices, &json!({}));
    world.change_status(DeviceId(2), Status::Online);
    assert_eq!(seqs(&world.read_all(0)), [3, 3, 4], "the answer, the snapshot, the event");
}

#[test]
fn what_the_store_does_not_give_ends_the_connection() {
    for (events, code) in [(None, CloseCode::Internal), (Some(Vec::new()), CloseCode::TooSlow)] {
        let mut world = World::new(1 << 20);
        world.attach(0, DeviceGrant::All);
        (0..20).for_each(|_| world.change_status(DeviceId(1), Status::Online));
        world.subscribe(0, Channel::Devices, &json!({"since": 0}));
        world.read(0, usize::MAX);
        let request = world.hub.next_page().unwrap();
        world.hub.page_asked();
        let now = world.instant();
        world.hub.page_read(Page { request, events }, &world.state, now);
        let (outbox, instant) = (&world.outboxes[&SessionId(0)], world.instant());
        let taken = outbox.take(1, &mut Default::default(), Waker::noop(), instant);
        assert_eq!(taken.close.map(|close| close.code), Some(code));
        assert_eq!(world.hub.next_page(), None, "it is not asked for again");
    }
}

#[test]
fn for_who_has_gone_nothing_is_read() {
    let mut world = World::new(1 << 20);
    world.attach(0, DeviceGrant::All);
    (0..20).for_each(|_| world.change_status(DeviceId(1), Status::Online));
    world.subscribe(0, Channel::Devices, &json!({"since": 0}));
    assert!(world.hub.next_page().is_some());
    world.hub.detach(SessionId(0));
    assert_eq!(world.hub.next_page(), None);
}

#[test]
fn a_position_that_is_no_longer_held_is_not_resumed() {
    let mut world = World::new(1 << 20);
    world.attach(0, DeviceGrant::All);
    (0..20).for_each(|_| world.change_status(DeviceId(1), Status::Online));
    world.state.forget_before(crate::commit::Oldest { alert: Seq(1), device: Seq(5) });
    for (since, resumed) in [(3, false), (4, true), (20, true), (21, false)] {
        world.subscribe(0, Channel::Devices, &json!({"since": since}));
        assert_eq!(world.read_all(0)[0]["resumed"], resumed, "{since}");
        world.unsubscribe(0, Channel::Devices, None);
        world.read_all(0);
    }
}

/// Tells whether a connection is cut short within so many seconds.
fn is_cut_within(world: &mut World, seconds: u64) -> bool {
    for _ in 0..seconds {
        world.elapsed += 1000;
        let now = world.instant();
        world.hub.end_stuck(&world.state, now);
    }
    let close = world.outboxes[&SessionId(0)].cut_short();
    close.is_some_and(|close| close.code == CloseCode::TooSlow)
}

#[test]
fn who_leaves_events_for_sixty_seconds_is_ended() {
    // One that waits in the outbox, and more than fit there.
    for events in [1, 2000] {
        let mut world = World::new(1 << 20);
        world.attach(0, DeviceGrant::All);
        world.subscribe(0, Channel::Devices, &json!({"snapshot": false}));
        world.read_all(0);
        assert!(!is_cut_within(&mut world, 100), "nothing waits");
        (0..events).for_each(|_| world.change_status(DeviceId(1), Status::Online));
        assert!(!is_cut_within(&mut world, 60));
        assert!(is_cut_within(&mut world, 2));
    }
}

#[test]
fn who_reads_slowly_or_waits_for_the_store_is_not_ended() {
    let mut world = World::new(1 << 20);
    world.attach(0, DeviceGrant::All);
    (0..500).for_each(|_| world.change_status(DeviceId(1), Status::Online));
    world.subscribe(0, Channel::Devices, &json!({"since": 0}));
    world.read(0, usize::MAX);
    assert!(!is_cut_within(&mut world, 100), "the store is slow");
    while world.read_page(100) {}
    for _ in 0..5 {
        world.read(0, 1);
        assert!(!is_cut_within(&mut world, 50));
    }
    assert!(is_cut_within(&mut world, 20), "now it does not read");
}

#[test]
fn of_what_a_new_token_does_not_allow_nothing_comes() {
    let mut world = World::new(1 << 20);
    world.attach(0, DeviceGrant::All);
    world.subscribe(0, Channel::Devices, &json!({"since": 0}));
    world.subscribe(0, Channel::Telemetry, &json!({"historical": true}));
    world.read_all(0);
    for device in [1, 2] {
        (0..20).for_each(|_| world.change_status(DeviceId(device), Status::Online));
        telemetry::publish(&mut world, device, &[(0, 1)]);
        telemetry::publish_late(&mut world, device, 0);
    }
    let narrow = DeviceGrant::Only { ids: [DeviceId(2)].into(), patterns: [].into() };
    world.hub.regrant(SessionId(0), &claims(narrow), &world.state);
    // Events of before are on their way, in order; everything else is not.
    let (events, readings): (Vec<_>, Vec<_>) =
        world.read_all(0).into_iter().partition(|message| message["channel"] == "devices");
    assert_eq!(seqs(&events), (1..=40).collect::<Vec<_>>());
    assert_eq!(readings.len(), 2, "{readings:?}");
    world.subscribe(0, Channel::Devices, &json!({"since": 0}));
    world.subscribe(0, Channel::Telemetry, &json!({"historical": true}));
    telemetry::publish(&mut world, 1, &[(0, 3)]);
    telemetry::publish_late(&mut world, 1, 0);
    world.change_status(DeviceId(1), Status::Offline);
    let after = world.read_all(0);
    let devices = readings.iter().chain(&after).filter_map(|message| message["device_id"].as_u64());
    let devices: Vec<_> = devices.collect();
    assert!(devices.len() > 20 && devices.iter().all(|device| *device == 2), "{devices:?}");
}
