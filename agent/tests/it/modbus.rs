//! Devices on a Modbus line or network.

use std::time::Duration;

use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpListener};
use valtronics_protocol::event::Status;

use crate::{
    server::Server,
    slave::{Asked, Cable, Framing, Reply, Slave},
    world::{Agent, World, within},
};

/// Configures one source that asks so often; `devices` are unit, name, and what to read.
fn bus(port: &str, keys: &str, devices: &[(u8, &str, &str)]) -> String {
    let mut text = format!("[[modbus]]\nname = \"bus\"\nport = \"{port}\"\n{keys}\n");
    for (unit, name, what) in devices {
        text += &format!("[[modbus.devices]]\nunit = {unit}\nname = \"{name}\"\n{what}\n");
    }
    text
}

/// A meter that says the same for ever, and knows no registers beyond.
fn meter(asked: Asked) -> Reply {
    let floats = [(0x00, 230.2_f32), (0x34, 843.25), (0x46, 50.02), (0x48, 1234.5)];
    if asked.function != 4 || asked.first + asked.count > 0x60 {
        return Reply::Exception(2);
    }
    let mut words = [0_u16; 0x60];
    for (address, float) in floats {
        let bits = float.to_bits();
        (words[address], words[address + 1]) = ((bits >> 16) as u16, bits as u16);
    }
    Reply::Words(words[usize::from(asked.first)..].to_vec())
}

/// Waits until each of these values has come; values and metrics of other registers are passed over.
async fn until_all(agent: &mut Agent, expected: &[(&str, &str, Value)]) {
    let mut missing = expected.to_vec();
    while !missing.is_empty() {
        let reading = agent.reading().await;
        missing.retain(|(device, metric, value)| {
            reading["device"] != *device
                || reading["metric"] != *metric
                || reading["value"] != *value
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_meter_is_read_over_each_link() {
    for (framing, scheme) in
        [(Framing::Tcp, "tcp://"), (Framing::Rtu, "rtu+tcp://"), (Framing::Rtu, "")]
    {
        let (world, slave) = (World::new(), Slave::start(framing, meter).await);
        let cable = match scheme {
            "" => Some(Cable::plug(&world, &slave).await),
            _ => None,
        };
        let port =
            if scheme.is_empty() { "tty".into() } else { format!("{scheme}{}", slave.address) };
        let devices = [
            (1, "main", "profile = \"sdm630\""),
            (2, "flat", "registers = [\"p kW input 52 f32 /1000\"]\nunits = { p = \"MW\" }"),
        ];
        world.configure("127.0.0.1:1", &bus(&port, "every = \"50ms\"", &devices));
        let mut agent = world.try_sources();
        let expected = [
            ("main", "voltage_l1", 230.2.into()),
            ("main", "power", 843.25.into()),
            ("main", "frequency", 50.02.into()),
            ("main", "energy_import", 1234.5.into()),
            ("flat", "p", 0.84325.into()),
        ];
        until_all(&mut agent, &expected).await;
        let reading = agent.until_metric("p").await;
        assert_eq!((&reading["unit"], &reading["time_source"]), (&"MW".into(), &"receive".into()));
        // What the meter does not have is left out, and asked for no more.
        slave.forget();
        until_all(&mut agent, &expected).await;
        until_all(&mut agent, &expected).await;
        let beyond: Vec<_> = slave.asked().into_iter().filter(|asked| asked.holds(0x60)).collect();
        assert_eq!(beyond, []);
        assert_eq!(agent.stop().await, Some(0));
        drop(cable);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_with_a_hole_is_taken_apart_once() {
    let answer = |asked: Asked| match asked {
        _ if asked.holds(2) || asked.holds(12) => Reply::Exception(2),
        Asked { first, .. } => Reply::Words((first..).take(125).collect()),
    };
    let (world, slave) = (World::new(), Slave::start(Framing::Tcp, answer).await);
    let registers = "registers = [\"a holding 0 u16\", \"b holding 1 u16\", \"c holding 2 u16\", \
                     \"d holding 10 u16\", \"e holding 11 u16\", \"f holding 13 u16\"]";
    let port = format!("tcp://{}", slave.address);
    world.configure("127.0.0.1:1", &bus(&port, "every = \"50ms\"", &[(1, "m", registers)]));
    let mut agent = world.try_sources();
    let values = [("a", 0), ("b", 1), ("d", 10), ("e", 11), ("f", 13)];
    let expected = values.map(|(metric, value)| ("m", metric, value.into()));
    until_all(&mut agent, &expected).await;
    until_all(&mut agent, &expected).await;
    slave.forget();
    for _ in 0..3 {
        until_all(&mut agent, &expected).await;
    }
    let asked = slave.asked();
    assert!(asked.iter().all(|asked| !asked.holds(2) && !asked.holds(12)), "{asked:?}");
    assert!(asked.iter().any(|asked| asked.count == 2), "what can stay together does: {asked:?}");
    world.logged("c is left out: Unit 1 answers with exception 2 (address not supported)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_unit_is_offline_and_slows_nobody() {
    let (world, server) = (World::new(), Server::start().await);
    let mut silent = 8;
    let answer = move |asked: Asked| match asked.unit {
        7 if silent > 0 => {
            silent -= 1;
            Reply::Silence
        }
        8 => Reply::Exception(11),
        9 => Reply::Exception(4),
        _ => Reply::Words(vec![1]),
    };
    let slave = Slave::start(Framing::Tcp, answer).await;
    let what = "registers = [\"a holding 0 u16\"]";
    let devices = [(1, "one", what), (7, "seven", what), (8, "eight", what), (9, "nine", what)];
    let port = format!("tcp://{}", slave.address);
    let keys = "every = \"50ms\"\ntimeout = \"100ms\"";
    world.configure(&server.address, &bus(&port, keys, &devices));
    let _agent = world.run();
    let mut session = server.welcome(None).await;
    let mut expected = vec![
        (
            "eight".to_owned(),
            "No answer from unit 8: exception 11 (gateway got no answer)".to_owned(),
        ),
        ("nine".to_owned(), "Unit 9 answers with exception 4 (device failure)".to_owned()),
        ("seven".to_owned(), "No answer from unit 7".to_owned()),
    ];
    while !expected.is_empty() {
        let event = session.status().await;
        assert_eq!(event.status, Status::Offline);
        let said = (event.device, event.reason);
        assert!(expected.contains(&said), "{said:?}");
        expected.retain(|wanted| *wanted != said);
    }
    let asked = slave.asked();
    let of = |unit: u8| asked.iter().filter(|asked| asked.unit == unit).count();
    // It takes two rounds to be sure, 5 s apart.
    assert!(of(7) <= 3 && of(1) > 10 * of(7), "{} {}", of(1), of(7));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_that_comes_back_is_read_again() {
    let mut silent = 2;
    let answer = move |_| {
        silent -= i32::from(silent > 0);
        if silent > 0 { Reply::Exception(11) } else { Reply::Words(vec![1]) }
    };
    let (world, slave) = (World::new(), Slave::start(Framing::Tcp, answer).await);
    let devices = [(1, "one", "registers = [\"a holding 0 u16\"]")];
    let port = format!("tcp://{}", slave.address);
    world.configure("127.0.0.1:1", &bus(&port, "every = \"50ms\"", &devices));
    let mut agent = world.try_sources();
    agent.until("a", 1).await;
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_answer_is_never_another_registers_value() {
    let mut requests = 0;
    let answer = move |asked: Asked| {
        requests += 1;
        match (asked.unit, asked.first) {
            // So late that the agent has given up, and could well be asking for the other.
            (1, 0) if requests < 4 => Reply::Late(Duration::from_millis(450), vec![111]),
            (1, 0) => Reply::Words(vec![100]),
            // Slow enough that something could come before it.
            _ => Reply::Late(Duration::from_millis(150), vec![200]),
        }
    };
    for framing in [Framing::Rtu, Framing::Tcp] {
        let (world, slave) = (World::new(), Slave::start(framing, answer).await);
        let what = "registers = [\"a holding 0 u16\", \"b holding 100 u16\"]";
        let other = "registers = [\"c holding 100 u16\"]";
        let scheme = if framing == Framing::Rtu { "rtu+tcp" } else { "tcp" };
        let port = format!("{scheme}://{}", slave.address);
        let keys = "every = \"50ms\"\ntimeout = \"200ms\"\ngap = \"5ms\"";
        let devices = [(1, "late", what), (2, "prompt", other)];
        world.configure("127.0.0.1:1", &bus(&port, keys, &devices));
        let mut agent = world.try_sources();
        let mut last = Value::Null;
        while last["metric"] != "a" || last["value"] != 100 {
            last = agent.reading().await;
            let expected: &[i64] = match last["metric"].as_str().unwrap() {
                // Its own, be it late or not.
                "a" => &[100, 111],
                _ => &[200],
            };
            assert!(expected.contains(&last["value"].as_i64().unwrap()), "{last}");
        }
        assert_eq!(agent.stop().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_answers_are_counted_and_asked_for_again() {
    let mut requests = 0;
    let answer = move |asked: Asked| {
        requests += 1;
        let words = vec![5, 6];
        match requests {
            1 => Reply::Damaged(words),
            // Too short, too long, of another unit, of another function.
            3 => Reply::Content(vec![asked.unit, 3, 2, 0, 9]),
            5 => Reply::Content(vec![asked.unit, 3, 6, 0, 9, 0, 9, 0, 9]),
            7 => Reply::Content(vec![2, 3, 4, 0, 9, 0, 9]),
            9 => Reply::Content(vec![asked.unit, 4, 4, 0, 9, 0, 9]),
            _ => Reply::Words(words),
        }
    };
    let (world, slave) = (World::new(), Slave::start(Framing::Rtu, answer).await);
    let _cable = Cable::plug(&world, &slave).await;
    let devices = [(1, "m", "registers = [\"a holding 0 u16\", \"b holding 1 u16\"]")];
    world.configure("127.0.0.1:1", &bus("tty", "every = \"50ms\"", &devices));
    let mut agent = world.try_sources();
    for _ in 0..6 {
        for (metric, value) in [("a", 5), ("b", 6)] {
            let reading = agent.reading().await;
            assert_eq!((&reading["metric"], &reading["value"]), (&metric.into(), &value.into()));
        }
    }
    assert_eq!(agent.stop().await, Some(0));
    let log = world.log();
    assert!(log.contains("5 damaged, 0 foreign"), "{log}");
    assert_eq!(log.matches("damaged input: an answer of unit 1").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_unplugged_is_opened_again() {
    let (world, server) = (World::new(), Server::start().await);
    let slave = Slave::start(Framing::Rtu, |_| Reply::Words(vec![5])).await;
    let cable = Cable::plug(&world, &slave).await;
    let what = "registers = [\"a holding 0 u16\"]";
    let devices = [(1, "one", what), (2, "two", what)];
    world.configure(&server.address, &bus("tty", "every = \"50ms\"", &devices));
    let _agent = world.run();
    let mut session = server.welcome(None).await;
    session.numbered(2).await;
    cable.unplug(&world).await;
    let mut said = Vec::new();
    while said.len() < 2 {
        let event = session.status().await;
        said.push((event.device, event.reason));
    }
    said.sort();
    let reason = "Serial port unplugged".to_owned();
    assert_eq!(said, [("one".to_owned(), reason.clone()), ("two".to_owned(), reason)]);
    let _cable = Cable::plug(&world, &slave).await;
    let back = async {
        let mut missing = vec!["one", "two"];
        while !missing.is_empty() {
            let (_, reading) = session.numbered(1).await.remove(0);
            missing.retain(|device| *device != &*reading.device);
        }
    };
    within("both are read again", back).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_after_each_answer_is_made_again_in_silence() {
    let answer = |asked: Asked| Reply::Last(vec![asked.first]);
    let (world, slave) = (World::new(), Slave::start(Framing::Tcp, answer).await);
    let devices = [(1, "m", "registers = [\"a holding 1 u16\", \"b holding 200 u16\"]")];
    let port = format!("tcp://{}", slave.address);
    world.configure("127.0.0.1:1", &bus(&port, "every = \"50ms\"", &devices));
    let mut agent = world.try_sources();
    for _ in 0..3 {
        until_all(&mut agent, &[("m", "a", 1.into()), ("m", "b", 200.into())]).await;
    }
    assert_eq!(agent.stop().await, Some(0));
    assert!(!world.log().contains("Offline"), "{}", world.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_speaks_something_else_is_named() {
    let (world, server) = (World::new(), Server::start().await);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let devices = [(1, "m", "registers = [\"a holding 0 u16\"]")];
    let port = format!("tcp://{address}");
    world.configure(&server.address, &bus(&port, "every = \"50ms\"", &devices));
    let _agent = world.run();
    let mut session = server.welcome(None).await;
    let (mut stream, _) = within("the agent connects", listener.accept()).await.unwrap();
    stream.write_all(b"220 mail.example.com ESMTP\r\n").await.unwrap();
    let event = session.status().await;
    let reason = format!("{address} does not answer in Modbus TCP");
    assert_eq!((event.device, event.status, event.reason), ("m".into(), Status::Offline, reason));
}

#[tokio::test(flavor = "multi_thread")]
async fn bits_are_read_as_truths() {
    let answer =
        |asked: Asked| Reply::Words((asked.first..).take(2000).map(|n| (n % 3) & 1).collect());
    let (world, slave) = (World::new(), Slave::start(Framing::Rtu, answer).await);
    let what = "registers = [\"on coil 1\", \"off coil 300\", \"door discrete 0x64 bool\"]";
    let port = format!("rtu+tcp://{}", slave.address);
    world.configure("127.0.0.1:1", &bus(&port, "every = \"50ms\"", &[(3, "io", what)]));
    let mut agent = world.try_sources();
    let expected =
        [("io", "on", true.into()), ("io", "off", false.into()), ("io", "door", true.into())];
    until_all(&mut agent, &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sunspec_device_says_itself_what_it_has() {
    // At 40000: the mark, a model that nobody knows, an inverter, a meter, the end.
    let mut map = vec![0x5375, 0x6e53, 64_000, 1, 0];
    let mut inverter = vec![0x8000; 52];
    inverter[..2].copy_from_slice(&[103, 50]);
    (inverter[14], inverter[15]) = (1234, 0xffff);
    let mut meter = vec![0x8000; 107];
    meter[..2].copy_from_slice(&[203, 105]);
    (meter[18], meter[22]) = (0xfff6, 1);
    map.extend(inverter);
    map.extend(meter);
    map.extend([0xffff, 0]);
    let answer = move |asked: Asked| {
        let begin = usize::from(asked.first.wrapping_sub(40_000));
        match map.get(begin..begin + usize::from(asked.count)) {
            Some(words) if asked.unit == 1 => Reply::Words(words.to_vec()),
            _ => Reply::Exception(2),
        }
    };
    let (world, slave) = (World::new(), Slave::start(Framing::Rtu, answer).await);
    let what = "profile = \"sunspec\"\nkeep = [\"power\", \"meter_power\"]";
    let port = format!("rtu+tcp://{}", slave.address);
    let devices = [(1, "roof", what), (2, "none", what)];
    world.configure("127.0.0.1:1", &bus(&port, "every = \"50ms\"", &devices));
    let mut agent = world.try_sources();
    let expected = [("roof", "power", 123.4.into()), ("roof", "meter_power", Value::from(-100.0))];
    until_all(&mut agent, &expected).await;
    until_all(&mut agent, &expected).await;
    world.logged("none: Offline: Unit 2 says nothing of SunSpec models").await;
    assert_eq!(agent.stop().await, Some(0));
}
