//! What the queue has lost, until the server knows it.

use std::collections::VecDeque;

use valtronics_protocol::{
    reading::Reading,
    time::UnixMillis,
    uplink::{Gap, GapReason, Loss, MAX_GAP_LOSSES},
};

/// The most gaps that wait: one is made for each time that a reader sees the end of the one before,
/// so a connection that stands still makes no more than one.
const GAPS: usize = 64;

/// Gaps in the order of their numbers.
#[derive(Debug, Default)]
pub struct Gaps {
    waiting: VecDeque<Gap>,
    /// The last one may still grow: no reader has seen it.
    open: bool,
}

impl Gaps {
    /// Takes in that the reading `number` is lost; numbers only grow.
    pub fn lose(&mut self, number: u64, reading: &Reading, reason: GapReason) {
        let full = self.waiting.len() >= GAPS;
        let grows = |gap: &&mut Gap| gap.last + 1 == number && gap.reason == reason;
        let open = self.open || full;
        let gap = match self.waiting.back_mut().filter(|gap| open && (full || grows(gap))) {
            Some(gap) => gap,
            None => {
                self.waiting.push_back(Gap {
                    first: number,
                    last: number,
                    reason,
                    devices: vec![],
                });
                self.open = true;
                let Some(gap) = self.waiting.back_mut() else { return };
                gap
            }
        };
        gap.last = number;
        count(&mut gap.devices, reading);
    }

    /// Returns the gaps that end after `seq`; they grow no more.
    pub fn after(&mut self, seq: u64) -> Vec<Gap> {
        self.open = false;
        self.waiting.iter().filter(|gap| gap.last > seq).cloned().collect()
    }

    /// Lets go of what the server knows.
    pub fn release(&mut self, seq: u64) {
        while self.waiting.pop_front_if(|gap| gap.last <= seq).is_some() {}
    }

    /// Numbers the gaps anew from 1, one number each, as a new numbering begins; returns the last.
    pub fn renumber(&mut self) -> u64 {
        self.open = false;
        for (number, gap) in (1..).zip(&mut self.waiting) {
            (gap.first, gap.last) = (number, number);
        }
        self.waiting.len() as u64
    }
}

fn count(devices: &mut Vec<Loss>, reading: &Reading) {
    let at: UnixMillis = reading.timestamp;
    // The last of a full list is for everybody who is not in it.
    let full = devices.len() + 1 >= MAX_GAP_LOSSES;
    let is_its = |loss: &&mut Loss| loss.device.as_deref() == Some(&*reading.device);
    let known = devices.iter_mut().rev().find(is_its);
    let loss = match known {
        Some(loss) => loss,
        None if full => match devices.iter_mut().find(|loss| loss.device.is_none()) {
            Some(loss) => loss,
            None => devices.push_mut(Loss { device: None, from: at, to: at, readings: 0 }),
        },
        None => {
            let device = Some(reading.device.to_string());
            devices.push_mut(Loss { device, from: at, to: at, readings: 0 })
        }
    };
    loss.from = loss.from.min(at);
    loss.to = loss.to.max(at);
    loss.readings += 1;
}

#[cfg(test)]
mod tests {
    use valtronics_protocol::{reading::TimeSource, value::Value};

    use super::*;

    fn lose(gaps: &mut Gaps, number: u64, device: &str) {
        let reading = Reading {
            device: device.into(),
            metric: "t".into(),
            value: Value::Int(1),
            unit: None,
            timestamp: UnixMillis(i64::try_from(number).unwrap()),
            time_source: TimeSource::Receive,
        };
        gaps.lose(number, &reading, GapReason::Evicted);
    }

    fn ranges(gaps: &[Gap]) -> Vec<(u64, u64)> {
        gaps.iter().map(|gap| (gap.first, gap.last)).collect()
    }

    #[test]
    fn a_gap_grows_until_it_was_seen() {
        let mut gaps = Gaps::default();
        for (number, device) in [(1, "a"), (2, "b"), (3, "a")] {
            lose(&mut gaps, number, device);
        }
        let seen = gaps.after(0);
        assert_eq!(ranges(&seen), [(1, 3)]);
        let loss = |name: &str, from, to, readings| Loss {
            device: Some(name.into()),
            from: UnixMillis(from),
            to: UnixMillis(to),
            readings,
        };
        assert_eq!(seen[0].devices, [loss("a", 1, 3, 2), loss("b", 2, 2, 1)]);
        lose(&mut gaps, 4, "a");
        assert_eq!(ranges(&gaps.after(3)), [(4, 4)]);
        gaps.release(3);
        assert_eq!(ranges(&gaps.after(0)), [(4, 4)]);
        assert_eq!((gaps.renumber(), ranges(&gaps.after(0))), (1, vec![(1, 1)]));
    }

    #[test]
    fn neither_gaps_nor_devices_grow_without_end() {
        let mut gaps = Gaps::default();
        let losses = 3 * MAX_GAP_LOSSES as u64;
        for number in 1..=losses {
            lose(&mut gaps, number, &number.to_string());
        }
        let [gap] = &gaps.after(0)[..] else { panic!() };
        assert_eq!(gap.devices.len(), MAX_GAP_LOSSES);
        assert_eq!(gap.devices.iter().map(|loss| loss.readings).sum::<u64>(), losses);
        for number in losses + 1..losses + 1000 {
            lose(&mut gaps, number, "d");
            gaps.after(number);
        }
        assert_eq!(gaps.waiting.len(), GAPS);
        assert_eq!(gaps.waiting.back().map(|gap| gap.last), Some(losses + 999));
    }
}
