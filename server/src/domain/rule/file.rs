//! Files of rules: `[[rule]]` tables in TOML.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value as Json;
use toml::Spanned;

use super::{Rule, RuleError, wrong};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<Spanned<BTreeMap<String, Spanned<Json>>>>,
}

/// Reads a file of rules.
///
/// # Errors
/// Everything that is wrong in it, each with its line.
pub fn parse_file(text: &str) -> Result<Vec<Rule>, Vec<(usize, RuleError)>> {
    let file: File = toml::from_str(text).map_err(|error| {
        let line = line_of(text, error.span().map_or(0, |span| span.start));
        vec![(line, RuleError { field: "file".into(), why: error.message().into() })]
    })?;
    let (mut rules, mut errors) = (Vec::<Rule>::new(), Vec::new());
    for table in file.rule {
        let start = table.span().start;
        let table = table.into_inner();
        let at = |field: &str| table.get(field).map_or(start, |value| value.span().start);
        let fields = table.iter().map(|(field, value)| (field.clone(), value.get_ref().clone()));
        let read = Rule::parse(fields.collect(), None).and_then(|rule| {
            match rules.iter().any(|known| known.name == rule.name) {
                true => wrong("name", format!("{:?} stands twice", rule.name)),
                false => Ok(rule),
            }
        });
        match read {
            Ok(rule) => rules.push(rule),
            Err(error) => errors.push((line_of(text, at(&error.field)), error)),
        }
    }
    if errors.is_empty() { Ok(rules) } else { Err(errors) }
}

/// Returns the line, counted from 1, of a place in a text.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let found = match parse_file(text) {
            Ok(rules) => rules.iter().map(|rule| serde_json::to_string(rule).unwrap()).collect(),
            Err(errors) => {
                errors.iter().map(|(line, error)| format!("{line}: {error}")).collect::<Vec<_>>()
            }
        };
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn a_file_says_the_same_as_json() {
        check(
            "[[rule]]\nname = \"a\"\nmetric = \"t\"\nkind = \"threshold\"\nfor = \"30s\"\n\
             steps = [{ above = 30.0, severity = \"info\" }, { above = 35, severity = \"critical\" }]\n\
             [[rule]]\nname = \"b\"\nmetric = \"door\"\nkind = \"threshold\"\nequal = true\n",
            &[
                r#"{"name":"a","device":"*","metric":"t","kind":"threshold","steps":[{"above":30.0,"severity":"info"},{"above":35,"severity":"critical"}],"for":"30s","title":"a"}"#,
                r#"{"name":"b","device":"*","metric":"door","kind":"threshold","equal":true,"severity":"warning","for":"0s","title":"b"}"#,
            ],
        );
        check("", &[]);
    }

    #[test]
    fn names_every_line_that_is_wrong() {
        check(
            "# mine\n[[rule]]\nname = \"a\"\nmetric = \"t\"\nkind = \"threshold\"\nabove = \"x\"\n\n\
             [[rule]]\nname = \"b\"\nkind = \"threshold\"\nabove = 1\n",
            &["6: above: is a number", "8: metric: names the metric, such as \"temperature\""],
        );
        let rule = "[[rule]]\nname = \"a\"\nmetric = \"t\"\nkind = \"threshold\"\nabove = 1\n";
        check(&rule.repeat(2), &["7: name: \"a\" stands twice"]);
        check("\n[[rules]]\n", &["2: file: unknown field `rules`, expected `rule`"]);
        check(
            "[[rule]]\nname = \n",
            &["2: file: string values must be quoted, expected literal string"],
        );
    }
}
