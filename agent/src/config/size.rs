//! Sizes in bytes as a configuration writes them.

use serde::Deserialize;

/// At least `MIN` bytes: a number, or a number with `KiB`, `MiB` or `GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Text")]
pub struct Size<const MIN: u64>(pub u64);

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a size such as \"256MiB\"")]
enum Text {
    Bytes(u64),
    Written(String),
}

impl<const MIN: u64> TryFrom<Text> for Size<MIN> {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        let bytes = match &text {
            Text::Bytes(bytes) => Some(*bytes),
            Text::Written(text) => parse(text),
        };
        match bytes {
            Some(bytes) if bytes >= MIN => Ok(Self(bytes)),
            Some(_) => Err(format!("expected at least {}KiB", MIN / 1024)),
            None => Err("expected a size such as \"256MiB\" (KiB, MiB or GiB)".into()),
        }
    }
}

fn parse(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let factor = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        for (text, expected) in [
            ("256MiB", Some(256 << 20)),
            ("256 KiB", Some(256 << 10)),
            ("1GiB", Some(1 << 30)),
            ("4096", Some(4096)),
            ("12B", Some(12)),
            ("1MB", None),
            ("MiB", None),
            ("-1KiB", None),
            ("99999999999GiB", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
