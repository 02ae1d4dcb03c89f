//! The server as its users meet it: the real program, over real sockets.

mod auth;
mod endpoints;
mod house;
mod http;
mod persistence;
mod requests;
mod server;
mod subscriptions;
mod uplink;
