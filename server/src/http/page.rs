//! Lists in pages: how much one wants, and from where on.

use serde::Deserialize;

/// The most that a page may hold, and what it holds when nothing is said (programs, "HTTP").
const MOST: usize = 1000;

/// How many a page holds at most, from 1 to 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "usize")]
pub(super) struct Limit(pub(super) usize);

impl Default for Limit {
    fn default() -> Self {
        Self(MOST)
    }
}

impl TryFrom<usize> for Limit {
    type Error = &'static str;
    fn try_from(limit: usize) -> Result<Self, Self::Error> {
        let fits = (1..=MOST).contains(&limit);
        fits.then_some(Self(limit)).ok_or("it is from 1 to 1000")
    }
}

/// A page, of what one cannot narrow.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    pub(super) limit: Limit,
    /// The `next` of the page before.
    pub(super) cursor: Option<u64>,
}
