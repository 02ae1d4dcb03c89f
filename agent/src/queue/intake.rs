//! What comes in, and how much of it stays in memory.

use std::sync::Arc;

use valtronics_protocol::{reading::Reading, time::UnixMillis, uplink::GapReason};

use super::{
    Queue,
    batch::{Batch, frame_bytes},
    gaps::{self, Tally},
};

/// How much of what is durable stays in memory, so that a connection that keeps up reads no disk.
const RECENT: usize = 512 * 1024;
/// How much may wait for a disk that takes nothing; beyond, the oldest readings are lost.
const UNSAVED: usize = 8 * 1024 * 1024;
/// The most bytes that the readings of one batch take in a file: the smallest segment has room for
/// several.
const BATCH: usize = 3 * 1024;

impl Queue {
    /// Takes readings that were received at one moment, and returns the last number given so far.
    pub fn append(
        &mut self,
        received: UnixMillis,
        readings: impl IntoIterator<Item = Reading>,
    ) -> u64 {
        let (mut part, mut bytes) = (Vec::new(), 0);
        for reading in readings {
            let size = frame_bytes(&reading);
            if bytes > 0 && bytes + size > BATCH {
                self.append_batch(received, std::mem::take(&mut part));
                bytes = 0;
            }
            bytes += size;
            part.push(reading);
        }
        self.append_batch(received, part);
        self.numbers.next - 1
    }

    fn append_batch(&mut self, received: UnixMillis, mut readings: Vec<Reading>) {
        self.counters.queued += readings.len() as u64;
        let first = self.numbers.next;
        let fit = readings.iter().take_while(|_| self.numbers.give().is_some()).count();
        // A million readings that no disk has taken: there are no numbers left for more.
        self.counters.evicted += readings.split_off(fit).len() as u64;
        if readings.is_empty() {
            return;
        }
        let batch = Batch::new(first, received, readings);
        self.held.push(batch.first, batch.end() - 1);
        self.ages.note(batch.first, received);
        self.recent_bytes += batch.memory;
        self.unsaved_bytes += batch.memory;
        self.recent.push_back(Arc::new(batch));
        self.trim();
    }

    /// Keeps the memory within its limits.
    pub(super) fn trim(&mut self) {
        while let Some(oldest) = self.recent.front() {
            let is_saved = oldest.first <= self.numbers.saved;
            let is_needed = oldest.end() > self.numbers.released + 1;
            let fits = self.recent_bytes <= if is_saved { RECENT } else { UNSAVED };
            if is_needed && fits {
                return;
            }
            // What a job has under way may be durable in a moment.
            if !is_saved && is_needed && self.store.is_none() {
                return;
            }
            let Some(batch) = self.recent.pop_front() else { return };
            self.recent_bytes -= batch.memory;
            if !is_saved {
                self.unsaved_bytes = self.unsaved_bytes.saturating_sub(batch.memory);
                self.lose(&batch);
            }
        }
    }

    /// Counts a batch that no disk has taken, as far as the server has not committed it.
    fn lose(&mut self, batch: &Batch) {
        let (first, last) = (batch.first.max(self.numbers.released + 1), batch.end() - 1);
        if first > last {
            return;
        }
        let mut tally = Tally::default();
        let skipped = usize::try_from(first - batch.first).unwrap_or(usize::MAX);
        batch.readings.iter().skip(skipped).for_each(|reading| tally.add(reading));
        gaps::append(
            &mut self.lost,
            tally.gap(first, last, GapReason::Evicted, batch.received),
            self.told,
        );
        self.counters.evicted += self.held.remove(first, last);
    }
}
