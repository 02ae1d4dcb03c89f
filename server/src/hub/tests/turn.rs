//! Readings of one turn of the engine: gathered, then delivered to one target after the other.

use valtronics_protocol::value::Value;

use super::{telemetry::pass, *};
use crate::state::LastValue;

/// Takes in a live reading of a device.
fn gather(world: &mut World, device: u64, value: i64) {
    let (at, now) = (world.now(), world.instant());
    let (metric, value) = (MetricIndex(0), Value::Int(value));
    let changes = [Change { metric, value: &value, at, arrived_at: None }];
    world.hub.publish(world.state.device(DeviceId(device)).unwrap(), &changes, now);
}

fn values(messages: &[Json]) -> Vec<(u64, i64)> {
    let value = |message: &Json| message["telemetry"]["m0"]["value"].as_i64();
    let all = messages.iter();
    all.filter_map(|one| Some((one["device_id"].as_u64()?, value(one)?))).collect()
}

#[test]
fn each_gets_what_is_his_in_order_and_once() {
    let mut world = World::new(1 << 20);
    for (session, request) in [
        (0, json!({"snapshot": false})),
        (1, json!({"snapshot": false, "device_id": 2})),
        (2, json!({"snapshot": false, "metrics": ["m1"]})),
    ] {
        world.attach(session, DeviceGrant::All);
        world.subscribe(session, Channel::Telemetry, &request);
    }
    // A key of its own for a device beside that of all.
    world.attach(3, DeviceGrant::All);
    world.subscribe(3, Channel::Telemetry, &json!({"snapshot": false}));
    let own = json!({"snapshot": false, "device_id": 1});
    world.subscribe(3, Channel::Telemetry, &own);
    (0..4).for_each(|session| drop(world.read_all(session)));

    let sent = [(2, 1), (1, 2), (2, 3), (1, 4), (3, 5)];
    sent.into_iter().for_each(|(device, value)| gather(&mut world, device, value));
    assert_eq!(values(&world.read_all(0)), [], "the turn is not over");
    world.hub.deliver(world.instant());
    world.hub.deliver(world.instant());
    assert_eq!(values(&world.read_all(0)), sent);
    assert_eq!(values(&world.read_all(1)), [(2, 1), (2, 3)]);
    assert_eq!(values(&world.read_all(2)), []);
    assert_eq!(values(&world.read_all(3)), [(2, 1), (2, 3), (3, 5), (1, 2), (1, 4)]);
}

#[test]
fn what_finds_no_room_is_conflated_to_the_last_one() {
    let mut world = World::new(300);
    world.attach(0, DeviceGrant::All);
    world.subscribe(0, Channel::Telemetry, &json!({"snapshot": false}));
    world.read_all(0);
    for value in 1..=10 {
        let at = world.now();
        let last = LastValue { value: Value::Int(value), at, effective_at: at };
        let device = world.state.device_mut(DeviceId(1)).unwrap();
        device.metric_mut(MetricIndex(0)).unwrap().last = Some(last);
        gather(&mut world, 1, value);
    }
    world.hub.deliver(world.instant());
    pass(&mut world, 1000);
    let messages = world.read_all(0);
    assert_eq!(values(&messages), [(1, 10)]);
    let dropped = messages.iter().filter_map(|message| message["dropped"].as_u64());
    assert_eq!(dropped.sum::<u64>(), 9);
}
