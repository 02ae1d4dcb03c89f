//! A text frame as JSON.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value as Json, value::RawValue};

/// Reads a frame; says in one sentence why that cannot be done.
pub(super) fn read(frame: &str) -> Result<Json, String> {
    let strict = serde_json::from_str::<Strict>(frame);
    strict
        .map(|Strict(value)| value)
        .map_err(|why| format!("not JSON, or a key stands twice (column {})", why.column()))
}

/// Returns how many bytes each message of a batch takes.
pub(super) fn item_sizes(frame: &str) -> Vec<usize> {
    #[derive(Deserialize)]
    struct Items<'a> {
        #[serde(borrow)]
        messages: Vec<&'a RawValue>,
    }
    let items = serde_json::from_str::<Items<'_>>(frame);
    let messages = items.map(|items| items.messages).unwrap_or_default();
    messages.into_iter().map(|raw| raw.get().len()).collect()
}

/// JSON in which no object has a key twice: which of the two would count is anybody's guess.
struct Strict(Json);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Json;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, truth: bool) -> Result<Json, E> {
        Ok(truth.into())
    }
    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(number.into())
    }
    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(number.into())
    }
    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(number.into())
    }
    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(text.into())
    }
    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(items.into())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut map = Map::new();
        while let Some((key, Strict(value))) = entries.next_entry::<Cow<'_, str>, _>()? {
            if map.insert(key.into_owned(), value).is_some() {
                return Err(de::Error::custom("a key stands twice"));
            }
        }
        Ok(map.into())
    }
}
