//! Value templates of Home Assistant: Jinja, from the network.
//!
//! Nearly all of them name a field of a document, and are read without the engine. What the engine
//! runs is an expression, perhaps with `if`: templates with loops, variables or macros could double
//! a text again and again, which no limit of steps sees, and are refused.

use std::cell::OnceCell;

use minijinja::{
    Environment, Error, ErrorKind, UndefinedBehavior, context, filters, tests as checks,
    value::{Serde, Value as Any},
};
use serde_json::Value as Json;
use valtronics_protocol::{
    reading::{MAX_TEXT_BYTES, is_clean},
    value::Value,
};

use crate::decode::is_nothing;

/// The longest template: ten times those in the field.
const MAX_TEMPLATE_BYTES: usize = 2048;
/// The most steps of a template: hundreds of times what an expression takes.
const FUEL: u64 = 50_000;
/// How deep the engine may go; each level takes stack.
const MAX_RECURSION: usize = 50;
/// The longest payload of a state: a template may join it with itself.
const MAX_PAYLOAD_BYTES: usize = 64 * 1024;
/// The tags that make no text longer than the template is.
const TAGS: [&str; 4] = ["if", "elif", "else", "endif"];
/// What stands for a value that is not there, beside what stands for nothing everywhere.
const ABSENT: [&str; 2] = ["unknown", "unavailable"];

/// Why a template is not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It is longer than any in the field.
    #[error("a template of more than {MAX_TEMPLATE_BYTES} bytes")]
    TooLong,
    /// It does more than to compute a value.
    #[error("a template with tags other than `if`")]
    Tag,
}

/// Where a value stands in a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Template {
    /// The whole payload.
    Whole,
    /// A field of a document.
    Field(Vec<String>),
    /// What the engine makes of it; with the first field that it names.
    Expression(Box<str>, Option<Vec<String>>),
}

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// When it is none that is run.
    pub fn parse(source: &str) -> Result<Self, TemplateError> {
        if source.len() > MAX_TEMPLATE_BYTES {
            return Err(TemplateError::TooLong);
        }
        let bare = source.trim();
        let inner = bare.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
        if let Some(simple) = inner.and_then(|inner| simple(inner.trim())) {
            return Ok(simple);
        }
        let mut tags = source.split("{%").skip(1).map(|tag| {
            let tag = tag.trim_start_matches(['-', '+']).trim_start();
            tag.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default()
        });
        if !tags.all(|tag| TAGS.contains(&tag)) {
            return Err(TemplateError::Tag);
        }
        let field = source.find("value_json").and_then(|at| source.get(at..)).and_then(field);
        Ok(Self::Expression(source.into(), field.map(|(field, _)| field)))
    }

    /// Returns the field that it reads, as a dotted name.
    #[must_use]
    pub fn field(&self) -> Option<String> {
        match self {
            Self::Whole => None,
            Self::Field(path) => Some(path.join(".")),
            Self::Expression(_, path) => path.as_ref().map(|path| path.join(".")),
        }
    }
}

/// Reads `value`, `value_json.a["b"]`, and these with a filter that changes no number.
fn simple(inner: &str) -> Option<Template> {
    if inner == "value" {
        return Some(Template::Whole);
    }
    let (path, rest) = field(inner)?;
    let filter = rest.trim_start().strip_prefix('|').map_or(rest.trim(), str::trim);
    matches!(filter, "" | "float" | "is_defined").then_some(Template::Field(path))
}

/// Splits `value_json.a["b"][0] | float` into its path and the rest.
fn field(text: &str) -> Option<(Vec<String>, &str)> {
    let mut rest = text.strip_prefix("value_json")?;
    let mut path = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(after.len());
            let (name, left) = after.split_at(end);
            path.push(name.to_owned());
            rest = left;
        } else if let Some(after) = rest.strip_prefix('[') {
            let (name, left) = after.split_once(']')?;
            let name = name.trim();
            let quoted = ['"', '\''].into_iter().find_map(|quote| {
                name.strip_prefix(quote).and_then(|name| name.strip_suffix(quote))
            });
            let index = name.bytes().all(|byte| byte.is_ascii_digit()).then_some(name);
            path.push(quoted.or(index)?.to_owned());
            rest = left;
        } else {
            let is_path = !path.is_empty() && !path.iter().any(String::is_empty);
            return is_path.then_some((path, rest));
        }
    }
}

/// The payload of a message, read once however many templates ask.
#[derive(Debug)]
pub struct Payload<'p> {
    text: &'p str,
    document: OnceCell<Option<Json>>,
}

impl<'p> Payload<'p> {
    /// Takes a payload; `None` when it is no text, or longer than the state of a device is.
    #[must_use]
    pub fn new(bytes: &'p [u8]) -> Option<Self> {
        let text =
            std::str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_PAYLOAD_BYTES)?;
        Some(Self { text: text.trim(), document: OnceCell::new() })
    }

    /// Returns the document, if it is one.
    pub fn document(&self) -> Option<&Json> {
        self.document.get_or_init(|| serde_json::from_str(self.text).ok()).as_ref()
    }

    fn at(&self, path: &[String]) -> Option<&Json> {
        path.iter().try_fold(self.document()?, |value, step| match value {
            Json::Array(items) => items.get(step.parse::<usize>().ok()?),
            Json::Object(fields) => fields.get(step),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
        })
    }
}

/// Finds values in payloads.
#[derive(Debug)]
pub struct Engine(Environment<'static>);

impl Default for Engine {
    fn default() -> Self {
        let mut environment = Environment::empty();
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(MAX_RECURSION);
        environment.set_undefined_behavior(UndefinedBehavior::Chainable);
        environment.add_filter("float", float);
        environment.add_filter("int", int);
        environment.add_filter("is_defined", |value: Any| value);
        environment.add_filter("iif", iif);
        environment.add_filter("multiply", |value: Any, by: f64| number(&value).map(|n| n * by));
        environment.add_filter("add", |value: Any, what: f64| number(&value).map(|n| n + what));
        environment.add_filter("round", round);
        environment.add_filter("abs", filters::abs);
        environment.add_filter("default", filters::default);
        environment.add_filter("lower", filters::lower);
        environment.add_filter("upper", filters::upper);
        environment.add_filter("trim", filters::trim);
        environment.add_filter("string", filters::string);
        environment.add_filter("bool", filters::bool);
        environment.add_filter("length", filters::length);
        environment.add_function("float", float);
        environment.add_function("int", int);
        environment.add_function("iif", iif);
        environment.add_test("defined", checks::is_defined);
        environment.add_test("undefined", checks::is_undefined);
        environment.add_test("none", checks::is_none);
        environment.add_test("number", checks::is_number);
        environment.add_test("string", checks::is_string);
        environment.add_test("mapping", checks::is_mapping);
        Self(environment)
    }
}

impl Engine {
    /// Finds a value; `None` where there is none, such as a field that is not in this message.
    ///
    /// # Errors
    /// When the payload is no document and should be, or the template fails.
    pub fn value(
        &self,
        template: &Template,
        payload: &Payload<'_>,
    ) -> Result<Option<Value>, &'static str> {
        match template {
            Template::Whole => Ok(text_value(payload.text)),
            Template::Field(path) => {
                if payload.document().is_none() {
                    return Err("a payload that is no JSON");
                }
                Ok(payload.at(path).and_then(json_value))
            }
            Template::Expression(source, field) => {
                let value_json = payload.document().map(|json| Any::from(Serde(json)));
                let input = context! { value => payload.text, value_json => value_json };
                match self.0.render_str(source, input) {
                    Ok(text) => Ok(text_value(&text)),
                    // What is not in a message is no mistake of its template.
                    Err(_) if field.as_ref().is_some_and(|path| payload.at(path).is_none()) => {
                        Ok(None)
                    }
                    Err(_) => Err("a value_template that fails"),
                }
            }
        }
    }
}

/// Returns a value as a text, as a configuration names it.
#[must_use]
pub fn spelled(value: &Value) -> String {
    match value {
        Value::Text(text) => text.to_string(),
        Value::Bool(_) | Value::Int(_) | Value::UInt(_) | Value::Float(_) => value.to_string(),
    }
}

fn text_value(text: &str) -> Option<Value> {
    let text = text.trim();
    let is_absent = is_nothing(text)
        || ABSENT.contains(&text)
        // A document is no value.
        || text.starts_with(['{', '['])
        || !is_clean(text, MAX_TEXT_BYTES);
    match text {
        _ if is_absent => None,
        "true" | "True" => Some(Value::Bool(true)),
        "false" | "False" => Some(Value::Bool(false)),
        text => Some(Value::parse_number(text).unwrap_or_else(|| Value::Text(text.into()))),
    }
}

/// Returns a value of a document; `None` for what is none.
pub(super) fn json_value(value: &Json) -> Option<Value> {
    match value {
        Json::Bool(truth) => Some(Value::Bool(*truth)),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Some(Value::Int(number)),
            (None, Some(number)) => Some(Value::from(number)),
            (None, None) => Value::finite(number.as_f64()?),
        },
        Json::String(text) => text_value(text),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}

fn number(value: &Any) -> Result<f64, Error> {
    let number = match value.as_str() {
        Some(text) => text.trim().parse().ok(),
        None => f64::try_from(value.clone()).ok(),
    };
    number.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "no number"))
}

fn float(value: Any, otherwise: Option<Any>) -> Result<Any, Error> {
    match (number(&value), otherwise) {
        (Ok(number), _) => Ok(number.into()),
        (Err(_), Some(otherwise)) => Ok(otherwise),
        (Err(_), None) if value.is_undefined() => Ok(value),
        (Err(error), None) => Err(error),
    }
}

fn int(value: Any, otherwise: Option<Any>) -> Result<Any, Error> {
    let float = float(value, otherwise)?;
    match number(&float) {
        Ok(number) => Ok(Any::from(number.trunc() as i64)),
        Err(_) => Ok(float),
    }
}

fn round(value: Any, digits: Option<i32>, method: Option<&str>) -> Result<Any, Error> {
    if value.is_undefined() {
        return Ok(value);
    }
    let (number, digits) = (number(&value)?, digits.unwrap_or(0));
    // More digits than a double has are asked by mistake only.
    let power = 10_f64.powi(digits.clamp(-15, 15));
    let rounded = match method {
        Some("floor") => (number * power).floor(),
        Some("ceil") => (number * power).ceil(),
        Some(_) | None => (number * power).round(),
    };
    let rounded = rounded / power;
    Ok(if digits > 0 { Any::from(rounded) } else { Any::from(rounded as i64) })
}

fn iif(value: Any, yes: Option<Any>, no: Option<Any>, none: Option<Any>) -> Any {
    match none {
        Some(none) if value.is_none() => none,
        Some(_) | None if value.is_true() => yes.unwrap_or_else(|| true.into()),
        Some(_) | None => no.unwrap_or_else(|| false.into()),
    }
}

#[cfg(test)]
mod tests;
