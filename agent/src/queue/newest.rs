//! The newest value of each series, for previews: what is live goes on while the queue is behind.

use std::{collections::HashMap, sync::Arc};

use valtronics_protocol::reading::Reading;

/// The most series that are kept: some hundred bytes each. The readings of others wait their turn.
const SERIES: usize = 10_000;
/// The most readings of one preview, so that it stays a small frame; the rest is in the next one.
const PREVIEW: usize = 3000;

/// A reading with its number.
type Numbered = (u64, Reading);

/// The newest reading of each series.
#[derive(Debug, Default)]
pub struct Newest {
    /// By device, then by metric: shared names are looked up without being copied.
    devices: HashMap<Arc<str>, HashMap<Arc<str>, Numbered>>,
    series: usize,
}

/// What a preview shows.
#[derive(Debug, Default, PartialEq)]
pub struct Preview {
    /// The newest values, in the order of their numbers.
    pub readings: Vec<Numbered>,
    /// Everything up to this number is in it, or older than what is.
    pub through: u64,
}

impl Newest {
    /// Takes a reading in whose number is higher than all before.
    pub fn put(&mut self, number: u64, reading: &Reading) {
        let known =
            self.devices.get_mut(&reading.device).and_then(|of| of.get_mut(&reading.metric));
        if let Some(known) = known {
            *known = (number, reading.clone());
        } else if self.series < SERIES {
            self.series += 1;
            let of_device = self.devices.entry(Arc::clone(&reading.device)).or_default();
            of_device.insert(Arc::clone(&reading.metric), (number, reading.clone()));
        }
    }

    /// Returns the values that are newer than `after`; `last` is the last number that was given.
    #[must_use]
    pub fn after(&self, after: u64, last: u64) -> Preview {
        let all = self.devices.values().flat_map(HashMap::values);
        let mut readings: Vec<_> = all.filter(|(number, _)| *number > after).cloned().collect();
        readings.sort_unstable_by_key(|(number, _)| *number);
        let cut = readings.len() > PREVIEW;
        readings.truncate(PREVIEW);
        let through = readings.last().filter(|_| cut).map_or(last, |(number, _)| *number);
        Preview { readings, through }
    }
}

#[cfg(test)]
mod tests {
    use valtronics_protocol::{reading::TimeSource, time::UnixMillis, value::Value};

    use super::*;

    fn reading(metric: &str, value: i64) -> Reading {
        Reading {
            device: "d".into(),
            metric: metric.into(),
            value: Value::Int(value),
            unit: None,
            timestamp: UnixMillis(value),
            time_source: TimeSource::Receive,
        }
    }

    #[test]
    fn a_preview_holds_what_is_new_once() {
        let mut newest = Newest::default();
        let readings = [("a", 10), ("b", 20), ("a", 30)];
        for (number, (metric, value)) in (1..).zip(readings) {
            newest.put(number, &reading(metric, value));
        }
        let both = vec![(2, reading("b", 20)), (3, reading("a", 30))];
        assert_eq!(newest.after(0, 3), Preview { readings: both, through: 3 });
        let one = vec![(3, reading("a", 30))];
        assert_eq!(newest.after(2, 3), Preview { readings: one, through: 3 });
        assert_eq!(newest.after(3, 3), Preview { readings: Vec::new(), through: 3 });
    }

    #[test]
    fn more_series_than_fit_come_one_after_the_other_or_wait() {
        let mut newest = Newest::default();
        for number in 1..=SERIES as u64 + 5 {
            newest.put(number, &reading(&number.to_string(), 1));
        }
        let (mut after, mut shown) = (0, 0);
        let last = SERIES as u64 + 5;
        while after < last {
            let preview = newest.after(after, last);
            assert!(preview.readings.len() <= PREVIEW);
            assert!(preview.readings.iter().all(|(number, _)| *number > after));
            shown += preview.readings.len();
            after = preview.through;
        }
        assert_eq!(shown, SERIES);
    }
}
