//! Alert rules: what comes from files and over HTTP, checked once (programs, "A rule").
//!
//! A rule is what it watches (devices, and a metric of theirs), a [`Kind`] that says when something
//! is wrong, and for how long it has to be. Each kind is a file of its own with the same functions:
//! `take` reads its fields, `judge` says what it makes of a reading, `tell` puts that into words.

use std::{sync::Arc, time::Duration};

use serde::{Serialize, Serializer, de::DeserializeOwned};
use serde_json::Value as Json;
use valtronics_protocol::{
    reading::{MAX_NAME_BYTES, MAX_SENTENCE_BYTES, is_clean, is_name},
    time::parse_period,
};

use super::pattern::NamePattern;

mod bound;
mod file;
mod kind;
mod level;
mod missing;
mod rate;
mod status;
mod stuck;
mod threshold;

pub use bound::{Bound, Clear};
pub use file::parse_file;
pub use kind::{Judged, Kind, Memory, Tale, Told};
pub use level::Level;

/// The longest `for` and `per`: what takes longer is not an alert but a report.
const MAX_PERIOD: Duration = Duration::from_secs(7 * 86_400);

/// An alert rule, as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rule {
    /// Names the rule.
    pub name: Arc<str>,
    /// Which devices: a pattern on the name, or on the key if it holds a `/`.
    #[serde(serialize_with = "pattern")]
    pub device: NamePattern,
    /// Which metric; empty for rules on the status of devices.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub metric: Arc<str>,
    /// What it watches for.
    #[serde(flatten)]
    pub kind: Kind,
    /// How long the condition has to hold.
    #[serde(rename = "for")]
    pub hold: Period,
    /// The alert's title.
    pub title: Arc<str>,
    /// The alert's message; absent: one sentence with both values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Arc<str>>,
}

/// A period that is shown as it was written.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Period {
    written: Box<str>,
    /// How long it is.
    #[serde(skip)]
    pub length: Duration,
}

/// Why a rule cannot work: names the field and says what is right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct RuleError {
    /// The field.
    pub field: Box<str>,
    /// What is right.
    pub why: Box<str>,
}

/// The fields of a rule as they were written.
type Fields = serde_json::Map<String, Json>;

impl Rule {
    /// Reads a rule from JSON; `path` is the name in the path, if it came over HTTP.
    ///
    /// # Errors
    /// When it cannot work.
    pub fn parse_json(text: &str, path: Option<&str>) -> Result<Self, RuleError> {
        match serde_json::from_str(text) {
            Ok(fields) => Self::parse(fields, path),
            Err(error) => wrong("rule", error.to_string()),
        }
    }

    /// Reads rules out of a JSON array, without those that cannot work.
    #[must_use]
    pub fn parse_list(text: &str) -> Vec<Self> {
        let list: Vec<Fields> = serde_json::from_str(text).unwrap_or_default();
        list.into_iter().filter_map(|fields| Self::parse(fields, None).ok()).collect()
    }

    fn parse(mut fields: Fields, path: Option<&str>) -> Result<Self, RuleError> {
        let name = name(take(&mut fields, "name")?, path)?;
        let kind = Kind::take(&mut fields)?;
        let device: Option<String> = take(&mut fields, "device")?;
        let device = device.as_deref().unwrap_or("*");
        if device.is_empty() || !is_clean(device, 2 * MAX_NAME_BYTES) {
            return wrong("device", "is a pattern of names, such as \"boiler*\"");
        }
        let rule = Self {
            device: NamePattern::new(device),
            metric: if kind.has_metric() { metric(&mut fields)? } else { "".into() },
            hold: hold(&mut fields, &kind)?,
            title: sentence(&mut fields, "title")?.unwrap_or_else(|| Arc::clone(&name)),
            message: sentence(&mut fields, "message")?,
            name,
            kind,
        };
        match fields.keys().next() {
            Some(field) => wrong(field, format!("is no field of a {} rule", rule.kind.name())),
            None => Ok(rule),
        }
    }

    /// Tells whether the rule watches a device.
    #[must_use]
    pub fn covers(&self, name: &str, key: &str) -> bool {
        self.device.covers(name, key)
    }
}

fn metric(fields: &mut Fields) -> Result<Arc<str>, RuleError> {
    match take::<String>(fields, "metric")?.filter(|metric| is_name(metric)) {
        Some(metric) => Ok(metric.into()),
        None => wrong("metric", "names the metric, such as \"temperature\""),
    }
}

fn name(written: Option<String>, path: Option<&str>) -> Result<Arc<str>, RuleError> {
    match (written.as_deref(), path) {
        (Some(name), Some(path)) if name != path => {
            wrong("name", format!("is {path:?}, as in the path, or left out"))
        }
        (None, None) => wrong("name", "is needed"),
        (Some(name), _) | (None, Some(name)) if is_name(name) => Ok(name.into()),
        (Some(_), _) | (None, Some(_)) => {
            wrong("name", "has 1 to 128 bytes and no control characters")
        }
    }
}

fn hold(fields: &mut Fields, kind: &Kind) -> Result<Period, RuleError> {
    let none = || Period { written: "0s".into(), length: Duration::ZERO };
    let hold = period(fields, "for")?.unwrap_or_else(none);
    if kind.needs_hold() && hold.length.is_zero() {
        return wrong("for", format!("is needed by a {} rule, such as \"5m\"", kind.name()));
    }
    Ok(hold)
}

/// Takes a period; a bare 0 is one, too.
fn period(fields: &mut Fields, field: &'static str) -> Result<Option<Period>, RuleError> {
    let written = match take::<Json>(fields, field)? {
        Some(Json::String(text)) => text,
        Some(Json::Number(number)) if number.as_u64() == Some(0) => "0s".to_owned(),
        Some(_) => return wrong(field, "is a period, such as \"30s\""),
        None => return Ok(None),
    };
    match parse_period(&written) {
        Ok(length) if length <= MAX_PERIOD => Ok(Some(Period { written: written.into(), length })),
        Ok(_) => wrong(field, "is at most 7d"),
        Err(error) => wrong(field, error.to_string()),
    }
}

fn sentence(fields: &mut Fields, field: &'static str) -> Result<Option<Arc<str>>, RuleError> {
    match take::<String>(fields, field)? {
        Some(text) if text.is_empty() || !is_clean(&text, MAX_SENTENCE_BYTES) => {
            wrong(field, "has 1 to 512 bytes and no control characters")
        }
        text => Ok(text.map(Arc::from)),
    }
}

fn take<T: DeserializeOwned>(fields: &mut Fields, field: &str) -> Result<Option<T>, RuleError> {
    match fields.remove(field) {
        None | Some(Json::Null) => Ok(None),
        Some(json) => match serde_json::from_value(json) {
            Ok(value) => Ok(Some(value)),
            Err(error) => wrong(field, error.to_string()),
        },
    }
}

fn wrong<T>(field: &str, why: impl Into<Box<str>>) -> Result<T, RuleError> {
    Err(RuleError { field: field.into(), why: why.into() })
}

fn pattern<S: Serializer>(pattern: &NamePattern, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(pattern.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: Result<&str, &str>) {
        match (Rule::parse_json(json, Some("hot")), expected) {
            (Ok(rule), Ok(shown)) => {
                assert_eq!(serde_json::to_string(&rule).unwrap(), shown);
                assert_eq!(Rule::parse_json(shown, None), Ok(rule), "what is shown can be read");
            }
            (Err(error), Err(start)) => {
                assert!(error.to_string().starts_with(start), "{json}: {error}");
            }
            (found, _) => panic!("{json}: {found:?}"),
        }
    }

    #[test]
    fn a_rule_is_shown_as_it_was_written_with_its_defaults() {
        let shown = r#"{"name":"hot","device":"*","metric":"t","kind":"threshold","above":30.0,"severity":"warning","for":"0s","title":"hot"}"#;
        check(r#"{"metric":"t","kind":"threshold","above":30.0}"#, Ok(shown));
        check(
            r#"{"metric":"t","kind":"threshold","above":30.0,"for":0,"message":null}"#,
            Ok(shown),
        );
        for full in [
            r#"{"name":"hot","device":"boiler*","metric":"t","kind":"threshold","above":30,"severity":"critical","clear_below":28.0,"for":"90s","title":"High","message":"Too hot"}"#,
            r#"{"name":"hot","device":"a/*","metric":"t","kind":"threshold","outside":[1,2.0],"severity":"info","clear_above":1.2,"clear_below":1.8,"for":"60s","title":"x"}"#,
            r#"{"name":"hot","device":"*","metric":"t","kind":"threshold","equal":"open","severity":"info","for":"0s","title":"x"}"#,
            r#"{"name":"hot","device":"*","metric":"t","kind":"threshold","steps":[{"above":30.0,"severity":"warning"},{"above":35,"severity":"critical"}],"clear_below":28,"for":"5m","title":"x"}"#,
        ] {
            check(full, Ok(full));
        }
    }

    /// A rule after `"metric":"t","kind":"threshold"`, and how the error begins.
    const WRONG: &str = r#"
        "above":1,"name":"cold" => name: is "hot"
        "for":"3s" => kind: threshold needs one of
        "above":1,"below":2 => kind: threshold needs one of
        "above":1,"steps":[{"above":2,"severity":"info"}] => kind: threshold needs one of
        "above":"x" => above: is a number
        "above":[1] => above: invalid type
        "inside":[1] => inside: invalid length
        "outside":[5,1] => outside: is [least, most]
        "above":1,"clear_below":2 => clear_below: is not above
        "above":1,"clear_above":2 => clear_above: does not go
        "below":1,"clear_above":0.5 => clear_above: is not below
        "below":1,"clear_below":0.5 => clear_below: does not go
        "equal":1,"clear_below":1 => clear_below: does not go
        "inside":[1,3],"clear_above":2 => clear_above: is not below
        "outside":[1,3],"clear_above":3 => clear_above: stands between
        "outside":[1,3],"clear_above":2,"clear_below":2 => clear_above: stands between
        "above":1,"for":"9d" => for: is at most 7d
        "above":1,"for":30 => for: is a period
        "above":1,"severity":"bad" => severity: unknown variant `bad`
        "above":1,"title":"" => title: has 1 to 512
        "above":1,"device":"" => device: is a pattern
        "above":1,"colour":"red" => colour: is no field
        "above":1,"per":"1m" => per: is no field of a threshold rule
        "above":1,"is":"offline" => is: is no field
        "steps":[] => steps: has at least one
        "steps":[{"above":1},{"above":2,"severity":"info"}] => steps: each goes
        "steps":[{"severity":"info"}] => steps: each has either
        "steps":[{"above":2,"severity":"info"},{"above":1,"severity":"critical"}] => steps: each goes
        "steps":[{"below":2,"severity":"info"},{"above":3,"severity":"critical"}] => steps: each goes
        "steps":[{"above":2,"severity":"info"},{"above":3,"severity":"info"}] => steps: each goes
        "steps":[{"above":2,"severity":"info"}],"clear_below":3 => clear_below: is not above
    "#;

    #[test]
    fn names_the_field_that_is_wrong() {
        for line in WRONG.trim().lines() {
            let (rest, start) = line.trim().split_once(" => ").unwrap();
            check(&format!(r#"{{"metric":"t","kind":"threshold",{rest}}}"#), Err(start));
        }
        check(r#"{"kind":"threshold","above":1}"#, Err("metric: names"));
        check(r#"{"metric":"t","above":1}"#, Err("kind: is one of"));
        check("[]", Err("rule: "));
    }
}
