//! Whether the store can do its work; each change is said once, not each attempt.

use tokio::sync::watch;

use crate::store::StoreError;

/// Whether the store can do its work, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It can.
    Good,
    /// The disk is full but for the room that was kept for this.
    Short,
    /// The disk is full: nothing is acknowledged until there is room.
    Full,
    /// It cannot write, for another reason.
    Failing,
}

/// Tells what comes of the store's attempts.
#[derive(Debug)]
pub(super) struct Teller {
    health: watch::Sender<Health>,
    /// The worst that was logged since it was good: at the edge it goes to and fro.
    logged: Health,
}

impl Teller {
    pub(super) fn new() -> (Self, watch::Receiver<Health>) {
        let (health, watched) = watch::channel(Health::Good);
        (Self { health, logged: Health::Good }, watched)
    }

    /// Notes an attempt, and whether the room that is kept for a full disk is in use.
    pub(super) fn tell<T>(&mut self, attempt: &Result<T, StoreError>, short: bool) {
        let health = match attempt {
            Ok(_) if short => Health::Short,
            Ok(_) => Health::Good,
            Err(StoreError::DiskFull) => Health::Full,
            Err(_) => Health::Failing,
        };
        self.health.send_replace(health);
        if health <= self.logged && health != Health::Good {
            return;
        }
        match (health, attempt) {
            (Health::Good, _) if self.logged == Health::Good => {}
            (Health::Good, _) => tracing::info!("the store can write again"),
            (Health::Short, _) => {
                tracing::error!("the disk is full but for what was kept for this: free some room")
            }
            (Health::Full, _) => {
                tracing::error!("the disk is full: nothing is acknowledged until there is room")
            }
            (Health::Failing, Err(error)) => {
                tracing::error!(%error, "the store cannot write: nothing is acknowledged until it can")
            }
            (Health::Failing, Ok(_)) => {}
        }
        self.logged = health;
    }
}
