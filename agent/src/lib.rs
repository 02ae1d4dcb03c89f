//! Reads sensors on a field gateway, keeps every reading, and streams it to the server.
//!
//! ```text
//! source -> decode -> normalize -> queue -> uplink
//! ```
//!
//! `app` alone puts the stages together. What goes back is how far the server has committed.

pub mod app;
pub mod config;
pub mod source;
pub mod decode;
pub mod describe;
pub mod normalize;
pub mod tally;
pub mod queue;
pub mod uplink;
pub mod dial;
pub mod backoff;
pub mod status;
pub mod telemetry;
pub mod clock;
