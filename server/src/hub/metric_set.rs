//! A set of metrics of one device: one bit each.

use crate::commit::MetricIndex;

/// Some metrics of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct MetricSet(Vec<u64>);

impl MetricSet {
    /// Adds a metric.
    pub(super) fn insert(&mut self, metric: MetricIndex) {
        let (word, bit) = (metric.0 as usize / 64, metric.0 % 64);
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << bit;
        }
    }

    /// Tells whether it holds nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Lists the metrics in the order in which they were first named.
    pub(super) fn iter(&self) -> impl Iterator<Item = MetricIndex> {
        self.0.iter().zip(0_u32..).flat_map(|(word, at)| {
            let bits = (0..64).filter(move |bit| word & (1 << bit) != 0);
            bits.map(move |bit| MetricIndex(at * 64 + bit))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_inserted_in_order() {
        let mut set = MetricSet::default();
        assert!(set.is_empty());
        for metric in [200, 3, 64, 63, 3] {
            set.insert(MetricIndex(metric));
        }
        let metrics: Vec<u32> = set.iter().map(|metric| metric.0).collect();
        assert_eq!(metrics, [3, 63, 64, 200]);
    }
}
