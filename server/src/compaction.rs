//! The shell of compaction: finds changes on a thread of its own, has the store's task write them.
//!
//! One change is under way at a time and takes the writer some milliseconds, so commits go between.

use std::time::Duration;

use tokio::task::JoinError;

use crate::{clock, store::Compactor, store_task::StoreHandle};

/// How often it is looked whether an hour has closed, and how soon a failure is tried again.
const EVERY: Duration = Duration::from_secs(60);

/// Compacts what closes, for ever.
///
/// # Errors
/// When the thread dies.
pub async fn run(
    mut compactor: Compactor,
    keep: Duration,
    store: StoreHandle,
) -> Result<(), JoinError> {
    let mut changes = 0_u64;
    loop {
        let search = move || {
            let found = compactor.next(keep, clock::now());
            (compactor, found)
        };
        let found;
        (compactor, found) = tokio::task::spawn_blocking(search).await?;
        store.note_damaged(compactor.take_damaged());
        let failed = match found {
            Ok(Some(change)) => match store.compact(change).await {
                Ok(()) => {
                    changes += 1;
                    continue;
                }
                Err(error) => Some(error),
            },
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if let Some(error) = failed {
            tracing::warn!(%error, "closed hours cannot be compacted; it is tried again in a minute");
            compactor.reset();
        } else if changes > 0 {
            tracing::info!(changes, "closed hours are compacted");
        }
        changes = 0;
        tokio::time::sleep(EVERY).await;
    }
}
