//! Sparkplug B: edge nodes, a real broker, and the agent as their host.

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use serde_json::Value as Json;
use valtronics_protocol::{
    event::Status,
    reading::{Reading, TimeSource},
    value::Value as Reads,
};

use crate::{
    edge::{Edge, Metric, Value, by_alias, named},
    parts::Broker,
    server::{Server, Session},
    world::{World, within},
};

fn source(port: u16, more: &str) -> String {
    let url = format!("url = \"mqtt://127.0.0.1:{port}\"");
    format!("[[sparkplug]]\n{url}\nname = \"scada\"\ngroups = [\"Plant 1\"]\n{more}\n")
}

fn temperature(alias: u64, value: f32) -> Metric {
    named("supply/temp", 9, Value::Float(value)).called(alias).unit("degC")
}

fn pressure(alias: u64, value: u32) -> Metric {
    named("pressure", 7, Value::Int(value)).called(alias).unit("bar")
}

/// The next readings as "device metric value unit".
async fn next(session: &mut Session, count: usize) -> Vec<String> {
    let shown = |reading: &Reading| {
        let unit = reading.unit.as_deref().unwrap_or("-");
        format!("{} {} {} {unit}", reading.device, reading.metric, reading.value)
    };
    session.numbered(count).await.iter().map(|(_, reading)| shown(reading)).collect()
}

/// Waits for what is said of a device.
async fn status_of(session: &mut Session, device: &str) -> (Status, String) {
    loop {
        let event = session.status().await;
        if event.device == device {
            return (event.status, event.reason);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_read_from_its_birth_to_its_death() {
    let (world, server) = (World::new(), Server::start().await);
    let broker = Broker::start(&world).await;
    world.configure(&server.address, &source(broker.port, "rename = { pressure = \"p\" }"));
    let agent = world.run();
    let mut session = server.welcome(None).await;
    world.logged("subscribed at the broker").await;

    let mut node = Edge::connect(broker.port, "gw-7", 0).await;
    node.birth(0, []).await;
    node.send("DBIRTH", "boiler", [temperature(1, 21.5), pressure(2, 3)]).await;
    let readings = session.numbered(2).await;
    let Reading { device, metric, value, unit, time_source, .. } = &readings[0].1;
    assert_eq!((&**device, &**metric), ("Plant 1/gw-7/boiler", "supply/temp"));
    assert_eq!((value, unit.as_deref()), (&Reads::Float(21.5), Some("°C")));
    assert_eq!(*time_source, TimeSource::Device);
    assert_eq!(&*readings[1].1.metric, "p");
    let online = "Reported online on MQTT topic spBv1.0/Plant 1/DBIRTH/gw-7/boiler";
    let expected = (Status::Online, online.to_owned());
    assert_eq!(status_of(&mut session, "Plant 1/gw-7/boiler").await, expected);

    node.send("DDATA", "boiler", [by_alias(1, Value::Float(22.5))]).await;
    assert_eq!(next(&mut session, 1).await, ["Plant 1/gw-7/boiler supply/temp 22.5 °C"]);
    assert!(node.was_left_alone());

    node.die().await;
    let offline = "Reported offline on MQTT topic spBv1.0/Plant 1/NDEATH/gw-7";
    let mut gone = [session.status().await, session.status().await];
    gone.sort_by(|one, other| one.device.cmp(&other.device));
    assert_eq!(
        gone.each_ref().map(|event| &*event.device),
        ["Plant 1/gw-7", "Plant 1/gw-7/boiler"]
    );
    for event in gone {
        assert_eq!((event.status, &*event.reason), (Status::Offline, offline));
    }
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_starts_late_or_anew_asks_for_births_and_guesses_no_name() {
    let (world, server) = (World::new(), Server::start().await);
    let broker = Broker::start(&world).await;
    let mut node = Edge::connect(broker.port, "gw-7", 0).await;
    node.birth(0, []).await;
    node.send("DBIRTH", "boiler", [temperature(1, 21.5), pressure(2, 3)]).await;
    world.configure(&server.address, &source(broker.port, ""));
    for alias in [1, 2] {
        let agent = world.run();
        let mut session = server.welcome(None).await;
        world.logged("subscribed at the broker").await;
        std::fs::remove_file(world.path("log")).unwrap();
        node.send("DDATA", "boiler", [by_alias(1, Value::Float(22.5))]).await;
        node.asked().await;
        node.birth(0, []).await;
        node.send("DBIRTH", "boiler", [temperature(alias, 23.5), pressure(3 - alias, 4)]).await;
        node.send("DDATA", "boiler", [by_alias(alias, Value::Float(24.5))]).await;
        let expected = ["supply/temp 23.5 °C", "pressure 4 bar", "supply/temp 24.5 °C"];
        let expected = expected.map(|reading| format!("Plant 1/gw-7/boiler {reading}"));
        assert_eq!(next(&mut session, 3).await, expected);
        session.commit(3, 100).await;
        assert_eq!(agent.stop().await, Some(0));
    }
    assert!(node.was_left_alone());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missed_message_is_noticed_and_a_repeated_one_counts_once() {
    let (world, server) = (World::new(), Server::start().await);
    let broker = Broker::start(&world).await;
    world.configure(&server.address, &source(broker.port, ""));
    let _agent = world.run();
    let mut session = server.welcome(None).await;
    world.logged("subscribed at the broker").await;
    let mut node = Edge::connect(broker.port, "gw-7", 0).await;
    node.birth(0, [temperature(1, 1.5)]).await;
    let twice = crate::edge::payload(1, [by_alias(1, Value::Float(2.5))]);
    node.send_bytes("NDATA", "", twice.clone()).await;
    node.send_bytes("NDATA", "", twice).await;
    node.lose_one();
    node.send("NDATA", "", [by_alias(1, Value::Float(3.5))]).await;
    let expected = [1.5, 2.5, 3.5].map(|value| format!("Plant 1/gw-7 supply/temp {value} °C"));
    assert_eq!(next(&mut session, 3).await, expected);
    assert!(node.was_left_alone());

    node.lose_one();
    node.send("NDATA", "", [by_alias(1, Value::Float(4.5))]).await;
    node.asked().await;
    assert_eq!(next(&mut session, 1).await, ["Plant 1/gw-7 supply/temp 4.5 °C"]);
    // The alias means something else from the birth on.
    node.birth(0, [pressure(1, 5), temperature(2, 6.5)]).await;
    node.send("NDATA", "", [by_alias(1, Value::Int(6))]).await;
    let expected = ["pressure 5 bar", "supply/temp 6.5 °C", "pressure 6 bar"];
    let expected = expected.map(|reading| format!("Plant 1/gw-7 {reading}"));
    assert_eq!(next(&mut session, 3).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_break_nodes_say_anew_what_they_have() {
    let (world, server) = (World::new(), Server::start().await);
    let broker = Broker::start(&world).await;
    world.configure(&server.address, &source(broker.port, ""));
    let _agent = world.run();
    let mut session = server.welcome(None).await;
    world.logged("subscribed at the broker").await;
    let mut node = Edge::connect(broker.port, "gw-7", 0).await;
    node.birth(0, [temperature(1, 1.5)]).await;
    assert_eq!(session.status().await.status, Status::Online);

    // Somebody of the same name makes the broker end the agent's connection.
    let mut options = MqttOptions::new("valtronics-scada", "127.0.0.1", broker.port);
    options.set_clean_session(false);
    let (_client, mut events) = AsyncClient::new(options, 1);
    within("the other one is connected", events.poll()).await.unwrap();
    drop(events);
    let event = session.status().await;
    assert_eq!((&*event.device, event.status), ("Plant 1/gw-7", Status::Offline));
    assert!(event.reason.contains("MQTT broker"), "{}", event.reason);
    node.asked().await;
    node.birth(0, [temperature(2, 2.5)]).await;
    assert_eq!(session.status().await.status, Status::Online);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_must_not_ask_reads_what_is_said() {
    let (world, server) = (World::new(), Server::start().await);
    let broker = Broker::start(&world).await;
    world.configure(&server.address, &source(broker.port, "rebirth = false"));
    let agent = world.run();
    let mut session = server.welcome(None).await;
    world.logged("subscribed at the broker").await;
    let mut node = Edge::connect(broker.port, "gw-7", 0).await;
    node.send("NDATA", "", [by_alias(1, Value::Float(0.5))]).await;
    node.send("NDATA", "", [named("named", 9, Value::Float(1.5))]).await;
    node.send_bytes("NDATA", "", b"no payload".to_vec()).await;
    node.birth(0, [temperature(1, 2.5)]).await;
    let expected = ["Plant 1/gw-7 named 1.5 -", "Plant 1/gw-7 supply/temp 2.5 °C"];
    assert_eq!(next(&mut session, 2).await, expected);
    assert!(node.was_left_alone());
    assert_eq!(agent.stop().await, Some(0));
    assert_eq!(world.log().matches("damaged input: no Sparkplug payload").count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_messages_cost_no_memory_and_stop_nothing() {
    let (world, server) = (World::new(), Server::start().await);
    let broker = Broker::start(&world).await;
    world.configure(&server.address, &source(broker.port, "rebirth = false"));
    let agent = world.run();
    let mut session = server.welcome(None).await;
    world.logged("subscribed at the broker").await;
    let topic = "spBv1.0/Plant 1/NDATA/gw-7";
    // Metrics, data sets and properties that say nothing, nearly as many as a message can hold.
    let nothing = |tag: u8| [tag, 0].repeat(2_000_000);
    let inside = |tag: u8, bytes: &[u8]| {
        let mut outer = vec![tag];
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        [outer, bytes.to_vec()].concat()
    };
    let hostile = [
        nothing(0x12),
        inside(0x12, &inside(0x8a, &nothing(0x22))),
        inside(0x12, &inside(0x4a, &nothing(0x12))),
        inside(0x12, &inside(0x0a, &vec![b'x'; 4_000_000])),
    ];
    for message in hostile {
        broker.publish(topic, &message, &[]).await;
    }
    let data = crate::edge::payload(0, [named("t", 9, Value::Float(1.5))]);
    broker.publish(topic, &data, &[]).await;
    assert_eq!(next(&mut session, 1).await, ["Plant 1/gw-7 t 1.5 -"]);
    // Buffers of the connection and the message itself.
    let peak = agent.memory_peak();
    assert!(peak < 40 * 1024, "{peak} KiB");
}

/// Whoever waits for a primary host.
struct Watcher {
    client: AsyncClient,
    events: rumqttc::EventLoop,
}

impl Watcher {
    fn connect(port: u16) -> Self {
        let (client, events) = AsyncClient::new(MqttOptions::new("watcher", "127.0.0.1", port), 10);
        client.try_subscribe("spBv1.0/STATE/scada", QoS::AtLeastOnce).unwrap();
        Self { client, events }
    }

    /// Waits for the next thing that is said of the host.
    async fn hears(&mut self) -> (bool, u64) {
        let said = async {
            loop {
                if let Event::Incoming(Packet::Publish(said)) = self.events.poll().await.unwrap() {
                    return serde_json::from_slice::<Json>(&said.payload).unwrap();
                }
            }
        };
        let said = within("the state is said", said).await;
        (said["online"].as_bool().unwrap(), said["timestamp"].as_u64().unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_host_says_whether_it_is_there() {
    let (world, server) = (World::new(), Server::start().await);
    let broker = Broker::start(&world).await;
    let mut watcher = Watcher::connect(broker.port);
    world.configure(&server.address, &source(broker.port, "host_id = \"scada\""));
    let agent = world.run();
    let _session = server.welcome(None).await;
    let (online, since) = watcher.hears().await;
    assert!(online);
    // It contradicts whoever says that it is gone.
    let gone = format!("{{\"online\":false,\"timestamp\":{since}}}");
    watcher.client.try_publish("spBv1.0/STATE/scada", QoS::AtLeastOnce, true, gone).unwrap();
    assert_eq!(watcher.hears().await, (false, since));
    assert_eq!(watcher.hears().await, (true, since));
    assert_eq!(agent.stop().await, Some(0));
    assert_eq!(watcher.hears().await, (false, since));

    let agent = world.run();
    let (online, since) = watcher.hears().await;
    assert!(online);
    // Killed, it has a will of the same time.
    drop(agent);
    assert_eq!(watcher.hears().await, (false, since));

    // Who only tries promises nothing.
    let agent = world.try_sources();
    let mut node = Edge::connect(broker.port, "gw-7", 0).await;
    node.send("NDATA", "", [by_alias(1, Value::Float(0.5))]).await;
    node.asked().await;
    assert_eq!(agent.stop().await, Some(0));
    watcher
        .client
        .try_publish(
            "spBv1.0/STATE/scada",
            QoS::AtLeastOnce,
            true,
            "{\"online\":false,\"timestamp\":7}",
        )
        .unwrap();
    assert_eq!(watcher.hears().await, (false, 7));
}
