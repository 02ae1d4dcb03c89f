//! What comes out of an outbox, and when.

use super::*;
use crate::commit::MetricIndex;

fn frame(text: &str) -> Arc<TelemetryFrame> {
    Arc::new(TelemetryFrame {
        message: Message::text(text),
        device: DeviceId(1),
        metrics: Box::new([MetricIndex(0)]),
        arrived_at: None,
    })
}

fn push(outbox: &Outbox, text: &str, limit_bytes: usize, now: Instant) -> Pushed {
    outbox.push_telemetry(
        [&frame(text)].into_iter(),
        Packing::Alone,
        limit_bytes,
        now,
        Duration::ZERO,
    )
}

fn take(outbox: &Outbox, now: Instant) -> Vec<String> {
    let mut messages = VecDeque::new();
    outbox.take(usize::MAX, &mut messages, Waker::noop(), now);
    messages
        .iter()
        .map(|taken| str::from_utf8(taken.message().payload()).unwrap().to_owned())
        .collect()
}

#[test]
fn answers_come_before_later_and_after_earlier_telemetry() {
    let (outbox, now) = (Outbox::default(), crate::clock::instant());
    push(&outbox, "old", 100, now);
    outbox.answer(&"answer");
    push(&outbox, "new", 100, now);
    outbox.push(&"event");
    assert_eq!(take(&outbox, now), ["old", "\"answer\"", "\"event\"", "new"]);
    assert_eq!(outbox.depth().queued_bytes, 0);
}

#[test]
fn telemetry_is_bounded_in_bytes_and_in_age() {
    let (outbox, now) = (Outbox::default(), crate::clock::instant());
    assert_eq!(push(&outbox, "12345", 8, now), Pushed::Queued);
    assert_eq!(push(&outbox, "6789", 8, now), Pushed::Conflate { taken: 0 });
    let later = now + STALL + Duration::from_millis(1);
    assert_eq!(push(&outbox, "6", 8, later), Pushed::Conflate { taken: 0 });
    assert_eq!(outbox.conflate().len(), 1);
    assert_eq!(push(&outbox, "6", 8, now), Pushed::Conflate { taken: 0 });
    outbox.resume();
    assert_eq!(push(&outbox, "6", 8, later), Pushed::Queued);
    assert_eq!(take(&outbox, now), ["6"]);
    outbox.end();
    assert_eq!(push(&outbox, "6", 8, now), Pushed::Gone);
}

#[test]
fn the_newest_system_status_replaces_the_one_that_waits() {
    let (outbox, now) = (Outbox::default(), crate::clock::instant());
    assert!(!outbox.push_system(&"1", Packing::Alone));
    assert!(outbox.push_system(&"2", Packing::Alone));
    assert_eq!(take(&outbox, now), ["\"2\""]);
}

#[test]
fn late_and_live_readings_take_turns_and_late_ones_hold_up_nothing() {
    let (outbox, now) = (Outbox::default(), crate::clock::instant());
    for text in ["1", "2"] {
        push(&outbox, text, 100, now);
    }
    for text in ["late 1", "late 2", "late 3"] {
        assert!(outbox.push_historical(&frame(text), Packing::Alone));
    }
    outbox.set_more(true);
    let mut messages = VecDeque::new();
    assert!(!outbox.take(7, &mut messages, Waker::noop(), now).more, "live readings wait");
    assert!(outbox.take(1, &mut messages, Waker::noop(), now).more);
    let rest = take(&outbox, now);
    let texts = messages.iter().map(|taken| str::from_utf8(taken.message().payload()).unwrap());
    let texts: Vec<_> = texts.chain(rest.iter().map(String::as_str)).collect();
    assert_eq!(texts, ["1", "late 1", "2", "late 2", "late 3"]);
    assert!(!outbox.push_historical(&frame(&"x".repeat(HISTORICAL_BYTES + 1)), Packing::Alone));
}

#[test]
fn what_went_ahead_with_an_answer_still_waits() {
    let (outbox, now) = (Outbox::default(), crate::clock::instant());
    let (large, limit) = ("x".repeat(2 * URGENT_BYTES), 4 * URGENT_BYTES);
    assert_eq!(push(&outbox, &large, limit, now), Pushed::Queued);
    outbox.answer(&"answer");
    assert_eq!(push(&outbox, &large, limit, now), Pushed::Queued);
    outbox.answer(&"answer");
    assert_eq!(push(&outbox, &large, limit, now), Pushed::Conflate { taken: 0 });
}
