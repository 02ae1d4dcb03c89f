//! The shell of history: a few readers beside the store's writer, each on a thread while it reads.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Semaphore;

use crate::{
    clock,
    store::{Page, Query, Reader, StoreError},
    store_task::StoreHandle,
};

/// How many pages are read at a time: they take processor time from live readings.
const READERS: usize = 2;
/// After how long a page ends, full or not: so others have their turn on a slow disk, too.
const A_PAGE: Duration = Duration::from_millis(500);
/// How long a request waits for a reader: as long as its client would wait without a sign.
const WAIT: Duration = Duration::from_secs(10);

/// The way to what is stored.
pub struct History {
    dir: PathBuf,
    /// For how long readings are kept.
    pub keep: Duration,
    permits: Arc<Semaphore>,
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
        let (permits, idle) = (Arc::new(Semaphore::new(READERS)), Mutex::default());
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
        let permit = tokio::time::timeout(WAIT, Arc::clone(&self.permits).acquire_owned()).await;
        let permit = permit.ok().and_then(Result::ok).ok_or(HistoryError::Busy)?;
        let idle = self.idle().pop();
        let dir = self.dir.clone();
        let read = move || {
            // Whoever asked may go; the thread reads on all the same.
            let _permit = permit;
            let mut reader = idle.map_or_else(|| Reader::open(&dir), Ok)?;
            let until = clock::instant() + A_PAGE;
            let page = reader.read(&query, || clock::instant() >= until)?;
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use valtronics_protocol::{id::DeviceId, time::UnixMillis};

    use super::*;
    use crate::{
        commit::MetricIndex,
        store::{RegistryLimits, Store},
        store_task::StoreTask,
    };

    #[tokio::test]
    async fn who_goes_while_he_is_read_for_makes_no_room() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path()).unwrap();
        let limits = RegistryLimits { devices_per_sub: 1, metrics_per_device: 1 };
        let limits = tokio::sync::watch::channel(limits).1;
        let (_task, store, _ways) = StoreTask::new(store, limits, Duration::from_secs(1));
        let history = History::new(dir.path().to_owned(), Duration::from_secs(1), store);
        let query = Query {
            device: DeviceId(1),
            metric: MetricIndex(0),
            from: UnixMillis(0),
            to: UnixMillis(1),
            arrived_from: UnixMillis(0),
            step: None,
            limit: 1,
            cursor: None,
        };
        let (begun, mut has_begun) = tokio::sync::oneshot::channel();
        let (end, ended) = mpsc::channel::<()>();
        let reading = history.read(query, move |_| (begun.send(()), ended.recv()).1);
        tokio::select! {
            _ = reading => panic!("it waits"),
            begun = &mut has_begun => begun.unwrap(),
        }
        assert_eq!(history.permits.available_permits(), READERS - 1);
        drop(end);
        let all = history.permits.acquire_many(READERS as u32);
        drop(tokio::time::timeout(WAIT, all).await.unwrap().unwrap());
    }
}
