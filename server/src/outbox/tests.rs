//! What comes out of an outbox, and when.

use super::*;

fn frame(text: &str) -> Arc<TelemetryFrame> {
    Arc::new(TelemetryFrame {
        message: Message::text(text),
        device: DeviceId(1),
        metrics: Box::new([MetricIndex(0)]),
    })
}

fn take(outbox: &Outbox, now: Instant) -> Vec<String> {
    let mut messages = Vec::new();
    outbox.take(usize::MAX, &mut messages, Waker::noop(), now);
    messages.iter().map(|message| message.to_text().unwrap().to_owned()).collect()
}

#[test]
fn answers_come_before_later_and_after_earlier_telemetry() {
    let (outbox, now) = (Outbox::default(), crate::clock::instant());
    outbox.push_telemetry(&frame("old"), 100, now, Duration::ZERO);
    outbox.answer(Message::text("answer"));
    outbox.push_telemetry(&frame("new"), 100, now, Duration::ZERO);
    outbox.push(Message::text("event"));
    assert_eq!(take(&outbox, now), ["old", "answer", "event", "new"]);
    assert_eq!(outbox.queued_bytes(), 0);
}

#[test]
fn telemetry_is_bounded_in_bytes_and_in_age() {
    let (outbox, now) = (Outbox::default(), crate::clock::instant());
    assert_eq!(outbox.push_telemetry(&frame("12345"), 8, now, Duration::ZERO), Pushed::Queued);
    assert_eq!(outbox.push_telemetry(&frame("6789"), 8, now, Duration::ZERO), Pushed::Conflate);
    let later = now + STALL + Duration::from_millis(1);
    assert_eq!(outbox.push_telemetry(&frame("6"), 8, later, Duration::ZERO), Pushed::Conflate);
    assert_eq!(outbox.conflate().len(), 1);
    assert_eq!(outbox.push_telemetry(&frame("6"), 8, now, Duration::ZERO), Pushed::Conflate);
    outbox.resume();
    assert_eq!(outbox.push_telemetry(&frame("6"), 8, later, Duration::ZERO), Pushed::Queued);
    assert_eq!(take(&outbox, now), ["6"]);
    outbox.end();
    assert_eq!(outbox.push_telemetry(&frame("6"), 8, now, Duration::ZERO), Pushed::Gone);
}

#[test]
fn the_newest_system_status_replaces_the_one_that_waits() {
    let (outbox, now) = (Outbox::default(), crate::clock::instant());
    assert!(!outbox.push_system(Message::text("1")));
    assert!(outbox.push_system(Message::text("2")));
    assert_eq!(take(&outbox, now), ["2"]);
}

#[test]
fn late_and_live_readings_take_turns_and_late_ones_hold_up_nothing() {
    let (outbox, now) = (Outbox::default(), crate::clock::instant());
    for text in ["1", "2"] {
        outbox.push_telemetry(&frame(text), 100, now, Duration::ZERO);
    }
    for text in ["late 1", "late 2", "late 3"] {
        assert!(outbox.push_historical(&frame(text)));
    }
    outbox.set_more(true);
    let mut messages = Vec::new();
    assert!(!outbox.take(7, &mut messages, Waker::noop(), now).more, "live readings wait");
    assert!(outbox.take(1, &mut messages, Waker::noop(), now).more);
    let rest = take(&outbox, now);
    let texts = messages.iter().map(|message| message.to_text().unwrap());
    let texts: Vec<_> = texts.chain(rest.iter().map(String::as_str)).collect();
    assert_eq!(texts, ["1", "late 1", "2", "late 2", "late 3"]);
    assert!(!outbox.push_historical(&frame(&"x".repeat(HISTORICAL_BYTES + 1))));
}

#[test]
fn what_went_ahead_with_an_answer_still_waits() {
    let (outbox, now) = (Outbox::default(), crate::clock::instant());
    let (large, limit) = (frame(&"x".repeat(2 * URGENT_BYTES)), 4 * URGENT_BYTES);
    assert_eq!(outbox.push_telemetry(&large, limit, now, Duration::ZERO), Pushed::Queued);
    outbox.answer(Message::text("answer"));
    assert_eq!(outbox.push_telemetry(&large, limit, now, Duration::ZERO), Pushed::Queued);
    outbox.answer(Message::text("answer"));
    assert_eq!(outbox.push_telemetry(&large, limit, now, Duration::ZERO), Pushed::Conflate);
}
