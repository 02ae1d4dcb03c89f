//! Control of `/uplink`, both ways: what is read comes back the same when it is written again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{from_str, to_string};
use valtronics_protocol::uplink::{AgentMessage, ServerMessage};

fuzz_target!(|text: &str| {
    if let Ok(message) = from_str::<AgentMessage>(text) {
        assert_eq!(from_str::<AgentMessage>(&to_string(&message).unwrap()).unwrap(), message);
    }
    match from_str::<ServerMessage>(text) {
        Ok(ServerMessage::Other) | Err(_) => {}
        Ok(message) => {
            let written = to_string(&message).unwrap();
            assert_eq!(from_str::<ServerMessage>(&written).unwrap(), message);
        }
    }
});
