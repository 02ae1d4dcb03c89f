//! The agent as its users meet it: the real program with real ports, a real broker, and a server
//! that says what it is told to.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that finds something else than it expects has failed"
)]

mod world;
mod server;
mod parts;
mod slave;
mod edge;
mod formats;
mod corpora;
mod described;
mod births;
mod modbus_corpora;
mod serial;
mod mqtt;
mod discovery;
mod sparkplug;
mod modbus;
mod uplink;
mod tls;
mod outage;
mod queue;
mod live_first;
mod status;
mod commands;
