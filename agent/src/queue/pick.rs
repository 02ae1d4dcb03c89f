//! What a connection gets to read: from memory, or from what a job has read.

use valtronics_protocol::uplink::Gap;

use super::{
    Chunk, Limits, Position, Queue,
    batch::{Picked, Picker},
};

impl Queue {
    /// Returns what follows `after`, or nothing where a job must read it first.
    pub fn read(&mut self, after: Position, limits: Limits) -> Option<Chunk> {
        let picked = match self.held.after(after.seq) {
            Some(range) if limits.readings > 0 => {
                let first = *range.start();
                let in_memory = self.recent.front().is_some_and(|oldest| oldest.first <= first);
                in_memory.then(|| self.pick(first, *range.end(), limits))?
            }
            Some(_) | None => Picked::default(),
        };
        Some(self.chunk(after, picked))
    }

    fn pick(&self, first: u64, last: u64, limits: Limits) -> Picked {
        let mut picker = Picker::new(limits);
        let behind = self.recent.partition_point(|batch| batch.end() <= first);
        'batches: for batch in self.recent.iter().skip(behind) {
            for (number, reading) in (batch.first..).zip(&batch.readings) {
                if number < first {
                    continue;
                }
                if number > last || !picker.take(number, batch.received, reading) {
                    break 'batches;
                }
            }
        }
        picker.picked(first)
    }

    pub(super) fn chunk(&mut self, after: Position, picked: Picked) -> Chunk {
        let Picked { first, readings, historical } = picked;
        let first = if readings.is_empty() { after.seq + 1 } else { first };
        let through = first + readings.len() as u64 - 1;
        let next = self.held.after(through).map(|range| *range.start());
        let before = if readings.is_empty() { next.unwrap_or(u64::MAX) } else { first };
        let mut gaps: Vec<Gap> = self
            .gaps
            .iter()
            .chain(&self.lost)
            .filter(|gap| gap.last > after.seq && gap.first <= before)
            .cloned()
            .collect();
        // One of a damaged file may have been noted before what was then evicted.
        gaps.sort_unstable_by_key(|gap| gap.first);
        self.told = gaps.iter().map(|gap| gap.last).max().unwrap_or(0).max(self.told);
        Chunk {
            gaps,
            first,
            more: next.is_some(),
            readings,
            historical,
            events: self.events.iter().filter(|event| event.seq > after.event).cloned().collect(),
            devices: self.devices.get(after.device..).unwrap_or_default().into(),
        }
    }
}
