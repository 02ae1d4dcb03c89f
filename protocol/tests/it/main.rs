//! The protocol as its users meet it: bytes in, bytes out.

#![expect(clippy::unwrap_used, reason = "a test that finds something else has failed")]

mod cbor;
mod original;
