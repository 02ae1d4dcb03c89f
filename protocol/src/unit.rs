//! Canonical spellings of units.
