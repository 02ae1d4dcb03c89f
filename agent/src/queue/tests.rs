use std::path::PathBuf;

use tempfile::TempDir;
use valtronics_protocol::{
    event::Status,
    reading::TimeSource,
    uplink::{GapReason, Loss},
    value::Value,
};

use super::{faults::Faults, *};

mod damage;
mod model;

pub(super) const ALL: Limits =
    Limits { readings: 1000, bytes: usize::MAX, live_since: UnixMillis(0), passed: 0 };
const START: i64 = 1_767_225_600_000;

pub(super) fn reading(value: i64) -> Reading {
    Reading {
        device: Arc::from("boiler"),
        metric: Arc::from("temperature"),
        value: Value::Int(value),
        unit: None,
        timestamp: UnixMillis(START + value),
        time_source: TimeSource::Receive,
    }
}

/// A folder, and a disk that breaks when it is told to.
pub(super) struct Bench {
    dir: TempDir,
    pub(super) faults: Arc<Faults>,
    pub(super) config: Config,
}

impl Bench {
    pub(super) fn new() -> Self {
        let config = Config { max_bytes: Size(256 * 1024), ..Config::default() };
        Self { dir: tempfile::tempdir().unwrap(), faults: Arc::default(), config }
    }

    pub(super) fn open(&self) -> Queue {
        let disk = Disk::Faulty(Arc::clone(&self.faults));
        Queue::open_on(disk, &self.config, self.dir.path()).unwrap()
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// All files of which a name contains `part`, sorted.
    pub(super) fn files(&self, part: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<_> = entries
            .filter(|entry| entry.file_name().to_str().unwrap().contains(part))
            .map(|entry| entry.path())
            .collect();
        files.sort();
        files
    }

    pub(super) fn bytes(&self) -> u64 {
        self.files("").iter().map(|path| path.metadata().unwrap().len()).sum()
    }
}

pub(super) fn append(queue: &mut Queue, values: impl IntoIterator<Item = i64>) {
    queue.append(UnixMillis(START), values.into_iter().map(reading));
}

pub(super) fn save(queue: &mut Queue) {
    let job = queue.job(false, None).unwrap();
    queue.finish(job.run());
}

fn close(mut queue: Queue) {
    let job = queue.job(true, None).unwrap();
    queue.finish(job.run());
}

/// Reads as a keeper does, from memory or by a job.
pub(super) fn read(queue: &mut Queue, after: Position, limits: Limits) -> Chunk {
    loop {
        if let Some(chunk) = queue.read(after, limits) {
            return chunk;
        }
        let job = queue.job(false, Some((after, limits))).unwrap();
        if let Some(chunk) = queue.finish(job.run()) {
            return chunk;
        }
    }
}

/// Reads everything above `seq`, with its numbers.
pub(super) fn read_all(queue: &mut Queue, seq: u64) -> Vec<(u64, i64)> {
    let (mut found, mut after) = (Vec::new(), Position { seq, ..Position::default() });
    loop {
        let chunk = read(queue, after, ALL);
        assert!(chunk.first > after.seq);
        for (number, reading) in (chunk.first..).zip(&chunk.readings) {
            let Value::Int(value) = reading.value else { panic!("{reading:?}") };
            assert_eq!(*reading, self::reading(value));
            found.push((number, value));
            after.seq = number;
        }
        if !chunk.more {
            return found;
        }
    }
}

fn values(queue: &mut Queue) -> Vec<i64> {
    read_all(queue, 0).into_iter().map(|(_, value)| value).collect()
}

/// The sum that `status` shows.
#[track_caller]
fn check_balance(queue: &Queue, expected: (u64, u64, u64, u64)) {
    let Counters { queued, acknowledged, evicted, waiting, .. } = queue.counters();
    assert_eq!((queued, acknowledged, evicted, waiting), expected);
    assert_eq!(queued, acknowledged + evicted + waiting);
}

fn event(reason: &str) -> StatusChange {
    StatusChange {
        device: Arc::from("boiler"),
        status: Status::Offline,
        reason: reason.into(),
        timestamp: UnixMillis(START),
    }
}

fn events(queue: &mut Queue) -> Vec<(u64, String)> {
    let chunk = read(queue, Position::default(), ALL);
    chunk.events.into_iter().map(|event| (event.seq, event.reason)).collect()
}

#[test]
fn readings_stay_until_they_are_committed() {
    let bench = Bench::new();
    let mut queue = bench.open();
    append(&mut queue, 10..14);
    assert_eq!(read_all(&mut queue, 0), [(1, 10), (2, 11), (3, 12), (4, 13)]);
    assert_eq!(read_all(&mut queue, 2), [(3, 12), (4, 13)]);
    queue.release(Some(3), None);
    assert_eq!(read_all(&mut queue, 0), [(4, 13)]);
    queue.release(Some(9), None);
    assert_eq!(read_all(&mut queue, 0), []);
    append(&mut queue, 14..15);
    assert_eq!(read_all(&mut queue, 4), [(5, 14)]);
    check_balance(&queue, (5, 4, 0, 1));
}

#[test]
fn what_is_durable_is_there_after_a_power_cut_and_numbers_are_new() {
    let bench = Bench::new();
    let mut queue = bench.open();
    let id = queue.id();
    append(&mut queue, 1..=3);
    queue.append_event(event("a"));
    save(&mut queue);
    append(&mut queue, 4..=5);
    queue.append_event(event("b"));
    drop(queue);
    bench.faults.cut_power(|_| 0);

    let mut queue = bench.open();
    assert_eq!(queue.id(), id);
    assert_eq!(read_all(&mut queue, 0), [(1, 1), (2, 2), (3, 3)]);
    assert_eq!(events(&mut queue), [(1, "a".into())]);
    append(&mut queue, 6..=6);
    queue.append_event(event("c"));
    let next = store::RESERVE + 1;
    assert_eq!(read_all(&mut queue, 1), [(2, 2), (3, 3), (next, 6)]);
    assert_eq!(events(&mut queue), [(1, "a".into()), (next, "c".into())]);
    // The server knows what was lost here.
    let resumed = queue.resume(Some(5), Some(2)).unwrap();
    assert_eq!((resumed.seq, resumed.event), (next - 1, next - 1));
    assert_eq!(read_all(&mut queue, resumed.seq), [(next, 6)]);
    assert_eq!(queue.resume(Some(next + 1), None), None);
}

#[test]
fn a_clean_end_forgets_nothing_and_repeats_nothing() {
    let bench = Bench::new();
    let mut queue = bench.open();
    append(&mut queue, 1..=9);
    queue.append_event(event("a"));
    queue.append_event(event("b"));
    save(&mut queue);
    queue.release(Some(4), Some(1));
    close(queue);
    let mut queue = bench.open();
    assert_eq!(values(&mut queue), [5, 6, 7, 8, 9]);
    assert_eq!(events(&mut queue), [(2, "b".into())]);
    check_balance(&queue, (5, 0, 0, 5));
    assert_eq!(queue.resume(Some(9), Some(2)).unwrap(), queue.end());
}

#[test]
fn a_full_queue_loses_its_oldest_and_counts_them_by_device() {
    let bench = Bench::new();
    let mut queue = bench.open();
    let mut given = 0;
    for _ in 0..500 {
        append(&mut queue, given + 1..=given + 1000);
        given += 1000;
        save(&mut queue);
        assert!(bench.bytes() <= bench.config.max_bytes.0, "{}", bench.bytes());
    }
    let lost = i64::try_from(queue.counters().evicted).unwrap();
    assert!(lost > 100_000 && lost < given, "{lost} of {given}");
    check_balance(&queue, (given as u64, 0, lost as u64, (given - lost) as u64));
    let expected = Loss {
        device: Some("boiler".into()),
        time_source: TimeSource::Receive,
        from: UnixMillis(START + 1),
        to: UnixMillis(START + lost),
        readings: lost as u64,
    };
    let gap =
        Gap { first: 1, last: lost as u64, reason: GapReason::Evicted, devices: vec![expected] };
    let chunk = read(&mut queue, Position::default(), ALL);
    assert_eq!((chunk.first, &chunk.gaps), (lost as u64 + 1, &vec![gap.clone()]));
    drop(queue);

    let mut queue = bench.open();
    let chunk = read(&mut queue, Position::default(), ALL);
    assert_eq!(chunk.gaps, [gap]);
    assert_eq!(values(&mut queue), (lost + 1..=given).collect::<Vec<_>>());
    queue.release(Some(lost as u64 + 1), None);
    assert_eq!(read(&mut queue, Position::default(), ALL).gaps, []);
    close(queue);
    let mut queue = bench.open();
    assert_eq!(read(&mut queue, Position::default(), ALL).gaps, []);
}

#[test]
fn telemetry_never_evicts_events() {
    let bench = Bench::new();
    let mut queue = bench.open();
    queue.append_event(event("a"));
    for value in 0..300 {
        append(&mut queue, value * 1000..(value + 1) * 1000);
        save(&mut queue);
    }
    assert!(queue.counters().evicted > 0);
    drop(queue);
    assert_eq!(events(&mut bench.open()), [(1, "a".into())]);
}

#[test]
fn too_many_events_lose_the_oldest() {
    let bench = Bench::new();
    let mut queue = bench.open();
    for count in 0..1000 {
        queue.append_event(event(&format!("{count}")));
        save(&mut queue);
    }
    let counters = queue.counters();
    assert!(counters.events_evicted > 0);
    assert_eq!(counters.events_evicted + counters.events_waiting, 1000);
    let found = events(&mut queue);
    drop(queue);
    assert_eq!(events(&mut bench.open()), found);
}

#[test]
fn a_chunk_holds_either_a_backlog_or_what_is_live() {
    let bench = Bench::new();
    let check = |queue: &mut Queue| {
        let limits = Limits { live_since: UnixMillis(START + 1500), ..ALL };
        let backlog = read(queue, Position::default(), limits);
        assert!(backlog.historical && backlog.more && backlog.readings.len() == 2);
        let live = read(queue, Position { seq: 2, ..Position::default() }, limits);
        assert!(!live.historical && !live.more && live.readings.len() == 1);
    };
    let mut queue = bench.open();
    queue.append(UnixMillis(START + 1000), [1, 2].map(reading));
    queue.append(UnixMillis(START + 2000), [reading(3)]);
    check(&mut queue);
    save(&mut queue);
    drop(queue);
    check(&mut bench.open());
}

#[test]
fn a_chunk_keeps_to_its_limits_but_is_never_empty() {
    let bench = Bench::new();
    let check = |queue: &mut Queue| {
        let one = frame_bytes(&reading(1));
        for (readings, bytes, expected) in [(2, usize::MAX, 2), (9, 3 * one, 3), (9, 1, 1)] {
            let chunk = read(queue, Position::default(), Limits { readings, bytes, ..ALL });
            assert_eq!(chunk.readings.len(), expected);
            assert!(chunk.more);
        }
    };
    let mut queue = bench.open();
    append(&mut queue, 1..=5);
    check(&mut queue);
    save(&mut queue);
    drop(queue);
    check(&mut bench.open());
}

#[test]
fn a_new_id_keeps_the_readings_and_is_remembered() {
    let bench = Bench::new();
    let mut queue = bench.open();
    append(&mut queue, 1..=3);
    let old = queue.id();
    queue.renew();
    save(&mut queue);
    let id = queue.id();
    assert_ne!(id, old);
    drop(queue);
    let mut queue = bench.open();
    assert_eq!((queue.id(), values(&mut queue)), (id, vec![1, 2, 3]));
}

#[test]
fn numbers_are_reserved_before_they_run_out() {
    let bench = Bench::new();
    let mut queue = bench.open();
    let mut last = 0;
    for _ in 0..3 {
        last = queue.append(UnixMillis(START), (0..600_000).map(reading));
        queue.release(Some(last), None);
        save(&mut queue);
    }
    assert_eq!(last, 1_800_000);
    drop(queue);
    let mut queue = bench.open();
    assert!(queue.append(UnixMillis(START), [reading(1)]) > last);
}

#[test]
fn two_agents_do_not_share_a_queue() {
    let bench = Bench::new();
    let _queue = bench.open();
    let other = Queue::open(&bench.config, bench.dir.path());
    assert_eq!(other.unwrap_err().kind(), io::ErrorKind::ResourceBusy);
}
