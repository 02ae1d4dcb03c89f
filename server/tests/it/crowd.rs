//! A crowd of subscribers, one of whom stops reading: the others notice nothing, the server keeps no
//! more than the limit for him, and he gets what counts when he reads again.
//!
//! With a thousand for a minute it takes minutes, and its times mean something only on a machine that
//! does nothing else:
//! `cargo test -p valtronics-server --test it crowd -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use valtronics_server::{clock, listen::raise_descriptor_limit};

use crate::{
    server::{Client, DEADLINE, Server},
    slow::Got,
};

/// How often the server gets a reading for everybody, and much more for who reads everything.
const BEAT: Duration = Duration::from_millis(100);
/// Every so many beats there is an alert.
const BEATS_PER_ALERT: u64 = 10;
/// How many come in at once.
const AT_ONCE: usize = 20;

struct Crowd {
    readers: usize,
    /// How long one sleeps, and how long it is watched before and after.
    window: Duration,
    /// What may wait for him.
    queue_bytes: usize,
    /// What he gets each beat: in the window more than may wait and the systems hold.
    kilobytes: usize,
}

/// What everybody else saw of the times before, while and after one slept.
struct Seen {
    /// From the agent's socket to a subscriber's.
    delays: [Vec<Duration>; 3],
    /// The most memory that the server took.
    resident_bytes: [usize; 3],
}

impl Crowd {
    /// The window to which a moment belongs; the last one has no end.
    fn window_of(&self, at: Duration) -> usize {
        ((at.as_nanos() / self.window.as_nanos()) as usize).min(2)
    }

    async fn watch(&self) -> Seen {
        raise_descriptor_limit();
        let server = Server::with(&format!(
            "[limits]\nconnections = 10000\nconnections_per_user = 10000\n\
             connects_per_minute = 10000\nhandshakes_per_minute_per_address = 10000\n\
             queue_bytes = {}",
            self.queue_bytes
        ))
        .await;
        let mut agent = server.agent("site", None).await;
        let clients = self.enter(&server, &mut agent).await;
        let mut asleep = server.narrow_subscriber().await;
        for channel in ["telemetry", "alerts"] {
            asleep.subscribe(channel).await;
        }
        let (begun, mut readers) = (clock::instant(), JoinSet::new());
        for client in clients {
            readers.spawn(read(client, begun));
        }
        let window = self.window;
        let mut sleeper = JoinSet::new();
        sleeper.spawn(async move { fall_asleep(asleep, begun, window).await });
        let (produced, alerts, resident_bytes) = self.send(&server, &mut agent, begun).await;

        let mut delays = [const { Vec::new() }; 3];
        while let Some(seen) = readers.join_next().await {
            for (sent, delay) in seen.unwrap() {
                delays[self.window_of(sent)].push(delay);
            }
        }
        let (mut asleep, mut got) = sleeper.join_next().await.unwrap().unwrap();
        got.read_until(&mut asleep, |got| {
            got.updates + got.dropped == produced && got.alerts.len() as u64 == alerts
        })
        .await;
        asleep.expect_silence().await;
        println!("he missed {} of {produced} updates, and none of {alerts} alerts", got.dropped);
        assert!(got.dropped > 0, "he is told that he missed something");
        assert!(got.alerts.iter().copied().eq(1..=alerts), "{:?}", got.alerts);
        Seen { delays, resident_bytes }
    }

    /// Has everybody come in, and every device come into being.
    async fn enter(&self, server: &Server, agent: &mut Client) -> Vec<Client> {
        for (seq, device) in (1..).zip(["clock", "bulk"]) {
            agent.readings(seq, device, json!([{"metric": "begin", "value": 0}])).await;
        }
        let admin = server.token("ops", Some("admin"), None).await;
        let rule = r#"{"metric":"odd","kind":"threshold","above":1}"#;
        assert_eq!(server.http("PUT", "/api/v1/rules/odd", &admin, rule).await.0, 200);
        let beats = 3 * self.window.as_millis() / BEAT.as_millis() + 10;
        for number in 0..=beats as u64 / BEATS_PER_ALERT {
            let calm = json!([{"metric": "odd", "value": 0}]);
            agent.readings(10 + number, &format!("odd{number}"), calm).await;
        }
        let mut clients = Vec::new();
        while clients.len() < self.readers {
            let entering = (0..AT_ONCE.min(self.readers - clients.len())).map(async |_| {
                let mut client = server.connect("/ws").await;
                client.authenticate(&admin).await;
                let clock = json!({"type": "subscribe", "channel": "telemetry", "device_id": 1,
                    "snapshot": false});
                assert_eq!(client.ask(clock).await["success"], true);
                client.subscribe("alerts").await;
                client
            });
            clients.extend(futures_util::future::join_all(entering).await);
        }
        clients
    }

    /// Sends at a steady rate for three windows; returns how many updates and alerts that made, and
    /// what memory the server took in each.
    async fn send(
        &self,
        server: &Server,
        agent: &mut Client,
        begun: Instant,
    ) -> (u64, u64, [usize; 3]) {
        let (mut produced, mut alerts, mut resident_bytes) = (0, 0, [0; 3]);
        let mut beat = interval(BEAT);
        // What a busy machine was late with is not made up for.
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let text = |at| json!({"metric": format!("text{at}"), "value": "x".repeat(1000)});
        let texts: Vec<Json> = (0..self.kilobytes).map(text).collect();
        for number in 1_u64.. {
            beat.tick().await;
            let now = begun.elapsed();
            let is_last = now >= 3 * self.window;
            let sent = now.as_micros() as u64;
            let metric = if is_last { "end" } else { "sent" };
            let mut bulk = texts.clone();
            bulk.push(json!({"metric": "number", "value": number}));
            let mut messages = vec![
                ("clock".to_owned(), json!([{"metric": metric, "value": sent}])),
                ("bulk".to_owned(), json!(bulk)),
            ];
            if number % BEATS_PER_ALERT == 0 {
                alerts += 1;
                messages.push((format!("odd{alerts}"), json!([{"metric": "odd", "value": 2}])));
                let most = &mut resident_bytes[self.window_of(now)];
                *most = server.resident_bytes().max(*most);
            }
            for (device, readings) in messages {
                produced += 1;
                agent
                    .send(json!({"type": "readings", "device": device, "readings": readings}))
                    .await;
            }
            if is_last {
                break;
            }
        }
        (produced, alerts, resident_bytes)
    }
}

/// Reads to the end; returns when each reading was sent, and how long it took.
async fn read(mut client: Client, begun: Instant) -> Vec<(Duration, Duration)> {
    let mut seen = Vec::new();
    loop {
        let text = client.next_text().await;
        let now = begun.elapsed();
        if text.contains(r#"{"end":"#) {
            return seen;
        }
        // Reading the whole as JSON would take more time than is to be measured.
        if let Some((_, sent)) = text.split_once(r#"{"sent":{"value":"#) {
            let sent = sent.split(',').next().unwrap().parse().unwrap();
            let sent = Duration::from_micros(sent);
            seen.push((sent, now.saturating_sub(sent)));
        }
    }
}

/// Reads everything, but nothing for the second of the windows.
async fn fall_asleep(mut client: Client, begun: Instant, window: Duration) -> (Client, Got) {
    let mut got = Got::default();
    while begun.elapsed() < window {
        let next = timeout(DEADLINE, client.next()).await.expect("there is something each beat");
        got.take(&next);
    }
    // A sign of life, or the silence that ends a connection would have begun at the last ping.
    client.send_frame(Message::Ping("".into())).await;
    sleep(window).await;
    let end = (1, "end".to_owned());
    got.read_until(&mut client, |got| got.newest.contains_key(&end)).await;
    (client, got)
}

fn p99(delays: &mut [Duration]) -> Duration {
    delays.sort_unstable();
    delays.get(delays.len() * 99 / 100).copied().unwrap_or_default()
}

/// What the server may need more while one sleeps, for other reasons than him.
const SOME_MEMORY: usize = 4 * 1024 * 1024;

fn check(crowd: &Crowd, mut seen: Seen) -> [Duration; 3] {
    let p99s = std::array::from_fn(|at| p99(&mut seen.delays[at]));
    println!("p99 before, while and after: {p99s:?}; memory {:?}", seen.resident_bytes);
    let [before, while_asleep, _] = seen.resident_bytes;
    let grown = while_asleep.saturating_sub(before);
    assert!(grown < crowd.queue_bytes + SOME_MEMORY, "{grown} bytes for one who sleeps");
    p99s
}

#[tokio::test]
async fn one_who_sleeps_gets_what_counts() {
    let crowd = Crowd {
        readers: 20,
        window: Duration::from_secs(2),
        queue_bytes: 32 * 1024,
        kilobytes: 32,
    };
    check(&crowd, crowd.watch().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes four minutes"]
async fn of_a_thousand_one_sleeps_for_a_minute_and_nobody_notices() {
    let crowd = Crowd {
        readers: 999,
        window: Duration::from_secs(60),
        queue_bytes: 1024 * 1024,
        kilobytes: 4,
    };
    let [before, while_asleep, after] = check(&crowd, crowd.watch().await);
    let usual = before.max(after);
    assert!(while_asleep < usual * 3 / 2 + BEAT / 10, "{while_asleep:?}, usually {usual:?}");
}
