//! The server as its users meet it: the real program, over real sockets.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that finds something else than it expects has failed"
)]

mod auth;
mod bad_input;
mod batches;
mod bounds;
mod cbor;
mod codec;
mod endpoints;
mod frames;
mod grants;
mod house;
mod http;
mod jwks;
mod limits;
mod keys;
mod logs;
mod monitor;
mod persistence;
mod provider;
mod requests;
mod resume;
mod security;
mod server;
mod slow;
mod subscriptions;
mod tls;
mod tokens;
mod uplink;
mod watch;
