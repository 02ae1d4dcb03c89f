//! A subscriber's CBOR: what can be read says the same when it is written again, and any bytes are
//! some messages.

#![no_main]

use libfuzzer_sys::fuzz_target;
use valtronics_protocol::{
    cbor,
    request::{MessageLimits, parse_cbor},
};

fuzz_target!(|frame: &[u8]| {
    match cbor::from_slice(frame) {
        Ok(value) => {
            let written = cbor::to_vec(&value);
            assert_eq!(cbor::from_slice(&written).as_ref(), Ok(&value));
            // What is as deep as it may be finds no room in a batch.
            if let Ok(batch) = cbor::from_slice(&cbor::join(&[&written, &written])) {
                assert_eq!([&batch["messages"][0], &batch["messages"][1]], [&value, &value]);
            }
        }
        Err(malformed) => assert!(malformed.at <= frame.len()),
    }
    let limits = MessageLimits::DEFAULT;
    let messages = parse_cbor(frame, &limits);
    assert!((1..=limits.batch_messages).contains(&messages.len()));
});
