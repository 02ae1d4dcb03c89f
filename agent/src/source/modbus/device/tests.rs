use super::*;
use crate::{clock, normalize::Rules};

/// A device under test, and what it was asked.
struct Bench {
    device: Device,
    now: Instant,
    asked: Vec<(u16, u16)>,
}

impl Bench {
    fn new(lines: &[&str]) -> Self {
        let now = clock::monotonic();
        let config = DeviceConfig {
            unit: 7,
            name: "m".into(),
            every: Duration::from_secs(1),
            rules: Rules::default(),
            registers: lines.iter().map(|line| line.parse().unwrap()).collect(),
            is_sunspec: false,
        };
        Self { device: Device::new(&config, now), now, asked: Vec::new() }
    }

    /// Goes through the next round, and returns the names that had values, and what is said.
    fn round(&mut self, mut says: impl FnMut(Span) -> Said) -> (String, Option<String>) {
        self.asked.clear();
        self.now = self.now.max(self.device.due);
        self.device.begin(self.now);
        let mut names = String::new();
        while let Some(span) = self.device.next() {
            self.asked.push((span.first, span.count));
            let samples = self.device.take(says(span));
            names.extend(samples.iter().map(|sample| sample.metric.to_string()));
        }
        (names, self.device.finish(self.now))
    }

    /// Returns how long it is until the next round, in seconds.
    fn pause(&self) -> u64 {
        (self.device.due - self.now).as_secs()
    }
}

fn words(span: Span) -> Said {
    Said::Words((span.first..).take(span.count.into()).collect())
}

/// Two that are too far from each other to be asked together.
const TWO: [&str; 2] = ["a holding 0 u16", "b holding 100 u16"];

#[test]
fn a_dead_device_is_asked_ever_more_rarely() {
    let mut bench = Bench::new(&TWO);
    assert_eq!(bench.round(words), ("ab".into(), None));
    assert_eq!(bench.pause(), 1);
    assert_eq!(bench.round(|_| Said::Silence), (String::new(), None));
    let said = Some("No answer from unit 7".into());
    assert_eq!(bench.round(|_| Said::Silence), (String::new(), said.clone()));
    let mut pauses = Vec::new();
    for _ in 0..5 {
        assert_eq!(bench.round(|_| Said::Silence), (String::new(), None));
        assert_eq!(bench.asked.len(), 1, "one timeout a round");
        pauses.push(bench.pause());
    }
    assert_eq!(pauses, [5, 8, 16, 30, 30]);
    // Back, and gone again.
    assert_eq!(bench.round(words).0.len(), 2);
    assert_eq!(bench.pause(), 1);
    assert_eq!(bench.round(|_| Said::Noise), (String::new(), None));
    assert_eq!(bench.pause(), 5, "a late answer could still come");
    assert_eq!(bench.round(|_| Said::Silence), (String::new(), said));
}

#[test]
fn a_damaged_answer_is_asked_for_once_more() {
    let mut bench = Bench::new(&TWO);
    let mut damaged = 1;
    let heard = bench.round(|span| {
        damaged -= 1;
        if damaged >= 0 { Said::Damage } else { words(span) }
    });
    assert_eq!((heard, bench.asked.len()), (("ab".into(), None), 3));
    assert_eq!(bench.round(|_| Said::Damage), (String::new(), None));
    assert_eq!((bench.asked.len(), bench.pause()), (2, 1));
    let said = Some("Only damaged answers from unit 7".into());
    assert_eq!(bench.round(|_| Said::Damage), (String::new(), said));
}

#[test]
fn one_block_that_is_never_answered_costs_the_others_nothing() {
    for trouble in [|| Said::Silence, || Said::Refused(Exception(4))] {
        let mut bench = Bench::new(&["a holding 0 u16", "b holding 1 u16", "c holding 100 u16"]);
        let says = |span: Span| if span.first == 0 { trouble() } else { words(span) };
        let mut heard = String::new();
        for _ in 0..12 {
            let (names, said) = bench.round(says);
            assert_eq!(said, None);
            heard.push_str(&names);
        }
        // In its first round nothing was known of the others.
        assert!(heard.matches('c').count() >= 11, "{heard}");
        assert!(heard.contains('b'), "{heard}");
        bench.round(says);
        assert!(bench.asked.iter().all(|(first, _)| *first != 0), "a is left out");
    }
}

#[test]
fn a_device_that_refuses_everything_is_offline() {
    let mut bench = Bench::new(&TWO);
    let refuses = |_| Said::Refused(Exception(2));
    assert_eq!(bench.round(refuses), (String::new(), None));
    assert_eq!(bench.asked.len(), 2);
    let said = "Unit 7 answers with exception 2 (address not supported)".to_owned();
    assert_eq!(bench.round(refuses), (String::new(), Some(said)));
    assert_eq!(bench.asked, []);
    // After a minute it may have started.
    let mut rounds = 0;
    while bench.round(words).0.is_empty() {
        rounds += 1;
        assert!(rounds < 100);
    }
    assert_eq!(bench.asked, [(0, 1), (100, 1)]);
    assert_eq!(bench.round(words), ("ab".into(), None));
}

#[test]
fn a_gateways_exception_is_silence() {
    let mut bench = Bench::new(&TWO);
    let silent = |_| Said::Refused(Exception(11));
    assert_eq!(bench.round(silent).1, None);
    assert_eq!(bench.asked.len(), 1);
    let said = "No answer from unit 7: exception 11 (gateway got no answer)".to_owned();
    assert_eq!(bench.round(silent).1, Some(said));
    assert_eq!(bench.pause(), 2, "it is the gateway that waits for late answers");
}
