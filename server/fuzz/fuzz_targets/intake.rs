//! Readings in JSON, as agents send them on `/uplink` and anybody to `POST /api/v1/telemetry`: beside
//! what `serde_json` makes of the same text. Both have to agree on what is JSON, and on what it says.

#![no_main]

use std::{borrow::Cow, slice};

use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::{Value as Json, from_str};
use valtronics_protocol::{
    event::Status,
    reading::{MAX_SENTENCE_BYTES, MAX_TEXT_BYTES, MAX_UNIT_BYTES, is_clean, is_name},
    time::UnixMillis,
    value::Value,
};
use valtronics_server::ingest::json::{Content, Frame, Message, Reading, parse};

const MAX_TOKEN_BYTES: usize = 8192;
const MAX_QUEUE_BYTES: usize = 64;

fuzz_target!(|text: &str| {
    for bare in [false, true] {
        check(text, bare);
    }
});

fn check(text: &str, bare: bool) {
    let frame = parse(text, bare);
    let Ok(tree) = from_str::<Json>(text) else {
        // A tree also refuses what nobody reads: half a surrogate, a number too large, much depth.
        assert!(frame.is_err() || from_str::<IgnoredAny>(text).is_ok(), "this is no JSON");
        return;
    };
    let messages = match &tree {
        Json::Array(messages) => messages.as_slice(),
        Json::Object(_) => slice::from_ref(&tree),
        _ => return assert!(frame.is_err(), "a frame is a message or an array of them"),
    };
    let frame = frame.expect("this is JSON");
    assert_eq!(frame.is_array, tree.is_array());
    assert_eq!(frame.messages.len(), messages.len());
    for (found, message) in frame.messages.iter().zip(messages) {
        assert_eq!(found.seq, seq(message).unwrap_or_default());
        // In words: `PartialEq` calls 0.0 and -0.0 equal.
        assert_eq!(format!("{:?}", said(found, &frame)), format!("{:?}", expected(message, bare)));
    }
    let told = frame.messages.iter().filter_map(|message| said(message, &frame));
    let readings: usize = told.map(|(_, readings)| readings.len()).sum();
    assert_eq!(readings, frame.readings.len(), "nothing is left of what was refused");
}

/// What a message says, and its readings.
type Said<'a> = (Content<'a>, Vec<Reading<'a>>);

fn said<'a>(message: &Message<'a>, frame: &Frame<'a>) -> Option<Said<'a>> {
    let mut content = message.content.clone().ok()?;
    let mut readings = Vec::new();
    if let Content::Readings { readings: range, .. } = &mut content {
        readings.extend_from_slice(&frame.readings[std::mem::take(range)]);
    }
    Some((content, readings))
}

/// What is said by the fields of a tree; none: it is to be refused.
fn expected(message: &Json, bare: bool) -> Option<Said<'_>> {
    seq(message)?;
    let device = || text(message.get("device")?).filter(|name| is_name(name));
    let kind = message.as_object()?.get("type").map_or(bare.then_some("readings"), Json::as_str)?;
    let content = match kind {
        "auth" if !bare => {
            let token = clean(message.get("token")?, MAX_TOKEN_BYTES)?;
            let queue = message.get("queue").filter(|queue| !queue.is_null());
            let queue = queue.map(|queue| clean(queue, MAX_QUEUE_BYTES).filter(|q| !q.is_empty()));
            Content::Auth { token, queue: transposed(queue)? }
        }
        "readings" => {
            let historical = message.get("historical").map_or(Some(false), Json::as_bool)?;
            let readings = message.get("readings")?.as_array()?;
            let readings = readings.iter().map(reading).collect::<Option<Vec<_>>>()?;
            let content = Content::Readings { device: device()?, readings: 0..0, historical };
            return (!readings.is_empty()).then_some((content, readings));
        }
        "status" if !bare => {
            let status = match message.get("status")?.as_str()? {
                "online" => Status::Online,
                "offline" => Status::Offline,
                "warning" => Status::Warning,
                _ => return None,
            };
            let reason = message.get("reason").map(|reason| clean(reason, MAX_SENTENCE_BYTES));
            let (device, reason) = (device()?, transposed(reason)?);
            Content::Status { device, status, reason, at: moment(message)? }
        }
        _ => return None,
    };
    Some((content, Vec::new()))
}

fn reading(reading: &Json) -> Option<Reading<'_>> {
    let unit = reading.get("unit").filter(|unit| !unit.is_null());
    Some(Reading {
        metric: text(reading.as_object()?.get("metric")?).filter(|name| is_name(name))?,
        value: value(reading.get("value")?)?,
        unit: transposed(unit.map(|unit| clean(unit, MAX_UNIT_BYTES)))?,
        at: moment(reading)?,
    })
}

fn value(value: &Json) -> Option<Value> {
    match value {
        Json::Bool(truth) => Some(Value::Bool(*truth)),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Some(Value::Int(number)),
            (None, Some(number)) => Some(Value::from(number)),
            (None, None) => Value::finite(number.as_f64()?),
        },
        Json::String(_) => Some(Value::Text(clean(value, MAX_TEXT_BYTES)?.into_owned().into())),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

/// The number of a message, if it has one; none: it is to be refused.
fn seq(message: &Json) -> Option<Option<u64>> {
    let seq = message.get("seq").filter(|seq| !seq.is_null());
    transposed(seq.map(Json::as_u64))
}

fn moment(object: &Json) -> Option<Option<UnixMillis>> {
    let at = object.get("timestamp").filter(|at| !at.is_null());
    transposed(at.map(|at| at.as_str()?.parse().ok()))
}

fn text(text: &Json) -> Option<Cow<'_, str>> {
    text.as_str().map(Cow::Borrowed)
}

fn clean(of: &Json, most: usize) -> Option<Cow<'_, str>> {
    text(of).filter(|text| is_clean(text, most))
}

/// What may be absent, but not bad.
fn transposed<T>(field: Option<Option<T>>) -> Option<Option<T>> {
    field.map_or(Some(None), |good| good.map(Some))
}
