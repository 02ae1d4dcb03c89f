//! What a span of time came to: minimum, maximum, sum, last value and count; and the minutes of an
//! hour as a blob of a chunk.

use valtronics_protocol::value::Value;

use super::{
    chunk::Point,
    column::{self, pack, unpack},
    seal::{join, take},
};

/// How long the spans are that chunks hold ready, in milliseconds.
pub(super) const MINUTE: i64 = 60_000;

/// What the readings of a span came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The span's beginning, in milliseconds since 1970.
    pub start: i64,
    /// What the numbers came to; absent where there was none.
    pub numbers: Option<Numbers>,
    /// The last value.
    pub last: Value,
    /// How many readings there were.
    pub count: u64,
}

/// What numbers came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers {
    /// The least.
    pub min: Value,
    /// The greatest.
    pub max: Value,
    /// Their sum.
    pub sum: f64,
    /// How many there were.
    pub count: u64,
}

impl Span {
    /// Begins a span with a value.
    pub(super) fn of(start: i64, value: Value) -> Self {
        let numbers = value.as_f64().map(|sum| {
            let (min, max) = (value.clone(), value.clone());
            Numbers { min, max, sum, count: 1 }
        });
        Self { start, numbers, last: value, count: 1 }
    }

    /// Adds what came later.
    pub(super) fn add(&mut self, later: Self) {
        match (&mut self.numbers, later.numbers) {
            (Some(numbers), Some(later)) => numbers.add(later),
            (numbers @ None, later) => *numbers = later,
            (Some(_), None) => {}
        }
        self.last = later.last;
        self.count += later.count;
    }
}

impl Numbers {
    fn add(&mut self, other: Self) {
        if is_less(&other.min, &self.min) {
            self.min = other.min;
        }
        if is_less(&self.max, &other.max) {
            self.max = other.max;
        }
        self.sum += other.sum;
        self.count += other.count;
    }
}

fn is_less(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a < b,
        (Value::UInt(a), Value::UInt(b)) => a < b,
        _ => a.as_f64() < b.as_f64(),
    }
}

/// Adds to the last of these spans, or begins the next.
pub(super) fn gather(spans: &mut Vec<Span>, next: Span) {
    match spans.last_mut() {
        Some(last) if last.start == next.start => last.add(next),
        Some(_) | None => spans.push(next),
    }
}

/// Writes the minutes of readings that are in order.
pub(super) fn encode(points: &[Point]) -> Vec<u8> {
    let mut minutes = Vec::new();
    for point in points {
        let start = point.at - point.at.rem_euclid(MINUTE);
        gather(&mut minutes, Span::of(start, point.value.clone()));
    }
    let starts: Vec<i64> = minutes.iter().map(|minute| minute.start).collect();
    let counts: Vec<u64> = minutes.iter().map(|minute| minute.count).collect();
    let lasts: Vec<&Value> = minutes.iter().map(|minute| &minute.last).collect();
    let of_numbers = |minute: &Span| minute.numbers.as_ref().map_or(0, |numbers| numbers.count);
    let number_counts: Vec<u64> = minutes.iter().map(of_numbers).collect();
    let numbers: Vec<&Numbers> =
        minutes.iter().filter_map(|minute| minute.numbers.as_ref()).collect();
    join(&[
        pack(&starts),
        pack(&counts),
        column::encode(&lasts),
        // Nearly always all of them are numbers.
        if number_counts == counts { Vec::new() } else { pack(&number_counts) },
        pack(&numbers.iter().map(|numbers| numbers.sum).collect::<Vec<_>>()),
        column::encode(&numbers.iter().map(|numbers| &numbers.min).collect::<Vec<_>>()),
        column::encode(&numbers.iter().map(|numbers| &numbers.max).collect::<Vec<_>>()),
    ])
}

/// Reads minutes.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Vec<Span>> {
    let mut part = || take(&mut bytes);
    let starts: Vec<i64> = unpack(part()?)?;
    let counts: Vec<u64> = unpack(part()?)?;
    let lasts = column::decode(part()?)?;
    let number_counts = match part()? {
        [] => counts.clone(),
        some => unpack(some)?,
    };
    let mut sums = unpack::<f64>(part()?)?.into_iter();
    let mut mins = column::decode(part()?)?.into_iter();
    let mut maxs = column::decode(part()?)?.into_iter();
    let mut numbers =
        |count| Some(Numbers { min: mins.next()?, max: maxs.next()?, sum: sums.next()?, count });
    let minutes = starts.into_iter().zip(counts).zip(lasts).zip(number_counts);
    let minutes = minutes.map(|(((start, count), last), of_numbers)| {
        let numbers = if of_numbers == 0 { None } else { Some(numbers(of_numbers)?) };
        Some(Span { start, numbers, last, count })
    });
    minutes.collect()
}
