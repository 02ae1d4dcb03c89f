//! MQTT: a real broker that comes and goes.

use valtronics_protocol::{
    event::Status,
    reading::{Reading, TimeSource},
    value::Value,
};

use crate::{parts::Broker, server::Server, world::World};

fn source(port: u16) -> String {
    format!(
        "[[mqtt]]\nurl = \"mqtt://127.0.0.1:{port}\"\nname = \"broker\"\nread = [\
         \"plant/{{site}}/{{device}}/{{metric}}\", \
         {{ topic = \"farm/{{device}}/data\", time = \"ts\", units = {{ t = \"°C\" }}, \
         skip = [\"fw\"] }}]\n"
    )
}

#[track_caller]
fn check(reading: &Reading, device: &str, metric: &str, value: Value) {
    let found = (&*reading.device, &*reading.metric, &reading.value);
    assert_eq!(found, (device, metric, &value));
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_name_devices_and_metrics() {
    let (world, server) = (World::new(), Server::start().await);
    let broker = Broker::start(&world).await;
    broker.publish("plant/a/old/t", b"1.5", &["-r"]).await;
    broker.publish("farm/old/data", br#"{"t":2.5,"ts":1767225600}"#, &["-r"]).await;
    world.configure(&server.address, &source(broker.port));
    let _agent = world.run();
    let mut session = server.welcome(None).await;
    // Of what was retained only that with a time of its own is a reading.
    let (_, retained) = session.numbered(1).await.remove(0);
    check(&retained, "old", "t", Value::Float(2.5));
    assert_eq!(retained.time_source, TimeSource::Device);
    assert_eq!(retained.unit.as_deref(), Some("°C"));

    for (topic, payload) in [
        ("plant/a/pump/speed", &b"1450"[..]),
        ("plant/a/pump/speed", b""),
        ("plant/a/pump/speed", b"\xff\xfe"),
        ("farm/field/data", b"no json"),
        ("farm/field/data", br#"{"t":7.5,"fw":"1.2"}"#),
        ("plant/a/valve/state", b"ON"),
    ] {
        broker.publish(topic, payload, &[]).await;
    }
    let found = session.numbered(3).await;
    check(&found[0].1, "pump", "speed", Value::Int(1450));
    check(&found[1].1, "field", "t", Value::Float(7.5));
    check(&found[2].1, "valve", "state", Value::Text("ON".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_vanishes_is_reported_and_its_session_resumed() {
    let (world, server) = (World::new(), Server::start().await);
    let broker = Broker::start(&world).await;
    let port = broker.port;
    world.configure(&server.address, &source(port));
    let agent = world.run();
    let mut session = server.welcome(None).await;
    world.logged("subscribed at the broker").await;
    broker.publish("plant/a/pump/speed", b"1", &[]).await;
    check(&session.numbered(1).await[0].1, "pump", "speed", Value::Int(1));

    broker.stop().await;
    let event = session.status().await;
    assert_eq!((event.device.as_str(), event.status), ("pump", Status::Offline));
    assert!(event.reason.contains("MQTT broker"), "{}", event.reason);

    let broker = Broker::start_at(&world, port).await;
    // The broker keeps what comes before the agent is back.
    broker.publish("plant/a/pump/speed", b"2", &[]).await;
    while session.numbered(1).await[0].1.value != Value::Int(2) {}
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_acknowledged_whole() {
    let (world, server) = (World::new(), Server::start().await);
    let broker = Broker::start(&world).await;
    world.configure(&server.address, &source(broker.port));
    let agent = world.run();
    let mut session = server.welcome(None).await;
    world.logged("subscribed at the broker").await;
    // A broker by default has 20 under way and keeps 1,000 more.
    let lines: String = (0..900).map(|value| format!("{value}\n")).collect();
    let burst = world.write("burst", lines);
    broker.publish_lines("plant/a/pump/speed", &burst).await;
    let found = session.numbered(900).await;
    let values: Vec<Value> = found.iter().map(|(_, reading)| reading.value.clone()).collect();
    let expected: Vec<Value> = (0..900).map(Value::Int).collect();
    assert_eq!(values, expected);
    assert_eq!(found.last().unwrap().0, 900);
    session.ack(900).await;
    assert_eq!(agent.stop().await, Some(0));
}
