//! What is live goes first, and what is late comes after it, in order: slow links, servers that give
//! no credit, wrong clocks, queues that are full or copied.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
    time::{interval, timeout},
};
use valtronics_agent::clock;
use valtronics_protocol::{
    error::ErrorCode,
    reading::Reading,
    time::UnixMillis,
    uplink::{GapReason, Welcome},
    value::Value,
};

use crate::{
    server::{Said, Server, Session},
    status::{number, until},
    world::{Agent, World, within},
};

/// An agent that reads lines which the test writes.
struct Fed {
    _agent: Agent,
    lines: TcpStream,
}

/// Starts an agent that sends to `server`.
async fn feed(world: &World, server: &str, more: &str) -> Fed {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serial = format!("[[serial]]\nport = \"tcp://{address}\"\nname = \"a\"\nformat = \"kv\"\n");
    world.configure(server, &format!("{more}\n{serial}"));
    let _agent = world.run();
    let (lines, _) = within("the agent reads", listener.accept()).await.unwrap();
    Fed { _agent, lines }
}

impl Fed {
    async fn write(&mut self, values: impl IntoIterator<Item = i64>) {
        let lines: String = values.into_iter().map(|value| format!("t={value}\n")).collect();
        self.lines.write_all(lines.as_bytes()).await.unwrap();
    }
}

fn value(reading: &Reading) -> i64 {
    let Value::Int(value) = reading.value else { panic!("{reading:?}") };
    value
}

/// A number that nothing can pack (the mixer of SplitMix64).
fn noise(n: i64) -> i64 {
    let mixed = n.cast_unsigned().wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    i64::from((mixed >> 33) as u32)
}

/// What a session heard, in the order of its coming.
#[derive(Debug, Default)]
struct Heard {
    /// Values with their numbers, and whether they came as a backlog.
    numbered: Vec<(u64, i64, bool)>,
    previews: Vec<i64>,
}

impl Heard {
    /// Listens until this is true; acknowledges if asked to.
    async fn until(
        &mut self,
        session: &mut Session,
        acknowledge: bool,
        enough: impl Fn(&Self) -> bool,
    ) {
        while !enough(self) {
            match session.next().await {
                Said::Readings { first, readings, historical, .. } => {
                    let numbered = (first..).zip(readings.iter().map(value));
                    self.numbered.extend(numbered.map(|(seq, value)| (seq, value, historical)));
                    if let Some((last, ..)) = self.numbered.last().filter(|_| acknowledge) {
                        session.ack(*last).await;
                    }
                }
                Said::Preview(readings) => self.previews.extend(readings.iter().map(value)),
                other @ Said::Gone(_) => panic!("{other:?}"),
                Said::Gap(_) | Said::Status(_) | Said::Device(_) => {}
            }
        }
    }

    /// Checks that each number came once, in order, with its own value.
    fn check(&self, last: i64) {
        let expected: Vec<(u64, i64)> = (1..).zip(1..=last).collect();
        let found: Vec<(u64, i64)> = self.numbered.iter().map(|(seq, v, _)| (*seq, *v)).collect();
        assert_eq!(found, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credit_the_newest_goes_ahead_and_the_rest_comes_late() {
    let (world, server) = (World::new(), Server::start().await);
    let mut fed = feed(&world, &server.address, "").await;
    let mut session = server.accept().await;
    session.answer(Welcome { success: true, window: Some(100), ..Welcome::default() }).await;
    fed.write(1..=300).await;
    let mut heard = Heard::default();
    heard.until(&mut session, false, |heard| heard.previews.last() == Some(&300)).await;
    let live = heard.numbered.len();
    assert!(live < 300 && heard.numbered.iter().all(|(.., historical)| !historical));
    fed.write(301..=301).await;
    heard.until(&mut session, false, |heard| heard.previews.last() == Some(&301)).await;
    assert_eq!(heard.numbered.len(), live, "no credit is no credit");

    session.ack(live as u64).await;
    heard.until(&mut session, true, |heard| heard.numbered.len() == 301).await;
    heard.check(301);
    assert!(heard.numbered[live..].iter().all(|(.., historical)| *historical), "{heard:?}");
    let mut once = heard.previews.clone();
    once.dedup();
    assert_eq!(once, heard.previews, "nothing is shown twice");
    // The break is over.
    fed.write(302..=302).await;
    heard.until(&mut session, true, |heard| heard.numbered.len() == 302).await;
    assert_eq!(heard.numbered.last(), Some(&(302, 302, false)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_passed_is_a_backlog_on_the_next_connection_too() {
    let (world, server) = (World::new(), Server::start().await);
    let mut fed = feed(&world, &server.address, "").await;
    let mut session = server.accept().await;
    session.answer(Welcome { success: true, window: Some(100), ..Welcome::default() }).await;
    fed.write(1..=300).await;
    let mut heard = Heard::default();
    heard.until(&mut session, false, |heard| heard.previews.last() == Some(&300)).await;
    drop(session);

    let mut session = server.welcome(None).await;
    let mut heard = Heard::default();
    heard.until(&mut session, true, |heard| heard.numbered.len() == 300).await;
    heard.check(300);
    // Nobody knows whether the preview came through before.
    assert_eq!(heard.previews, [300]);
    assert!(heard.numbered.iter().all(|(.., historical)| *historical));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_takes_little_more_than_a_byte_a_reading() {
    const METRICS: i64 = 20;
    const ROWS: i64 = 1000;
    let (world, server) = (World::new(), Server::start().await);
    let mut fed = feed(&world, &server.address, "").await;
    let mut session = server.accept().await;
    session.answer(Welcome { success: true, window: Some(100), ..Welcome::default() }).await;
    // Sensors whose last digits tell nothing of each other.
    let row = |row: i64| {
        let metric = |metric: i64| {
            let tenths = 200 + metric * 10 + noise(row * METRICS + metric) % 32;
            format!("m{metric}={}.{}", tenths / 10, tenths % 10)
        };
        (0..METRICS).map(metric).collect::<Vec<String>>().join(" ") + "\n"
    };
    let mut pace = interval(Duration::from_millis(5));
    for lines in (0..ROWS).collect::<Vec<i64>>().chunks(20) {
        let lines: String = lines.iter().map(|n| row(*n)).collect();
        fed.lines.write_all(lines.as_bytes()).await.unwrap();
        pace.tick().await;
    }
    fed.lines.write_all(b"last=1\n").await.unwrap();
    let is_last = |readings: &[Reading]| readings.iter().any(|reading| &*reading.metric == "last");
    while !matches!(session.next().await, Said::Preview(readings) if is_last(&readings)) {}
    drop(session);

    let mut session = server.accept().await;
    let window = Some(1024 * 1024);
    session.answer(Welcome { success: true, window, ..Welcome::default() }).await;
    let (mut next, mut sent) = (1, 0);
    let begun = clock::monotonic();
    while next <= (METRICS * ROWS) as u64 {
        if let Said::Readings { first, bytes, readings, historical } = session.next().await {
            assert!(first == next && historical);
            next += readings.len() as u64;
            sent += bytes;
            session.ack(next - 1).await;
        }
    }
    let each = sent as f64 / (METRICS * ROWS) as f64;
    assert!(each < 1.3, "{each} bytes a reading, in {:?}", begun.elapsed());
}

/// Carries bytes both ways, so many a second from the agent, with little room on the way.
async fn throttle(listener: TcpListener, server: String, bytes_a_second: usize) {
    let (agent, _) = listener.accept().await.unwrap();
    let (from_agent, to_agent) = agent.into_split();
    let (from_server, to_server) = TcpStream::connect(server).await.unwrap().into_split();
    tokio::join!(
        carry(from_agent, to_server, bytes_a_second),
        carry(from_server, to_agent, 1 << 20)
    );
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, bytes_a_second: usize) {
    let mut tick = interval(Duration::from_millis(20));
    let mut piece = vec![0; (bytes_a_second / 50).max(1)];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        if to.write_all(&piece[..read]).await.is_err() {
            break;
        }
        tick.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_slow_link_the_newest_is_never_late() {
    let (world, server) = (World::new(), Server::start().await);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let proxy = socket.listen(1).unwrap();
    let address = proxy.local_addr().unwrap().to_string();
    let mut link = JoinSet::new();
    link.spawn(throttle(proxy, server.address.clone(), 4000));
    let mut fed = feed(&world, &address, "").await;
    let mut session = server.accept().await;
    let window = Some(1024 * 1024);
    session.answer(Welcome { success: true, window, ..Welcome::default() }).await;

    // So much that is new in each reading takes three bytes: seconds of the link's time.
    let grown = |n: i64| n * 1_000_000 + noise(n) % 999_983;
    fed.write((1..=10_000).map(grown)).await;
    let mut heard = Heard::default();
    let mut slowest = Duration::ZERO;
    for n in 10_001..=10_004 {
        let begun = clock::monotonic();
        fed.write([grown(n)]).await;
        let is_shown = |heard: &Heard| {
            let newest = heard.numbered.last().map(|(_, value, _)| *value);
            heard.previews.last().copied().max(newest) >= Some(grown(n))
        };
        heard.until(&mut session, true, is_shown).await;
        slowest = slowest.max(begun.elapsed());
    }
    assert!(heard.numbered.len() < 10_000, "the backlog is still on its way");
    assert!(slowest < Duration::from_secs(5), "the newest took {slowest:?}");
    heard.until(&mut session, true, |heard| heard.numbered.len() == 10_004).await;
    let numbers: Vec<u64> = heard.numbered.iter().map(|(seq, ..)| *seq).collect();
    assert_eq!(numbers, (1..=10_004).collect::<Vec<u64>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_full_queue_lost_is_said_before_what_it_has() {
    let (world, server) = (World::new(), Server::start().await);
    let address = server.address.clone();
    // The first connection ends at once, and the server stays away.
    let mut fed = feed(&world, &address, "[queue]\nmax_bytes = \"256KiB\"").await;
    drop((server.accept().await, server));
    let begun = clock::now();
    fed.write((1..=100_000).map(noise)).await;
    until(&world, "some are evicted", |totals| number(totals, "evicted") > 1000).await;
    fed.write([-1]).await;

    let server = Server::start_at(&address).await;
    let mut session = server.welcome(None).await;
    let (mut gaps, mut lost, mut next, mut newest) = (0, 0, 1, 0);
    while newest != -1 {
        match session.next().await {
            Said::Gap(gap) => {
                // What was on its way may be among it.
                assert!(gap.first <= next && gap.reason == GapReason::Evicted, "{gap:?}");
                let [loss] = &gap.devices[..] else { panic!("{gap:?}") };
                assert_eq!(loss.device.as_deref(), Some("a"));
                assert_eq!(loss.readings, gap.last - gap.first + 1);
                assert!(loss.from >= begun && loss.from <= loss.to && loss.to <= clock::now());
                lost += loss.readings;
                (gaps, next) = (gaps + 1, gap.last + 1);
            }
            Said::Readings { first, readings, .. } => {
                assert_eq!(first, next);
                next += readings.len() as u64;
                newest = value(readings.last().unwrap());
                session.ack(next - 1).await;
            }
            other @ Said::Gone(_) => panic!("{other:?}"),
            Said::Preview(_) | Said::Status(_) | Said::Device(_) => {}
        }
    }
    assert!(gaps >= 1 && lost > 1000, "{gaps} gaps with {lost} readings");
    assert_eq!(next, 100_002);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_is_corrected_by_the_servers() {
    const DAY: Duration = Duration::from_secs(86_400);
    let (world, server) = (World::new(), Server::start().await);
    let mut fed = feed(&world, &server.address, "").await;
    let mut session = server.accept().await;
    // Queued before anybody knows what time it is.
    fed.write([1]).await;
    let begun = clock::now();
    let time = Some(clock::now().plus(DAY));
    session.answer(Welcome { success: true, time, ..Welcome::default() }).await;
    let Said::Readings { readings, .. } = session.next().await else { panic!() };
    fed.write([2]).await;
    let Said::Readings { readings: more, .. } = session.next().await else { panic!() };
    for reading in readings.iter().chain(&more) {
        let apart = reading.timestamp.0 - begun.plus(DAY).0;
        assert!(apart.abs() < 60_000, "{} of {begun}", reading.timestamp);
    }
    world.logged("the clock of this machine is wrong").await;
    drop(session);

    // A server that is right after all: the clock is let be.
    let mut session = server.accept().await;
    session.answer(Welcome { success: true, time: Some(clock::now()), ..Welcome::default() }).await;
    fed.write([3]).await;
    let last: UnixMillis = session.numbered(3).await.last().unwrap().1.timestamp;
    assert!(last.since(begun) < DAY / 2, "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_queue_goes_on_under_a_new_name() {
    let (world, server) = (World::new(), Server::start().await);
    let mut fed = feed(&world, &server.address, "").await;
    fed.write(1..=3).await;
    let mut session = server.accept().await;
    let copied = session.auth.queue.clone();
    session
        .answer(Welcome {
            error: Some(ErrorCode::Forbidden),
            message: Some("this queue belongs to another machine".into()),
            ..Welcome::default()
        })
        .await;
    let mut session = server.welcome(None).await;
    assert_ne!(session.auth.queue, copied);
    let mut heard = Heard::default();
    heard.until(&mut session, true, |heard| heard.numbered.len() == 3).await;
    heard.check(3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_gone_without_a_word_is_given_up_in_seconds() {
    let (world, server) = (World::new(), Server::start().await);
    let mut fed = feed(&world, &server.address, "").await;
    let mut silent = server.welcome(None).await;
    fed.write([1]).await;
    silent.numbered(1).await;
    // Nobody reads it any more, nor answers its pings.
    let mut session = timeout(Duration::from_secs(60), server.welcome(None)).await.unwrap();
    assert_eq!(session.numbered(1).await[0].0, 1);
    drop(silent);
}
