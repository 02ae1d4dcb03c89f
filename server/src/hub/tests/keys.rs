//! Which subscription counts for a device, and what becomes of it when others come and go.

use super::{
    telemetry::{pass, publish, publish_late},
    *,
};
use crate::domain::pattern::NamePattern;

fn only(ids: &[u64], patterns: &[&str]) -> DeviceGrant {
    let patterns = patterns.iter().map(|text| NamePattern::new(text)).collect();
    DeviceGrant::Only { ids: ids.iter().copied().map(DeviceId).collect(), patterns }
}

/// Lists the devices and values of the readings of `m0` that a connection reads.
fn values(world: &mut World, session: u64) -> Vec<(u64, i64)> {
    let readings = world.read_all(session).into_iter().filter_map(|message| {
        let value = message["telemetry"]["m0"]["value"].as_i64()?;
        Some((message["device_id"].as_u64()?, value))
    });
    readings.collect()
}

#[test]
fn an_absent_device_is_judged_when_it_appears() {
    let mut world = World::new(1 << 20);
    let requests = [
        json!({"device_id": [5, 6, 7], "historical": true}),
        json!({"device_id": [5, 6, 7], "frequency": "1s"}),
        json!({"historical": true}),
    ];
    for (session, request) in (0..).zip(&requests) {
        world.attach(session, only(&[7], &["boiler*"]));
        world.subscribe(session, Channel::Telemetry, request);
    }
    ["secret", "boiler", "named"].into_iter().for_each(|name| world.add_device(name));
    let mut check = |late: i64| {
        for device in 5..=7 {
            publish(&mut world, device, &[(0, late + 1)]);
            publish_late(&mut world, device, late);
        }
        pass(&mut world, 2000);
        for session in 0..3 {
            let mut seen = values(&mut world, session);
            seen.sort();
            let lates = if session == 1 { None } else { Some(late) };
            let of = |device| lates.into_iter().chain([late + 1]).map(move |value| (device, value));
            assert_eq!(seen, of(6).chain(of(7)).collect::<Vec<_>>(), "{session}");
        }
        for (session, request) in (0..).zip(&requests) {
            let mut request = request.clone();
            request["snapshot"] = false.into();
            world.subscribe(session, Channel::Telemetry, &request);
        }
    };
    check(1);
    check(11);
}

#[test]
fn a_period_of_all_devices_and_of_one_is_told_once() {
    let mut world = World::new(1 << 20);
    (0..2).for_each(|session| world.attach(session, DeviceGrant::All));
    world.subscribe(0, Channel::Telemetry, &json!({"frequency": "1s"}));
    world.subscribe(1, Channel::Telemetry, &json!({"frequency": "1s", "device_id": 1}));
    publish(&mut world, 1, &[(0, 1)]);
    for expected in [&[(1, 1)][..], &[]] {
        assert_eq!(values(&mut world, 0), expected);
        assert_eq!(values(&mut world, 1), expected);
        pass(&mut world, 1500);
    }
}

#[test]
fn what_waits_for_the_end_of_a_period_outlives_other_changes() {
    let request = json!({"frequency": "1s", "snapshot": false, "historical": true});
    let subscribe = |world: &mut World, devices: Json| {
        let mut request = request.clone();
        request["device_id"] = devices;
        world.subscribe(0, Channel::Telemetry, &request);
    };
    let narrow = only(&[1, 2], &[]);
    let changes: [&dyn Fn(&mut World); 7] = [
        &|world| world.subscribe(0, Channel::Telemetry, &request),
        &|world| subscribe(world, json!([2, 9])),
        &|world| subscribe(world, json!(1)),
        &|world| world.subscribe(0, Channel::Telemetry, &json!({"device_id": 3})),
        &|world| world.unsubscribe(0, Channel::Telemetry, Some(vec![DeviceId(4)])),
        &|world| world.hub.regrant(SessionId(0), &claims(narrow.clone()), &world.state),
        &|world| world.hub.regrant(SessionId(0), &claims(DeviceGrant::All), &world.state),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        let mut world = World::new(1 << 20);
        world.attach(0, DeviceGrant::All);
        world.subscribe(0, Channel::Telemetry, &request);
        subscribe(&mut world, json!(4));
        publish(&mut world, 1, &[(0, 1)]);
        publish(&mut world, 1, &[(0, 2)]);
        pass(&mut world, 500);
        change(&mut world);
        publish(&mut world, 1, &[(0, 3)]);
        assert_eq!(values(&mut world, 0), [(1, 1)], "{at}: the period runs on");
        pass(&mut world, 500);
        assert_eq!(values(&mut world, 0), [(1, 3)], "{at}");
        world.unsubscribe(0, Channel::Telemetry, None);
        assert_eq!(world.hub.deadline(), None, "{at}: no period runs");
    }
}
