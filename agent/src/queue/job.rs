//! What may block, in one piece: it takes the files along and brings them back.

use std::{io, sync::Arc};

use tracing::{error, info};

use super::{
    Chunk, Limits, Position, Queue,
    cursor::Cursor,
    store::{Outcome, RESERVE, Store, Work},
};

/// Everything that is due at one moment; to be run where it may block.
#[derive(Debug)]
pub struct Job {
    store: Box<Store>,
    work: Work,
    after: Option<Position>,
}

/// A job that was run; to be given back to its queue.
#[derive(Debug)]
pub struct Done {
    store: Box<Store>,
    outcome: Box<Outcome>,
    after: Option<Position>,
}

impl Job {
    /// Does it.
    #[must_use]
    pub fn run(mut self) -> Done {
        let outcome = Box::new(self.store.run(self.work));
        Done { store: self.store, outcome, after: self.after }
    }
}

impl Done {
    /// Tells whether it was to read something.
    #[must_use]
    pub fn has_read(&self) -> bool {
        self.after.is_some()
    }
}

impl Queue {
    /// Returns what is to be done, and read along the way; nothing while another job is under way.
    ///
    /// `save_cursor` says whether how far the server has come is worth a write by itself.
    pub fn job(&mut self, save_cursor: bool, read: Option<(Position, Limits)>) -> Option<Job> {
        let store = self.store.take()?;
        let cursor = self.cursor();
        let unsaved = self.recent.iter().filter(|batch| batch.first > self.numbers.saved);
        let events = self.events.iter().filter(|event| event.seq > self.event_numbers.saved);
        let first = read.and_then(|(after, limits)| {
            let first = *self.held.after(after.seq)?.start();
            Some((first, limits))
        });
        // Until the files are back, these are the gaps that there are.
        self.gaps.extend(self.lost.iter().cloned());
        let work = Work {
            cursor,
            save_cursor,
            batches: unsaved.map(Arc::clone).collect(),
            events: events.cloned().collect(),
            lost: std::mem::take(&mut self.lost),
            told: self.told,
            oldest: self.oldest().unwrap_or_default(),
            read: first,
        };
        Some(Job { store, work, after: read.map(|(after, _)| after) })
    }

    /// Reserves more numbers when half of them are used up.
    fn cursor(&self) -> Cursor {
        let reserve = |numbers: &super::Numbers| match numbers.reserved.saturating_sub(numbers.next)
            < RESERVE / 2
        {
            true => numbers.reserved + RESERVE,
            false => numbers.reserved,
        };
        let (readings, events) = (&self.numbers, &self.event_numbers);
        Cursor {
            queue: self.id,
            reserved: [reserve(readings), reserve(events)],
            released: [readings.released, events.released],
            end: [0, 0],
        }
    }

    /// Takes the files back, and returns what was read; nothing where it has gone in the meantime,
    /// or could not be read.
    pub fn finish(&mut self, done: Done) -> Option<Chunk> {
        let Done { store, outcome, after } = done;
        let outcome = *outcome;
        self.store = Some(store);
        self.note(outcome.error);
        if let Some(cursor) = outcome.cursor.filter(|cursor| cursor.queue == self.id) {
            self.numbers.reserved = cursor.reserved[0].max(self.numbers.reserved);
            self.event_numbers.reserved = cursor.reserved[1].max(self.event_numbers.reserved);
        }
        let [saved, saved_event] = outcome.saved;
        self.numbers.saved = saved.max(self.numbers.saved);
        self.event_numbers.saved = saved_event.max(self.event_numbers.saved);
        let unsaved = self.recent.iter().filter(|batch| batch.first > self.numbers.saved);
        self.unsaved_bytes = unsaved.map(|batch| batch.memory).sum();
        for loss in outcome.losses {
            self.counters.evicted += self.held.remove(loss.first, loss.last);
        }
        let released = self.numbers.released;
        self.gaps = outcome.gaps;
        self.gaps.retain(|gap| gap.last > released);
        while self.events.pop_front_if(|event| event.seq <= outcome.events_evicted).is_some() {
            self.counters.events_evicted += 1;
        }
        self.trim();
        let after = after?;
        let picked = outcome.picked?;
        let is_here =
            self.held.after(picked.first - 1).is_some_and(|range| *range.start() == picked.first);
        is_here.then(|| self.chunk(after, picked))
    }

    fn note(&mut self, failure: Option<io::Error>) {
        match failure {
            Some(why) => {
                self.counters.disk_errors += 1;
                if !self.is_disk_broken {
                    error!("the queue goes on in memory, the disk does not take it: {why}");
                }
                self.is_disk_broken = true;
            }
            None if self.is_disk_broken => {
                info!("the queue is on the disk again");
                self.is_disk_broken = false;
            }
            None => {}
        }
    }
}
