//! Mistakes in a configuration: first as bytes of the file, at the end as file, line and key.

use std::{fmt, ops::Range, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A mistake, before it is known to which line and key its bytes belong.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    span: Range<usize>,
    message: String,
}

impl Fault {
    /// Blames `value`; the message says what would be right.
    pub fn at<T>(value: &Spanned<T>, message: impl Into<String>) -> Self {
        Self::in_span(value.span(), message)
    }

    /// Blames bytes of the file.
    pub fn in_span(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into() }
    }
}

/// All that is wrong with a configuration, ready to be shown.
#[derive(Debug, thiserror::Error)]
pub struct Mistakes(Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Mistakes {
    /// There is no file, or none that can be read.
    #[must_use]
    pub fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        Self(vec![format!("{}: {error}", path.display())])
    }

    /// Finds the lines and keys of `faults` in `text`, which is the content of `path`.
    #[must_use]
    pub fn new(path: &Path, text: &str, mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(|fault| fault.span.start);
        let (tree, _) = DeTable::parse_recoverable(text);
        let shown = faults.into_iter().map(|fault| {
            let before = text.get(..fault.span.start).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let mut keys = keys_at(tree.get_ref(), &fault.span).unwrap_or_default();
            keys.reverse();
            let key = keys.join(".");
            let separator = if key.is_empty() { "" } else { ": " };
            format!("{}:{line}: {key}{separator}{}", path.display(), fault.message)
        });
        Self(shown.collect())
    }
}

/// Returns the keys that lead to `span`, the innermost first.
fn keys_at<'t>(table: &'t DeTable<'_>, span: &Range<usize>) -> Option<Vec<&'t str>> {
    table.iter().find_map(|(key, value)| {
        let holds = |own: Range<usize>| own.start <= span.start && span.end <= own.end;
        let inner = keys_in(value.get_ref(), span);
        let own = || (holds(key.span()) || holds(value.span())).then(Vec::new);
        let mut keys = inner.or_else(own)?;
        keys.push(key.get_ref().as_ref());
        Some(keys)
    })
}

fn keys_in<'t>(value: &'t DeValue<'_>, span: &Range<usize>) -> Option<Vec<&'t str>> {
    match value {
        DeValue::Table(table) => keys_at(table, span),
        DeValue::Array(array) => array.iter().find_map(|item| {
            let own = || (item.span() == *span).then(Vec::new);
            keys_in(item.get_ref(), span).or_else(own)
        }),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => None,
    }
}
