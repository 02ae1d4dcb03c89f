//! The server as its users meet it: the real program, over real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that finds something else than it expects has failed"
)]

mod agents;
mod alert_engine;
mod auth;
mod bad_input;
mod batches;
mod bounds;
mod bad_tokens;
mod cbor;
mod codec;
mod connections;
mod conversation;
mod crowd;
mod defaults;
mod disk_full;
mod endpoints;
mod filters;
mod frames;
mod freshness;
mod grants;
mod history;
mod house;
mod http;
mod idempotency;
mod jwks;
mod limits;
mod live_first;
mod keys;
mod logs;
mod monitor;
mod openapi;
mod persistence;
mod provider;
mod reload;
mod requests;
mod restored;
mod resume;
mod rights;
mod security;
mod server;
mod slow;
mod snapshots;
mod subscriptions;
mod texts;
mod tls;
mod tokens;
mod updates;
mod uplink;
mod watch;
