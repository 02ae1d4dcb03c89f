//! The keys as they are now: read again when they change, while the server runs.
//!
//! Files are read on SIGHUP. A JWKS is looked after by one task, [`KeyRing::keep_fresh`]: every so
//! often, and when a token names a key that nobody knows, which is how a rotation is met first.
//! What cannot be read or understood changes nothing.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::{
    fs::File,
    io::AsyncReadExt as _,
    sync::{Notify, watch},
    time::{sleep, sleep_until, timeout},
};
use valtronics_protocol::error::TokenFault;

use super::{
    Claims, Key, Keys,
    config::Source,
    fetch::{self, FetchError},
    jwks::{self, JwksError},
};
use crate::clock;

/// How often a file is looked at: reading it costs less than being told of its changes.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often a JWKS is fetched unasked: a key that was withdrawn counts for so long.
const FETCH_EVERY: Duration = Duration::from_secs(600);
/// How soon after one that failed the next fetch comes.
const RETRY_AFTER: Duration = Duration::from_secs(30);
/// How far apart fetches are that tokens asked for: anybody may send tokens with unknown keys.
const REST: Duration = Duration::from_secs(10);
/// How long a token waits for the key that it names.
pub const KEYS_WITHIN: Duration = Duration::from_secs(5);

/// Why a token is not good, or not yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// Something is wrong with it.
    Fault(TokenFault),
    /// It names a key that nobody knows, which is being asked for: try again when the keys have
    /// changed, or for [`KEYS_WITHIN`]. If there is none, this is wrong with the token.
    UnknownKey(TokenFault),
}

impl Rejected {
    /// Returns what is wrong if no more keys come.
    #[must_use]
    pub fn fault(self) -> TokenFault {
        match self {
            Self::Fault(fault) | Self::UnknownKey(fault) => fault,
        }
    }
}

/// Why the keys of the JWKS cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {why}")]
pub struct RefreshError {
    place: String,
    why: Unusable,
}

#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    File(#[from] io::Error),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Form(#[from] JwksError),
}

/// The keys that verify tokens now.
#[derive(Debug)]
pub struct KeyRing {
    keys: watch::Sender<Keys>,
    /// A token names a key that nobody knows.
    unknown: Notify,
    /// Other keys are configured.
    replaced: Notify,
}

impl KeyRing {
    /// Begins with these keys.
    #[must_use]
    pub fn new(keys: Keys) -> Self {
        let keys = watch::Sender::new(keys);
        Self { keys, unknown: Notify::new(), replaced: Notify::new() }
    }

    /// Takes over keys that were configured anew.
    pub fn replace(&self, new: Keys) {
        self.keys.send_modify(|keys| {
            let old = std::mem::replace(keys, new);
            // Until they are fetched again those that are known count.
            if keys.provided.is_empty() && keys.source == old.source {
                keys.provided = old.provided;
            }
        });
        self.replaced.notify_one();
    }

    /// Verifies a token by the keys that are known now.
    ///
    /// # Errors
    /// What is wrong with it, or that its key is not known yet.
    pub fn verify_now(&self, token: &str) -> Result<Claims, Rejected> {
        let keys = self.keys.borrow();
        let fault = match keys.verify(token, clock::now()) {
            Ok(claims) => return Ok(claims),
            Err(fault) => fault,
        };
        let unsigned = matches!(fault, TokenFault::Signature | TokenFault::Algorithm);
        if unsigned && keys.lack_key_of(token) {
            self.unknown.notify_one();
            return Err(Rejected::UnknownKey(fault));
        }
        Err(Rejected::Fault(fault))
    }

    /// Verifies a token; waits a while for a key that is not known yet.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn verify(&self, token: &str) -> Result<Claims, TokenFault> {
        let mut changes = self.changes();
        match self.verify_now(token) {
            Err(Rejected::UnknownKey(_)) => {
                // Without a change, too, this is the last look.
                let _ = timeout(KEYS_WITHIN, changes.changed()).await;
                self.verify_now(token).map_err(Rejected::fault)
            }
            verified => verified.map_err(Rejected::fault),
        }
    }

    /// Tells of changes of the keys from now on, and of attempts that changed nothing.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Keys> {
        self.keys.subscribe()
    }

    /// Looks for the keys of the JWKS, if there is one.
    ///
    /// # Errors
    /// When there are none; the old ones stay.
    pub async fn refresh(&self) -> Result<(), RefreshError> {
        let Some(source) = self.keys.borrow().source.clone() else { return Ok(()) };
        let (found, outcome) = match look(&source).await {
            Ok(found) => (Some(found), Ok(())),
            Err(why) => (None, Err(RefreshError { place: source.to_string(), why })),
        };
        self.keys.send_modify(|keys| {
            // Meanwhile another source may be configured.
            if let Some(found) = found
                && keys.source.as_ref() == Some(&source)
            {
                keys.provided = found;
            }
        });
        outcome
    }

    /// Looks after the keys of the JWKS for ever.
    pub async fn keep_fresh(&self) {
        let (mut asked_at, mut failure) = (None::<Instant>, String::new());
        loop {
            let every = match (&self.keys.borrow().source, failure.is_empty()) {
                (Some(Source::File(_)), _) => LOOK_EVERY,
                (Some(Source::Url(_)), false) => RETRY_AFTER,
                (Some(Source::Url(_)) | None, _) => FETCH_EVERY,
            };
            tokio::select! {
                () = sleep(every) => {}
                () = self.replaced.notified() => {}
                () = self.asked(asked_at) => asked_at = Some(clock::instant()),
            }
            let now =
                self.refresh().await.map_or_else(|error| error.to_string(), |()| String::new());
            // Said once: it may last.
            if !now.is_empty() && now != failure {
                tracing::warn!("the JWKS cannot be used, the keys stay as they are: {now}");
            }
            failure = now;
        }
    }

    /// Waits until a token asks for a key, but not sooner than [`REST`] after the last one.
    async fn asked(&self, last: Option<Instant>) {
        if let Some(last) = last {
            sleep_until((last + REST).into()).await;
        }
        self.unknown.notified().await;
    }
}

/// Looks for the keys at one place.
async fn look(source: &Source) -> Result<Vec<Key>, Unusable> {
    let text = match source {
        Source::File(path) => {
            let mut text = Vec::new();
            let file = File::open(path).await?;
            file.take(jwks::MAX_BYTES as u64 + 1).read_to_end(&mut text).await?;
            text
        }
        Source::Url(url) => fetch::get(url, jwks::MAX_BYTES).await?,
    };
    Ok(jwks::parse(&text)?)
}
