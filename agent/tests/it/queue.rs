//! The queue on disk: what was durable arrives once, and what is lost is counted.

use std::{collections::BTreeMap, path::Path, time::Duration};

use rustix::process::Signal;
use tokio::{io::AsyncWriteExt, net::TcpListener, time::interval};
use valtronics_agent::queue::{Config, Counters, Limits, Position, Queue};
use valtronics_protocol::{reading::Reading, time::UnixMillis, uplink::Gap, value::Value};

use crate::{
    parts::Broker,
    server::{Said, Server, Session},
    world::{World, within},
};

fn integer(reading: &Reading) -> i64 {
    let Value::Int(value) = reading.value else { panic!("{reading:?}") };
    value
}

/// What the files hold, read as the next agent will.
struct Kept {
    values: BTreeMap<u64, i64>,
    gaps: Vec<Gap>,
    counters: Counters,
}

fn kept(folder: &Path) -> Kept {
    let limits = Limits { readings: 1000, bytes: usize::MAX, live_since: UnixMillis(0), passed: 0 };
    let mut queue = Queue::open(&Config::default(), folder).unwrap();
    let (mut values, mut gaps, mut after) = (BTreeMap::new(), Vec::new(), Position::default());
    let counters = queue.counters();
    loop {
        let chunk = match queue.read(after, limits) {
            Some(chunk) => chunk,
            None => {
                let done = queue.job(false, Some((after, limits))).unwrap().run();
                queue.finish(done).unwrap()
            }
        };
        gaps.extend(chunk.gaps);
        for (number, reading) in (chunk.first..).zip(&chunk.readings) {
            values.insert(number, integer(reading));
            after.seq = number;
        }
        if !chunk.more {
            return Kept { values, gaps, counters };
        }
    }
}

/// What a killed agent has left, without touching it.
fn kept_by(world: &World) -> Kept {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(world.path("data/queue")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    kept(copy.path())
}

/// Waits until the files of readings hold `bytes`.
async fn written(world: &World, bytes: usize) {
    let mut again = interval(Duration::from_millis(20));
    within("the queue is written", async {
        while used(world) < bytes {
            again.tick().await;
        }
    })
    .await;
}

fn used(world: &World) -> usize {
    let Ok(files) = std::fs::read_dir(world.path("data/queue")) else { return 0 };
    let telemetry = files.map(|file| file.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with("telemetry-") && !name.contains('.')
    });
    let used = |path| {
        let file = std::fs::read(path).unwrap();
        file.len() - file.iter().rev().take_while(|byte| **byte == 0).count()
    };
    telemetry.map(used).sum()
}

/// Takes and acknowledges readings until `is_all` of what has come.
async fn take(
    session: &mut Session,
    is_all: impl Fn(&BTreeMap<u64, i64>) -> bool,
) -> BTreeMap<u64, i64> {
    let mut found = BTreeMap::new();
    while !is_all(&found) {
        match session.next().await {
            Said::Readings { first, readings, .. } => {
                for (number, reading) in (first..).zip(&readings) {
                    let known = found.insert(number, integer(reading));
                    assert_eq!(known, None, "number {number} comes twice");
                }
                session.ack(first + readings.len() as u64 - 1).await;
            }
            Said::Gone(code) => panic!("gone with {code:?}"),
            Said::Preview(_) | Said::Gap(_) | Said::Status(_) | Said::Device(_) => {}
        }
    }
    found
}

/// Returns an address at which nobody listens, until somebody does.
async fn nowhere() -> String {
    Server::start().await.address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_sends_once_what_was_durable() {
    let (world, address) = (World::new(), nowhere().await);
    let lines = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = lines.local_addr().unwrap();
    let serial = format!("[[serial]]\nport = \"tcp://{port}\"\nname = \"a\"\nformat = \"kv\"\n");
    world.configure(&address, &format!("{serial}[queue]\nsync = \"50ms\"\n"));
    let (mut next, mut durable) = (1, BTreeMap::new());
    for _ in 0..3 {
        let mut agent = world.run();
        let (mut line, _) = within("the agent reads", lines.accept()).await.unwrap();
        let before = used(&world);
        for _ in 0..50 {
            let four: String = (next..next + 4).map(|value| format!("t={value}\n")).collect();
            line.write_all(four.as_bytes()).await.unwrap();
            next += 4;
        }
        // More than a new file's header.
        written(&world, before + 200).await;
        agent.signal(Signal::KILL);
        assert_eq!(agent.ended().await, None);
        let Kept { values, gaps, .. } = kept_by(&world);
        assert!(values.len() > durable.len() && gaps.is_empty());
        assert!(durable.iter().all(|(number, value)| values.get(number) == Some(value)));
        durable = values;
    }
    let server = Server::start_at(&address).await;
    let agent = world.run();
    let mut session = server.welcome(None).await;
    let found = take(&mut session, |found| found.len() >= durable.len()).await;
    assert_eq!(found, durable);
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_broker_was_told_is_durable() {
    const MESSAGES: i64 = 400;
    let (world, address) = (World::new(), nowhere().await);
    let broker = Broker::start(&world).await;
    let source = format!(
        "[[mqtt]]\nurl = \"mqtt://127.0.0.1:{}\"\nname = \"hub\"\nread = [\"p/{{device}}/{{metric}}\"]\n",
        broker.port
    );
    // Only who holds messages asks for a commit before an hour is over.
    world.configure(&address, &format!("{source}[queue]\nsync = \"1h\"\n"));
    let mut agent = world.run();
    world.logged("subscribed at the broker").await;
    let lines: String = (1..=MESSAGES).map(|value| format!("{value}\n")).collect();
    broker.publish_lines("p/pump/speed", &world.write("burst", lines)).await;
    for bytes in [250, 600] {
        written(&world, bytes).await;
        agent.signal(Signal::KILL);
        assert_eq!(agent.ended().await, None);
        agent = world.run();
    }
    let server = Server::start_at(&address).await;
    let mut session = server.welcome(None).await;
    let has_all = |found: &BTreeMap<u64, i64>| {
        (1..=MESSAGES).all(|value| found.values().any(|found| *found == value))
    };
    // What was durable and not yet acknowledged comes from the broker again, under a new number.
    take(&mut session, has_all).await;
    assert_eq!(agent.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_counts_what_it_has_lost() {
    const LINES: i64 = 120_000;
    let (world, address) = (World::new(), nowhere().await);
    let lines = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = lines.local_addr().unwrap();
    let serial = format!("[[serial]]\nport = \"tcp://{port}\"\nname = \"a\"\nformat = \"kv\"\n");
    world.configure(&address, &format!("{serial}[queue]\nmax_bytes = \"256KiB\"\n"));
    let agent = world.run();
    let (mut line, _) = within("the agent reads", lines.accept()).await.unwrap();
    // Values that no difference makes short.
    let text: String =
        (0..LINES).map(|line| format!("t={}\n", line * 7919 % 100_003 * 31)).collect();
    line.write_all(text.as_bytes()).await.unwrap();
    drop((line, lines));
    world.logged("Connection closed by").await;
    assert_eq!(agent.stop().await, Some(0));

    let folder = world.path("data/queue");
    let Kept { values, gaps, counters } = kept(&folder);
    let lost: u64 = gaps.iter().flat_map(|gap| &gap.devices).map(|device| device.readings).sum();
    let numbered: u64 = gaps.iter().map(|gap| gap.last + 1 - gap.first).sum();
    assert!(lost > 10_000, "{lost}");
    assert_eq!((numbered, values.len() as u64), (lost, counters.waiting));
    assert_eq!(lost + counters.waiting, LINES as u64);
    let files = std::fs::read_dir(folder).unwrap();
    let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= 256 * 1024, "{bytes}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_does_not_start() {
    let (world, address) = (World::new(), nowhere().await);
    world.configure(&address, "[host]\n");
    let agent = world.run();
    world.logged("started").await;
    let second = world.ask(&["run", "--config", "gw.toml"], b"").await;
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("another agent uses it"), "{said}");
    assert_eq!(agent.stop().await, Some(0));
}
