use std::sync::Arc;

use valtronics_protocol::{event::Status, reading::TimeSource};

use super::*;

fn reading(value: i64) -> Reading {
    Reading {
        device: Arc::from("boiler"),
        metric: Arc::from("temperature"),
        value: Value::Int(value),
        unit: None,
        timestamp: UnixMillis(0),
        time_source: TimeSource::Receive,
    }
}

fn queue(max_bytes: usize) -> Queue {
    let mut queue = Queue::new(&Config::default());
    queue.max_bytes = max_bytes;
    queue
}

fn append(queue: &mut Queue, received: i64, values: impl IntoIterator<Item = i64>) {
    queue.append(UnixMillis(received), values.into_iter().map(reading));
}

const ALL: Limits =
    Limits { readings: 1000, bytes: usize::MAX, live_since: UnixMillis(0), passed: 0 };

/// Reads after `seq` and compares the numbers and values.
#[track_caller]
fn check(queue: &mut Queue, seq: u64, limits: Limits, expected: &[(u64, i64)]) -> Chunk {
    let after = Position { seq, ..Position::default() };
    let chunk = queue.read(after, limits);
    let found: Vec<(u64, Value)> =
        (chunk.first..).zip(chunk.readings.iter().map(|reading| reading.value.clone())).collect();
    let expected: Vec<(u64, Value)> =
        expected.iter().map(|(seq, value)| (*seq, Value::Int(*value))).collect();
    assert_eq!(found, expected);
    chunk
}

/// The sum that `status` shows.
#[track_caller]
fn check_balance(queue: &Queue, expected: (u64, u64, u64, u64)) {
    let Counters { queued, acknowledged, evicted, waiting, .. } = queue.counters();
    assert_eq!((queued, acknowledged, evicted, waiting), expected);
    assert_eq!(queued, acknowledged + evicted + waiting);
}

#[test]
fn readings_stay_until_they_are_committed() {
    let mut queue = queue(usize::MAX);
    append(&mut queue, 0, 10..14);
    check(&mut queue, 0, ALL, &[(1, 10), (2, 11), (3, 12), (4, 13)]);
    check(&mut queue, 2, ALL, &[(3, 12), (4, 13)]);
    queue.release(Some(3), None);
    check(&mut queue, 0, ALL, &[(4, 13)]);
    queue.release(Some(9), None);
    check(&mut queue, 0, ALL, &[]);
    append(&mut queue, 0, 14..15);
    check(&mut queue, 4, ALL, &[(5, 14)]);
    check_balance(&queue, (5, 4, 0, 1));
    assert_eq!(queue.counters().sent, 5);
}

#[test]
fn a_full_queue_loses_its_oldest_and_counts_them() {
    let mut queue = queue(3 * size_of::<Entry>());
    append(&mut queue, 0, 1..=5);
    check(&mut queue, 0, ALL, &[(3, 3), (4, 4), (5, 5)]);
    check_balance(&queue, (5, 0, 2, 3));
    assert_eq!(queue.end().seq, 5);
}

#[test]
fn a_chunk_holds_either_a_backlog_or_what_is_live() {
    let mut queue = queue(usize::MAX);
    append(&mut queue, 1000, [1, 2]);
    append(&mut queue, 2000, [3]);
    let limits = Limits { live_since: UnixMillis(1500), ..ALL };
    let backlog = check(&mut queue, 0, limits, &[(1, 1), (2, 2)]);
    assert!(backlog.historical && backlog.more);
    let live = check(&mut queue, 2, limits, &[(3, 3)]);
    assert!(!live.historical && !live.more);
}

#[test]
fn a_chunk_keeps_to_its_limits_but_is_never_empty() {
    let mut queue = queue(usize::MAX);
    append(&mut queue, 0, 1..=5);
    let one = frame_bytes(&reading(1));
    for (readings, bytes, expected) in [(2, usize::MAX, 2), (9, 3 * one, 3), (9, 1, 1)] {
        let limits = Limits { readings, bytes, ..ALL };
        let chunk = queue.read(Position::default(), limits);
        assert_eq!(chunk.readings.len(), expected);
        assert!(chunk.more);
    }
}

#[test]
fn events_have_numbers_of_their_own() {
    let mut queue = queue(usize::MAX);
    for reason in ["a", "b", "c"] {
        queue.append_event(StatusChange {
            device: Arc::from("boiler"),
            status: Status::Offline,
            reason: reason.into(),
            timestamp: UnixMillis(0),
        });
    }
    queue.release(None, Some(1));
    let events = |queue: &mut Queue| -> Vec<(u64, String)> {
        let chunk = queue.read(Position::default(), ALL);
        chunk.events.into_iter().map(|event| (event.seq, event.reason)).collect()
    };
    assert_eq!(events(&mut queue), [(2, "b".into()), (3, "c".into())]);
    let old = queue.id().to_owned();
    queue.renew();
    assert_ne!(queue.id(), old);
    assert_eq!(events(&mut queue), [(1, "b".into()), (2, "c".into())]);
    assert_eq!(queue.end().event, 2);
}
