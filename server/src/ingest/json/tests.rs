use proptest::prelude::*;

use super::{scalar::Scalar, *};

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

fn check_scalar(text: &str) {
    let mut scanner = Scanner::new(text);
    let ours = scanner.scalar().and_then(|scalar| scanner.end().map(|()| scalar)).ok();
    let theirs = serde_json::from_str::<Scalar<'_>>(text).ok();
    assert_eq!(format!("{ours:?}"), format!("{theirs:?}"), "{text}");
}

#[test]
fn numbers_and_texts_are_read_as_serde_json_reads_them() {
    let nines = "9".repeat(18);
    for text in [
        "0",
        "-0",
        "-0.0",
        "00",
        "01",
        "0.1",
        "-1.50",
        "1.",
        ".5",
        "-",
        "1e3",
        "1E-3",
        "1e999",
        "0e9",
        &nines,
        &format!("-{nines}"),
        &format!("{nines}9"),
        &format!("{nines}99"),
        "999999999999999.9",
        "0.00000000000001",
        "0.000000000000000001",
        "9007199254740993.0",
        "-9223372036854775808",
        "18446744073709551615",
        r#""""#,
        r#""plain""#,
        r#""ünïcode and more of it""#,
        r#""a\nb""#,
        r#""\u00e9""#,
        r#""\ud800""#,
        "\"a\u{1}\"",
        "\"a\u{7f}\u{80}\"",
        r#""open"#,
        r#""a\""#,
        "null",
        "true",
        "nul",
        "[1, 2]",
        "[1",
        "{}",
    ] {
        check_scalar(text);
        check_scalar(&format!(" {text}\t"));
    }
}

const FRAME: &str = r#"[{"type":"readings","device":"d","readings":[{"metric":"temperature","value":-23.5,"unit":"°C","more":[{}]}, {"value":"on","metric":"m"}]},7]"#;

const USUAL: &str = r#"[{"type":"readings","seq":17,"device":"d","readings":[{"metric":"t","value":-23.5,"unit":"K","timestamp":"2024-01-01T12:00:00Z"},{"metric":"t","value":20}]},{"type":"readings","device":"e","readings":[{"metric":"t","value":1,"timestamp":"2024-01-01T12:00:00Z"}]}]"#;

#[test]
fn the_usual_spelling_is_taken_the_short_way() {
    let (mut scanner, mut readings) = (Scanner::new(&USUAL[1..]), Vec::new());
    let message = usual::message(&mut scanner, &mut readings).unwrap();
    assert_eq!(message.seq, Some(17));
    assert_eq!(readings.len(), 2);
}

proptest! {
    /// A space keeps a message from the short way: it says the same, however it is spoiled.
    #[test]
    fn the_short_way_reads_what_the_long_one_does(at in 0..USUAL.len(), other in r#"[\]\[{}:,"\\ 0-9.eE\u{1}\u{7f}tn-]{0,3}"#) {
        let frame = format!("{}{other}{}", &USUAL[..at], &USUAL[at + 1..]);
        let spaced = frame.replace(r#"{"type""#, r#"{ "type""#);
        let parsed = |frame: &str| {
            let parsed = parse(frame, false).ok()?;
            Some(format!("{:?}", (parsed.messages, parsed.readings)))
        };
        assert_eq!(parsed(&frame), parsed(&spaced), "{frame}");
    }

    #[test]
    fn numbers_are_those_of_serde_json(text in "-?[0-9]{1,20}(\\.[0-9]{0,20})?([eE][-+]?[0-9]{0,2})?") {
        check_scalar(&text);
    }

    #[test]
    fn texts_are_those_of_serde_json(text in "\"[a-z \\\\\"\u{1}\u{80}ü€]{0,40}\"") {
        check_scalar(&text);
    }

    /// One character of a frame becomes another: what is JSON for one is JSON for the other.
    #[test]
    fn what_is_json_is_said_by_serde_json(at in 0..FRAME.len(), other in r#"[\]\[{}:,"\\ 0-9.eE\u{1}tn-]"#) {
        prop_assume!(FRAME.is_char_boundary(at) && FRAME.is_char_boundary(at + 1));
        let frame = format!("{}{other}{}", &FRAME[..at], &FRAME[at + 1..]);
        let is_json = serde_json::from_str::<serde_json::Value>(&frame).is_ok();
        assert_eq!(parse(&frame, false).is_ok(), is_json, "{frame}");
    }
}
