//! The task that owns the queue: sources' events come in, connections read and release.
//!
//! A connection asks through a [`Handle`]; what is new it sees in a watermark. So the queue has one
//! owner, and neither a slow source nor a slow connection can hold the other up.

mod task;

use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Chunk, Counters, Limits, Position, Queue,
    newest::Preview,
    timeline::{Start, notebook::Notebook},
};
use crate::{source::SourceEvent, tally::Account};
use task::Keeper;

/// How many requests may wait: the uplink, `status` and the stopping program ask one at a time.
const REQUESTS: usize = 8;

enum Request {
    Read(Position, Limits, oneshot::Sender<Chunk>),
    Preview(u64, oneshot::Sender<Preview>),
    Start(Start, oneshot::Sender<Option<i64>>),
    Release(Option<u64>, Option<u64>),
    Resume(Option<u64>, Option<u64>, oneshot::Sender<Option<Position>>),
    Id(oneshot::Sender<String>),
    Renew(oneshot::Sender<()>),
    Counters(oneshot::Sender<Counters>),
    Sent(u64, u64),
    Account(oneshot::Sender<Account>),
    Settle(oneshot::Sender<()>),
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

/// Makes the handle and the task, which ends with the last handle, when everything is durable;
/// `sync` is how long readings may wait for that, `notebook` remembers by which clock the queue is
/// timed.
pub fn start(
    queue: Queue,
    sync: Duration,
    notebook: Notebook,
    events: mpsc::Receiver<SourceEvent>,
) -> (Handle, impl Future<Output = ()> + Send) {
    let (requests, inbox) = mpsc::channel(REQUESTS);
    let end = queue.end();
    let (seq, watched_seq) = watch::channel(end.seq);
    let (urgent, watched_urgent) = watch::channel((end.event, end.device));
    let keeper = Keeper::new(queue, sync, notebook, events, inbox, seq, urgent);
    (Handle { requests, seq: watched_seq, urgent: watched_urgent }, keeper.run())
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

    /// Lets go of what the server has committed, and returns where a connection goes on; `None`
    /// where a number was never given, so that the numbering must be another's.
    ///
    /// # Errors
    /// When the queue is closed.
    pub async fn resume(
        &self,
        seq: Option<u64>,
        event: Option<u64>,
    ) -> Result<Option<Position>, Closed> {
        self.ask(|answer| Request::Resume(seq, event, answer)).await
    }

    /// Returns what names the numbering.
    ///
    /// # Errors
    /// When the queue is closed.
    pub async fn id(&self) -> Result<String, Closed> {
        self.ask(Request::Id).await
    }

    /// Goes on under a new id, which is durable when this returns, unless the disk is broken.
    ///
    /// # Errors
    /// When the queue is closed.
    pub async fn renew(&self) -> Result<(), Closed> {
        self.ask(Request::Renew).await
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

    /// Returns the last numbers that wait, or were committed.
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
