//! Readings as bytes: a stateful codec of columns.
