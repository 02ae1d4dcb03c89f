//! The queue against a model, through random work and power cuts at any byte.

use super::*;

/// A generator that a seed repeats (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }
}

/// What must be there: everything that waits, and how far it is durable.
#[derive(Default)]
struct Model {
    waiting: Vec<(u64, i64)>,
    events: Vec<u64>,
    safe: u64,
    safe_event: u64,
    given: u64,
    next_value: i64,
}

struct Run {
    bench: Bench,
    queue: Option<Queue>,
    model: Model,
    random: Random,
}

impl Run {
    fn queue(&mut self) -> &mut Queue {
        self.queue.as_mut().unwrap()
    }

    fn append(&mut self) {
        let count = 1 + self.random.below(400) as i64;
        let values = self.model.next_value..self.model.next_value + count;
        self.model.next_value += count;
        let last = self.queue().append(UnixMillis(START), values.clone().map(reading));
        let first = last + 1 - count as u64;
        assert!(first > self.model.given, "a number is given twice");
        self.model.given = last;
        self.model.waiting.extend((first..).zip(values));
    }

    fn append_event(&mut self) {
        self.queue().append_event(event("a"));
        let seq = self.queue().end().event;
        self.model.events.push(seq);
    }

    fn save(&mut self) {
        let cursor = self.random.below(3) == 0;
        let job = self.queue().job(cursor, None).unwrap();
        self.queue().finish(job.run());
        self.note_safe();
    }

    fn note_safe(&mut self) {
        let queue = self.queue.as_ref().unwrap();
        if queue.counters().unsaved == 0 {
            self.model.safe = self.model.given;
        }
        if !queue.has_unsaved_events() {
            self.model.safe_event = self.model.events.last().copied().unwrap_or(0);
        }
    }

    fn release(&mut self) {
        let Some(at) = self.model.waiting.len().checked_sub(1) else { return };
        let (seq, _) = self.model.waiting[self.random.below(at + 1)];
        self.queue().release(Some(seq), None);
        self.model.waiting.retain(|(number, _)| *number > seq);
    }

    /// What was evicted is told, and nothing else is missing.
    fn check(&mut self) {
        let gaps = read(self.queue(), Position::default(), ALL).gaps;
        let is_lost = |number: u64| gaps.iter().any(|gap| (gap.first..=gap.last).contains(&number));
        self.model.waiting.retain(|(number, _)| !is_lost(*number));
        let expected = self.model.waiting.clone();
        assert_eq!(read_all(self.queue(), 0), expected);
        let counters = self.queue().counters();
        assert_eq!(counters.waiting, expected.len() as u64);
        assert_eq!(counters.queued, counters.acknowledged + counters.evicted + counters.waiting);
    }

    fn crash(&mut self) {
        let released = self.queue().released()[0];
        self.queue = None;
        let random = &mut self.random;
        self.bench.faults.cut_power(|length| random.below(length + 1));
        self.bench.faults.fail_syncs(0);
        self.queue = Some(self.bench.open());
        let resumed = self.queue().resume(Some(released), None);
        assert!(resumed.is_some(), "numbers that were given are known");
        // What was not yet durable may have come through whole, or not.
        let found = read_all(self.queue(), 0);
        let last = found.last().map_or(0, |(number, _)| *number);
        let safe = self.model.safe;
        self.model.waiting.retain(|(number, _)| *number <= safe.max(last));
        let events: Vec<u64> = events(self.queue()).into_iter().map(|(seq, _)| seq).collect();
        let safe = self.model.safe_event;
        assert!(self.model.events.starts_with(&events));
        assert!(events.last().copied().unwrap_or(0) >= safe);
        self.model.events = events;
        self.check();
        self.note_safe();
    }
}

fn run(seed: u64) {
    println!("seed {seed}");
    let (bench, mut random) = (Bench::new(), Random(seed));
    random.below(1);
    let queue = Some(bench.open());
    let mut run = Run { bench, queue, model: Model::default(), random };
    for _ in 0..120 {
        match run.random.below(12) {
            0..=4 => run.append(),
            5 => run.append_event(),
            6 | 7 => run.save(),
            8 => run.release(),
            9 => run.check(),
            10 => {
                let count = run.random.below(3) as u32;
                run.bench.faults.fail_syncs(count);
            }
            _ => run.crash(),
        }
    }
    run.crash();
}

#[test]
fn nothing_durable_is_lost_and_no_number_is_given_twice() {
    for seed in 1..=30 {
        run(seed);
    }
}
