//! A table of the configuration from which several parts read their keys.
//!
//! Serde's `flatten` loses lines and accepts unknown keys, so a table is taken apart here instead:
//! each part takes out the keys that its type knows, and what is left at the end is a mistake.

use std::{cell::Cell, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor, value::Error as ProbeError},
    forward_to_deserialize_any,
};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::fault::Fault;

/// A key is taken for a slip of another one up to this many wrong letters.
const SLIP: usize = 2;

/// A table, and which keys would have been right in it.
#[derive(Debug, Clone)]
pub struct Section<'t> {
    span: Range<usize>,
    table: DeTable<'t>,
    known: Vec<&'static str>,
}

impl<'t> Section<'t> {
    /// Takes the whole file.
    #[must_use]
    pub fn file(table: Spanned<DeTable<'t>>) -> Self {
        Self { span: table.span(), table: table.into_inner(), known: Vec::new() }
    }

    /// Takes a value that must be a table.
    ///
    /// # Errors
    /// When it is something else.
    pub fn of(value: Spanned<DeValue<'t>>) -> Result<Self, Fault> {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Ok(Self { span, table, known: Vec::new() }),
            other => {
                Err(Fault::in_span(span, format!("expected a table, not {}", other.type_str())))
            }
        }
    }

    /// Returns where the table stands.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// Takes one key out.
    pub fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'t>>> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// Takes out the tables of `[[key]]`.
    ///
    /// # Errors
    /// When it is no array of tables.
    pub fn take_all(&mut self, key: &'static str) -> Result<Vec<Section<'t>>, Fault> {
        let Some(value) = self.take(key) else {
            return Ok(Vec::new());
        };
        let span = value.span();
        match value.into_inner() {
            DeValue::Array(array) => array.into_iter().map(Section::of).collect(),
            _ => Err(Fault::in_span(span, format!("expected [[{key}]], a list of tables"))),
        }
    }

    /// Takes out the keys that `T` knows and reads them.
    ///
    /// # Errors
    /// When a value is not what `T` wants.
    pub fn read<T: Deserialize<'t>>(&mut self) -> Result<T, Fault> {
        let part = self.part::<T>();
        let document = Spanned::new(part.span, part.table);
        T::deserialize(toml::Deserializer::from(document)).map_err(|error| self.blame(&error))
    }

    /// A needed key that is missing usually stands there, with a slip in it.
    fn blame(&self, error: &toml::de::Error) -> Fault {
        let span = error.span().unwrap_or_else(|| self.span.clone());
        let field = error.message().strip_prefix("missing field `");
        let Some(missing) = field.and_then(|field| field.strip_suffix('`')) else {
            return Fault::in_span(span, error.message());
        };
        match self.table.iter().find(|(key, _)| distance(key.get_ref(), missing) <= SLIP) {
            Some((key, _)) => {
                let name = key.get_ref();
                Fault::at(key, format!("unknown key `{name}`; did you mean `{missing}`?"))
            }
            None => Fault::in_span(span, format!("missing key `{missing}`")),
        }
    }

    /// Takes out the keys that `T` knows.
    pub fn part<T: Deserialize<'t>>(&mut self) -> Self {
        let known = keys_of::<T>();
        let mut table = DeTable::new();
        for key in known {
            if let Some((key, value)) = self.table.remove_entry(*key) {
                table.insert(key, value);
            }
        }
        self.known.extend(known);
        Self { span: self.span.clone(), table, known: Vec::new() }
    }

    /// Adds the keys of `outer` that do not stand here.
    pub fn inherit(&mut self, outer: &Self) {
        for (key, value) in &outer.table {
            if !self.table.contains_key(key.get_ref().as_ref()) {
                self.table.insert(key.clone(), value.clone());
            }
        }
    }

    /// Checks that nothing is left.
    ///
    /// # Errors
    /// When a key is left: nobody knows it.
    pub fn finish(self) -> Result<(), Fault> {
        let Some((key, _)) = self.table.iter().next() else {
            return Ok(());
        };
        let name = key.get_ref();
        let distances = self.known.iter().map(|known| (distance(known, name), known));
        let message = match distances.min() {
            Some((distance, nearest)) if distance <= SLIP => {
                format!("unknown key `{name}`; did you mean `{nearest}`?")
            }
            _ => format!("unknown key `{name}`; the keys here are {}", self.known.join(", ")),
        };
        Err(Fault::at(key, message))
    }
}

/// Returns the keys of a struct, by asking its `Deserialize` which fields it would read.
fn keys_of<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    struct Probe<'a>(&'a Cell<&'static [&'static str]>);

    impl<'de> Deserializer<'de> for Probe<'_> {
        type Error = ProbeError;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _name: &'static str,
            fields: &'static [&'static str],
            _visitor: V,
        ) -> Result<V::Value, ProbeError> {
            self.0.set(fields);
            Err(de::Error::custom("only asking"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, ProbeError> {
            Err(de::Error::custom("no struct"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            option unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier
            ignored_any
        }
    }

    let fields = Cell::new(&[][..]);
    // It always fails; what counts is what was asked for.
    let _ = T::deserialize(Probe(&fields));
    fields.get()
}

/// Counts the letters to insert, remove or replace between two words (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (above, letter) in one.chars().enumerate() {
        let mut diagonal = above;
        let mut left = above + 1;
        for (cell, wanted) in row.iter_mut().skip(1).zip(other.chars()) {
            let replaced = diagonal + usize::from(letter != wanted);
            diagonal = *cell;
            *cell = replaced.min(left + 1).min(diagonal + 1);
            left = *cell;
        }
        if let Some(first) = row.first_mut() {
            *first = above + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_wrong_letters() {
        for (one, other, expected) in [
            ("baud", "baud", 0),
            ("baud", "bauds", 1),
            ("baud", "buad", 2),
            ("units", "unit", 1),
            ("", "abc", 3),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(one, other), expected, "{one} {other}");
            assert_eq!(distance(other, one), expected, "{other} {one}");
        }
    }
}
