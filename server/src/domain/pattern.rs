//! Names with `*` for anything: `boiler*`, `*/roof-?` has no other magic than the star.

/// A pattern of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamePattern(Box<str>);

impl NamePattern {
    /// Reads a pattern; every text is one.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Returns the pattern as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Tells whether the pattern is meant for keys (`{sub}/{name}`) instead of names.
    #[must_use]
    pub fn is_of_keys(&self) -> bool {
        self.0.contains('/')
    }

    /// Tells whether the pattern covers a device.
    #[must_use]
    pub fn covers(&self, name: &str, key: &str) -> bool {
        self.matches(if self.is_of_keys() { key } else { name })
    }

    /// Tells whether the pattern covers a text; takes a time in the order of the text's length for
    /// each star at most.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else {
            return *self.0 == *text;
        };
        let Some(mut text) = text.strip_prefix(first) else {
            return false;
        };
        let Some((middle, last)) = rest.rsplit_once('*') else {
            return text.ends_with(rest);
        };
        // Each part at its first place leaves the most for those behind it.
        for part in middle.split('*') {
            match text.find(part) {
                Some(at) => text = text.get(at + part.len()..).unwrap_or_default(),
                None => return false,
            }
        }
        text.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, _) => text.is_empty(),
            (Some((b'*', rest)), None) => naive(rest, text),
            (Some((b'*', rest)), Some((_, tail))) => naive(rest, text) || naive(pattern, tail),
            (Some((a, rest)), Some((b, tail))) => a == b && naive(rest, tail),
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_a_naive_matcher(pattern in "[ab*]{0,6}", text in "[ab]{0,8}") {
            let found = NamePattern::new(&pattern).matches(&text);
            prop_assert_eq!(found, naive(pattern.as_bytes(), text.as_bytes()));
        }
    }

    #[test]
    fn a_slash_means_the_key() {
        assert!(NamePattern::new("boiler*").covers("boiler-1", "site/boiler-1"));
        assert!(NamePattern::new("site/*").covers("boiler-1", "site/boiler-1"));
        assert!(!NamePattern::new("site/*").covers("site/x", "other/site/x"));
    }
}
