//! The uplink: servers that come and go, refuse, and forget to acknowledge.

use std::{ops::RangeInclusive, time::Duration};

use rustix::process::Signal;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    time::timeout,
};
use valtronics_protocol::{
    time::UnixMillis,
    uplink::{ServerMessage, Welcome},
    value::Value,
};

use crate::{
    server::{Said, Server, Session},
    world::{Agent, World, within},
};

/// An agent that reads lines which the test writes.
struct Fed {
    agent: Agent,
    lines: TcpStream,
    session: Session,
}

async fn fed(world: &World, server: &Server, welcome: Welcome) -> Fed {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serial = format!("[[serial]]\nport = \"tcp://{address}\"\nname = \"a\"\nformat = \"kv\"\n");
    world.configure(&server.address, &serial);
    let agent = world.run();
    let mut session = server.accept().await;
    session.answer(Welcome { success: true, ..welcome }).await;
    let (lines, _) = within("the agent reads", listener.accept()).await.unwrap();
    Fed { agent, lines, session }
}

impl Fed {
    /// Sends lines `t=1` and so on: values that equal the numbers.
    async fn feed(&mut self, range: RangeInclusive<i64>) {
        let lines: String = range.map(|value| format!("t={value}\n")).collect();
        self.lines.write_all(lines.as_bytes()).await.unwrap();
    }
}

/// Reads values that equal their numbers.
async fn check(session: &mut Session, range: RangeInclusive<i64>) {
    let expected: Vec<(u64, Value)> =
        range.map(|value| (u64::try_from(value).unwrap(), Value::Int(value))).collect();
    let found = session.numbered(expected.len()).await;
    let found: Vec<(u64, Value)> =
        found.into_iter().map(|(seq, reading)| (seq, reading.value)).collect();
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_is_sent_again() {
    let (world, server) = (World::new(), Server::start().await);
    let mut fed = fed(&world, &server, Welcome::default()).await;
    fed.feed(1..=4).await;
    check(&mut fed.session, 1..=4).await;
    fed.session.ack(2).await;
    let queue = fed.session.auth.queue.clone();
    let address = server.address.clone();
    let Fed { agent, mut lines, session } = fed;
    drop((session, server));
    lines.write_all(b"t=5\n").await.unwrap();

    let server = Server::start_at(&address).await;
    let mut session = server.welcome(Some(3)).await;
    assert_eq!(session.auth.queue, queue);
    check(&mut session, 4..=5).await;
    session.ack(5).await;
    assert_eq!(agent.stop().await, Some(0));
}

/// What came until the window let no more through.
#[derive(Debug, Default)]
struct Filled {
    last: u64,
    bytes: usize,
    event: u64,
}

async fn fill(session: &mut Session) -> Filled {
    let mut filled = Filled::default();
    while let Ok(said) = timeout(Duration::from_millis(300), session.next()).await {
        match said {
            Said::Readings { first, readings, bytes, .. } => {
                filled.last = first + readings.len() as u64 - 1;
                filled.bytes += bytes;
            }
            Said::Status(event) => filled.event = event.seq,
            Said::Device(_) | Said::Preview(_) | Said::Gap(_) => {}
            Said::Gone(code) => panic!("gone: {code:?}"),
        }
    }
    filled
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_under_way_than_the_window_admits() {
    let (world, server) = (World::new(), Server::start().await);
    let welcome = Welcome { window: Some(400), ..Welcome::default() };
    let mut fed = fed(&world, &server, welcome).await;
    fed.feed(1..=500).await;
    let mut rounds = 0;
    loop {
        let Filled { last, bytes, .. } = fill(&mut fed.session).await;
        assert!((1..=400).contains(&bytes), "{bytes} bytes after {rounds} rounds");
        if last == 500 {
            break;
        }
        rounds += 1;
        fed.session.ack(last).await;
    }
    assert!(rounds > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_agent_sends_what_it_has() {
    let (world, server) = (World::new(), Server::start().await);
    let welcome = Welcome { window: Some(400), ..Welcome::default() };
    let mut fed = fed(&world, &server, welcome).await;
    fed.feed(1..=500).await;
    // The port's end comes after all that was read from it.
    drop(fed.lines);
    let Filled { mut last, mut event, .. } = fill(&mut fed.session).await;
    assert_eq!((last < 500, event > 0), (true, true));
    fed.agent.signal(Signal::TERM);
    let code = loop {
        fed.session.commit(last, event).await;
        match fed.session.next().await {
            Said::Readings { first, readings, .. } => last = first + readings.len() as u64 - 1,
            Said::Status(status) => event = status.seq,
            Said::Gone(code) => break code,
            Said::Device(_) | Said::Preview(_) | Said::Gap(_) => {}
        }
    };
    assert_eq!((last, code), (500, Some(1000)));
    assert_eq!(fed.agent.ended().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_numbering_that_is_taken_is_given_up() {
    let (world, server) = (World::new(), Server::start().await);
    let mut fed = fed(&world, &server, Welcome::default()).await;
    fed.feed(1..=3).await;
    check(&mut fed.session, 1..=3).await;
    let taken = fed.session.auth.queue.clone();
    fed.session.close(4403, "another connection uses this queue").await;
    let mut session = server.welcome(None).await;
    assert_ne!(session.auth.queue, taken);
    check(&mut session, 1..=3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_token_is_read_when_the_old_one_expires() {
    let (world, server) = (World::new(), Server::start().await);
    let mut fed = fed(&world, &server, Welcome::default()).await;
    world.write("token", "a-new-token");
    let expires_at = UnixMillis(1_800_000_000_000);
    fed.session.say(&ServerMessage::AuthExpiring { expires_at }).await;
    while fed.session.auth.token != "a-new-token" {
        fed.feed(1..=1).await;
        fed.session.next().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_said_and_not_shown() {
    let (world, server) = (World::new(), Server::start().await);
    world.configure(&server.address, "[host]\n");
    let agent = world.run();
    server.accept().await.close(4401, "expired").await;
    world.logged("the server refuses the token: expired").await;
    assert_eq!(agent.stop().await, Some(0));
    assert!(!world.log().contains("a-token"), "{}", world.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_the_connection_and_a_bad_file_changes_nothing() {
    let (world, server) = (World::new(), Server::start().await);
    let mut fed = fed(&world, &server, Welcome::default()).await;
    fed.feed(1..=1).await;
    check(&mut fed.session, 1..=1).await;
    let good = std::fs::read_to_string(world.path("gw.toml")).unwrap();
    world.write("gw.toml", good.replace("port =", "prot ="));
    fed.agent.signal(Signal::HUP);
    world.logged("did you mean `port`?").await;
    fed.feed(2..=2).await;
    check(&mut fed.session, 2..=2).await;

    let recorded = world.write("recorded", "t=3\n");
    let replay = format!("[[replay]]\nfile = {recorded:?}\noffline_after = \"5m\"\n");
    let uplink = good.split("[[serial]]").next().unwrap();
    world.write("gw.toml", format!("{uplink}{replay}"));
    fed.agent.signal(Signal::HUP);
    let said = fed.session.next().await;
    let Said::Device(info) = said else { panic!("{said:?}") };
    assert_eq!(info.device, "recorded");
    assert_eq!(info.offline_after, Some(Duration::from_secs(300)));
    check(&mut fed.session, 3..=3).await;
}
