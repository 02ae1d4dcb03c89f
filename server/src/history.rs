//! The shell of history: a few readers beside the store's writer, each on a thread while it reads.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Semaphore;

use crate::{
    store::{Page, Query, Reader, StoreError},
    store_task::StoreHandle,
};

/// How many pages are read at a time: they take processor time from live readings.
const READERS: usize = 2;
/// How long a request waits for a reader: as long as its client would wait without a sign.
const WAIT: Duration = Duration::from_secs(10);

/// The way to what is stored.
pub struct History {
    dir: PathBuf,
    /// For how long readings are kept.
    pub keep: Duration,
    permits: Semaphore,
    /// Readers that nobody uses, at most [`READERS`].
    idle: Mutex<Vec<Reader>>,
    store: StoreHandle,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Others are reading.
    #[error("too many others read history now")]
    Busy,
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl History {
    /// Makes the way to the store of a data directory.
    #[must_use]
    pub fn new(dir: PathBuf, keep: Duration, store: StoreHandle) -> Self {
        let (permits, idle) = (Semaphore::new(READERS), Mutex::default());
        Self { dir, keep, permits, idle, store }
    }

    /// Reads a page and makes something of it, away from the runtime's threads.
    ///
    /// # Errors
    /// When others read for long, or the store cannot be read.
    pub async fn read<T: Send + 'static>(
        &self,
        query: Query,
        make: impl FnOnce(Page) -> T + Send + 'static,
    ) -> Result<T, HistoryError> {
        let permit = tokio::time::timeout(WAIT, self.permits.acquire()).await;
        let _permit = permit.ok().and_then(Result::ok).ok_or(HistoryError::Busy)?;
        let idle = self.idle().pop();
        let dir = self.dir.clone();
        let read = move || {
            let mut reader = idle.map_or_else(|| Reader::open(&dir), Ok)?;
            let page = reader.read(&query)?;
            let damaged = page.damaged;
            Ok::<_, StoreError>((reader, damaged, make(page)))
        };
        let read = tokio::task::spawn_blocking(read).await;
        let (reader, damaged, made) = read.expect("reading does not panic")?;
        self.store.note_damaged(damaged);
        self.idle().push(reader);
        Ok(made)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Reader>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
