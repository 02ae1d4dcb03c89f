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
