//! The keeper's loop: it awaits one thing, applies it, and lets one job at a time run where it may
//! block.

use std::{collections::VecDeque, time::Duration};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tracing::warn;
use valtronics_protocol::time::UnixMillis;

use super::{
    super::{
        Chunk, Done, Limits, Position, Queue,
        newest::Newest,
        timeline::{Timeline, notebook::Notebook},
    },
    Request,
};
use crate::{clock, source::SourceEvent, tally::Ledger};

/// How much memory unsaved readings may take before they are written: some thousand readings, which
/// are 10 to 64 KiB in the file.
const COMMIT_BYTES: usize = 512 * 1024;
/// How many messages may wait for the disk before it is asked: brokers stop at 20 under way, so one
/// commit a second would mean 20 messages a second.
const HELD_MESSAGES: usize = 10;
/// How long a message waits for others.
const HELD_FOR: Duration = Duration::from_millis(50);
/// How late the cursor may be: what the server has is sent once more after a power cut, and known
/// there, so flash is worth more.
const CURSOR_EVERY: Duration = Duration::from_secs(30);
/// How long a disk that did not take something is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// How much may be unsaved while a job is under way; beyond, sources wait rather than lose.
const UNSAVED_BYTES: usize = 4 * 1024 * 1024;

pub(super) struct Keeper {
    queue: Queue,
    ledger: Ledger,
    newest: Newest,
    timeline: Timeline,
    notebook: Notebook,
    sync: Duration,
    events: mpsc::Receiver<SourceEvent>,
    inbox: mpsc::Receiver<Request>,
    seq: watch::Sender<u64>,
    /// A watermark of its own: a connection that waits for its flush is not woken by each reading.
    urgent: watch::Sender<(u64, usize)>,
    job: JoinSet<Done>,
    /// Who waits for what only the disk has; each waits for one answer.
    reads: VecDeque<Read>,
    /// Who waits until the readings up to a number are safe; a source holds a bounded number.
    receipts: VecDeque<(u64, oneshot::Sender<()>)>,
    /// Who waits for the new id to be written down.
    renewals: Vec<oneshot::Sender<()>>,
    /// Those whose job is under way.
    renewing: Vec<oneshot::Sender<()>>,
    unsaved_since: Option<Instant>,
    held_since: Option<Instant>,
    cursor_saved: Instant,
    /// How far the server had come when the cursor was last written.
    cursor: [u64; 2],
    retry_at: Option<Instant>,
}

struct Read(Position, Limits, oneshot::Sender<Chunk>);

enum Input {
    Event(SourceEvent),
    Request(Request),
    Done(Done),
    Due,
}

impl Keeper {
    pub(super) fn new(
        queue: Queue,
        sync: Duration,
        notebook: Notebook,
        events: mpsc::Receiver<SourceEvent>,
        inbox: mpsc::Receiver<Request>,
        seq: watch::Sender<u64>,
        urgent: watch::Sender<(u64, usize)>,
    ) -> Self {
        Self {
            cursor: queue.released(),
            ledger: Ledger::new(queue.counters(), clock::now()),
            newest: Newest::default(),
            timeline: notebook.read(&queue.id()),
            notebook,
            queue,
            sync,
            events,
            inbox,
            seq,
            urgent,
            job: JoinSet::new(),
            reads: VecDeque::new(),
            receipts: VecDeque::new(),
            renewals: Vec::new(),
            renewing: Vec::new(),
            unsaved_since: None,
            held_since: None,
            cursor_saved: clock::monotonic(),
            retry_at: None,
        }
    }

    pub(super) async fn run(mut self) {
        while let Some(input) = self.next().await {
            match input {
                Input::Event(event) => self.take(event),
                Input::Request(request) => self.answer(request),
                Input::Done(done) => self.finish(done),
                Input::Due => self.begin(),
            }
        }
        self.close().await;
    }

    async fn next(&mut self) -> Option<Input> {
        let due = self.due();
        let takes_events = self.job.is_empty() || self.queue.unsaved_bytes() < UNSAVED_BYTES;
        tokio::select! {
            Some(done) = self.job.join_next() => {
                Some(Input::Done(done.expect("a job neither panics nor is cancelled")))
            }
            () = sleep_until(due.unwrap_or(self.cursor_saved)), if due.is_some() => Some(Input::Due),
            Some(event) = self.events.recv(), if takes_events => Some(Input::Event(event)),
            request = self.inbox.recv() => request.map(Input::Request),
        }
    }

    /// Returns when the next job may begin; a moment that is past, such as when the cursor was
    /// saved, means at once.
    fn due(&self) -> Option<Instant> {
        if !self.job.is_empty() {
            return None;
        }
        if !self.reads.is_empty() || !self.renewals.is_empty() {
            return Some(self.cursor_saved);
        }
        let is_full = self.queue.unsaved_bytes() >= COMMIT_BYTES
            || self.receipts.len() >= HELD_MESSAGES
            || self.queue.has_unsaved_events();
        let cursor =
            (self.cursor != self.queue.released()).then(|| self.cursor_saved + CURSOR_EVERY);
        let due = match is_full {
            true => Some(self.cursor_saved),
            false => {
                let held = self.held_since.map(|since| since + HELD_FOR);
                let unsaved = self.unsaved_since.map(|since| since + self.sync);
                [held, unsaved, cursor].into_iter().flatten().min()
            }
        };
        due.map(|due| self.retry_at.map_or(due, |retry_at| due.max(retry_at)))
    }

    fn begin(&mut self) {
        let read = self.reads.front().map(|Read(after, limits, _)| (*after, *limits));
        self.start(read, clock::monotonic() >= self.cursor_saved + CURSOR_EVERY);
    }

    fn start(&mut self, read: Option<(Position, Limits)>, save_cursor: bool) {
        let Some(job) = self.queue.job(save_cursor, read) else { return };
        if save_cursor {
            (self.cursor, self.cursor_saved) = (self.queue.released(), clock::monotonic());
        }
        (self.unsaved_since, self.held_since) = (None, None);
        self.renewing.append(&mut self.renewals);
        self.job.spawn_blocking(|| job.run());
    }

    fn finish(&mut self, done: Done) {
        let has_read = done.has_read();
        let chunk = self.queue.finish(done);
        self.retry_at = self.queue.is_disk_broken().then(|| clock::monotonic() + RETRY_AFTER);
        if has_read && let Some(Read(after, limits, asker)) = self.reads.pop_front() {
            match chunk {
                Some(chunk) => self.hand_out(chunk, asker),
                None => self.read(Read(after, limits, asker)),
            }
        }
        for renewal in self.renewing.drain(..) {
            let _ = renewal.send(());
        }
        let now = clock::monotonic();
        let is_unsaved = self.queue.unsaved_bytes() > 0;
        self.unsaved_since = self.unsaved_since.or_else(|| is_unsaved.then_some(now));
        self.hand_receipts();
        self.held_since = self.held_since.or_else(|| (!self.receipts.is_empty()).then_some(now));
        self.show();
    }

    fn hand_receipts(&mut self) {
        let safe = self.queue.safe();
        while let Some((_, receipt)) = self.receipts.pop_front_if(|(seq, _)| *seq <= safe) {
            // A source that has gone waits for nothing.
            let _ = receipt.send(());
        }
        if self.receipts.is_empty() {
            self.held_since = None;
        }
    }

    fn show(&self) {
        let end = self.queue.end();
        self.seq.send_if_modified(|seq| std::mem::replace(seq, end.seq) != end.seq);
        let urgent = (end.event, end.device);
        self.urgent.send_if_modified(|shown| std::mem::replace(shown, urgent) != urgent);
    }

    fn take(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Readings { source, tally, received, readings, receipt } => {
                self.ledger.add(source, tally);
                self.note(received);
                for (number, reading) in (self.queue.next().0..).zip(&readings) {
                    self.newest.put(number, reading);
                }
                let is_empty = readings.is_empty();
                let last = self.queue.append(received, readings);
                let now = clock::monotonic();
                if !is_empty {
                    self.unsaved_since.get_or_insert(now);
                }
                if let Some(receipt) = receipt {
                    self.receipts.push_back((last, receipt));
                    self.held_since.get_or_insert(now);
                    self.hand_receipts();
                }
            }
            SourceEvent::Status(change) => {
                self.note(change.timestamp);
                self.queue.append_event(change);
            }
            SourceEvent::Device(info) => self.queue.append_device(info),
        }
        self.show();
    }

    /// Holds the clock that a source has read against the one that never jumps.
    fn note(&mut self, received: UnixMillis) {
        if self.timeline.note(received, clock::since_boot(), self.queue.next()) {
            self.write_timeline();
        }
    }

    /// Rare enough not to leave the task for it, and no loss where it fails.
    fn write_timeline(&self) {
        if let Err(error) = self.notebook.write(&self.queue.id(), &self.timeline) {
            warn!(%error, "after a restart of the agent its clock could not be corrected");
        }
    }

    fn read(&mut self, Read(after, limits, asker): Read) {
        match self.queue.read(after, limits) {
            Some(chunk) => self.hand_out(chunk, asker),
            None => self.reads.push_back(Read(after, limits, asker)),
        }
    }

    fn hand_out(&self, mut chunk: Chunk, asker: oneshot::Sender<Chunk>) {
        self.timeline.correct(&mut chunk);
        let _ = asker.send(chunk);
    }

    /// Who asked may have gone in the meantime: then the answer is for nobody.
    fn answer(&mut self, request: Request) {
        match request {
            Request::Read(after, limits, asker) => self.read(Read(after, limits, asker)),
            Request::Preview(after, asker) => {
                let mut preview = self.newest.after(after, self.queue.end().seq);
                self.timeline.correct_preview(&mut preview);
                let _ = asker.send(preview);
            }
            Request::Start(start, asker) => {
                self.note(clock::now());
                self.timeline.settle(start);
                let _ = asker.send(self.timeline.off_by());
            }
            Request::Release(seq, event) => {
                self.queue.release(seq, event);
                self.hand_receipts();
            }
            Request::Resume(seq, event, asker) => {
                let _ = asker.send(self.queue.resume(seq, event));
                self.hand_receipts();
                self.show();
            }
            Request::Id(asker) => drop(asker.send(self.queue.id())),
            Request::Renew(asker) => {
                self.queue.renew();
                self.write_timeline();
                self.renewals.push(asker);
            }
            Request::Counters(asker) => drop(asker.send(self.queue.counters())),
            Request::Sent(first, count) => self.ledger.sent(first, count),
            Request::Account(asker) => {
                let account = self.ledger.account(self.queue.counters(), self.queue.oldest());
                let _ = asker.send(account);
            }
            Request::Settle(asker) => {
                while let Ok(event) = self.events.try_recv() {
                    self.take(event);
                }
                let _ = asker.send(());
            }
        }
    }

    /// Makes everything durable, and writes down how far the server has come.
    async fn close(&mut self) {
        self.reads.clear();
        self.finish_jobs().await;
        self.start(None, true);
        self.finish_jobs().await;
    }

    async fn finish_jobs(&mut self) {
        while let Some(Ok(done)) = self.job.join_next().await {
            self.finish(done);
        }
    }
}
