//! From frames to readings, whoever sent them: numbers become names again.

use std::{borrow::Cow, sync::Arc};

use super::{FLAG_PACKED, FLAG_RESET, MAX_BODY_BYTES, Row, Series, bytes::Reader, rows::Rows};
use crate::reading::{MAX_NAME_BYTES, MAX_UNIT_BYTES, TimeSource, is_clean, is_name};

/// Reads frames; knows what its [`super::Encoder`] has announced.
#[derive(Debug, Default)]
pub struct Decoder {
    names: Names,
    rows: Rows,
    generation: u64,
}

#[derive(Debug, Default)]
struct Names {
    series: Vec<Series>,
    texts: Vec<Arc<str>>,
}

/// A frame that cannot be read: what follows cannot be trusted either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end early, or say what nothing says.
    #[error("the batch is damaged")]
    Damaged,
    /// A limit of the protocol is exceeded.
    #[error("the batch has too many {0}")]
    TooMany(&'static str),
    /// A name, a unit, a text or a number that no reading may have.
    #[error("the batch holds {0} that no reading may have")]
    Invalid(&'static str),
}

use DecodeError::{Damaged, Invalid};

impl Decoder {
    /// Reads one frame: all its readings in order, or none.
    ///
    /// # Errors
    /// When the frame is damaged or exceeds a limit; the decoder is of no use after that.
    pub fn decode(&mut self, frame: &[u8]) -> Result<&[Row], DecodeError> {
        let (reset, body) = open(frame)?;
        if reset {
            self.rows.reset();
            self.names = Names::default();
            self.generation += 1;
        }
        self.rows.read(Reader(&body), |clock, body| self.names.read(clock, body))?;
        Ok(self.rows.rows())
    }

    /// Returns the readings of the last frame; none of them is to be used if it was an error.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        self.rows.rows()
    }

    /// Returns every series that was announced since the last reset.
    #[must_use]
    pub fn series(&self) -> &[Series] {
        &self.names.series
    }

    /// Counts resets: whoever keeps a table beside [`Decoder::series`] begins it anew with each.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }
}

/// Returns whether a frame begins anew, and its body.
pub(super) fn open(frame: &[u8]) -> Result<(bool, Cow<'_, [u8]>), DecodeError> {
    let (flags, body) = frame.split_first().ok_or(Damaged)?;
    let body = match flags & !FLAG_RESET {
        0 => body.into(),
        FLAG_PACKED => zstd::bulk::decompress(body, MAX_BODY_BYTES).map_err(|_| Damaged)?.into(),
        _ => return Err(Damaged),
    };
    Ok((flags & FLAG_RESET != 0, body))
}

impl Names {
    fn read(&mut self, time_source: TimeSource, body: &mut Reader<'_>) -> Result<(), DecodeError> {
        let before = self.series.last().map(|series| Arc::clone(&series.device));
        let device = self.name(body)?.or(before).ok_or(Damaged)?;
        let metric = self.name(body)?.ok_or(Damaged)?;
        let unit = self.name(body)?;
        if !is_name(&device) || !is_name(&metric) {
            return Err(Invalid("a name"));
        }
        if !unit.as_deref().is_none_or(|unit| is_clean(unit, MAX_UNIT_BYTES)) {
            return Err(Invalid("a unit"));
        }
        self.series.push(Series { device, metric, unit, time_source });
        Ok(())
    }

    fn name(&mut self, body: &mut Reader<'_>) -> Result<Option<Arc<str>>, DecodeError> {
        match body.number()? {
            0 => Ok(None),
            1 => {
                let length = body.number()?;
                let name: Arc<str> = body.text(length, MAX_NAME_BYTES)?.into();
                self.texts.push(Arc::clone(&name));
                Ok(Some(name))
            }
            known => {
                let position = usize::try_from(known - 2).map_err(|_| Damaged)?;
                Ok(Some(Arc::clone(self.texts.get(position).ok_or(Damaged)?)))
            }
        }
    }
}
