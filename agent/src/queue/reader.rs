//! Reading back what stands in the log of readings, from front to back.
//!
//! A segment's records build on each other, so its decoder goes along: whoever reads on where the
//! last read ended decodes each record once.

use std::io;

use valtronics_protocol::{batch::Decoder, reading::Reading, time::UnixMillis};

use super::{
    Limits,
    batch::{Picked, Picker},
    log::{Log, Segment},
    segment::Records,
};

/// Where the last read ended, and what was unpacked there.
#[derive(Debug, Default)]
pub(super) struct Reader(Option<Place>);

#[derive(Debug)]
struct Place {
    segment: u64,
    file: Vec<u8>,
    records: Records,
    decoder: Decoder,
    first: u64,
    received: UnixMillis,
    readings: Vec<Reading>,
}

/// What was written cannot be read back.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("a record is damaged")]
    Damaged,
}

impl Reader {
    /// Returns what stands from `number` on in `segment` of `log`, up to the limits.
    ///
    /// After an error the segment holds nothing that can be read from that number on.
    pub(super) fn read(
        &mut self,
        log: &Log,
        segment: &Segment,
        number: u64,
        limits: Limits,
    ) -> Result<Picked, ReadError> {
        let known = self.0.take().filter(|place| {
            place.segment == segment.header.first
                && place.records.salt == segment.header.salt
                && place.first <= number
        });
        let mut place = match known {
            Some(place) => place,
            None => Place::new(log, segment)?,
        };
        let (mut picker, mut next) = (Picker::new(limits), number);
        while next < segment.end {
            if next >= place.records.next {
                place.advance(log, segment)?;
                continue;
            }
            let skipped = usize::try_from(next - place.first).unwrap_or(usize::MAX);
            let Some(reading) = place.readings.get(skipped) else {
                return Err(ReadError::Damaged);
            };
            if !picker.take(next, place.received, reading) {
                break;
            }
            next += 1;
        }
        self.0 = (next < segment.end).then_some(place);
        Ok(picker.picked(number))
    }

    /// Forgets what it holds.
    pub(super) fn clear(&mut self) {
        self.0 = None;
    }
}

impl Place {
    fn new(log: &Log, segment: &Segment) -> Result<Self, ReadError> {
        Ok(Self {
            segment: segment.header.first,
            file: log.disk.read(&segment.path)?,
            records: Records::of(&segment.header),
            decoder: Decoder::default(),
            first: segment.header.first,
            received: UnixMillis::default(),
            readings: Vec::new(),
        })
    }

    /// Unpacks the next record.
    fn advance(&mut self, log: &Log, segment: &Segment) -> Result<(), ReadError> {
        if { self.records }.read(&self.file).is_none() {
            // It has been written since.
            self.file = log.disk.read(&segment.path)?;
        }
        let record = self.records.read(&self.file).ok_or(ReadError::Damaged)?;
        self.decoder.decode(record.payload).map_err(|_| ReadError::Damaged)?;
        (self.first, self.received) = (record.first, record.received);
        let reading = |row: &valtronics_protocol::batch::Row| {
            let series = self.decoder.series().get(row.series as usize)?;
            Some(Reading {
                device: series.device.clone(),
                metric: series.metric.clone(),
                value: row.value.clone(),
                unit: series.unit.clone(),
                timestamp: row.timestamp,
                time_source: series.time_source,
            })
        };
        let readings: Option<Vec<Reading>> = self.decoder.rows().iter().map(reading).collect();
        self.readings =
            readings.filter(|all| all.len() == record.count as usize).ok_or(ReadError::Damaged)?;
        Ok(())
    }
}
