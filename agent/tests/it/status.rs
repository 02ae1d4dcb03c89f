//! `status`: what the running agent says of itself, and that its sums hold whatever happens.

use std::{os::unix::fs::PermissionsExt as _, time::Duration};

use rustix::process::Signal;
use serde_json::Value as Json;
use tokio::{
    net::UnixStream,
    time::{interval, timeout},
};
use valtronics_protocol::uplink::Welcome;

use crate::{
    server::{Said, Server, Session},
    world::{World, within},
};

/// A source that never ends, of which every rule holds something back.
const SOURCE: &str = "[queue]\nmax_bytes = \"256KiB\"\n\
    [[replay]]\nfile = \"lines\"\nname = \"a\"\nformat = \"kv\"\ninterval = \"1ms\"\nloop = true\n\
    skip = [\"fw\"]\ndeadband = { }\n";
const LINES: &str = "t=1 fw=7\nt=1 fw=7\n\u{fffd}\nboot\nt=2\nt=3\nt=4\n";

fn configure(world: &World, server: &str) {
    // Texts fill a queue soon that packs numbers into bits.
    let texts = ["a", "b"].map(|text| format!("note={}\n", text.repeat(200))).concat();
    world.write("lines", [LINES.as_bytes(), texts.as_bytes(), b"t=\xff\n"].concat());
    world.configure(server, &SOURCE.replace("deadband = { }", "deadband = 0.5"));
}

async fn ask(world: &World) -> Json {
    let output = world.ask(&["status", "--config", "gw.toml", "--json"], b"").await;
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(crate) fn number(json: &Json, name: &str) -> u64 {
    json[name].as_u64().unwrap_or_else(|| panic!("{name} of {json}"))
}

/// Adds up on our own what the agent says, and returns its totals.
fn balanced(report: &Json) -> &Json {
    let totals = &report["totals"];
    let of = |name| number(totals, name);
    let held_back: u64 = totals["held_back"].as_object().unwrap().values().map(as_u64).sum();
    assert_eq!(of("read"), of("queued") + held_back, "{report}");
    let kept = of("acknowledged") + of("evicted") + of("waiting");
    assert_eq!(of("carried_over") + of("queued"), kept, "{report}");
    let sources: u64 =
        report["sources"].as_object().unwrap().values().map(|s| number(s, "queued")).sum();
    assert_eq!(sources, of("queued"), "{report}");
    assert_eq!(report["balanced"], true);
    totals
}

fn as_u64(json: &Json) -> u64 {
    json.as_u64().unwrap()
}

/// Asks until a fact is true of the totals; every answer on the way has to balance.
pub(crate) async fn until(world: &World, what: &str, fact: impl Fn(&Json) -> bool) -> Json {
    let asking = async {
        let mut again = interval(Duration::from_millis(20));
        loop {
            again.tick().await;
            let report = ask(world).await;
            if fact(balanced(&report)) {
                return report;
            }
        }
    };
    within(what, asking).await
}

/// Acknowledges what comes until it is to stop, but for the last.
async fn serve(mut session: Session, readings: usize) -> (Session, u64) {
    let mut last = 0;
    for _ in 0..readings {
        for (seq, _) in session.numbered(1).await {
            last = seq;
        }
        session.ack(last).await;
    }
    session.numbered(1).await;
    (session, last)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sums_balance_under_faults() {
    let (world, server) = (World::new(), Server::start().await);
    configure(&world, &server.address);
    let agent = world.run();
    world.logged("started").await;
    // Nobody acknowledges: the queue fills until the oldest go.
    let session = server.welcome(None).await;
    let report = until(&world, "readings wait", |totals| number(totals, "waiting") > 100).await;
    assert_eq!(report["uplink"]["connected"], true, "{report}");
    let held_back = &report["totals"]["held_back"];
    assert!(number(held_back, "skip") > 0 && number(held_back, "deadband") > 0, "{report}");
    assert!(number(&report["totals"], "damaged") > 0, "{report}");
    assert!(!report["totals"]["oldest"].is_null(), "{report}");
    until(&world, "some are evicted", |totals| number(totals, "evicted") > 0).await;
    drop(session);
    let away = async {
        while ask(&world).await["uplink"]["connected"] == true {}
        ask(&world).await
    };
    let report = within("the agent notices", away).await;
    assert!(report["uplink"]["last_error"].is_string(), "{report}");
    assert!(report["uplink"]["next_try"].is_string(), "{report}");
    balanced(&report);

    // It comes back, acknowledges some, and goes again, more than once.
    let mut last = None;
    for _ in 0..3 {
        let (session, seq) = serve(server.welcome(last).await, 20).await;
        until(&world, "some are acknowledged", |totals| number(totals, "acknowledged") > 0).await;
        last = Some(seq);
        session.close(1001, "going away").await;
    }
    let report = until(&world, "some are sent again", |totals| number(totals, "sent_again") > 0);
    balanced(&report.await);

    // At the end it has reported the same sums to the server.
    let mut session = server.welcome(last).await;
    agent.signal(Signal::TERM);
    let told = async {
        loop {
            match session.next().await {
                Said::Readings { first, readings, .. } => {
                    session.commit(first + readings.len() as u64 - 1, u64::MAX).await;
                }
                Said::Gap(gap) => session.commit(gap.last, u64::MAX).await,
                Said::Preview(_) | Said::Status(_) | Said::Device(_) => {}
                Said::Gone(_) => return session.counters,
            }
        }
    };
    let told = within("the agent says goodbye", told).await.expect("it has reported");
    assert!(told.balance(), "{told:?}");
    assert_eq!((told.waiting, told.oldest), (0, None), "{told:?}");
    assert!(told.evicted > 0 && told.sent_again > 0, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_does_not_run_is_told() {
    let (world, server) = (World::new(), Server::start().await);
    configure(&world, &server.address);
    let refused = || async {
        let output = world.ask(&["status", "--config", "gw.toml"], b"").await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("no agent runs on"), "{said}");
        output.status.code()
    };
    assert_eq!(refused().await, Some(1));
    let mut agent = world.run();
    // To the end, so that it does not come back meanwhile.
    let session = server.welcome(None).await;
    agent.signal(Signal::KILL);
    agent.ended().await;
    drop(session);
    // Its socket is still there.
    assert!(world.path("data/status.sock").exists());
    assert_eq!(refused().await, Some(1));
    let _agent = world.run();
    let mut session = server.accept().await;
    session.answer(Welcome { success: true, ..Welcome::default() }).await;
    let output = world.ask(&["status", "--config", "gw.toml"], b"").await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("the sums balance"), "{output:?}");
    let mode = std::fs::metadata(world.path("data/status.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_not_read_keep_nobody_out() {
    let (world, server) = (World::new(), Server::start().await);
    configure(&world, &server.address);
    let agent = world.run();
    let _session = server.welcome(None).await;
    let mut idle = Vec::new();
    for _ in 0..50 {
        let path = world.path("data/status.sock");
        // What finds no place in the system's queue waits for one.
        match timeout(Duration::from_secs(1), UnixStream::connect(path)).await {
            Ok(connected) => idle.push(connected.unwrap()),
            Err(_) => break,
        }
    }
    balanced(&ask(&world).await);
    drop(idle);
    assert_eq!(agent.stop().await, Some(0));
}
