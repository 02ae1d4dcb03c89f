//! Lists in pages: how much one wants, and from where on.

use serde::Deserialize;

/// The most items that a page may hold, and what it holds when nothing is said (programs, "HTTP").
const ITEMS: usize = 1000;

/// How many a page holds at most, from 1 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "usize")]
pub(super) struct Limit<const MOST: usize = ITEMS>(pub(super) usize);

impl<const MOST: usize> Default for Limit<MOST> {
    fn default() -> Self {
        Self(MOST)
    }
}

impl<const MOST: usize> TryFrom<usize> for Limit<MOST> {
    type Error = String;
    fn try_from(limit: usize) -> Result<Self, Self::Error> {
        let fits = (1..=MOST).contains(&limit);
        fits.then_some(Self(limit)).ok_or_else(|| format!("it is from 1 to {MOST}"))
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
