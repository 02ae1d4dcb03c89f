//! What a subscriber sends: any text is some messages, each with an answer that can be written.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value as Json, json};
use valtronics_protocol::{
    cbor,
    error::ErrorCode,
    filter,
    request::{MessageLimits, Request, Subscribe, parse, parse_cbor},
    response::Response,
};

fuzz_target!(|frame: &str| {
    let limits = MessageLimits::DEFAULT;
    let messages = parse(frame, &limits);
    assert!((1..=limits.batch_messages).contains(&messages.len()));
    for message in messages {
        let refusal = Response::Error(message.failure(ErrorCode::Internal, "no"));
        let answer: Json = serde_json::from_str(&serde_json::to_string(&refusal).unwrap()).unwrap();
        assert_eq!(answer["id"], json!(message.id));
        match message.request {
            // What was understood is said back, and means the same there.
            Ok(Request::Subscribe(Subscribe { channel, filters, options: _ })) => {
                let Json::Object(said) = json!(filters) else { panic!("filters are an object") };
                assert_eq!(filter::parse(channel, &said).unwrap().0, filters);
            }
            Ok(Request::ErrorReport(text)) => assert!(!text.contains(char::is_control)),
            Ok(_) => {}
            Err((_, why)) => assert!(!why.is_empty()),
        }
    }
    // Both formats say the same, but for how many bytes it takes.
    let limits = MessageLimits {
        message_bytes: usize::MAX,
        auth_bytes: usize::MAX,
        ..MessageLimits::DEFAULT
    };
    let messages = parse(frame, &limits);
    if !matches!(&messages[0].request, Err((ErrorCode::InvalidJson, _)))
        && let Ok(value) = serde_json::from_str::<Json>(frame)
    {
        assert_eq!(messages, parse_cbor(&cbor::to_vec(&value), &limits));
    }
});
