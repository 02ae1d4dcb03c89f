use super::*;

fn check(frame: &str, expected: Result<usize, Fault>) {
    let parsed = parse(frame, false).unwrap();
    assert_eq!(parsed.messages.len(), 1, "{frame}");
    let found = parsed.messages[0].content.clone().map(|content| match content {
        Content::Readings { readings, .. } => readings.len(),
        _ => 0,
    });
    assert_eq!(found, expected, "{frame}");
}

#[test]
fn takes_a_message_whole_or_not_at_all() {
    let good = r#"{"metric":"t","value":23.5,"unit":"°C","timestamp":"2024-01-01T12:00:00Z"}"#;
    let of = |readings: &str| {
        format!(r#"{{"readings":[{readings}],"device":"d","seq":1,"type":"readings"}}"#)
    };
    check(&of(good), Ok(1));
    check(&of(&format!("{good},{good}")), Ok(2));
    check(&of(&format!("{good},3")), Err(READINGS));
    check(&of(""), Err(READINGS));
    check(&of(r#"{"metric":"t","value":null}"#), Err(VALUE));
    check(&of(r#"{"metric":"t","value":[1]}"#), Err(VALUE));
    check(&of(r#"{"metric":"t","value":1,"timestamp":"noon"}"#), Err(TIMESTAMP));
    check(&of(r#"{"metric":"","value":1}"#), Err(METRIC));
    check(&of(r#"{"metric":"a\u0000","value":1}"#), Err(METRIC));
    check(&of(r#"{"metric":"t","value":"on"}"#), Ok(1));
    check(r#"{"type":"readings","readings":[]}"#, Err(DEVICE));
    check(r#"{"device":"d"}"#, Err(Fault::MissingType));
    check(r#"{"type":"shout"}"#, Err(Fault::UnknownType));
    check(r#"{"type":"status","device":"d","status":"gone"}"#, Err(STATUS));
    check(r#"{"type":"status","device":"d","status":"offline","reason":"cut"}"#, Ok(0));
    check(r#"{"type":"readings","device":"d","seq":-1,"readings":[]}"#, Err(SEQ));
}

#[test]
fn a_bad_message_does_not_harm_its_neighbours() {
    let good = r#"{"type":"readings","device":"d","readings":[{"metric":"t","value":1}]}"#;
    let bad = r#"{"type":"readings","seq":9,"device":"d","readings":[{"metric":"t"}]}"#;
    let frame = format!("[{good},{bad},7,{good}]");
    let parsed = parse(&frame, false).unwrap();
    let good: Vec<bool> = parsed.messages.iter().map(|m| m.content.is_ok()).collect();
    assert_eq!(good, [true, false, false, true]);
    assert_eq!(parsed.messages[1].seq, Some(9));
    assert_eq!(parsed.readings.len(), 2);
    assert!(parse("[{\"type\":", false).is_err());
}

#[test]
fn numbers_keep_their_form() {
    let frame = r#"{"device":"d","readings":[{"metric":"a","value":30.0},{"metric":"b","value":30},{"metric":"c","value":18446744073709551615}]}"#;
    let parsed = parse(frame, true).unwrap();
    let values: Vec<String> = parsed.readings.iter().map(|r| r.value.to_string()).collect();
    assert_eq!(values, ["30.0", "30", "18446744073709551615"]);
}

#[test]
fn a_frame_of_too_many_messages_is_refused() {
    let many = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
    assert_eq!(parse(&many(MAX_FRAME_MESSAGES), false).unwrap().messages.len(), MAX_FRAME_MESSAGES);
    assert!(parse(&many(MAX_FRAME_MESSAGES + 1), false).is_err());
}
