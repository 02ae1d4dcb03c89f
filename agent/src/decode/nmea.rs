//! NMEA 0183: what instruments on boats, vehicles and weather stations say, a sentence a line.
//!
//! A sentence is `$`, talker and type, fields, `*` and a checksum; a tag block (NMEA 0183 v4) may
//! stand in front. Units are those of the sentence; of a value that it says in several units only
//! the first that is filled counts. A sentence of a type that is not known here is passed over.

use valtronics_protocol::{time::UnixMillis, value::Value};

use super::{Context, Outcome, Sample, device_time};

mod sentences;
mod special;

use sentences::{Item, SENTENCES};

/// How far the time of a sentence without a date may be from that of the last one with a date.
const SAME_CYCLE_MS: i64 = 60_000;
/// A day.
const DAY_MS: i64 = 86_400_000;

/// Reads the sentences of one line.
#[derive(Debug, Clone, Default)]
pub struct Nmea {
    /// The last date and time that a sentence said.
    dated: Option<UnixMillis>,
    /// Sentences have had checksums: one without is torn.
    checked: bool,
}

/// What a line is by its form.
enum Sentence<'a> {
    /// Its type and fields, and the time of its tag block.
    Good(&'a str, Vec<&'a str>, Option<UnixMillis>),
    /// A line of whoever recorded it.
    Comment,
    Foreign,
    Damaged(&'static str),
}

impl Nmea {
    /// Reads a line; a comment is nothing.
    pub(super) fn line(
        &mut self,
        line: &[u8],
        context: &mut Context,
        out: &mut Vec<Sample>,
    ) -> Option<Outcome> {
        let (kind, fields, tagged) = match self.sentence(line, context.now) {
            Sentence::Good(kind, fields, tagged) => (kind, fields, tagged),
            Sentence::Comment => return None,
            Sentence::Foreign => return Some(Outcome::Foreign),
            Sentence::Damaged(cause) => return Some(Outcome::Damaged(cause)),
        };
        let fields = Fields(&fields);
        let begin = out.len();
        if let Some((.., items)) = SENTENCES.iter().find(|(known, _)| *known == kind) {
            let mut reader = Reader { nmea: self, fields, at: None, context, out };
            if items.iter().all(|item| reader.read(item)) {
                let at = tagged.or(reader.at);
                out.iter_mut().skip(begin).for_each(|sample| sample.at = at);
            } else {
                out.truncate(begin);
            }
        }
        Some(Outcome::Good)
    }

    /// Takes a line apart and checks its sum.
    fn sentence<'a>(&mut self, line: &'a [u8], now: UnixMillis) -> Sentence<'a> {
        let line = line.trim_ascii();
        if line.starts_with(b"#") {
            return Sentence::Comment;
        }
        let (tags, line) = split_tags(line);
        let Some((b'$' | b'!', body)) = line.split_first() else {
            return Sentence::Foreign;
        };
        let (body, right) = checked(body);
        self.checked |= right == Some(true);
        match right {
            Some(false) => return Sentence::Damaged("a sentence with a wrong checksum"),
            None if self.checked => return Sentence::Foreign,
            Some(true) | None => {}
        }
        if tags.is_some_and(|tags| !is_right(tags)) {
            return Sentence::Damaged("a tag block with a wrong checksum");
        }
        let tagged = tags.and_then(|tags| tag_time(tags, now));
        let Ok(body) = std::str::from_utf8(body) else {
            return Sentence::Damaged("a sentence that is no text");
        };
        let mut fields = body.split(',');
        let address = fields.next().unwrap_or_default();
        // Two letters name the talker; a proprietary sentence begins with P and has its own types.
        let kind = match address.strip_prefix('P') {
            Some(_) => address,
            None => address.get(2..).unwrap_or_default(),
        };
        let known = SENTENCES.iter().any(|(known, _)| *known == kind);
        if right.is_none() && !known {
            return Sentence::Foreign;
        }
        Sentence::Good(kind, fields.map(str::trim).collect(), tagged)
    }

    /// Dates a time of day, if a date was said lately.
    fn date(&self, time_of_day: i64, now: UnixMillis) -> Option<UnixMillis> {
        let dated = self.dated?.0;
        let same_day = dated - dated.rem_euclid(DAY_MS) + time_of_day;
        let near = [-DAY_MS, 0, DAY_MS].map(|days| same_day + days);
        let at = near.into_iter().find(|at| (at - dated).abs() <= SAME_CYCLE_MS)?;
        device_time(&Value::Int(at), now)
    }
}

/// Tells whether a line is a sentence whose checksum is right.
pub(super) fn is_sentence(line: &str) -> bool {
    let (_, line) = split_tags(line.trim().as_bytes());
    let body = line.strip_prefix(b"$").or(line.strip_prefix(b"!"));
    body.is_some_and(|body| checked(body).1 == Some(true))
}

/// Splits the checksum off and tells whether it is right; `None` where there is none.
///
/// It is the exclusive-or of all bytes between `$` and `*`, in hexadecimal. A `*` before it is that
/// of another sentence, whose end is lost.
fn checked(body: &[u8]) -> (&[u8], Option<bool>) {
    let Some((body, [b'*', high, low])) = body.split_last_chunk() else {
        return (body, None);
    };
    if body.contains(&b'*') {
        return (body, None);
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let (Some(high), Some(low)) = (digit(high), digit(low)) else {
        return (body, Some(false));
    };
    let sum = body.iter().fold(0, |sum, byte| sum ^ byte);
    (body, Some(u32::from(sum) == high * 16 + low))
}

/// Splits off a tag block (NMEA 0183 v4): what stands between backslashes in front of a sentence.
fn split_tags(line: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let tags = line.strip_prefix(b"\\");
    let end = tags.and_then(|tags| Some((tags, tags.iter().position(|byte| *byte == b'\\')?)));
    match end.and_then(|(tags, end)| Some((tags.get(..end)?, tags.get(end + 1..)?))) {
        Some((tags, line)) => (Some(tags), line),
        None => (None, line),
    }
}

/// Tells whether a tag block is undamaged; some count the backslash in front of it, too.
fn is_right(tags: &[u8]) -> bool {
    let with_backslash = [b"\\", tags].concat();
    checked(tags).1 != Some(false) || checked(&with_backslash).1 == Some(true)
}

/// Returns the time of a tag block: `c:` and seconds or milliseconds since 1970.
fn tag_time(tags: &[u8], now: UnixMillis) -> Option<UnixMillis> {
    let mut tags = std::str::from_utf8(checked(tags).0).ok()?.split(',');
    let time = tags.find_map(|tag| tag.strip_prefix("c:"))?;
    device_time(&Value::Int(time.parse().ok()?), now)
}

/// Reads a time of day (`hhmmss.sss`), in milliseconds.
fn time_of_day(field: &str) -> Option<i64> {
    let (whole, fraction) = field.split_once('.').unwrap_or((field, ""));
    if whole.len() != 6 || !field.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let clock = whole.parse::<i64>().ok()?;
    let millis = format!("{fraction:0<3}").get(..3)?.parse::<i64>().ok()?;
    Some(((clock / 10_000 * 60 + clock / 100 % 100) * 60 + clock % 100) * 1000 + millis)
}

/// The fields of a sentence behind its type; one that is not there is empty.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [&'a str]);

impl<'a> Fields<'a> {
    fn text(&self, place: usize) -> &'a str {
        self.0.get(place).copied().unwrap_or_default()
    }

    fn value(&self, place: usize) -> Option<Value> {
        Value::parse_number(self.text(place))
    }

    fn number(&self, place: usize) -> Option<f64> {
        self.value(place)?.as_f64()
    }
}

/// Reads one sentence, item by item.
struct Reader<'a, 'f> {
    nmea: &'a mut Nmea,
    fields: Fields<'f>,
    /// When it was measured.
    at: Option<UnixMillis>,
    context: &'a mut Context,
    out: &'a mut Vec<Sample>,
}

impl Reader<'_, '_> {
    /// Reads an item; false when the sentence says that nothing in it counts.
    fn read(&mut self, item: &Item) -> bool {
        match *item {
            Item::Valid(place) => return self.fields.text(place) != "V",
            Item::Number(place, metric, unit) => {
                let value = self.fields.value(place);
                self.say(metric, value, Some(unit));
            }
            Item::Either(metric, choices) => {
                let filled = |(place, unit): &(usize, &'static str)| {
                    Some((self.fields.value(*place)?, *unit))
                };
                if let Some((value, unit)) = choices.iter().find_map(filled) {
                    self.say(metric, Some(value), Some(unit));
                }
            }
            Item::Signed(place, metric, unit) => {
                let value = self.signed(place);
                self.say(metric, value, Some(unit));
            }
            Item::Position(place) => {
                for (metric, place) in [("latitude", place), ("longitude", place + 2)] {
                    let value = self.degrees(place).and_then(Value::finite);
                    self.say(metric, value, Some("°"));
                }
            }
            Item::Time(place) => {
                let time = time_of_day(self.fields.text(place));
                self.at = time.and_then(|time| self.nmea.date(time, self.context.now));
            }
            Item::Dated(place, date) => self.dated(place, date),
            Item::Special(read) => read(self),
        }
        true
    }

    /// Adds a value, if there is one.
    fn say(&mut self, metric: &str, value: Option<Value>, unit: Option<&str>) {
        let Some(value) = value else { return };
        let metric = self.context.name(metric);
        let unit = unit.filter(|unit| !unit.is_empty()).map(|unit| self.context.name(unit));
        self.out.push(self.context.sample(metric, value, unit));
    }

    /// Reads a number that the next field's letter may make negative.
    fn signed(&self, place: usize) -> Option<Value> {
        let value = self.fields.value(place)?;
        let negative = matches!(self.fields.text(place + 1), "W" | "S" | "L");
        Some(match value {
            Value::Int(number) if negative => Value::Int(-number),
            Value::Float(number) if negative => Value::Float(-number),
            value => value,
        })
    }

    /// Reads `ddmm.mmmm` and its hemisphere.
    fn degrees(&self, place: usize) -> Option<f64> {
        let (text, number) = (self.fields.text(place), self.fields.number(place)?);
        let most = match self.fields.text(place + 1) {
            "N" | "S" => 90.0,
            "E" | "W" => 180.0,
            _ => return None,
        };
        let whole = (number / 100.0).trunc();
        let minutes = number - whole * 100.0;
        // As many decimals as the minutes have, and four, so that what is cut off moves nothing.
        let decimals = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
        let power = 10_f64.powi(i32::try_from(decimals + 4).ok()?.min(12));
        let degrees = ((whole + minutes / 60.0) * power).round() / power;
        let negative = matches!(self.fields.text(place + 1), "S" | "W");
        (minutes < 60.0 && degrees <= most).then_some(if negative { -degrees } else { degrees })
    }

    /// Takes the time of day at `place`, and the date: `ddmmyy`, or day, month and year.
    fn dated(&mut self, place: usize, date: [usize; 3]) {
        let text = |place| self.fields.text(place);
        let [day, month, year] = date;
        let (day, month, year) = if day == year {
            let part = |range| text(day).get(range).unwrap_or_default();
            (part(0..2), part(2..4), format!("20{}", part(4..6)))
        } else {
            (text(day), text(month), text(year).to_owned())
        };
        let time = text(place);
        let part = |range| time.get(range).unwrap_or_default();
        let (hour, minute, second) = (part(0..2), part(2..4), time.get(4..).unwrap_or_default());
        let moment = format!("{year}-{month:0>2}-{day:0>2}T{hour}:{minute}:{second}Z");
        let moment = device_time(&Value::Text(moment.into()), self.context.now);
        self.nmea.dated = moment.or(self.nmea.dated);
        self.at = moment;
    }
}

#[cfg(test)]
mod tests;
