//! What the queue has lost: counted exactly, written down, and handed to the uplink.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use valtronics_protocol::{
    reading::{Reading, TimeSource},
    time::UnixMillis,
    uplink::{Gap, GapReason, Loss, MAX_GAP_LOSSES},
};

use super::{crc, disk::Disk};

/// The most gaps that wait to be told; beyond, the newest takes in what is lost.
const GAPS: usize = 64;
/// The most devices that a gap names, those counted twice that are timed by two clocks; the readings of
/// others are counted together.
const DEVICES: usize = MAX_GAP_LOSSES - 2;

/// Whose the readings are, if that is known and not too much, and by whose clock.
type Of = (Option<Arc<str>>, TimeSource);

/// Counts lost readings.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<Of, (UnixMillis, UnixMillis, u64)>);

impl Tally {
    pub(super) fn add(&mut self, reading: &Reading) {
        let (at, by) = (reading.timestamp, reading.time_source);
        let mut of = (Some(Arc::clone(&reading.device)), by);
        if self.0.len() >= DEVICES && !self.0.contains_key(&of) {
            of = (None, by);
        }
        let (from, to, count) = self.0.entry(of).or_insert((at, at, 0));
        (*from, *to, *count) = ((*from).min(at), (*to).max(at), *count + 1);
    }

    /// Makes the gap of it; what could not be read came in `about` then.
    pub(super) fn gap(
        mut self,
        first: u64,
        last: u64,
        reason: GapReason,
        about: UnixMillis,
    ) -> Gap {
        let counted: u64 = self.0.values().map(|(_, _, count)| count).sum();
        let unknown = (last + 1 - first).saturating_sub(counted);
        if unknown > 0 {
            let of = (None, TimeSource::Receive);
            self.0.entry(of).or_insert((about, about, 0)).2 += unknown;
        }
        let loss = |((device, time_source), (from, to, readings)): (Of, _)| Loss {
            device: device.map(|device| device.to_string()),
            time_source,
            from,
            to,
            readings,
        };
        Gap { first, last, reason, devices: self.0.into_iter().map(loss).collect() }
    }
}

fn count(gap: &mut Gap, losses: Vec<Loss>) {
    for mut loss in losses {
        let is_of = |known: &Loss, of: &Loss| {
            (&known.device, known.time_source) == (&of.device, of.time_source)
        };
        if gap.devices.len() >= DEVICES && !gap.devices.iter().any(|known| is_of(known, &loss)) {
            loss.device = None;
        }
        match gap.devices.iter_mut().find(|known| is_of(known, &loss)) {
            Some(known) => {
                known.from = known.from.min(loss.from);
                known.to = known.to.max(loss.to);
                known.readings += loss.readings;
            }
            None => gap.devices.push(loss),
        }
    }
}

/// Appends a gap; one that touches the last becomes part of it, unless that one, up to number
/// `told`, has already been handed out.
pub(super) fn append(gaps: &mut Vec<Gap>, gap: Gap, told: u64) {
    let is_full = gaps.len() >= GAPS;
    let touches = |last: &Gap| last.last + 1 == gap.first;
    let goes_on = |last: &Gap| touches(last) && last.last > told && last.reason == gap.reason;
    match gaps.last_mut() {
        Some(last) if goes_on(last) || is_full => {
            // Between those that do not touch readings may wait: they keep their numbers.
            if touches(last) {
                last.last = gap.last;
            }
            count(last, gap.devices);
        }
        _ => gaps.push(gap),
    }
}

/// The gaps that wait to be told, in their file.
#[derive(Debug)]
pub(super) struct GapFile {
    path: PathBuf,
    pub(super) gaps: Vec<Gap>,
    is_saved: bool,
}

impl GapFile {
    pub(super) fn open(disk: &Disk, path: PathBuf) -> Self {
        let gaps = disk.read(&path).ok().and_then(|file| {
            let (sum, json) = file.split_first_chunk()?;
            let is_whole = crc::sum(&[json]) == u32::from_le_bytes(*sum);
            is_whole.then(|| serde_json::from_slice(json).ok())?
        });
        Self { path, gaps: gaps.unwrap_or_default(), is_saved: true }
    }

    pub(super) fn add(&mut self, gap: Gap, told: u64) {
        append(&mut self.gaps, gap, told);
        self.is_saved = false;
    }

    /// Forgets what the server knows: everything up to `committed`.
    pub(super) fn release(&mut self, committed: u64) {
        let before = self.gaps.len();
        self.gaps.retain(|gap| gap.last > committed);
        self.is_saved &= self.gaps.len() == before;
    }

    /// Writes them down, where anything has changed.
    pub(super) fn save(&mut self, disk: &Disk) -> io::Result<()> {
        if self.is_saved {
            return Ok(());
        }
        let json = serde_json::to_vec(&self.gaps)?;
        let sum = crc::sum(&[&json]).to_le_bytes();
        disk.replace(&self.path, &[&sum[..], &json].concat())?;
        self.is_saved = true;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::reading, *};

    #[test]
    fn devices_beyond_the_limit_are_counted_together() {
        let gap = |first: u64, devices: std::ops::Range<usize>| {
            let mut tally = Tally::default();
            for device in devices.clone() {
                tally.add(&Reading { device: format!("{device}").into(), ..reading(1) });
            }
            let last = first + devices.len() as u64 - 1;
            tally.gap(first, last, GapReason::Evicted, UnixMillis(0))
        };
        let mut gaps = Vec::new();
        append(&mut gaps, gap(1, 0..1500), 0);
        append(&mut gaps, gap(1501, 500..3000), 0);
        let [joined] = &gaps[..] else { panic!("{gaps:?}") };
        let sum: u64 = joined.devices.iter().map(|loss| loss.readings).sum();
        assert_eq!((joined.first, joined.last, sum), (1, 4000, 4000));
        assert_eq!(joined.devices.len(), DEVICES + 1);
        let unnamed: Vec<_> = joined.devices.iter().filter(|loss| loss.device.is_none()).collect();
        assert_eq!(unnamed.len(), 1);
    }

    #[test]
    fn what_waits_between_gaps_is_in_none_of_them() {
        let mut gaps = Vec::new();
        for number in 1..=100 {
            let gap = Tally::default();
            append(
                &mut gaps,
                gap.gap(number * 10, number * 10, GapReason::Corrupt, UnixMillis(0)),
                0,
            );
        }
        let lost: u64 = gaps.iter().flat_map(|gap| &gap.devices).map(|loss| loss.readings).sum();
        assert_eq!((gaps.len(), lost), (GAPS, 100));
        assert!(gaps.iter().all(|gap| gap.first == gap.last), "{gaps:?}");
    }

    #[test]
    fn what_cannot_be_read_is_counted_by_its_numbers() {
        let gap = Tally::default().gap(5, 9, GapReason::Corrupt, UnixMillis(7));
        let at = UnixMillis(7);
        assert_eq!(
            gap.devices,
            [Loss {
                device: None,
                time_source: TimeSource::Receive,
                from: at,
                to: at,
                readings: 5
            }]
        );
    }
}
