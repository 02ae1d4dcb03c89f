//! What is not lost, and in which order it comes, while one of the parts is away.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{interval, timeout};
use valtronics_protocol::{event::Status, value::Value};

use crate::{
    parts::{Broker, Port},
    server::{Said, Server, Session},
    world::{World, within},
};

fn broker_source(port: u16) -> String {
    format!(
        "[[mqtt]]\nurl = \"mqtt://127.0.0.1:{port}\"\nname = \"hub\"\nread = [\"p/{{device}}/{{metric}}\"]\n"
    )
}

/// Reads values until `last` has come.
async fn values_until(session: &mut Session, last: i64) -> Vec<i64> {
    let mut found = Vec::new();
    while found.last() != Some(&last) {
        for (_, reading) in session.numbered(1).await {
            let Value::Int(value) = reading.value else { panic!("{reading:?}") };
            found.push(value);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_keeps_messages_for_an_agent_that_is_away() {
    let (world, server) = (World::new(), Server::start().await);
    let broker = Broker::start(&world).await;
    world.configure(&server.address, &broker_source(broker.port));
    let agent = world.run();
    let mut session = server.welcome(None).await;
    world.logged("subscribed at the broker").await;
    broker.publish("p/pump/speed", b"1", &[]).await;
    assert_eq!(values_until(&mut session, 1).await, [1]);
    session.ack(1).await;
    assert_eq!(agent.stop().await, Some(0));

    for value in [&b"2"[..], b"3"] {
        broker.publish("p/pump/speed", value, &[]).await;
    }
    let agent = world.run();
    let mut session = server.welcome(None).await;
    // What was acknowledged does not come again.
    assert_eq!(values_until(&mut session, 3).await, [2, 3]);
    session.ack(2).await;
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_hears_before_a_clean_end_what_is_durable() {
    let (world, server) = (World::new(), Server::start().await);
    let broker = Broker::start(&world).await;
    world.configure(&server.address, &broker_source(broker.port));
    for value in 1..=5 {
        let mut agent = world.run();
        let mut session = server.welcome(None).await;
        world.logged("subscribed at the broker").await;
        broker.publish("p/pump/speed", value.to_string().as_bytes(), &[]).await;
        // With one that comes again it would not be the first.
        assert_eq!(values_until(&mut session, value).await, [value]);
        agent.signal(Signal::TERM);
        session.ack(u64::MAX).await;
        assert_eq!(agent.ended().await, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_without_a_limit_may_send_all_at_once() {
    const MESSAGES: i64 = 20_000;
    let (world, server) = (World::new(), Server::start().await);
    let broker = Broker::start_unlimited(&world).await;
    world.configure(&server.address, &broker_source(broker.port));
    let mut agent = world.run();
    // To the end, so that it does not come back meanwhile.
    let first = server.welcome(None).await;
    world.logged("subscribed at the broker").await;
    agent.signal(Signal::KILL);
    assert_eq!(agent.ended().await, None);
    drop(first);

    let lines: String = (1..=MESSAGES).map(|value| format!("{value}\n")).collect();
    broker.publish_lines("p/pump/speed", &world.write("burst", lines)).await;
    let agent = world.run();
    let mut session = server.welcome(None).await;
    let mut next = 1;
    while next <= MESSAGES {
        match session.next().await {
            Said::Readings { first, readings, .. } => {
                for reading in &readings {
                    assert_eq!(reading.value, Value::Int(next));
                    next += 1;
                }
                session.ack(first + readings.len() as u64 - 1).await;
            }
            other @ Said::Gone(_) => panic!("{other:?}: {}", world.log()),
            Said::Status(_) | Said::Device(_) | Said::Preview(_) | Said::Gap(_) => {}
        }
    }
    assert!(agent.memory_peak() < 40 * 1024, "{} KiB", agent.memory_peak());
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn readings_come_before_the_end_that_followed_them() {
    let (world, server) = (World::new(), Server::start().await);
    let serial = "[[serial]]\nport = \"tty\"\nname = \"a\"\nformat = \"kv\"\n";
    // The second reading waits for the flush, which the end of the port does not wait for.
    world.configure(&server.address, &format!("flush = \"60s\"\n{serial}"));
    let mut port = Port::plug(&world).await;
    let _agent = world.start(&["run", "--config", "gw.toml", "--capture", "recorded"]);
    let mut session = server.welcome(None).await;
    world.logged("opened").await;
    port.send("t=1\n").await;
    assert_eq!(values_until(&mut session, 1).await, [1]);
    port.send("t=2\n").await;
    let mut again = interval(Duration::from_millis(10));
    let read = async {
        while !std::fs::read_to_string(world.path("recorded")).unwrap().contains("t=2") {
            again.tick().await;
        }
    };
    within("the agent has read it", read).await;
    port.unplug().await;
    let mut last = 1;
    loop {
        match session.next().await {
            Said::Readings { readings, .. } => {
                assert_eq!(readings.len(), 1);
                last += 1;
            }
            Said::Status(event) => {
                assert_eq!(event.status, Status::Offline);
                assert_eq!((last, event.reason.as_str()), (2, "Serial port unplugged"));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_server_commits_nothing_stops_in_time() {
    let (world, server) = (World::new(), Server::start().await);
    world.configure(&server.address, "[host]\nevery = \"1s\"\n");
    let mut agent = world.run();
    let mut session = server.welcome(None).await;
    session.numbered(1).await;
    // It never acknowledges.
    agent.signal(Signal::TERM);
    let code = timeout(Duration::from_secs(6), agent.ended()).await;
    assert_eq!(code, Ok(Some(0)));
    assert!(world.log().contains("not everything could be sent"), "{}", world.log());
}
