//! The task that owns the queue: sources' events come in, connections read and release.
//!
//! A connection asks through a [`Handle`]; what is new it sees in a watermark. So the queue has one
//! owner, and neither a slow source nor a slow connection can hold the other up.

use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;
use valtronics_protocol::time::UnixMillis;

use super::{
    Chunk, Counters, Limits, Position, Queue,
    newest::{Newest, Preview},
    timeline::{Start, Timeline, notebook::Notebook},
};
use crate::{
    clock,
    source::SourceEvent,
    tally::{Account, Ledger},
};

/// How many requests may wait: the uplink, `status` and the stopping program ask one at a time.
const REQUESTS: usize = 8;

enum Request {
    Read(Position, Limits, oneshot::Sender<Chunk>),
    Preview(u64, oneshot::Sender<Preview>),
    Settle(oneshot::Sender<()>),
    Start(Start, oneshot::Sender<Option<i64>>),
    Release(Option<u64>, Option<u64>),
    Id(oneshot::Sender<String>),
    Renew,
    Counters(oneshot::Sender<Counters>),
    Sent(u64, u64),
    Account(oneshot::Sender<Account>),
}

/// How others reach the queue.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    seq: watch::Receiver<u64>,
    urgent: watch::Receiver<(u64, usize)>,
}

/// The queue's task has ended, which only happens when the program does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the queue is closed")]
pub struct Closed;

/// Makes the handle and the task, which ends with the last handle; `notebook` remembers by which
/// clock the queue is timed.
pub fn start(
    queue: Queue,
    notebook: Notebook,
    events: mpsc::Receiver<SourceEvent>,
) -> (Handle, impl Future<Output = ()> + Send) {
    let (requests, inbox) = mpsc::channel(REQUESTS);
    let (seq, watched_seq) = watch::channel(0);
    let (urgent, watched_urgent) = watch::channel((0, 0));
    let keeper = Keeper {
        ledger: Ledger::new(queue.counters(), clock::now()),
        newest: Newest::default(),
        timeline: notebook.read(queue.id()),
        notebook,
        queue,
        events,
        inbox,
        seq,
        urgent,
    };
    let handle = Handle { requests, seq: watched_seq, urgent: watched_urgent };
    (handle, async move {
        keeper.show();
        keeper.run().await;
    })
}

impl Handle {
    /// Returns what follows `after`.
    ///
    /// # Errors
    /// When the queue is closed.
    pub async fn read(&self, after: Position, limits: Limits) -> Result<Chunk, Closed> {
        self.ask(|answer| Request::Read(after, limits, answer)).await
    }

    /// Returns the newest value of each series whose number is higher than `after`.
    ///
    /// # Errors
    /// When the queue is closed.
    pub async fn preview(&self, after: u64) -> Result<Preview, Closed> {
        self.ask(|answer| Request::Preview(after, answer)).await
    }

    /// Takes over when the machine started by a server's clock; returns by how many milliseconds the
    /// machine's own is wrong, if that is much.
    ///
    /// # Errors
    /// When the queue is closed.
    pub async fn settle_clock(&self, start: Start) -> Result<Option<i64>, Closed> {
        self.ask(|answer| Request::Start(start, answer)).await
    }

    /// Lets go of what the server has committed.
    ///
    /// # Errors
    /// When the queue is closed.
    pub async fn release(&self, seq: Option<u64>, event: Option<u64>) -> Result<(), Closed> {
        self.tell(Request::Release(seq, event)).await
    }

    /// Returns what names the numbering.
    ///
    /// # Errors
    /// When the queue is closed.
    pub async fn id(&self) -> Result<String, Closed> {
        self.ask(Request::Id).await
    }

    /// Begins a new numbering under a new id.
    ///
    /// # Errors
    /// When the queue is closed.
    pub async fn renew(&self) -> Result<(), Closed> {
        self.tell(Request::Renew).await
    }

    /// Returns what was counted.
    ///
    /// # Errors
    /// When the queue is closed.
    pub async fn counters(&self) -> Result<Counters, Closed> {
        self.ask(Request::Counters).await
    }

    /// Notes that `count` readings were sent, numbered from `first` on.
    ///
    /// # Errors
    /// When the queue is closed.
    pub async fn sent(&self, first: u64, count: u64) -> Result<(), Closed> {
        self.tell(Request::Sent(first, count)).await
    }

    /// Returns everything that was counted, at one moment: its sums hold.
    ///
    /// # Errors
    /// When the queue is closed.
    pub async fn account(&self) -> Result<Account, Closed> {
        self.ask(Request::Account).await
    }

    /// Waits until everything that sources have sent so far is in the queue.
    ///
    /// # Errors
    /// When the queue is closed.
    pub async fn settle(&self) -> Result<(), Closed> {
        self.ask(Request::Settle).await
    }

    /// Returns the last numbers given.
    #[must_use]
    pub fn end(&self) -> Position {
        let (event, device) = *self.urgent.borrow();
        Position { seq: *self.seq.borrow(), event, device }
    }

    /// Waits until anything was appended that this handle has not seen, and marks it as seen.
    ///
    /// # Errors
    /// When the queue is closed.
    pub async fn appended(&mut self) -> Result<(), Closed> {
        let (seq, urgent) = (&mut self.seq, &mut self.urgent);
        tokio::select! {
            changed = seq.changed() => changed,
            changed = urgent.changed() => changed,
        }
        .map_err(|_| Closed)
    }

    /// Waits likewise for status events and devices' settings only, which are not held back.
    ///
    /// # Errors
    /// When the queue is closed.
    pub async fn urgent(&mut self) -> Result<(), Closed> {
        self.urgent.changed().await.map_err(|_| Closed)
    }

    async fn tell(&self, request: Request) -> Result<(), Closed> {
        self.requests.send(request).await.map_err(|_| Closed)
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Closed> {
        let (answer, answered) = oneshot::channel();
        self.tell(request(answer)).await?;
        answered.await.map_err(|_| Closed)
    }
}

struct Keeper {
    queue: Queue,
    ledger: Ledger,
    newest: Newest,
    timeline: Timeline,
    notebook: Notebook,
    events: mpsc::Receiver<SourceEvent>,
    inbox: mpsc::Receiver<Request>,
    seq: watch::Sender<u64>,
    /// A watermark of its own: a connection that waits for its flush is not woken by each reading.
    urgent: watch::Sender<(u64, usize)>,
}

enum Input {
    Event(SourceEvent),
    Request(Request),
}

impl Keeper {
    async fn run(mut self) {
        while let Some(input) = self.next().await {
            match input {
                Input::Event(event) => self.take(event),
                Input::Request(request) => self.answer(request),
            }
        }
    }

    async fn next(&mut self) -> Option<Input> {
        tokio::select! {
            Some(event) = self.events.recv() => Some(Input::Event(event)),
            request = self.inbox.recv() => request.map(Input::Request),
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
                for (number, reading) in (self.queue.end().seq + 1..).zip(&readings) {
                    self.newest.put(number, reading);
                }
                self.queue.append(received, readings);
                if let Some(receipt) = receipt {
                    // A source that has gone waits for nothing.
                    let _ = receipt.send(());
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
        let Position { seq, event, .. } = self.queue.end();
        if self.timeline.note(received, clock::since_boot(), (seq + 1, event + 1)) {
            self.write_timeline();
        }
    }

    /// Rare enough not to leave the task for it, and no loss where it fails.
    fn write_timeline(&self) {
        if let Err(error) = self.notebook.write(self.queue.id(), &self.timeline) {
            warn!(%error, "after a restart of the agent its clock could not be corrected");
        }
    }

    /// Who asked may have gone in the meantime: then the answer is for nobody.
    fn answer(&mut self, request: Request) {
        match request {
            Request::Read(after, limits, answer) => {
                let mut chunk = self.queue.read(after, limits);
                self.timeline.correct(&mut chunk);
                let _ = answer.send(chunk);
            }
            Request::Preview(after, answer) => {
                let mut preview = self.newest.after(after, self.queue.end().seq);
                self.timeline.correct_preview(&mut preview);
                let _ = answer.send(preview);
            }
            Request::Start(start, answer) => {
                self.note(clock::now());
                self.timeline.settle(start);
                let _ = answer.send(self.timeline.off_by());
            }
            Request::Release(seq, event) => self.queue.release(seq, event),
            Request::Id(answer) => {
                let _ = answer.send(self.queue.id().into());
            }
            Request::Renew => {
                self.queue.renew();
                self.ledger.renewed();
                self.timeline.renumber();
                self.write_timeline();
                self.newest = Newest::default();
                self.show();
            }
            Request::Counters(answer) => {
                let _ = answer.send(self.queue.counters());
            }
            Request::Sent(first, count) => self.ledger.sent(first, count),
            Request::Account(answer) => {
                let account = self.ledger.account(self.queue.counters(), self.queue.oldest());
                let _ = answer.send(account);
            }
            Request::Settle(answer) => {
                while let Ok(event) = self.events.try_recv() {
                    self.take(event);
                }
                let _ = answer.send(());
            }
        }
    }
}
