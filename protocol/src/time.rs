//! Moments and periods as the API writes them.
//!
//! Moments are RFC 3339 in UTC with `Z`, to the millisecond where there is one
//! (`2024-01-01T12:00:00Z`, `2024-01-01T12:00:00.250Z`); periods are a number and a unit (`500ms`,
//! `30s`, `5m`, `24h`, `30d`).

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment in milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
///
/// Every value that [`FromStr`] returns lies in the years 0000 to 9999, so that it can be written
/// again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixMillis(pub i64);

const MILLIS_A_DAY: i64 = 86_400_000;

impl UnixMillis {
    /// 0000-01-01T00:00:00Z, the earliest moment that RFC 3339 can write.
    pub const MIN: Self = Self(-62_167_219_200_000);
    /// 9999-12-31T23:59:59.999Z, the latest moment that RFC 3339 can write.
    pub const MAX: Self = Self(253_402_300_799_999);

    /// Returns the moment `period` later, at most [`Self::MAX`].
    #[must_use]
    pub fn plus(self, period: Duration) -> Self {
        let millis = i64::try_from(period.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis)).min(Self::MAX)
    }

    /// Returns the moment `period` earlier, at least [`Self::MIN`].
    #[must_use]
    pub fn minus(self, period: Duration) -> Self {
        let millis = i64::try_from(period.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(millis)).max(Self::MIN)
    }

    /// Returns how long `earlier` lies before this moment; zero when it does not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0).max(0).unsigned_abs())
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = self.0.clamp(Self::MIN.0, Self::MAX.0);
        let (days, in_day) = (moment.div_euclid(MILLIS_A_DAY), moment.rem_euclid(MILLIS_A_DAY));
        let (year, month, day) = civil_from_days(days);
        let (hour, minute) = (in_day / 3_600_000, in_day / 60_000 % 60);
        let (second, millis) = (in_day / 1000 % 60, in_day % 1000);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        put(&mut text, 0, 4, year);
        put(&mut text, 5, 2, month);
        put(&mut text, 8, 2, day);
        put(&mut text, 11, 2, hour);
        put(&mut text, 14, 2, minute);
        put(&mut text, 17, 2, second);
        put(&mut text, 20, 3, millis);
        let end = if millis == 0 {
            put(&mut text, 19, 1, i64::from(b'Z' - b'0'));
            20
        } else {
            text.len()
        };
        let text = text.get(..end).unwrap_or_default();
        f.write_str(std::str::from_utf8(text).unwrap_or_default())
    }
}

/// Writes the decimal `digits` of `number` into `text` at `at`.
fn put(text: &mut [u8], at: usize, digits: usize, mut number: i64) {
    for place in text.iter_mut().skip(at).take(digits).rev() {
        let digit = if digits == 1 { number } else { number % 10 };
        *place = b'0' + u8::try_from(digit).unwrap_or_default();
        number /= 10;
    }
}

/// Converts days since 1970-01-01 to a proleptic Gregorian date.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// Converts a proleptic Gregorian date to days since 1970-01-01 (the inverse of the above).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// A text that is no RFC 3339 timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a timestamp is RFC 3339 with a zone, such as 2024-01-01T12:00:00Z")]
pub struct InvalidTimestamp;

impl FromStr for UnixMillis {
    type Err = InvalidTimestamp;

    /// Reads RFC 3339, section 5.6 with any offset; what is finer than a millisecond is cut.
    ///
    /// # Errors
    /// When the text has another form, no zone, or lies outside of the years 0000 to 9999.
    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        if let Some(moment) = parse_utc(text.as_bytes()) {
            return Ok(moment);
        }
        // RFC 3339 demands date, `T`, seconds and zone; the library also takes less.
        let bytes = text.as_bytes();
        let shaped = bytes.len() >= 20
            && matches!(bytes.get(10), Some(b'T' | b't' | b' '))
            && bytes.get(16) == Some(&b':')
            && bytes.first().is_some_and(u8::is_ascii_digit)
            && !text.contains('[');
        if !shaped {
            return Err(InvalidTimestamp);
        }
        let moment: jiff::Timestamp = text.parse().map_err(|_| InvalidTimestamp)?;
        let moment = Self(moment.as_nanosecond().div_euclid(1_000_000) as i64);
        if moment < Self::MIN || moment > Self::MAX {
            return Err(InvalidTimestamp);
        }
        Ok(moment)
    }
}

/// Reads `YYYY-MM-DDTHH:MM:SS[.fff]Z`, the form in which nearly every timestamp comes.
fn parse_utc(text: &[u8]) -> Option<UnixMillis> {
    let number = |from: usize, to: usize| {
        text.get(from..to)?.iter().try_fold(0_i64, |sum, byte| {
            byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0'))
        })
    };
    let at = |index: usize| text.get(index).copied();
    let millis = match (text.len(), at(19)?) {
        (20, b'Z') => 0,
        (24, b'.') if at(23) == Some(b'Z') => number(20, 23)?,
        _ => return None,
    };
    let separated = at(4)? == b'-' && at(7)? == b'-' && at(10)? == b'T';
    if !separated || at(13)? != b':' || at(16)? != b':' {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let in_range = (1..=12).contains(&month) && (1..=28).contains(&day);
    // Days past the 28th and leap seconds are left to the library.
    if !in_range || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let days = days_from_civil(year, month, day);
    Some(UnixMillis(
        days * MILLIS_A_DAY + hour * 3_600_000 + minute * 60_000 + second * 1000 + millis,
    ))
}

impl Serialize for UnixMillis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UnixMillis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A text that is no period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a period is a number and one of ms, s, m, h, d, such as \"500ms\", \"30s\" or \"5m\"")]
pub struct InvalidPeriod;

/// Reads a period: digits, optionally a decimal fraction, and one of `ms`, `s`, `m`, `h`, `d`.
///
/// # Errors
/// When the text has another form or exceeds 10,000 days.
pub fn parse_period(text: &str) -> Result<Duration, InvalidPeriod> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).ok_or(InvalidPeriod)?;
    let (number, unit) = text.split_at(unit_at);
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let whole = number.starts_with(|c: char| c.is_ascii_digit()) && !number.ends_with('.');
    if !plain || !whole {
        return Err(InvalidPeriod);
    }
    let number: f64 = number.parse().map_err(|_| InvalidPeriod)?;
    let millis = number
        * match unit {
            "ms" => 1.0,
            "s" => 1000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            _ => return Err(InvalidPeriod),
        };
    if millis > 10_000.0 * 86_400_000.0 {
        return Err(InvalidPeriod);
    }
    Ok(Duration::from_secs_f64(millis / 1000.0))
}

/// Writes a period so that [`parse_period`] reads it: in the largest unit that divides it.
#[must_use]
pub fn format_period(period: Duration) -> String {
    let millis = period.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")];
    units
        .into_iter()
        .find(|(size, _)| millis > 0 && millis.is_multiple_of(*size))
        .map_or_else(|| format!("{millis}ms"), |(size, unit)| format!("{}{unit}", millis / size))
}

/// Serde for a configuration's periods: `#[serde(with = "valtronics_protocol::time::period")]`.
pub mod period {
    use super::{Deserializer, Duration, Serializer, de, format_period, parse_period};

    /// Writes a period as text.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(period: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_period(*period))
    }

    /// Reads a period from text.
    ///
    /// # Errors
    /// When the text is no period.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        struct Text;
        impl de::Visitor<'_> for Text {
            type Value = Duration;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a period such as \"500ms\", \"30s\" or \"5m\"")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
                parse_period(text).map_err(E::custom)
            }
            // `0` needs no unit.
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Duration, E> {
                match number {
                    0 => Ok(Duration::ZERO),
                    _ => Err(E::invalid_value(de::Unexpected::Signed(number), &self)),
                }
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Duration, E> {
                self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

/// Serde for periods that may be absent: `with = "...::time::optional_period"` plus `default`.
pub mod optional_period {
    use super::{Deserializer, Duration, Serializer, period};

    /// Writes a period as text, or null.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(
        period: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match period {
            Some(period) => period::serialize(period, serializer),
            None => serializer.serialize_none(),
        }
    }

    /// Reads a period from text.
    ///
    /// # Errors
    /// When the text is no period.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        period::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let read = text.parse::<UnixMillis>().ok().map(|moment| moment.to_string());
        assert_eq!(read.as_deref(), expected, "{text}");
    }

    #[test]
    fn reads_and_writes_rfc_3339() {
        check("2024-01-01T12:00:00Z", Some("2024-01-01T12:00:00Z"));
        check("2024-01-01T12:00:00.250Z", Some("2024-01-01T12:00:00.250Z"));
        check("2024-01-01T12:00:00.25Z", Some("2024-01-01T12:00:00.250Z"));
        check("2024-01-01T12:00:00.123456789Z", Some("2024-01-01T12:00:00.123Z"));
        check("2024-02-29T23:59:59.999+01:00", Some("2024-02-29T22:59:59.999Z"));
        check("1969-12-31T23:59:59.999Z", Some("1969-12-31T23:59:59.999Z"));
        check("0000-01-01T00:00:00Z", Some("0000-01-01T00:00:00Z"));
        check("2024-12-31T23:59:59Z", Some("2024-12-31T23:59:59Z"));
    }

    #[test]
    fn refuses_what_is_no_moment() {
        for text in [
            "",
            "now",
            "2024-01-01",
            "2024-01-01T12:00Z",
            "2024-01-01T12:00:00",
            "2024-02-30T12:00:00Z",
            "2024-13-01T12:00:00Z",
            "2024-01-01T25:00:00Z",
            "2024-01-01T12:00:00Z[Europe/Berlin]",
            "+002024-01-01T12:00:00Z",
            "1704110400",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn every_day_of_four_centuries_agrees_with_the_library() {
        for day in 0..146_097 {
            let moment = UnixMillis((day - 80_000) * MILLIS_A_DAY + 3_600_000);
            let library = jiff::Timestamp::from_millisecond(moment.0).unwrap();
            assert_eq!(moment.to_string(), library.to_string());
            assert_eq!(library.to_string().parse(), Ok(moment));
        }
    }

    #[test]
    fn reads_periods() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("0.5s", 500),
            ("30d", 2_592_000_000),
        ] {
            assert_eq!(parse_period(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "30", "s", "-1s", "1e3s", "5 m", "5min", ".5s", "5.s", "99999d"] {
            assert_eq!(parse_period(text), Err(InvalidPeriod), "{text}");
        }
        assert_eq!(format_period(Duration::from_secs(90)), "90s");
        assert_eq!(format_period(Duration::from_secs(120)), "2m");
        assert_eq!(format_period(Duration::ZERO), "0ms");
    }
}
