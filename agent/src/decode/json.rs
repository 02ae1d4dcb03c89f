//! JSON: lines, and the payloads of messages.
//!
//! Objects nest to dotted names, arrays by their index. A text that is a number is one. Null is
//! absent. A document `{"metric":"t","value":1,"unit":"C"}` is one sample of that name.

use serde_json::{Map, Value as Json};
use valtronics_protocol::{
    reading::{MAX_TEXT_BYTES, is_clean},
    time::UnixMillis,
    value::Value,
};

use super::{Context, Outcome, Sample, device_time};

/// The deepest nesting whose values are read: names get longer with each.
const MAX_DEPTH: usize = 8;

/// Reads a line.
pub(super) fn line(line: &str, context: &mut Context, out: &mut Vec<Sample>) -> Outcome {
    let text = line.trim();
    if !text.starts_with(['{', '[']) {
        return Outcome::Foreign;
    }
    match serde_json::from_str(text) {
        Ok(document) => {
            self::document(&document, "", context, out);
            Outcome::Good
        }
        Err(_) => Outcome::Damaged("a line that is no JSON"),
    }
}

/// Reads the payload of a message: a document, or a bare value that is called `metric`.
///
/// An empty payload holds nothing and is no damage.
pub fn message(
    payload: &[u8],
    metric: &str,
    context: &mut Context,
    out: &mut Vec<Sample>,
) -> Outcome {
    let Ok(text) = std::str::from_utf8(payload) else {
        return Outcome::Damaged("a payload that is no UTF-8");
    };
    let text = text.trim();
    if text.is_empty() {
        return Outcome::Good;
    }
    if text.starts_with(['{', '[']) {
        return match serde_json::from_str(text) {
            Ok(json) => {
                document(&json, metric, context, out);
                Outcome::Good
            }
            Err(_) => Outcome::Damaged("a payload that is no JSON"),
        };
    }
    let bare = serde_json::from_str(text).unwrap_or_else(|_| Json::from(text));
    match scalar(&bare) {
        Some(Value::Text(text)) if !is_clean(&text, MAX_TEXT_BYTES) => {
            Outcome::Damaged("a payload that is no value")
        }
        Some(value) => {
            let metric = if metric.is_empty() { "value" } else { metric };
            let metric = context.name(metric);
            out.push(Sample { device: None, metric, value, unit: None, at: None });
            Outcome::Good
        }
        None => Outcome::Good,
    }
}

/// Reads a document whose values are called by `prefix` and their names.
fn document(json: &Json, prefix: &str, context: &mut Context, out: &mut Vec<Sample>) {
    let begin = out.len();
    match json {
        Json::Array(items) if items.iter().all(Json::is_object) => {
            // A list of documents, each with its own time.
            items.iter().for_each(|item| document(item, prefix, context, out));
        }
        Json::Object(map) => {
            let at = take_time(map, context);
            if !named_value(map, prefix, context, out) {
                flatten(json, prefix, 0, at.map(|(field, _)| field), context, out);
            }
            for sample in out.iter_mut().skip(begin) {
                sample.at = at.map(|(_, moment)| moment);
            }
        }
        other => flatten(other, prefix, 0, None, context, out),
    }
}

/// Finds the field that holds a plausible time.
fn take_time<'a>(map: &'a Map<String, Json>, context: &Context) -> Option<(&'a str, UnixMillis)> {
    map.iter().filter(|(field, _)| context.is_time_field(field)).find_map(|(field, json)| {
        Some((field.as_str(), device_time(&scalar(json)?, context.now)?))
    })
}

/// Reads `{"metric":"t","value":1,"unit":"C"}`.
fn named_value(
    map: &Map<String, Json>,
    prefix: &str,
    context: &mut Context,
    out: &mut Vec<Sample>,
) -> bool {
    let text = |field: &str| map.get(field).and_then(Json::as_str);
    let name = ["metric", "name", "sensor"].into_iter().find_map(text);
    let (Some(name), Some(value)) = (name, map.get("value").filter(|json| !json.is_object())) else {
        return false;
    };
    if let Some(value) = scalar(value) {
        let metric = context.name(&join(prefix, name));
        let device = text("device").map(|device| context.name(device));
        let unit = text("unit").map(|unit| context.name(unit));
        out.push(Sample { device, metric, value, unit, at: None });
    }
    true
}

fn flatten(
    json: &Json,
    name: &str,
    depth: usize,
    time_field: Option<&str>,
    context: &mut Context,
    out: &mut Vec<Sample>,
) {
    match json {
        Json::Object(map) if depth < MAX_DEPTH => {
            for (field, json) in map {
                if depth > 0 || Some(field.as_str()) != time_field {
                    flatten(json, &join(name, field), depth + 1, None, context, out);
                }
            }
        }
        Json::Array(items) if depth < MAX_DEPTH => {
            for (at, json) in items.iter().enumerate() {
                flatten(json, &join(name, &at.to_string()), depth + 1, None, context, out);
            }
        }
        scalar_json => {
            if let Some(value) = scalar(scalar_json) {
                let metric = context.name(if name.is_empty() { "value" } else { name });
                out.push(Sample { device: None, metric, value, unit: None, at: None });
            }
        }
    }
}

fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// Reads a value; what is absent, too long or no scalar is none.
fn scalar(json: &Json) -> Option<Value> {
    match json {
        Json::Bool(truth) => Some(Value::Bool(*truth)),
        Json::Number(number) => number
            .as_i64()
            .map(Value::Int)
            .or_else(|| number.as_u64().map(Value::from))
            .or_else(|| Value::finite(number.as_f64()?)),
        Json::String(text) => {
            let text = text.trim();
            let is_nothing = text.is_empty() || ["nan", "null", "none", "---"].contains(&&*text.to_ascii_lowercase());
            (!is_nothing && is_clean(text, MAX_TEXT_BYTES))
                .then(|| Value::parse_number(text).unwrap_or_else(|| Value::Text(text.into())))
        }
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}
