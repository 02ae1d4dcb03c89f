//! JSON: lines, and the payloads of messages.
//!
//! Objects nest to dotted names, arrays by their index; the objects of a list, or one behind the
//! other, are documents with times of their own. A text that is a number is one. Null and NaN are
//! absent. `{"metric":"t","value":1,"unit":"C"}` is one sample of that name. Values become samples
//! while they are read: no tree is built.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use valtronics_protocol::{
    reading::{MAX_TEXT_BYTES, is_clean},
    value::Value,
};

use super::{Context, Outcome, Sample, context::local_name, is_nothing};

/// The deepest nesting whose values are read: names get longer with each.
const MAX_DEPTH: usize = 8;
/// The most values of a line or a payload: what a device may have in metrics. A document with more
/// describes something else, and is refused whole.
const MAX_VALUES: usize = 1000;

/// Reads a line.
pub(super) fn line(line: &str, context: &mut Context, out: &mut Vec<Sample>) -> Outcome {
    let text = line.trim();
    if !text.starts_with(['{', '[']) {
        return Outcome::Foreign;
    }
    if documents(text, "", context, out) {
        Outcome::Good
    } else if text.starts_with('[') && text.contains("] ") {
        // A log: `[INFO] ready`.
        Outcome::Foreign
    } else {
        Outcome::Damaged("a line that is no JSON")
    }
}

/// Reads the payload of a message: documents, or a bare value that is called `metric`.
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
    if text.starts_with(['{', '[']) {
        return match documents(text, metric, context, out) {
            true => Outcome::Good,
            false => Outcome::Damaged("a payload that is no JSON"),
        };
    }
    let bare = match text.starts_with('"').then(|| serde_json::from_str::<String>(text)) {
        Some(Ok(quoted)) => text_value(&quoted),
        Some(Err(_)) => return Outcome::Damaged("a payload that is no JSON"),
        None if !is_clean(text, MAX_TEXT_BYTES) => {
            return Outcome::Damaged("a payload that is no value");
        }
        None => match text {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            text => text_value(text),
        },
    };
    // Without a name for a bare value a document was expected; a word may still be a state.
    if metric.is_empty() && matches!(&bare, Some(Value::Text(text)) if text.contains(' ')) {
        return Outcome::Damaged("a payload that is no JSON");
    }
    if let Some(value) = bare {
        let metric = context.name(if metric.is_empty() { "value" } else { metric });
        out.push(context.sample(metric, value, None));
    }
    Outcome::Good
}

/// Reads documents whose values are called by `prefix` and their names; all of them or none.
fn documents(text: &str, prefix: &str, context: &mut Context, out: &mut Vec<Sample>) -> bool {
    let begin = out.len();
    if parse(text, prefix, context, out).is_ok() {
        return true;
    }
    out.truncate(begin);
    let read = without_nan(text).is_some_and(|text| parse(&text, prefix, context, out).is_ok());
    if !read {
        out.truncate(begin);
    }
    read
}

fn parse(
    text: &str,
    prefix: &str,
    context: &mut Context,
    out: &mut Vec<Sample>,
) -> serde_json::Result<()> {
    let mut input = serde_json::Deserializer::from_str(text);
    let mut path = prefix.to_owned();
    let limit = out.len() + MAX_VALUES;
    loop {
        let path = &mut path;
        Walk { path, context, out, limit, depth: 0, place: None }.deserialize(&mut input)?;
        if input.end().is_ok() {
            return Ok(());
        }
    }
}

/// Writes null for the bare words by which `printf` and Python say that there is no number.
fn without_nan(text: &str) -> Option<String> {
    let (mut clean, mut rest, mut found) = (String::with_capacity(text.len()), text, false);
    let (mut in_text, mut escaped) = (false, false);
    while let Some(letter) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphabetic() || c == '-';
        let end = match rest.find(|c| !is_word(c)).unwrap_or(rest.len()) {
            end if end > 0 && !in_text => end,
            _ => letter.len_utf8(),
        };
        let (word, left) = rest.split_at(end);
        rest = left;
        let word_is =
            |nothing: &str| word.strip_prefix('-').unwrap_or(word).eq_ignore_ascii_case(nothing);
        if !in_text && ["nan", "inf", "infinity"].into_iter().any(word_is) {
            found = true;
            clean.push_str("null");
            continue;
        }
        clean.push_str(word);
        in_text ^= letter == '"' && !escaped;
        escaped = in_text && letter == '\\' && !escaped;
    }
    found.then_some(clean)
}

/// Makes samples of the values of a document.
struct Walk<'w> {
    /// The name so far.
    path: &'w mut String,
    context: &'w mut Context,
    out: &'w mut Vec<Sample>,
    limit: usize,
    depth: usize,
    /// The place in a list of documents; what is no document there is called by it.
    place: Option<usize>,
}

impl Walk<'_> {
    fn inner(&mut self) -> Walk<'_> {
        let Self { path, context, out, limit, depth, .. } = self;
        Walk { path, context, out, limit: *limit, depth: *depth + 1, place: None }
    }

    fn put<E: serde::de::Error>(self, value: Value) -> Result<(), E> {
        if self.out.len() >= self.limit {
            return Err(E::custom("too many values"));
        }
        if let Some(place) = self.place {
            push(self.path, &place.to_string());
        }
        let name = if self.path.is_empty() { "value" } else { self.path };
        let metric = self.context.name(name);
        self.out.push(self.context.sample(metric, value, None));
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, truth: bool) -> Result<(), E> {
        self.put(Value::Bool(truth))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<(), E> {
        self.put(Value::Int(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<(), E> {
        self.put(Value::from(number))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<(), E> {
        Value::finite(number).map_or(Ok(()), |value| self.put(value))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        text_value(text).map_or(Ok(()), |value| self.put(value))
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        if self.depth >= MAX_DEPTH {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        let (begin, length) = (self.out.len(), self.path.len());
        while map.next_key_seed(Key(self.path))?.is_some() {
            map.next_value_seed(self.inner())?;
            self.path.truncate(length);
        }
        take_unit(self.path, begin, self.context, self.out);
        if self.depth == 0 {
            self.context.take_time(self.path, begin, self.out);
            name_value(self.path, begin, self.context, self.out);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        if self.depth >= MAX_DEPTH {
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        let is_list = self.depth == 0 && self.place.is_none();
        if let Some(place) = self.place {
            push(self.path, &place.to_string());
        }
        let length = self.path.len();
        for place in 0.. {
            let inner = if is_list {
                Walk { depth: 0, place: Some(place), ..self.inner() }
            } else {
                push(self.path, &place.to_string());
                self.inner()
            };
            if items.next_element_seed(inner)?.is_none() {
                break;
            }
            self.path.truncate(length);
        }
        self.path.truncate(length);
        Ok(())
    }
}

/// Adds a field to the name.
struct Key<'w>(&'w mut String);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, field: &str) -> Result<(), E> {
        push(self.0, field);
        Ok(())
    }
}

fn push(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// Makes the unit of `"value":1,"unit":"C"` among the samples of an object.
fn take_unit(prefix: &str, begin: usize, context: &mut Context, out: &mut Vec<Sample>) {
    let find = |field: &str| {
        let is_field = |sample: &Sample| local_name(&sample.metric, prefix) == Some(field);
        Some(begin + out.get(begin..)?.iter().position(is_field)?)
    };
    let (Some(value), Some(unit)) = (find("value"), find("unit")) else { return };
    let Some(Value::Text(spelled)) = out.get(unit).map(|sample| &sample.value) else { return };
    let spelled = context.name(spelled);
    out.iter_mut().skip(value).take(1).for_each(|sample| sample.unit = Some(spelled.clone()));
    out.remove(unit);
}

/// Reads `"metric":"t","value":1` among the samples of a document as one sample.
fn name_value(prefix: &str, begin: usize, context: &mut Context, out: &mut Vec<Sample>) {
    let fields = out.get(begin..).unwrap_or_default();
    let find = |field: &str| {
        fields.iter().find(|sample| local_name(&sample.metric, prefix) == Some(field))
    };
    let Some(mut value) = find("value").cloned() else { return };
    let text = |field: &str| find(field).map(|sample| sample.value.to_string());
    let name =
        ["metric", "name", "sensor"].into_iter().find_map(|field| Some((field, text(field)?)));
    let device = text("device");
    let said = ["value", "device", name.as_ref().map_or("value", |(field, _)| field)];
    if let Some((_, name)) = &name {
        let mut path = prefix.to_owned();
        push(&mut path, name);
        value.metric = context.name(&path);
    }
    let device = device.map(|device| context.name(&device));
    let mut place = 0;
    out.retain(|sample| {
        place += 1;
        let local = local_name(&sample.metric, prefix);
        place <= begin || !local.is_some_and(|field| said.contains(&field))
    });
    out.insert(begin, value);
    out.iter_mut().skip(begin).for_each(|sample| sample.device.clone_from(&device));
}

/// Reads a text; what stands for nothing, or is too long to be sent, is absent.
fn text_value(text: &str) -> Option<Value> {
    let text = text.trim();
    (!is_nothing(text) && is_clean(text, MAX_TEXT_BYTES))
        .then(|| Value::parse_number(text).unwrap_or_else(|| Value::Text(text.into())))
}
