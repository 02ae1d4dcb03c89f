//! `Idempotency-Key`: a body that comes again under its key is not stored again.
//!
//! A key is used up in the transaction that holds the body's readings. Only hashes are kept.

use std::sync::Arc;

use ring::digest;
use tokio::sync::oneshot;
use valtronics_protocol::time::UnixMillis;

/// The first half of a SHA-256: nobody finds another text with the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 16]);

impl Digest {
    /// Computes the digest of a text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let full = digest::digest(&digest::SHA256, text.as_bytes());
        let half = full.as_ref().first_chunk().expect("a SHA-256 has 32 bytes");
        Self(*half)
    }
}

/// A key that was used for a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsedKey {
    /// The subject of the token: keys are its own.
    pub sub: Arc<str>,
    /// The key.
    pub key: Digest,
    /// The body.
    pub body: Digest,
    /// When it came in.
    pub at: UnixMillis,
}

/// Somebody wants to use a key.
#[derive(Debug)]
pub struct Once {
    /// Which, and for what.
    pub wanted: UsedKey,
    /// Where the answer goes.
    pub answer: oneshot::Sender<KeyState>,
}

/// What is known of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// It was not used in the last day.
    New,
    /// It was used for the same body.
    Repeated,
    /// It was used for another body.
    OtherBody,
    /// No more keys can be remembered now.
    Full,
}
