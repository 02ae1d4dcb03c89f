//! Turns readings from gateways into live telemetry, device status and alerts for subscribers.
//!
//! ```text
//! listen -> http -> uplink -> ingest -> engine { state, domain } -> store
//!                                          |
//!                                          v
//!                                 hub -> outbox -> session -> socket
//! ```
//!
//! `app` alone puts the stages together. Three things go back: how far each numbering is committed,
//! committed events (into the engine's inbox), and a subscriber's outbox, which came with his
//! subscription.

pub mod app;
pub mod config;
pub mod auth;
pub mod origin;
pub mod limits;
pub mod proxy;
pub mod tls;
pub mod stream;
pub mod monitor;
pub mod listen;
pub mod http;
pub mod uplink;
pub mod tally;
pub mod used_key;
pub mod ingest;
pub mod engine;
pub mod domain;
pub mod state;
pub mod commit;
pub mod store_task;
pub mod compaction;
pub mod history;
pub mod store;
pub mod rehearsal;
pub mod rule_files;
pub mod hub;
pub mod outbox;
pub mod session;
pub mod message;
pub mod socket;
pub mod timing;
pub mod system;
pub mod telemetry;
pub mod watch;
pub mod moment;
pub mod clock;
