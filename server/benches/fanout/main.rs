//! What one more subscriber costs: one publisher, many subscribers, the real server.
//!
//! `cargo bench -p valtronics-server --bench fanout -- [SUBSCRIBERS [DEVICES]]`, by default 200 and
//! 1,000. In the same run stands a floor: a bare loop that writes the same bytes to as many sockets,
//! one frame a write (`send`) or 16 (`batch16`). What is to be read are ratios: `by send` and `by 16`
//! are the server's processor time for a delivery by the floor's (for `send` at the same pace), and
//! the p99 of `stalled`, where one more subscriber does not read, stands beside that of `rate`. All
//! else is the machine's. The load shares its processors: near 100 in `loader %`, deliveries a second
//! are the load's. At the flat pace a window is always under way, so its latency is the window's.
//! `merged` counts what the server merged away: in `stalled` it shows that it had to.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

mod floor;
mod load;
mod process;
mod server;

use load::{Load, Pace, Run};
use server::Server;

/// One message every 10 ms.
const RATE: Pace = Pace::Every(Duration::from_millis(10));
/// As fast as subscribers take it.
const FLAT: Pace = Pace::Window;
/// What is not measured: names come into being, buffers grow, and a stalled subscriber's fill.
const WARM_UP: Duration = Duration::from_secs(2);
/// What is: 500 messages at [`RATE`], 5 of which make up the slowest hundredth.
const MEASURED: Duration = Duration::from_secs(5);
/// How many devices a subscriber picks, where he does.
const PICKED: u64 = 50;

const SCENARIOS: [Scenario; 4] = [
    Scenario { name: "rate", pace: RATE, picked: None, stalled: 0 },
    Scenario { name: "stalled", pace: RATE, picked: None, stalled: 1 },
    Scenario { name: "flat", pace: FLAT, picked: None, stalled: 0 },
    Scenario { name: "filtered", pace: FLAT, picked: Some(PICKED), stalled: 0 },
];

struct Scenario {
    name: &'static str,
    pace: Pace,
    /// How many devices each subscriber is on; none: all.
    picked: Option<u64>,
    /// How many subscribers there are besides, who do not read.
    stalled: usize,
}

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let subscribers = numbers.next().unwrap_or(200);
    let devices = numbers.next().unwrap_or(1000);
    assert!(
        PICKED <= devices && (subscribers * PICKED).is_multiple_of(devices),
        "each device is to have as many subscribers: devices divide {PICKED} times subscribers"
    );
    raise_limit();
    let frame = Server::start(subscribers, devices).frame();
    println!("{subscribers} subscribers, {devices} devices, frames of {} bytes", frame.len());
    println!("{:<13}{FIGURES} {COMPARED}", "");
    let floor = |name, pace, batch| measure_floor(name, pace, subscribers, &frame, batch);
    let bench = Bench {
        subscribers,
        devices,
        paced: floor("floor, paced", RATE, 1),
        send: floor("floor send", FLAT, 1),
        batch16: floor("floor batch16", FLAT, load::BURST),
    };
    for scenario in &SCENARIOS {
        bench.measure(scenario);
    }
}

/// Measures the floor; returns the processor time of a million deliveries.
fn measure_floor(name: &str, pace: Pace, subscribers: u64, frame: &[u8], batch: usize) -> f64 {
    let floor = floor::start(subscribers, frame.len(), batch);
    let mut load = Load::new(floor.uplink, floor.subscribers, subscribers, load::restamp(frame));
    load.run(FLAT, WARM_UP / 4, &floor.thread);
    let run = load.run(pace, MEASURED / 2, &floor.thread);
    println!("{name:<13}{}", figures(&run));
    run.cpu_per_million()
}

/// What is the same in all scenarios.
struct Bench {
    subscribers: u64,
    devices: u64,
    /// The processor time of the floor's million deliveries: one a write at [`RATE`] and at
    /// [`FLAT`], 16 a write.
    paced: f64,
    send: f64,
    batch16: f64,
}

impl Bench {
    fn measure(&self, &Scenario { name, pace, picked, stalled }: &Scenario) {
        let Self { subscribers, devices, .. } = *self;
        let server = Server::start(subscribers, devices);
        let uplink = server.uplink();
        let streams = (0..subscribers).map(|nth| match picked {
            None => server.subscriber(&[]),
            Some(count) => {
                let ids = (nth * count..(nth + 1) * count).map(|n| n % devices + 1);
                server.subscriber(&ids.collect::<Vec<_>>())
            }
        });
        let reach = subscribers * picked.unwrap_or(devices) / devices;
        let message = move |n: u64, sent| server::message(n % devices, sent);
        let mut load = Load::new(uplink, streams.collect(), reach, Box::new(message));
        let _unread: Vec<_> = (0..stalled).map(|_| server.stalled_subscriber()).collect();
        load.run(FLAT, WARM_UP, &server.process);
        let run = load.run(pace, MEASURED, &server.process);
        let send = match pace {
            Pace::Every(_) => self.paced,
            Pace::Window => self.send,
        };
        let [by_send, by_batch16] = [send, self.batch16].map(|floor| run.cpu_per_million() / floor);
        let (rss, merged) = (server.process.rss_mib(), server.merged());
        let figures = figures(&run);
        println!("{name:<13}{figures} {by_send:>8.2} {by_batch16:>8.2} {rss:>8} {merged:>7}");
    }
}

const FIGURES: &str = " deliveries/s   p50 ms   p99 ms  loader %  CPU s/mill.";
const COMPARED: &str = "  by send    by 16  RSS MiB  merged";

fn figures(run: &Run) -> String {
    let (per_second, cpu) = (run.deliveries_per_second(), run.cpu_per_million());
    let (p50, p99, loader) = (run.took_ms(50), run.took_ms(99), run.loader * 100.0);
    format!(" {per_second:>12.0} {p50:>8.2} {p99:>8.2} {loader:>9.0} {cpu:>12.2}")
}

/// Takes as many descriptors as this process may have: the floor needs two for each subscriber.
fn raise_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    raised.expect("nobody forbids what is allowed");
}
