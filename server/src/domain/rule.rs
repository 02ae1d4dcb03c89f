//! Alert rules: what is read from files and over HTTP, checked once (programs, "A rule").

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use valtronics_protocol::{
    event::Severity,
    reading::{MAX_NAME_BYTES, MAX_SENTENCE_BYTES, is_clean, is_name},
    time::period,
    value::Value,
};

use super::pattern::NamePattern;

/// An alert rule, as it is stored and shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rule {
    /// Names the rule.
    pub name: Arc<str>,
    /// Which devices: a pattern on the name, or on the key if it holds a `/`.
    #[serde(serialize_with = "pattern")]
    pub device: NamePattern,
    /// Which metric.
    pub metric: Arc<str>,
    /// Its kind; the only one so far is `threshold`.
    pub kind: Arc<str>,
    /// When a value is too much.
    #[serde(flatten)]
    pub bound: Bound,
    /// What a value has to fall below before an alert ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clear_below: Option<Value>,
    /// What a value has to rise above before an alert ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clear_above: Option<Value>,
    /// How long the condition has to hold.
    #[serde(rename = "for", with = "period")]
    pub hold: Duration,
    /// How bad it is.
    pub severity: Severity,
    /// The alert's title.
    pub title: Arc<str>,
    /// The alert's message; absent: one sentence with both values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<Arc<str>>,
}

/// When a value is too much.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// Above this.
    Above(Value),
    /// Below this.
    Below(Value),
    /// From the one to the other, both included.
    Inside([Value; 2]),
    /// Below the one or above the other.
    Outside([Value; 2]),
    /// Just this.
    Equal(Value),
}

fn pattern<S: serde::Serializer>(pattern: &NamePattern, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(pattern.as_str())
}

/// Why a rule cannot work; names the field and says what is right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct RuleError {
    /// The field.
    pub field: &'static str,
    /// What is right.
    pub why: String,
}

fn wrong<T>(field: &'static str, why: impl Into<String>) -> Result<T, RuleError> {
    Err(RuleError { field, why: why.into() })
}

/// A rule as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    device: Option<String>,
    metric: Option<String>,
    kind: Option<String>,
    above: Option<Value>,
    below: Option<Value>,
    inside: Option<[Value; 2]>,
    outside: Option<[Value; 2]>,
    equal: Option<Value>,
    clear_above: Option<Value>,
    clear_below: Option<Value>,
    steps: Option<serde::de::IgnoredAny>,
    per: Option<serde::de::IgnoredAny>,
    is: Option<serde::de::IgnoredAny>,
    #[serde(default, rename = "for", with = "period")]
    hold: Duration,
    severity: Option<Severity>,
    title: Option<String>,
    message: Option<String>,
}

/// The longest `for`: longer is not an alert but a report.
const MAX_HOLD: Duration = Duration::from_secs(7 * 86_400);

impl Rule {
    /// Reads a rule from JSON; `name` is the name of the path, if it came over HTTP.
    ///
    /// # Errors
    /// When it cannot work.
    pub fn parse_json(text: &str, name: Option<&str>) -> Result<Self, RuleError> {
        let written = serde_json::from_str(text)
            .map_err(|error| RuleError { field: "rule", why: error.to_string() })?;
        Self::check(written, name)
    }

    fn check(written: Written, path: Option<&str>) -> Result<Self, RuleError> {
        let name = match (written.name, path) {
            (Some(name), Some(path)) if name != path => {
                return wrong("name", format!("is {path:?}, as in the path, or left out"));
            }
            (Some(name), _) => name,
            (None, Some(path)) => path.to_owned(),
            (None, None) => return wrong("name", "every rule needs one"),
        };
        if !is_name(&name) {
            return wrong("name", "has 1 to 128 bytes and no control characters");
        }
        match written.kind.as_deref() {
            Some("threshold") => {}
            Some("rate" | "missing" | "stuck" | "status") => {
                return wrong("kind", "only threshold is supported by this version yet");
            }
            Some(_) | None => return wrong("kind", "is threshold"),
        }
        if written.steps.is_some() || written.per.is_some() || written.is.is_some() {
            return wrong("steps", "steps, per and is are not supported by this version yet");
        }
        let Some(metric) = written.metric.filter(|metric| is_name(metric)) else {
            return wrong("metric", "names the metric, such as \"temperature\"");
        };
        let device = written.device.as_deref().unwrap_or("*");
        if device.is_empty() || !is_clean(device, 2 * MAX_NAME_BYTES) {
            return wrong("device", "is a pattern of names such as \"boiler*\"");
        }
        if written.hold > MAX_HOLD {
            return wrong("for", "is at most 7d");
        }
        let bounds = [
            written.above.map(Bound::Above),
            written.below.map(Bound::Below),
            written.inside.map(Bound::Inside),
            written.outside.map(Bound::Outside),
            written.equal.map(Bound::Equal),
        ];
        let mut bounds = bounds.into_iter().flatten();
        let (Some(bound), None) = (bounds.next(), bounds.next()) else {
            return wrong("kind", "threshold needs one of above, below, inside, outside, equal");
        };
        check_bound(&bound, written.clear_above.as_ref(), written.clear_below.as_ref())?;
        let sentence = |field, text: Option<String>| match text {
            Some(text) if !is_clean(&text, MAX_SENTENCE_BYTES) || text.is_empty() => {
                wrong(field, "has 1 to 512 bytes and no control characters")
            }
            text => Ok(text.map(Arc::from)),
        };
        Ok(Self {
            title: sentence("title", written.title)?.unwrap_or_else(|| name.as_str().into()),
            message: sentence("message", written.message)?,
            name: name.into(),
            device: NamePattern::new(device),
            metric: metric.into(),
            kind: "threshold".into(),
            bound,
            clear_above: written.clear_above,
            clear_below: written.clear_below,
            hold: written.hold,
            severity: written.severity.unwrap_or(Severity::Warning),
        })
    }
}

fn check_bound(
    bound: &Bound,
    clear_above: Option<&Value>,
    clear_below: Option<&Value>,
) -> Result<(), RuleError> {
    let number = |field, value: &Value| match value.as_f64() {
        Some(number) => Ok(number),
        None => wrong(field, "is a number"),
    };
    let optional = |field, value: Option<&Value>| value.map(|value| number(field, value)).transpose();
    let clears = (optional("clear_above", clear_above)?, optional("clear_below", clear_below)?);
    match (bound, clears) {
        (Bound::Above(above), (None, clear)) => match clear {
            Some(clear) if clear > number("above", above)? => {
                wrong("clear_below", "is not above the bound")
            }
            _ => number("above", above).map(drop),
        },
        (Bound::Below(below), (clear, None)) => match clear {
            Some(clear) if clear < number("below", below)? => {
                wrong("clear_above", "is not below the bound")
            }
            _ => number("below", below).map(drop),
        },
        (Bound::Inside([a, b]), (None, None)) if number("inside", a)? > number("inside", b)? => {
            wrong("inside", "is [least, most]")
        }
        (Bound::Outside([a, b]), (above, below)) => {
            let (a, b) = (number("outside", a)?, number("outside", b)?);
            if a > b {
                return wrong("outside", "is [least, most]");
            }
            let between = |clear: Option<f64>| clear.is_none_or(|clear| (a..=b).contains(&clear));
            if between(above) && between(below) && above.unwrap_or(a) <= below.unwrap_or(b) {
                return Ok(());
            }
            wrong("clear_above", "clear_above and clear_below stand between the bounds")
        }
        (Bound::Inside(_) | Bound::Equal(_), (None, None)) => Ok(()),
        (_, (Some(_), _)) => wrong("clear_above", "does not go with this bound"),
        (_, (_, Some(_))) => wrong("clear_below", "does not go with this bound"),
    }
}

/// Reads a file of rules: `[[rule]]` tables in TOML.
///
/// # Errors
/// Each rule that cannot work, with its line.
pub fn parse_file(text: &str) -> Result<Vec<Rule>, Vec<(usize, String)>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        #[serde(default)]
        rule: Vec<toml::Spanned<Written>>,
    }
    let file: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| crate::config::line_of(text, span.start));
        vec![(line, error.message().to_owned())]
    })?;
    let (mut rules, mut errors) = (Vec::<Rule>::new(), Vec::new());
    for written in file.rule {
        let line = crate::config::line_of(text, written.span().start);
        match Rule::check(written.into_inner(), None) {
            Ok(rule) if rules.iter().any(|known| known.name == rule.name) => {
                errors.push((line, format!("name: {:?} stands twice", rule.name)));
            }
            Ok(rule) => rules.push(rule),
            Err(error) => errors.push((line, error.to_string())),
        }
    }
    if errors.is_empty() { Ok(rules) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expected: Result<&str, &str>) {
        let found = Rule::parse_json(json, Some("hot"));
        match (found, expected) {
            (Ok(rule), Ok(stored)) => assert_eq!(serde_json::to_string(&rule).unwrap(), stored),
            (Err(error), Err(field)) => assert_eq!(error.field, field, "{json}: {error}"),
            (found, _) => panic!("{json}: {found:?}"),
        }
    }

    #[test]
    fn a_rule_is_shown_as_it_is_stored() {
        check(
            r#"{"metric":"temperature","kind":"threshold","above":30.0}"#,
            Ok(r#"{"name":"hot","device":"*","metric":"temperature","kind":"threshold","above":30.0,"for":"0ms","severity":"warning","title":"hot"}"#),
        );
        let full = r#"{"name":"hot","device":"boiler*","metric":"temperature","kind":"threshold","above":30.0,"clear_below":28.0,"for":"30s","severity":"critical","title":"High Temperature Alert","message":"Temperature exceeds safe threshold"}"#;
        check(full, Ok(full));
    }

    #[test]
    fn names_the_field_that_is_wrong() {
        for (json, field) in [
            (r#"{"name":"cold","metric":"t","kind":"threshold","above":1}"#, "name"),
            (r#"{"kind":"threshold","above":1}"#, "metric"),
            (r#"{"metric":"t","above":1}"#, "kind"),
            (r#"{"metric":"t","kind":"threshold"}"#, "kind"),
            (r#"{"metric":"t","kind":"threshold","above":1,"below":2}"#, "kind"),
            (r#"{"metric":"t","kind":"threshold","above":"x"}"#, "above"),
            (r#"{"metric":"t","kind":"threshold","above":1,"clear_below":2}"#, "clear_below"),
            (r#"{"metric":"t","kind":"threshold","above":1,"clear_above":2}"#, "clear_above"),
            (r#"{"metric":"t","kind":"threshold","outside":[5,1]}"#, "outside"),
            (r#"{"metric":"t","kind":"rate","above":1}"#, "kind"),
            (r#"{"metric":"t","kind":"threshold","above":1,"for":"9d"}"#, "for"),
            (r#"{"metric":"t","kind":"threshold","above":1,"colour":"red"}"#, "rule"),
        ] {
            check(json, Err(field));
        }
    }

    #[test]
    fn a_file_names_the_line() {
        let text = "# rules\n[[rule]]\nname = \"a\"\nmetric = \"t\"\nkind = \"threshold\"\nabove = 1\n\n\
                    [[rule]]\nname = \"b\"\nkind = \"threshold\"\nabove = 1\n";
        let errors = parse_file(text).unwrap_err();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].0, 8);
        assert!(errors[0].1.starts_with("metric:"), "{errors:?}");
    }
}
