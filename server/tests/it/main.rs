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
mod endpoints;
mod frames;
mod house;
mod http;
mod logs;
mod monitor;
mod persistence;
mod requests;
mod security;
mod server;
mod subscriptions;
mod tls;
mod uplink;
