//! Binary frames of an agent, one after the other on one connection. What is read keeps the limits,
//! and comes back the same when it is written again.
//!
//! The input is frames, each after its length in two bytes (little-endian); the last may be shorter.

#![no_main]

use libfuzzer_sys::fuzz_target;
use valtronics_protocol::{
    batch::{Decoder, Encoder, MAX_SERIES, Row, Series, journal},
    reading::{Reading, is_name},
    uplink::{FrameHeader, MAX_FRAME_READINGS},
};

fuzz_target!(|input: &[u8]| {
    let mut connection = Connection::default();
    let mut rest = input;
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (frame, after) = after.split_at(length);
        rest = after;
        // A damaged frame ends the connection.
        if connection.receive(frame).is_none() {
            break;
        }
    }
    let _ = journal::decode(input);
});

#[derive(Default)]
struct Connection {
    decoder: Decoder,
    again: (Encoder, Decoder),
}

impl Connection {
    fn receive(&mut self, frame: &[u8]) -> Option<()> {
        let (header, batch) = FrameHeader::read(frame).ok()?;
        let mut written = Vec::new();
        header.write(&mut written);
        assert_eq!(FrameHeader::read(&written), Ok((header, &b""[..])));
        self.decoder.decode(batch).ok()?;
        let readings = readings(&self.decoder);
        assert!(readings.len() <= MAX_FRAME_READINGS);
        assert!(self.decoder.series().len() <= MAX_SERIES);
        for series in self.decoder.series() {
            assert!(is_name(&series.device) && is_name(&series.metric));
        }
        let (encoder, decoder) = &mut self.again;
        written.clear();
        encoder.encode(&readings, &mut written);
        decoder.decode(&written).expect("what was written can be read");
        // `PartialEq` calls 0.0 and -0.0 equal.
        assert_eq!(format!("{readings:?}"), format!("{:?}", self::readings(decoder)));
        Some(())
    }
}

fn readings(decoder: &Decoder) -> Vec<Reading> {
    let named = |row: &Row| {
        let Series { device, metric, unit, time_source } =
            decoder.series()[row.series as usize].clone();
        let (value, timestamp) = (row.value.clone(), row.timestamp);
        Reading { device, metric, value, unit, timestamp, time_source }
    };
    decoder.rows().iter().map(named).collect()
}
