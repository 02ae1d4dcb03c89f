//! Which clock the queue's timestamps come from, and by how much it was wrong.
//!
//! A gateway without a battery starts in the past and may jump by years when it hears of the time.
//! So the wall clock is held against the clock that counts from the machine's start: where their
//! difference changes, a new **stretch** of numbers begins. Once a server has said what time it is,
//! each stretch is known to be right or to be off by so much. Plain values in and out; [`notebook`]
//! keeps them over restarts.

pub mod notebook;

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};
use valtronics_protocol::{reading::TimeSource, time::UnixMillis, uplink::Loss};

use super::Chunk;
use crate::queue::newest::Preview;

/// A clock that is off by less is let be: the server takes no more for the future either, and a
/// server may be wrong by some seconds itself.
const FAR_MS: i64 = 60_000;
/// A smaller difference is a slow source or a clock that is being slewed.
const JUMP_MS: i64 = 10_000;
/// The most stretches: a clock that jumps more often than that cannot be corrected, the oldest
/// timestamps stay as they are.
const STRETCHES: usize = 64;

/// When the machine started, as far as a clock can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// The moment, by that clock.
    pub at: UnixMillis,
    /// By how much it may be wrong.
    pub within: Duration,
}

impl Start {
    /// Reckons from a server's clock: it said `time` while so long had passed `since_boot`, at some
    /// moment of the `round_trip` that ends now.
    #[must_use]
    pub fn reckon(time: UnixMillis, round_trip: Duration, since_boot: Duration) -> Self {
        let half = round_trip / 2;
        Self { at: time.plus(half).minus(since_boot), within: half }
    }

    /// Tells whether both can be true.
    fn agrees(self, other: Self) -> bool {
        let apart = Duration::from_millis((self.at.0 - other.at.0).unsigned_abs());
        apart <= self.within + other.within
    }
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Stretch {
    first_seq: u64,
    first_event: u64,
    /// When the machine started, by the clock of this stretch.
    start: UnixMillis,
}

/// The stretches of one numbering.
#[derive(Debug, Default)]
pub struct Timeline {
    stretches: VecDeque<Stretch>,
    start: Option<Start>,
}

impl Timeline {
    /// Notes that the next numbers of both lanes are timed by a clock that said `received` when so
    /// long had passed `since_boot`; returns whether that begins a stretch.
    pub fn note(
        &mut self,
        received: UnixMillis,
        since_boot: Duration,
        (seq, event): (u64, u64),
    ) -> bool {
        let start = received.minus(since_boot);
        let goes_on = |last: &Stretch| (last.start.0 - start.0).abs() <= JUMP_MS;
        if self.stretches.back().is_some_and(goes_on) {
            return false;
        }
        self.stretches.push_back(Stretch { first_seq: seq, first_event: event, start });
        if self.stretches.len() > STRETCHES {
            self.stretches.pop_front();
        }
        true
    }

    /// Takes over what a server's clock says, unless what is known is more exact and agrees.
    pub fn settle(&mut self, start: Start) {
        let keeps = |known: &Start| known.agrees(start) && known.within <= start.within;
        if !self.start.as_ref().is_some_and(keeps) {
            self.start = Some(start);
        }
    }

    /// Corrects what was timed by the machine's own clock while that was far from true.
    pub fn correct(&self, chunk: &mut Chunk) {
        if self.start.is_none() {
            return;
        }
        for (seq, reading) in (chunk.first..).zip(&mut chunk.readings) {
            if reading.time_source == TimeSource::Receive {
                reading.timestamp = self.corrected(reading.timestamp, |of| of.first_seq <= seq);
            }
        }
        for gap in &mut chunk.gaps {
            let (first, last) = (gap.first, gap.last);
            let received = |loss: &&mut Loss| loss.time_source == TimeSource::Receive;
            for loss in gap.devices.iter_mut().filter(received) {
                loss.from = self.corrected(loss.from, |of| of.first_seq <= first);
                loss.to = self.corrected(loss.to, |of| of.first_seq <= last).max(loss.from);
            }
        }
        for event in &mut chunk.events {
            let is_of = |of: &Stretch| of.first_event <= event.seq;
            event.timestamp = self.corrected(event.timestamp, is_of);
        }
    }

    /// The same for a preview.
    pub fn correct_preview(&self, preview: &mut Preview) {
        for (seq, reading) in &mut preview.readings {
            if reading.time_source == TimeSource::Receive {
                reading.timestamp = self.corrected(reading.timestamp, |of| of.first_seq <= *seq);
            }
        }
    }

    fn corrected(&self, at: UnixMillis, is_of: impl Fn(&Stretch) -> bool) -> UnixMillis {
        let stretch = self.stretches.iter().rev().find(|stretch| is_of(stretch));
        let off = self.start.zip(stretch).map(|(start, stretch)| start.at.0 - stretch.start.0);
        match off {
            Some(off) if off.abs() > FAR_MS => UnixMillis(at.0.saturating_add(off)),
            Some(_) | None => at,
        }
    }

    /// Returns by how many milliseconds the clock is wrong now; `None` when it is not far from true,
    /// or not known.
    #[must_use]
    pub fn off_by(&self) -> Option<i64> {
        let off = self.stretches.back()?.start.0 - self.start?.at.0;
        (off.abs() > FAR_MS).then_some(off)
    }
}

#[cfg(test)]
mod tests {
    use valtronics_protocol::{
        event::Status,
        reading::Reading,
        uplink::{Gap, GapReason, StatusEvent},
        value::Value,
    };

    use super::*;

    /// When the machine started: 2026-11-24.
    const START: UnixMillis = UnixMillis(1_795_500_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn chunk(first: u64, at: impl IntoIterator<Item = (UnixMillis, TimeSource)>) -> Chunk {
        let reading = |(timestamp, time_source)| Reading {
            device: "d".into(),
            metric: "t".into(),
            value: Value::Int(1),
            unit: None,
            timestamp,
            time_source,
        };
        Chunk { first, readings: at.into_iter().map(reading).collect(), ..Chunk::default() }
    }

    #[test]
    fn what_was_queued_under_a_wrong_clock_is_corrected_and_nothing_else() {
        let mut timeline = Timeline::default();
        let second = Duration::from_secs(1);
        // The clock begins in 1970, and jumps to what is true after a minute.
        timeline.note(UnixMillis(1000), second, (1, 1));
        timeline.note(UnixMillis(2000), 2 * second, (2, 1));
        timeline.note(START.plus(60 * second), 60 * second, (4, 2));
        let device_time = UnixMillis(1500);
        let mut queued = chunk(
            1,
            [
                (UnixMillis(1000), TimeSource::Receive),
                (device_time, TimeSource::Device),
                (UnixMillis(2000), TimeSource::Receive),
                (START.plus(60 * second), TimeSource::Receive),
            ],
        );
        queued.events = [(1, UnixMillis(1200)), (2, START.plus(60 * second))]
            .map(|(seq, timestamp)| StatusEvent {
                seq,
                device: "d".into(),
                status: Status::Offline,
                reason: String::new(),
                timestamp,
            })
            .into();
        let before = queued.readings.clone();
        timeline.correct(&mut queued);
        assert_eq!(queued.readings, before, "nothing is known yet");

        timeline.settle(Start { at: START, within: second });
        timeline.correct(&mut queued);
        let at: Vec<UnixMillis> = queued.readings.iter().map(|reading| reading.timestamp).collect();
        let right = START.plus(60 * second);
        assert_eq!(at, [START.plus(second), device_time, START.plus(2 * second), right]);
        let at: Vec<UnixMillis> = queued.events.iter().map(|event| event.timestamp).collect();
        assert_eq!(at, [START.plus(second).plus(Duration::from_millis(200)), right]);
        assert_eq!(timeline.off_by(), None);
    }

    #[test]
    fn what_was_lost_under_a_wrong_clock_is_told_by_the_right_one() {
        let mut timeline = Timeline::default();
        let second = Duration::from_secs(1);
        timeline.note(UnixMillis(1000), second, (1, 1));
        timeline.note(START.plus(60 * second), 60 * second, (4, 1));
        timeline.settle(Start { at: START, within: second });
        let loss = |time_source, from, to| Loss {
            device: Some("d".into()),
            time_source,
            from,
            to,
            readings: 1,
        };
        let gap = |first, last, loss| Gap {
            first,
            last,
            reason: GapReason::Evicted,
            devices: vec![loss],
        };
        let (wrong, right) = (UnixMillis(1000), START.plus(61 * second));
        let mut lost = Chunk {
            gaps: vec![
                gap(1, 3, loss(TimeSource::Receive, wrong, UnixMillis(2000))),
                gap(1, 3, loss(TimeSource::Device, wrong, right)),
                gap(2, 9, loss(TimeSource::Receive, wrong, right)),
            ],
            ..Chunk::default()
        };
        timeline.correct(&mut lost);
        let told = lost.gaps.iter().flat_map(|gap| &gap.devices).map(|loss| (loss.from, loss.to));
        let begun = START.plus(second);
        let expected = [(begun, START.plus(2 * second)), (wrong, right), (begun, right)];
        assert_eq!(told.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_clock_that_stays_wrong_is_corrected_as_long_as_it_does() {
        let mut timeline = Timeline::default();
        let ahead = START.plus(HOUR);
        timeline.note(ahead, Duration::ZERO, (1, 1));
        timeline.settle(Start { at: START, within: Duration::from_millis(20) });
        assert_eq!(timeline.off_by(), Some(3_600_000));
        timeline.note(ahead.plus(HOUR), HOUR, (9, 1));
        let mut late = chunk(9, [(ahead.plus(HOUR), TimeSource::Receive)]);
        timeline.correct(&mut late);
        assert_eq!(late.readings[0].timestamp, START.plus(HOUR));
    }

    #[test]
    fn a_clock_that_is_nearly_right_is_let_be() {
        let mut timeline = Timeline::default();
        let near = START.plus(Duration::from_secs(59));
        timeline.note(near, Duration::ZERO, (1, 1));
        timeline.settle(Start { at: START, within: Duration::ZERO });
        let mut queued = chunk(1, [(near, TimeSource::Receive)]);
        timeline.correct(&mut queued);
        assert_eq!(queued.readings[0].timestamp, near);
        assert_eq!(timeline.off_by(), None);
    }

    #[test]
    fn the_most_exact_answer_counts_until_another_contradicts_it() {
        let at = |millis, within| Start {
            at: UnixMillis(millis),
            within: Duration::from_millis(within),
        };
        let mut timeline = Timeline::default();
        for (said, kept) in [
            (at(1000, 50), at(1000, 50)),
            (at(1040, 400), at(1000, 50)),
            (at(1010, 5), at(1010, 5)),
            (at(9000, 400), at(9000, 400)),
        ] {
            timeline.settle(said);
            assert_eq!(timeline.start, Some(kept));
        }
        let round_trip = Duration::from_secs(2);
        let reckoned = Start::reckon(START.plus(HOUR), round_trip, HOUR);
        let within = Duration::from_secs(1);
        assert_eq!(reckoned, Start { at: START.plus(within), within });
    }

    #[test]
    fn a_clock_that_jumps_all_the_time_takes_no_more_room() {
        let mut timeline = Timeline::default();
        for n in 0..1000 {
            let jumped = UnixMillis(i64::try_from(n).unwrap() * 1_000_000);
            timeline.note(jumped, Duration::ZERO, (n + 1, 1));
        }
        assert_eq!(timeline.stretches.len(), STRETCHES);
    }
}
