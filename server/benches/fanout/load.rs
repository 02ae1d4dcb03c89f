//! The load: one thread that publishes, and reads what comes of it as cheaply as it can.
//!
//! Every message carries the moment it was sent, in microseconds, as the value of its one metric.
//! Of a frame the load looks at its length and at that number, nothing else.

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
};

use crate::process::Process;

/// How many messages go out at once when the window has room: one write of the publisher's.
pub(crate) const BURST: usize = 16;
/// How many messages may be under way: enough that neither side ever waits for the other, and
/// little enough to fit into every buffer on the way.
const WINDOW: u64 = 4 * BURST as u64;
/// What is added to each moment, so that all of them have ten digits and all frames one length.
pub(crate) const FIRST_MOMENT: u64 = 1_000_000_000;
/// What stands before a moment.
const MARK: &[u8] = b"\"value\":";
/// How long a run waits for what is under way at its end; what was merged away never comes.
const SETTLE: Duration = Duration::from_secs(1);
/// How much is read at once: whatever a socket is likely to hold.
const READ_BYTES: usize = 64 * 1024;

/// When messages go out.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// One in each period, whatever comes of them: what is late counts from when it was due.
    Every(Duration),
    /// As soon as less than [`WINDOW`] are under way.
    Window,
}

/// Makes the frame of the so-and-so-many-th message, sent at this moment.
pub(crate) type MakeFrame = Box<dyn Fn(u64, u64) -> Vec<u8>>;

/// A publisher and its subscribers.
pub(crate) struct Load {
    uplink: TcpStream,
    subscribers: Vec<Subscriber>,
    ready: OwnedFd,
    space: Vec<u8>,
    frame: MakeFrame,
    /// How many subscribers get a message.
    reach: u64,
    published: u64,
    delivered: u64,
    begin: Instant,
}

struct Subscriber {
    stream: TcpStream,
    /// The begin of a frame whose end has not come yet.
    rest: Vec<u8>,
}

/// What a run came to.
pub(crate) struct Run {
    /// How long each delivery took, in microseconds, sorted.
    took: Vec<u32>,
    seconds: f64,
    cpu: f64,
    /// How much of a processor the load itself took.
    pub loader: f64,
}

impl Load {
    /// Makes a load of sockets whose handshakes are done.
    pub(crate) fn new(
        uplink: TcpStream,
        subscribers: Vec<TcpStream>,
        reach: u64,
        frame: MakeFrame,
    ) -> Self {
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC).expect("there are descriptors");
        for (at, stream) in (0..).zip(&subscribers) {
            let data = epoll::EventData::new_u64(at);
            epoll::add(&ready, stream, data, epoll::EventFlags::IN).expect("it is a socket");
        }
        let subscriber = |stream| Subscriber { stream, rest: Vec::new() };
        let subscribers = subscribers.into_iter().map(subscriber).collect();
        let (space, begin) = (vec![0; READ_BYTES], now());
        Self { uplink, subscribers, ready, space, frame, reach, published: 0, delivered: 0, begin }
    }

    /// Publishes for a period; what is still under way at its end does not count.
    pub(crate) fn run(&mut self, pace: Pace, period: Duration, server: &Process) -> Run {
        let loader = Process::this_thread();
        let (cpu_before, loader_before) = (server.cpu(), loader.cpu());
        let (begin, mut took) = (now(), Vec::new());
        let (mut due, mut at) = (begin, begin);
        while at < begin + period {
            let wait = match pace {
                Pace::Every(gap) => {
                    while due <= at {
                        self.publish(1, due);
                        due += gap;
                    }
                    due - at
                }
                Pace::Window => {
                    if self.under_way() <= (WINDOW - BURST as u64) * self.reach {
                        self.publish(BURST, at);
                    }
                    period
                }
            };
            self.read(wait, &mut took);
            at = now();
        }
        let seconds = (at - begin).as_secs_f64();
        let loader = (loader.cpu() - loader_before) / seconds;
        let cpu = server.cpu() - cpu_before;
        self.settle(at + SETTLE);
        took.sort_unstable();
        Run { took, seconds, cpu, loader }
    }

    /// Reads what is under way, so that it weighs on no later run.
    fn settle(&mut self, until: Instant) {
        let mut at = now();
        while self.under_way() > 0 && at < until {
            self.read(until - at, &mut Vec::new());
            at = now();
        }
    }

    /// Returns how many deliveries are still to come.
    fn under_way(&self) -> u64 {
        (self.published * self.reach).saturating_sub(self.delivered)
    }

    fn publish(&mut self, count: usize, at: Instant) {
        let moment = self.moment(at);
        let numbers = (self.published..).take(count);
        let frames: Vec<u8> = numbers.flat_map(|n| (self.frame)(n, moment)).collect();
        self.uplink.write_all(&frames).expect("the other side reads");
        self.published += count as u64;
    }

    /// Waits for deliveries and reads what is there.
    fn read(&mut self, wait: Duration, took: &mut Vec<u32>) {
        let wait = Timespec::try_from(wait).expect("seconds are few");
        let mut events = Vec::with_capacity(self.subscribers.len());
        let waited = epoll::wait(&self.ready, spare_capacity(&mut events), Some(&wait));
        waited.expect("nothing interrupts");
        for event in events {
            let at = usize::try_from({ event.data }.u64()).unwrap_or(usize::MAX);
            let moment = self.moment(now());
            let Some(subscriber) = self.subscribers.get_mut(at) else { continue };
            let count = subscriber.stream.read(&mut self.space).expect("the connection lasts");
            assert!(count > 0, "the server stays");
            let before = took.len();
            subscriber.take(self.space.get(..count).unwrap_or_default(), |sent| {
                took.push(u32::try_from(moment.saturating_sub(sent)).unwrap_or(u32::MAX));
            });
            self.delivered += (took.len() - before) as u64;
        }
    }

    fn moment(&self, at: Instant) -> u64 {
        FIRST_MOMENT + u64::try_from((at - self.begin).as_micros()).unwrap_or(u64::MAX)
    }
}

impl Subscriber {
    /// Takes in bytes and tells when each message in them was sent.
    fn take(&mut self, bytes: &[u8], mut delivered: impl FnMut(u64)) {
        let joined = (!self.rest.is_empty()).then(|| [self.rest.as_slice(), bytes].concat());
        let mut bytes = joined.as_deref().unwrap_or(bytes);
        while let Some((frame, rest)) = split_frame(bytes) {
            if let Some(digits) = find_moment(frame).and_then(|at| frame.get(at..at + 10)) {
                delivered(digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')));
            }
            bytes = rest;
        }
        self.rest = bytes.to_vec();
    }
}

/// Splits the first frame of a server off, header and all (RFC 6455, section 5.2).
fn split_frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let [_, short, long @ ..] = bytes else { return None };
    let length = match short {
        127 => 10 + usize::try_from(u64::from_be_bytes(*long.first_chunk()?)).ok()?,
        126 => 4 + usize::from(u16::from_be_bytes(*long.first_chunk()?)),
        short => 2 + usize::from(*short),
    };
    bytes.split_at_checked(length)
}

fn find_moment(frame: &[u8]) -> Option<usize> {
    Some(frame.windows(MARK.len()).position(|window| window == MARK)? + MARK.len())
}

/// Makes frames that differ from this one in their moment only.
pub(crate) fn restamp(frame: &[u8]) -> MakeFrame {
    let at = find_moment(frame).expect("it holds a moment");
    let (head, tail) = frame.split_at(at);
    let (head, tail) = (head.to_vec(), tail.get(10..).unwrap_or_default().to_vec());
    Box::new(move |_, sent| [&head, sent.to_string().as_bytes(), &tail].concat())
}

impl Run {
    pub(crate) fn deliveries_per_second(&self) -> f64 {
        self.took.len() as f64 / self.seconds
    }

    /// Returns the other side's processor time, in seconds, for a million deliveries.
    pub(crate) fn cpu_per_million(&self) -> f64 {
        self.cpu / self.took.len() as f64 * 1e6
    }

    /// Returns within how many milliseconds so many of 100 deliveries came.
    pub(crate) fn took_ms(&self, percent: usize) -> f64 {
        let index = (self.took.len() * percent / 100).min(self.took.len().saturating_sub(1));
        f64::from(self.took.get(index).copied().unwrap_or_default()) / 1000.0
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn now() -> Instant {
    Instant::now()
}
