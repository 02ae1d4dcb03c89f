//! The store's shell: one task that owns it and lends it to a blocking thread for each call.
//!
//! Commits come from the engine one at a time and are tried until they succeed: a full disk delays
//! acknowledgements and loses nothing. Names come from uplinks, which alone wait for them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, oneshot, watch};
use valtronics_protocol::id::DeviceId;

use crate::{
    auth::DeviceGrant,
    clock,
    commit::{Commit, Mark, Marks, MetricIndex, Row},
    engine::{EngineHandle, Input},
    hub::{Page, PageRequest},
    state::{LastValue, State},
    store::{self, Change, RegistryLimits, Store, StoreError},
};

mod health;

pub use health::Health;

/// How long to wait before a commit that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// How many requests for names may wait: each uplink asks one at a time.
const REQUESTS: usize = 64;
/// How many events a page holds: some tens of KiB, about what an outbox takes at once.
const PAGE: usize = 128;
/// How many requests for pages may wait: the rest waits in the hub, one a connection and channel.
const PAGES: usize = 16;
/// How many looks may wait: one a request over HTTP, and whoever finds no room waits.
const LOOKS: usize = 16;
/// How often last values are written down, so that a start has little to replay.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
/// How soon the next slice of what is old goes: a call deletes 1,000 commits, and at most 50 a
/// second come in.
const PRUNE_AGAIN: Duration = Duration::from_secs(1);

/// A device and metrics of it that are to be known; units are canonical.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The device's name.
    pub device: String,
    /// Names and units; a unit that is absent changes nothing.
    pub metrics: Vec<(String, Option<String>)>,
}

/// In whose name names are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registrant {
    /// The subject of the token, under which the names stand.
    pub sub: Arc<str>,
    /// The gateway that the devices are behind, if it has a name.
    pub gateway: Option<Arc<str>>,
    /// Which devices the token is for.
    pub devices: DeviceGrant,
}

/// The ids of a [`Wanted`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The device's.
    pub id: DeviceId,
    /// The metrics', in their order.
    pub indices: Vec<MetricIndex>,
}

/// Why names did not come into being.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// A limit is reached; the text says which.
    #[error("{0}")]
    Full(String),
    /// The token is not for a device; the text says for which.
    #[error("{0}")]
    Forbidden(String),
    /// The store cannot write now.
    #[error("the store cannot write now")]
    Unavailable,
}

struct Request {
    registrant: Registrant,
    wanted: Vec<Wanted>,
    answer: oneshot::Sender<Result<Vec<Named>, RegisterError>>,
}

/// A look at what is stored, in the store's turn.
type Look = Box<dyn FnOnce(&Store) + Send>;

/// The store has ended, or cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the store cannot be read now")]
pub struct Unreadable;

/// The way to the store.
#[derive(Clone)]
pub struct StoreHandle {
    looks: mpsc::Sender<Look>,
    requests: mpsc::Sender<Request>,
    changes: mpsc::Sender<Compaction>,
    health: watch::Receiver<Health>,
    commits: Arc<AtomicU64>,
    damaged: Arc<AtomicU64>,
}

/// A change of compaction, and where it is said what became of it.
struct Compaction {
    change: Change,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

impl StoreHandle {
    /// Looks names up, or brings them into being in this order.
    ///
    /// # Errors
    /// When the token is not for a device, a limit is reached or the store cannot write; then nothing
    /// came into being.
    pub async fn register(
        &self,
        registrant: Registrant,
        wanted: Vec<Wanted>,
    ) -> Result<Vec<Named>, RegisterError> {
        let (answer, answered) = oneshot::channel();
        let request = Request { registrant, wanted, answer };
        self.requests.send(request).await.map_err(|_| RegisterError::Unavailable)?;
        answered.await.map_err(|_| RegisterError::Unavailable)?
    }

    /// Makes a change of compaction durable.
    ///
    /// # Errors
    /// When the store cannot write; then nothing has changed.
    pub async fn compact(&self, change: Change) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.changes.send(Compaction { change, answer }).await.map_err(|_| StoreError::Ended)?;
        answered.await.map_err(|_| StoreError::Ended)?
    }

    /// Counts, and says, that blobs could not be read.
    pub fn note_damaged(&self, blobs: u64) {
        if blobs > 0 {
            tracing::error!(blobs, "stored readings are damaged: they are left out");
            self.damaged.fetch_add(blobs, Ordering::Relaxed);
        }
    }

    /// Returns how often blobs could not be read since the start.
    #[must_use]
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Looks at what is stored: nothing is committed meanwhile, so it has to be short.
    ///
    /// # Errors
    /// When the store has ended or cannot be read.
    pub async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Unreadable> {
        let (answer, answered) = oneshot::channel();
        let look = Box::new(move |store: &Store| {
            let read = look(store).inspect_err(|error| tracing::error!(%error, "cannot be read"));
            // Whoever asked may have gone.
            let _ = answer.send(read.map_err(|_| Unreadable));
        });
        self.looks.send(look).await.map_err(|_| Unreadable)?;
        answered.await.map_err(|_| Unreadable)?
    }

    /// Tells whether the store can do its work.
    #[must_use]
    pub fn health(&self) -> Health {
        *self.health.borrow()
    }

    /// Returns how many commits have succeeded since the start.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}

/// The task that owns the store.
pub struct StoreTask {
    /// Absent only while a blocking thread has it.
    store: Option<Store>,
    limits: watch::Receiver<RegistryLimits>,
    keep: Duration,
    requests: mpsc::Receiver<Request>,
    commits: mpsc::Receiver<Commit>,
    pages: mpsc::Receiver<PageRequest>,
    changes: mpsc::Receiver<Compaction>,
    health: health::Teller,
    looks: mpsc::Receiver<Look>,
    committed: Arc<AtomicU64>,
}

/// The engine's ways to the store.
pub struct EngineWays {
    /// Where commits go.
    pub commits: mpsc::Sender<Commit>,
    /// Where requests for events go.
    pub pages: mpsc::Sender<PageRequest>,
}

impl StoreTask {
    /// Makes the task, the way to it, and the engine's.
    #[must_use]
    pub fn new(
        store: Store,
        limits: watch::Receiver<RegistryLimits>,
        keep: Duration,
    ) -> (Self, StoreHandle, EngineWays) {
        let (requests, requests_rx) = mpsc::channel(REQUESTS);
        // The engine sends a commit only when the one before is done.
        let (commits, commits_rx) = mpsc::channel(1);
        let (pages, pages_rx) = mpsc::channel(PAGES);
        let (looks, looks_rx) = mpsc::channel(LOOKS);
        // Compaction waits for each.
        let (changes, changes_rx) = mpsc::channel(1);
        let (teller, health) = health::Teller::new();
        let committed = Arc::default();
        let task = Self {
            store: Some(store),
            limits,
            keep,
            requests: requests_rx,
            commits: commits_rx,
            pages: pages_rx,
            looks: looks_rx,
            changes: changes_rx,
            health: teller,
            committed: Arc::clone(&committed),
        };
        let (commits_done, damaged) = (committed, Arc::default());
        let handle =
            StoreHandle { looks, requests, changes, health, commits: commits_done, damaged };
        (task, handle, EngineWays { commits, pages })
    }

    /// Serves until the engine has ended; returns the store.
    pub async fn run(mut self, engine: EngineHandle) -> Store {
        let mut failed: Option<Commit> = None;
        let mut retry_at = clock::instant();
        let mut checkpoint_at = clock::instant() + CHECKPOINT_EVERY;
        loop {
            let wake_at =
                if failed.is_some() { retry_at.min(checkpoint_at) } else { checkpoint_at };
            tokio::select! {
                Some(request) = self.requests.recv() => self.register(request, &engine).await,
                Some(request) = self.pages.recv() => self.read_page(request, &engine).await,
                Some(compaction) = self.changes.recv() => self.compact(compaction).await,
                Some(look) = self.looks.recv() => self.with(move |store| look(store)).await,
                commit = self.commits.recv(), if failed.is_none() => match commit {
                    Some(commit) => failed = self.commit(commit, &engine).await,
                    None => break,
                },
                () = tokio::time::sleep_until(wake_at.into()) => {
                    if let Some(commit) = failed.take_if(|_| retry_at <= clock::instant()) {
                        failed = self.commit(commit, &engine).await;
                    }
                    if checkpoint_at <= clock::instant() {
                        let more = self.tidy(&engine).await;
                        let pause = if more { PRUNE_AGAIN } else { CHECKPOINT_EVERY };
                        checkpoint_at = clock::instant() + pause;
                    }
                }
            }
            if failed.is_some() && retry_at <= clock::instant() {
                retry_at = clock::instant() + RETRY;
            }
        }
        self.store.expect("no call is under way")
    }

    async fn with<T: Send + 'static>(
        &mut self,
        call: impl FnOnce(&mut Store) -> T + Send + 'static,
    ) -> T {
        let mut store = self.store.take().expect("no call is under way");
        let called = tokio::task::spawn_blocking(move || {
            let result = call(&mut store);
            (store, result)
        });
        let (store, result) = called.await.expect("a call of the store does not panic");
        self.store = Some(store);
        result
    }

    /// Commits; returns the commit when it has to be tried again.
    async fn commit(&mut self, commit: Commit, engine: &EngineHandle) -> Option<Commit> {
        let (commit, result, short) = self
            .with(move |store| {
                let result = store.commit(&commit);
                (commit, result, store.is_short())
            })
            .await;
        self.health.tell(&result, short);
        match result {
            Ok(committed) => {
                self.committed.fetch_add(1, Ordering::Relaxed);
                // An engine that has ended waits for nothing.
                let _ = engine.send(Input::Committed(committed)).await;
                None
            }
            Err(_) => Some(commit),
        }
    }

    async fn read_page(&mut self, request: PageRequest, engine: &EngineHandle) {
        let PageRequest { channel, after, .. } = request;
        let read = self.with(move |store| store.events_after(channel, after, PAGE)).await;
        let events = read.inspect_err(|error| tracing::error!(%error, "events cannot be read"));
        // An engine that has ended waits for nothing.
        let _ = engine.send(Input::Page(Page { request, events: events.ok() })).await;
    }

    async fn compact(&mut self, Compaction { change, answer }: Compaction) {
        let written = self.with(move |store| store.compact(&change)).await;
        // Compaction may have ended.
        let _ = answer.send(written);
    }

    async fn register(&mut self, request: Request, engine: &EngineHandle) {
        let Request { registrant, wanted, answer } = request;
        let (limits, now) = (*self.limits.borrow(), clock::now());
        let registered =
            self.with(move |store| store.register(&registrant, &wanted, limits, now)).await;
        let result = match registered {
            Ok(registered) => {
                if !registered.changes.is_empty() {
                    // The engine knows a name before the first batch that uses it.
                    let _ = engine.send(Input::Registered(registered.changes)).await;
                }
                Ok(registered.named)
            }
            Err(store::RegisterError::Limit(full)) => Err(RegisterError::Full(full)),
            Err(store::RegisterError::Forbidden(why)) => Err(RegisterError::Forbidden(why)),
            Err(store::RegisterError::Store(error)) => {
                self.health.tell::<()>(&Err(error), true);
                Err(RegisterError::Unavailable)
            }
        };
        // The uplink may have gone.
        let _ = answer.send(result);
    }

    /// Writes last values down and lets go of what is older than history reaches; true when there
    /// is more of that.
    async fn tidy(&mut self, engine: &EngineHandle) -> bool {
        let Ok(values) = engine.read(|state, _| last_values(state)).await else { return false };
        let (keep, now) = (self.keep, clock::now());
        let tidied = self.with(move |store| {
            let (rows, marks) = values;
            store.checkpoint(&rows, &marks)?;
            Ok::<_, StoreError>((store.prune(keep, now)?, store.oldest()?))
        });
        match tidied.await {
            Ok((more, oldest)) => {
                // An engine that has ended waits for nothing.
                let _ = engine.send(Input::Pruned(oldest)).await;
                more
            }
            Err(error) => {
                self.health.tell::<()>(&Err(error), true);
                false
            }
        }
    }
}

/// Returns the last value of every metric, and which of them do not count from when they were measured.
#[must_use]
pub fn last_values(state: &State) -> (Vec<Row>, Marks) {
    let (mut rows, mut marks) = (Vec::new(), Marks::default());
    for device in state.devices() {
        for (metric, known) in (0..).map(MetricIndex).zip(&device.metrics) {
            let Some(LastValue { value, at, effective_at }) = known.last.clone() else { continue };
            let mark = (effective_at != at).then_some(Mark::Until(effective_at));
            marks.push(rows.len(), mark);
            rows.push(Row { device: device.id(), metric, at, value });
        }
    }
    (rows, marks)
}
