//! Devices that describe themselves, at a real broker.

use valtronics_protocol::{
    event::Status,
    reading::{Reading, TimeSource},
    value::Value,
};

use crate::{
    parts::Broker,
    server::{Server, Session},
    world::World,
};

/// A source that reads only what announces itself.
fn source(port: u16, more: &str) -> String {
    format!("[[mqtt]]\nurl = \"mqtt://127.0.0.1:{port}\"\nname = \"broker\"\n{more}\n")
}

/// The announcement of a value of the device `boiler`.
fn entity(metric: &str, unit: &str) -> String {
    format!(
        r#"{{"~":"house/boiler","stat_t":"~/state","val_tpl":"{{{{ value_json.{metric} }}}}",
            "unit_of_meas":"{unit}","avty_t":"~/status","dev":{{"ids":["b1"],"name":"boiler"}}}}"#
    )
}

async fn announce(broker: &Broker, metric: &str, unit: &str) {
    let topic = format!("homeassistant/sensor/b1/{metric}/config");
    broker.publish(&topic, entity(metric, unit).as_bytes(), &["-r"]).await;
}

/// Returns as many readings as come in one frame.
async fn next<const N: usize>(session: &mut Session) -> [Reading; N] {
    let readings = session.numbered(N).await.into_iter().map(|(_, reading)| reading);
    readings.collect::<Vec<_>>().try_into().expect("one frame holds them")
}

#[track_caller]
fn check(reading: &Reading, device: &str, metric: &str, value: Value, unit: Option<&str>) {
    let found = (&*reading.device, &*reading.metric, &reading.value, reading.unit.as_deref());
    assert_eq!(found, (device, metric, &value, unit));
}

#[tokio::test(flavor = "multi_thread")]
async fn announced_devices_are_read_watched_and_taken_back() {
    let (world, server) = (World::new(), Server::start().await);
    let broker = Broker::start(&world).await;
    announce(&broker, "flow", "C").await;
    announce(&broker, "pressure", "bar").await;
    // Old values without a time are no readings; an old status is one.
    broker.publish("house/boiler/state", br#"{"flow":1}"#, &["-r"]).await;
    broker.publish("house/boiler/status", b"online", &["-r"]).await;
    let mut device = broker.connect_with_last_will("house/boiler/status", "offline").await;
    world.configure(&server.address, &source(broker.port, ""));
    let agent = world.run();
    let mut session = server.welcome(None).await;
    let event = session.status().await;
    assert_eq!((event.device.as_str(), event.status), ("boiler", Status::Online));

    broker.publish("house/boiler/state", br#"{"flow":55.5,"pressure":"1.5"}"#, &[]).await;
    let [flow, pressure] = next(&mut session).await;
    check(&flow, "boiler", "flow", Value::Float(55.5), Some("°C"));
    check(&pressure, "boiler", "pressure", Value::Float(1.5), Some("bar"));

    device.kill().await.unwrap();
    let event = session.status().await;
    assert_eq!((event.device.as_str(), event.status), ("boiler", Status::Offline));
    assert_eq!(event.reason, "Reported offline on MQTT topic house/boiler/status");

    // Taken back, one value is gone; announced again, with another unit.
    broker.publish("homeassistant/sensor/b1/flow/config", b"", &["-r"]).await;
    broker.publish("house/boiler/state", br#"{"flow":56,"pressure":2}"#, &[]).await;
    let [reading] = next(&mut session).await;
    check(&reading, "boiler", "pressure", Value::Int(2), Some("bar"));
    announce(&broker, "flow", "°F").await;
    broker.publish("house/boiler/state", br#"{"flow":57}"#, &[]).await;
    let [reading] = next(&mut session).await;
    check(&reading, "boiler", "flow", Value::Int(57), Some("°F"));
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_retained_is_a_reading_only_with_a_time_of_its_own() {
    let (world, server) = (World::new(), Server::start().await);
    let broker = Broker::start(&world).await;
    announce(&broker, "flow", "°C").await;
    announce(&broker, "return", "°C").await;
    let state = br#"{"flow":50,"return":40,"last_seen":"2026-01-01T00:00:00Z"}"#;
    broker.publish("house/boiler/state", state, &["-r"]).await;
    world.configure(&server.address, &source(broker.port, ""));
    let _agent = world.run();
    let mut session = server.welcome(None).await;
    let readings: [Reading; 2] = next(&mut session).await;
    for (reading, (metric, value)) in readings.iter().zip([("flow", 50), ("return", 40)]) {
        check(reading, "boiler", metric, Value::Int(value), Some("°C"));
        assert_eq!(reading.time_source, TimeSource::Device);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_comes_back_says_anew_who_is_there() {
    let (world, server) = (World::new(), Server::start().await);
    let broker = Broker::start(&world).await;
    let port = broker.port;
    announce(&broker, "flow", "°C").await;
    broker.publish("house/boiler/status", b"online", &["-r"]).await;
    world.configure(&server.address, &source(port, ""));
    let _agent = world.run();
    let mut session = server.welcome(None).await;
    assert_eq!(session.status().await.status, Status::Online);
    let mut broker = broker;
    for _ in 0..2 {
        broker.stop().await;
        let event = session.status().await;
        assert_eq!((event.device.as_str(), event.status), ("boiler", Status::Offline));
        broker = Broker::start_at(&world, port).await;
        assert_eq!(session.status().await.status, Status::Online);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_of_the_configuration_come_first_and_nothing_wrong_stops_the_rest() {
    let (world, server) = (World::new(), Server::start().await);
    let broker = Broker::start(&world).await;
    let read = "read = [{ topic = \"house/{device}/state\", rename = { flow = \"supply\" } }]";
    world.configure(&server.address, &source(broker.port, read));
    let agent = world.run();
    let mut session = server.welcome(None).await;
    world.logged("subscribed at the broker").await;
    for payload in [&b"no json"[..], b"{\"stat_t\":7}", b"\xff", "[".repeat(5000).as_bytes()] {
        broker.publish("homeassistant/sensor/b1/bad/config", payload, &[]).await;
    }
    announce(&broker, "flow", "°F").await;
    broker.publish("house/boiler/state", br#"{"flow":55}"#, &[]).await;
    let [reading] = next(&mut session).await;
    check(&reading, "boiler", "supply", Value::Int(55), None);
    assert_eq!(agent.stop().await, Some(0));
    assert_eq!(world.log().matches("damaged input").count(), 1, "{}", world.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn presets_read_what_nothing_announces() {
    let (world, server) = (World::new(), Server::start().await);
    let broker = Broker::start(&world).await;
    announce(&broker, "flow", "°C").await;
    let devices = r#"[{"friendly_name":"porch","definition":{"exposes":[
        {"type":"numeric","property":"voltage","unit":"mV"}]}}]"#;
    broker.publish("zigbee2mqtt/bridge/devices", devices.as_bytes(), &["-r"]).await;
    // It is Home Assistant's own, no device's.
    broker.publish("homeassistant/status", b"online", &["-r"]).await;
    let mut device = broker.connect_with_last_will("tele/balcony/LWT", "Offline").await;
    broker.publish("tele/balcony/LWT", b"Online", &["-r"]).await;
    broker.publish("tele/balcony/SENSOR", br#"{"AM2301":{"Temperature":9}}"#, &["-r"]).await;
    let read =
        "read = [\"zigbee2mqtt\", \"esphome\", { topic = \"tasmota\", skip = [\"AM2301.H*\"] }]";
    world.configure(&server.address, &source(broker.port, read));
    let agent = world.run();
    let mut session = server.welcome(None).await;
    let event = session.status().await;
    assert_eq!((event.device.as_str(), event.status), ("balcony", Status::Online));

    broker.publish("zigbee2mqtt/porch", br#"{"voltage":3005}"#, &[]).await;
    let [reading] = next(&mut session).await;
    check(&reading, "porch", "voltage", Value::Int(3005), Some("mV"));
    let sensor = br#"{"AM2301":{"Temperature":21.5,"Humidity":40},"TempUnit":"C"}"#;
    broker.publish("tele/balcony/SENSOR", sensor, &[]).await;
    let [reading] = next(&mut session).await;
    check(&reading, "balcony", "AM2301.Temperature", Value::Float(21.5), Some("°C"));
    broker.publish("house/boiler/state", br#"{"flow":55}"#, &[]).await;
    let [reading] = next(&mut session).await;
    check(&reading, "boiler", "flow", Value::Int(55), Some("°C"));

    device.kill().await.unwrap();
    let event = session.status().await;
    assert_eq!((event.device.as_str(), event.status), ("balcony", Status::Offline));
    assert_eq!(event.reason, "Reported offline on MQTT topic tele/balcony/LWT");
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_the_agent_is_down_is_read_when_it_is_back() {
    let (world, server) = (World::new(), Server::start().await);
    let broker = Broker::start(&world).await;
    announce(&broker, "flow", "°C").await;
    broker.publish("house/boiler/status", b"online", &["-r"]).await;
    world.configure(&server.address, &source(broker.port, ""));
    let agent = world.run();
    let mut session = server.welcome(None).await;
    assert_eq!(session.status().await.status, Status::Online);
    assert_eq!(agent.stop().await, Some(0));

    // More than a broker has under way at once.
    for value in 0..50 {
        let state = format!(r#"{{"flow":{value}}}"#);
        broker.publish("house/boiler/state", state.as_bytes(), &[]).await;
    }
    let _agent = world.run();
    let mut session = server.welcome(None).await;
    let found = session.numbered(50).await;
    let values: Vec<Value> = found.iter().map(|(_, reading)| reading.value.clone()).collect();
    assert_eq!(values, (0..50).map(Value::Int).collect::<Vec<_>>());
}
