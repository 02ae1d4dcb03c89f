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

    /// Returns the first gap that ends after `seq`; it grows no more.
    pub fn after(&mut self, seq: u64) -> Option<Gap> {
        let at = self.waiting.iter().position(|gap| gap.last > seq)?;
        if at + 1 == self.waiting.len() {
            self.open = false;
        }
        self.waiting.get(at).cloned()
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
