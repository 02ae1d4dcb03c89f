use super::*;

fn one(frame: &str) -> Message {
    let mut messages = parse(frame, &MessageLimits::default());
    assert_eq!(messages.len(), 1, "{frame}");
    messages.remove(0)
}

fn check(frame: &str, expected: Result<Request, ErrorCode>) {
    assert_eq!(one(frame).request.map_err(|(code, _)| code), expected, "{frame}");
}

#[test]
fn refuses_with_the_code_that_fits() {
    for (frame, code) in [
        ("", ErrorCode::InvalidJson),
        ("nonsense", ErrorCode::InvalidJson),
        ("[]", ErrorCode::InvalidJson),
        (r#"{"type":"ping","type":"ping"}"#, ErrorCode::InvalidJson),
        (r#"{"type":"ping","x":{"a":1,"a":2}}"#, ErrorCode::InvalidJson),
        ("{}", ErrorCode::MissingType),
        (r#"{"type":1}"#, ErrorCode::InvalidMessage),
        (r#"{"type":"shout"}"#, ErrorCode::UnknownType),
        (r#"{"type":"ping","timestamp":1}"#, ErrorCode::InvalidMessage),
        (r#"{"type":"ping","id":1.5}"#, ErrorCode::InvalidMessage),
        (r#"{"type":"subscribe"}"#, ErrorCode::InvalidMessage),
        (r#"{"type":"subscribe","channel":"news"}"#, ErrorCode::UnknownChannel),
        (r#"{"type":"subscribe","channel":"alerts","severity":[]}"#, ErrorCode::InvalidFilter),
        (r#"{"type":"unsubscribe","channel":"alerts","device_id":"1"}"#, ErrorCode::InvalidFilter),
        (r#"{"type":"batch"}"#, ErrorCode::InvalidMessage),
        (r#"{"type":"batch","messages":[]}"#, ErrorCode::InvalidMessage),
        (r#"{"type":"batch","messages":[{"type":"batch"}]}"#, ErrorCode::NestedBatch),
    ] {
        check(frame, Err(code));
    }
}

#[test]
fn reads_what_both_original_clients_send() {
    let expected = |filters: Filters| {
        Ok(Request::Subscribe(Subscribe {
            channel: Channel::Telemetry,
            filters,
            options: Options::default(),
        }))
    };
    let filters = Filters { device_id: Some(vec![DeviceId(1)]), ..Filters::default() };
    let javascript = r#"{"type":"subscribe","channel":"telemetry","device_id":1}"#;
    let python = r#"{"type": "subscribe", "channel": "telemetry", "filters": {"device_id": 1}}"#;
    check(javascript, expected(filters.clone()));
    check(python, expected(filters));
}

#[test]
fn a_batch_is_its_messages() {
    let frame = r#"{"type":"batch","messages":[{"type":"ping","id":7},3,{"type":"no"}]}"#;
    let messages = parse(frame, &MessageLimits::default());
    assert_eq!(messages.len(), 3);
    assert_eq!(messages[0].id, Some(MessageId::Number(7)));
    assert_eq!(messages[0].request, Ok(Request::Ping { timestamp: None }));
    assert_eq!(messages[1].request.as_ref().unwrap_err().0, ErrorCode::InvalidMessage);
    assert_eq!(messages[2].request.as_ref().unwrap_err().0, ErrorCode::UnknownType);
    let many = vec![r#"{"type":"ping"}"#; 51].join(",");
    check(&format!(r#"{{"type":"batch","messages":[{many}]}}"#), Err(ErrorCode::BatchTooLarge));
}

#[test]
fn sizes_count_as_the_bytes_stand() {
    let limits = MessageLimits::default();
    let of = |kind: &str, size: usize| {
        let empty = format!(r#"{{"type":"{kind}","token":""}}"#);
        let token = "x".repeat(size - empty.len());
        empty.replace("\"\"", &format!("\"{token}\""))
    };
    check(&of("ping", 1024), Ok(Request::Ping { timestamp: None }));
    check(&of("ping", 1025), Err(ErrorCode::MessageTooLarge));
    assert!(one(&of("auth", 8192)).request.is_ok());
    let refused = one(&of("auth", 8193));
    assert_eq!(refused.kind, Kind::Auth);
    assert_eq!(refused.request.unwrap_err().0, ErrorCode::MessageTooLarge);
    check(&"x".repeat(1025), Err(ErrorCode::MessageTooLarge));
    let item = of("ping", 1025);
    let batch = format!(r#"{{"type":"batch","messages":[{item}]}}"#);
    let messages = parse(&batch, &limits);
    assert_eq!(messages[0].request.as_ref().unwrap_err().0, ErrorCode::MessageTooLarge);
}

#[test]
fn depth_is_bounded() {
    let deep = "{\"type\":\"batch\",\"messages\":[".repeat(10_000);
    check(&deep, Err(ErrorCode::MessageTooLarge));
    check(&"[".repeat(1000), Err(ErrorCode::InvalidJson));
}
