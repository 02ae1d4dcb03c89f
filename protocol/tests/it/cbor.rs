//! CBOR: bytes that never change, and what another implementation makes of ours and we of its.

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};
use valtronics_protocol::{
    cbor,
    error::ErrorCode,
    event::Event,
    filter::{Channel, Filters},
    request::{Kind, MessageId, MessageLimits, Request, parse_cbor},
    response::{Response, SubscribeResponse},
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
fn values_are_written_like_this_for_ever() {
    for (value, expected) in [
        (json!(null), "f6"),
        (json!(true), "f5"),
        (json!(false), "f4"),
        (json!(0), "00"),
        (json!(23), "17"),
        (json!(24), "1818"),
        (json!(1000), "1903e8"),
        (json!(1_000_000), "1a000f4240"),
        (json!(u64::MAX), "1bffffffffffffffff"),
        (json!(-1), "20"),
        (json!(-500), "3901f3"),
        (json!(i64::MIN), "3b7fffffffffffffff"),
        (json!(30.0), "fb403e000000000000"),
        (json!(-0.1), "fbbfb999999999999a"),
        (json!("µ"), "62c2b5"),
        (json!([1, [2]]), "82018102"),
        (json!({"b": 1, "a": []}), "a2616201616180"),
        // As the specification shows them.
        (json!({"type": "pong", "id": -3}), "a2 64 74797065 64 706f6e67 62 6964 22"),
        (json!([30, 30.0, true, null]), "84 18 1e fb 403e000000000000 f5 f6"),
    ] {
        assert_eq!(hex(&cbor::to_vec(&value)), expected.replace(' ', ""), "{value}");
        assert_eq!(cbor::from_slice(&bytes(expected)), Ok(value));
    }
}

#[test]
fn messages_are_written_like_this_for_ever() {
    let json = r#"{"type":"telemetry_update","channel":"telemetry","device_id":7,"telemetry":{"t":{"value":30.0,"unit":"C","timestamp":"2024-01-01T12:00:00Z"},"n":{"value":30,"unit":"","timestamp":"2024-01-01T12:00:00.250Z"}},"snapshot":true}"#;
    let update: Event<'_> = serde_json::from_str(json).unwrap();
    let written = cbor::to_vec(&update);
    let expected = concat!(
        "a5",
        "6474797065",
        "7074656c656d657472795f757064617465",
        "676368616e6e656c",
        "6974656c656d65747279",
        "696465766963655f6964",
        "07",
        "6974656c656d65747279",
        "a2",
        "6174",
        "a3",
        "6576616c7565",
        "fb403e000000000000",
        "64756e6974",
        "6143",
        "6974696d657374616d70",
        "74323032342d30312d30315431323a30303a30305a",
        "616e",
        "a3",
        "6576616c7565",
        "181e",
        "64756e6974",
        "60",
        "6974696d657374616d70",
        "7818323032342d30312d30315431323a30303a30302e3235305a",
        "68736e617073686f74",
        "f5",
    );
    assert_eq!(hex(&written), expected);

    // A failure is flattened into its response: the map has a definite length all the same.
    let response = Response::SubscribeResponse(SubscribeResponse {
        success: true,
        channel: Some(Channel::System),
        filters: Some(Filters::default()),
        id: Some(MessageId::Number(-3)),
        ..SubscribeResponse::default()
    });
    let expected = concat!(
        "a5",
        "6474797065",
        "727375627363726962655f726573706f6e7365",
        "6773756363657373",
        "f5",
        "676368616e6e656c",
        "6673797374656d",
        "6766696c74657273",
        "a0",
        "626964",
        "22",
    );
    assert_eq!(hex(&cbor::to_vec(&response)), expected);

    let joined = cbor::join(&[&bytes("a0"), &bytes("a16178f4")]);
    let expected = "a26474797065656261746368686d6573736167657382a0a16178f4";
    assert_eq!(hex(&joined), expected);
}

#[test]
fn reads_every_form_that_has_a_meaning_in_json() {
    for (form, value) in [
        ("1b0000000000000001", json!(1)),
        ("f97bff", json!(65504.0)),
        ("f90001", json!(5.960_464_477_539_063e-8)),
        ("f9c400", json!(-4.0)),
        ("fa47c35000", json!(100_000.0)),
        ("3bffffffffffffffff", json!(-18_446_744_073_709_551_616.0)),
        ("f7", json!(null)),
        ("7f 6161 6162 ff", json!("ab")),
        ("9f 01 9fff ff", json!([1, []])),
        ("bf 6161 01 6162 02 ff", json!({"a": 1, "b": 2})),
        ("d9d9f7 a1 c1 6161 c0 60", json!({"a": ""})),
    ] {
        assert_eq!(cbor::from_slice(&bytes(form)), Ok(value), "{form}");
    }
}

#[test]
fn refuses_what_is_no_message() {
    for form in [
        "",
        "18",                     // ends in its head
        "6261",                   // ends in its text
        "8201",                   // ends in its items
        "9f01",                   // is never ended
        "0000",                   // goes on
        "1c",                     // a reserved head
        "1f",                     // an integer has no indefinite length
        "ff",                     // ends nothing
        "81ff",                   // ends what has a length
        "bf6161ff",               // a key without value
        "a201020304",             // keys that are no texts
        "a2616101616102",         // the same key twice
        "a27f6161ff01616102",     // the same, in pieces
        "4101",                   // a byte string
        "61ff",                   // not UTF-8
        "7f61c361a9ff",           // a piece that is not UTF-8
        "7f7f6161ffff",           // pieces have no pieces
        "7f8101ff",               // a piece that is no text
        "f97e00",                 // NaN
        "fa7f800000",             // infinity
        "fbfff0000000000000",     // and its opposite
        "e0",                     // a simple value without meaning
        "f818",                   // another one
        "9bffffffffffffffff",     // more items than there is memory
        "bbffffffffffffffff",     // more entries
        "7bffffffffffffffff",     // a longer text
        "c0",                     // a tag of nothing
        "c249010000000000000000", // a big number: bytes
    ] {
        assert!(cbor::from_slice(&bytes(form)).is_err(), "{form}");
    }
}

#[test]
fn depth_is_bounded() {
    for (opening, innermost) in [(&[0x81][..], 0x80), (&[0x9f], 0x80), (&[0xa1, 0x60], 0xa0)] {
        let nested = |depth: usize| {
            let mut bytes = opening.repeat(depth);
            bytes.push(innermost);
            bytes.resize(bytes.len() + if opening == [0x9f] { depth } else { 0 }, 0xff);
            cbor::from_slice(&bytes)
        };
        assert!(nested(128).is_ok());
        assert!(nested(129).is_err());
        assert!(nested(60_000).is_err());
    }
    assert!(cbor::from_slice(&[0xc0; 60_000]).is_err());
}

fn parse(message: &Json) -> Vec<valtronics_protocol::request::Message> {
    parse_cbor(&cbor::to_vec(message), &MessageLimits::default())
}

#[test]
fn requests_are_the_same_as_in_json() {
    for message in [
        json!({"type": "auth", "token": "x.y.z", "id": 1}),
        json!({"type": "subscribe", "channel": "telemetry", "device_id": [1, 2], "id": "a"}),
        json!({"type": "subscribe", "channel": "telemetry", "device_id": 1.0}),
        json!({"type": "unsubscribe", "channel": "alerts"}),
        json!({"type": "ping", "timestamp": "now"}),
        json!({"type": "batch", "messages": [{"type": "ping", "id": 7}, 3, {"type": "batch"}]}),
        json!({"type": "batch", "messages": vec![json!({"type": "ping"}); 51]}),
        json!({"type": "batch", "messages": {}}),
        json!({"type": 3}),
        json!({}),
        json!([]),
    ] {
        let text = message.to_string();
        let expected = valtronics_protocol::request::parse(&text, &MessageLimits::default());
        assert_eq!(parse(&message), expected, "{text}");
    }
    let broken = parse_cbor(b"{\"type\":\"ping\"}", &MessageLimits::default()).remove(0);
    assert_eq!(broken.request.unwrap_err().0, ErrorCode::InvalidJson);
}

#[test]
fn sizes_count_as_the_bytes_stand() {
    let code = |message: Option<valtronics_protocol::request::Message>| {
        message.unwrap().request.map_err(|(code, _)| code)
    };
    let ping = |size: usize| {
        let message = json!({"type": "ping", "x": "x".repeat(size - 16)});
        assert_eq!(cbor::to_vec(&message).len(), size);
        message
    };
    let pong = Ok(Request::Ping { timestamp: None });
    assert_eq!(code(parse(&ping(1024)).pop()), pong);
    assert_eq!(code(parse(&ping(1025)).pop()), Err(ErrorCode::MessageTooLarge));
    let items = json!([ping(1024), ping(1025), ping(500)]);
    let batch = parse(&json!({"messages": items, "type": "batch"}));
    let codes: Vec<_> = batch.into_iter().map(|message| code(Some(message))).collect();
    assert_eq!(codes, [pong.clone(), Err(ErrorCode::MessageTooLarge), pong.clone()]);

    // Not in its shortest form, an item is as large as it stands: tagged here a thousand times.
    let mut frame = bytes("bf 6474797065 656261746368 686d65737361676573 9f");
    frame.extend([0xc0; 1015]);
    frame.extend(bytes("a1 6474797065 6470696e67 ff ff"));
    assert_eq!(frame.len() - 24, 1026);
    let refused = parse_cbor(&frame, &MessageLimits::default()).pop();
    assert_eq!(code(refused), Err(ErrorCode::MessageTooLarge));

    let auth = |size: usize| json!({"type": "auth", "token": "x".repeat(size - 20)});
    assert!(parse(&auth(8192)).remove(0).request.is_ok());
    let refused = parse(&auth(8193)).remove(0);
    assert_eq!(refused.kind, Kind::Auth);
    assert_eq!(code(Some(refused)), Err(ErrorCode::MessageTooLarge));
}

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<u64>().prop_map(Json::from),
        any::<f64>().prop_filter("JSON has no other", |x| x.is_finite()).prop_map(Json::from),
        ".*".prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Json::from),
            prop::collection::vec((".{0,8}", inner), 0..6)
                .prop_map(|entries| Json::from(entries.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read(value in any_json()) {
        let written = cbor::to_vec(&value);
        prop_assert_eq!(cbor::from_slice(&written), Ok(value.clone()));
        let elsewhere: Json = ciborium::from_reader(written.as_slice()).unwrap();
        prop_assert_eq!(elsewhere, value);
    }

    #[test]
    fn what_others_write_is_read(value in any_json()) {
        let mut written = Vec::new();
        ciborium::into_writer(&value, &mut written).unwrap();
        prop_assert_eq!(cbor::from_slice(&written), Ok(value));
    }

    #[test]
    fn damaged_bytes_never_panic(
        value in any_json(),
        damage in prop::collection::vec((any::<usize>(), any::<u8>()), 1..8),
    ) {
        let mut written = cbor::to_vec(&json!({"type": "batch", "messages": [value]}));
        for (at, byte) in damage {
            let length = written.len();
            written[at % length] = byte;
        }
        prop_assert!(!parse_cbor(&written, &MessageLimits::default()).is_empty());
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert!(!parse_cbor(&bytes, &MessageLimits::default()).is_empty());
    }
}
