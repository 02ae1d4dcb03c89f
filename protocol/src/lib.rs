//! What the agent, the server and their users say to each other: types and codecs.
//!
//! ```text
//! agent:   Reading --batch--> uplink frames -->  server
//! server:  --> event::* (what subscribers receive)    request::* (what they send)
//! ```
//!
//! This crate knows no runtime, no socket, no file, no clock and no side: everything here is a
//! value or a function from bytes to values and back. The public API is specified in
//! `protocol/README.md`.

pub mod id;
pub mod time;
pub mod value;
pub mod unit;
pub mod reading;
pub mod batch;
pub mod counters;
pub mod uplink;
pub mod cbor;
pub mod format;
pub mod filter;
pub mod request;
pub mod response;
pub mod event;
pub mod error;
pub mod close;
