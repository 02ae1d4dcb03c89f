//! From the fields of a JSON object to a message or a reading, or to what is wrong with it.

use std::{borrow::Cow, ops::Range};

use serde_json::Error;
use valtronics_protocol::{
    event::Status,
    reading::{MAX_SENTENCE_BYTES, MAX_UNIT_BYTES},
    uplink::MAX_FRAME_READINGS,
    value::Value,
};

use super::{
    Content, DEVICE, Fault, HISTORICAL, METRIC, Message, QUEUE, READINGS, REASON, Reading, SEQ,
    STATUS, TOKEN, TOO_MANY, UNIT, VALUE, scalar::Scalar, scan::Scanner, usual,
};

/// The fields of a message as they come, and the first thing that is wrong.
#[derive(Default)]
struct Fields<'a> {
    kind: Option<Scalar<'a>>,
    seq: Option<Scalar<'a>>,
    device: Option<Scalar<'a>>,
    readings: Option<Result<Range<usize>, Fault>>,
    historical: Option<Scalar<'a>>,
    status: Option<Scalar<'a>>,
    reason: Option<Scalar<'a>>,
    timestamp: Option<Scalar<'a>>,
    token: Option<Scalar<'a>>,
    queue: Option<Scalar<'a>>,
}

/// Reads a message; the readings of a good one are added to those of its frame.
pub(super) fn message<'a>(
    scanner: &mut Scanner<'a>,
    readings: &mut Vec<Reading<'a>>,
    bare: bool,
) -> Result<Message<'a>, Error> {
    if !bare && let Some(message) = usual::message(scanner, readings) {
        return Ok(message);
    }
    let begin = readings.len();
    let mut fields = Fields::default();
    scanner.object(|scanner, key| {
        let field = match key {
            "type" => &mut fields.kind,
            "seq" => &mut fields.seq,
            "device" => &mut fields.device,
            "historical" => &mut fields.historical,
            "status" => &mut fields.status,
            "reason" => &mut fields.reason,
            "timestamp" => &mut fields.timestamp,
            "token" => &mut fields.token,
            "queue" => &mut fields.queue,
            "readings" => {
                readings.truncate(begin);
                fields.readings = Some(all_readings(scanner, readings)?);
                return Ok(());
            }
            _ => return scanner.skip(),
        };
        *field = Some(scanner.scalar()?);
        Ok(())
    })?;
    let seq = match fields.seq.take() {
        None | Some(Scalar::Null) => Ok(None),
        Some(Scalar::Value(Value::Int(seq))) => u64::try_from(seq).map(Some).map_err(|_| SEQ),
        Some(Scalar::Value(Value::UInt(seq))) => Ok(Some(seq)),
        Some(_) => Err(SEQ),
    };
    let content = match &seq {
        Ok(_) => fields.content(bare),
        Err(fault) => Err(*fault),
    };
    if !matches!(content, Ok(Content::Readings { .. })) {
        readings.truncate(begin);
    }
    Ok(Message { seq: seq.unwrap_or_default(), content })
}

impl<'a> Fields<'a> {
    fn content(self, bare: bool) -> Result<Content<'a>, Fault> {
        let kind = match self.kind {
            None if bare => Cow::Borrowed("readings"),
            None => return Err(Fault::MissingType),
            Some(Scalar::Text(kind)) => kind,
            Some(_) => return Err(Fault::UnknownType),
        };
        let device = || self.device.map_or(Err(DEVICE), |device| device.name(DEVICE));
        match &*kind {
            "auth" if !bare => {
                let token = self.token.map_or(Err(TOKEN), |token| token.text(8192, TOKEN))?;
                let queue = match self.queue {
                    None | Some(Scalar::Null) => None,
                    Some(queue) => Some(queue.text(64, QUEUE)?),
                };
                if queue.as_ref().is_some_and(|queue| queue.is_empty()) {
                    return Err(QUEUE);
                }
                Ok(Content::Auth { token, queue })
            }
            "readings" => {
                let historical = match self.historical {
                    None => false,
                    Some(Scalar::Value(Value::Bool(historical))) => historical,
                    Some(_) => return Err(HISTORICAL),
                };
                let (device, readings) = (device()?, self.readings.unwrap_or(Err(READINGS))?);
                Ok(Content::Readings { device, readings, historical })
            }
            "status" if !bare => {
                let status = match &self.status {
                    Some(Scalar::Text(text)) => match &**text {
                        "online" => Status::Online,
                        "offline" => Status::Offline,
                        "warning" => Status::Warning,
                        _ => return Err(STATUS),
                    },
                    _ => return Err(STATUS),
                };
                let reason = self.reason.map(|reason| reason.text(MAX_SENTENCE_BYTES, REASON));
                let at = self.timestamp.map_or(Ok(None), Scalar::moment)?;
                Ok(Content::Status { device: device()?, status, reason: reason.transpose()?, at })
            }
            _ => Err(Fault::UnknownType),
        }
    }
}

/// Reads the array of a message's readings.
fn all_readings<'a>(
    scanner: &mut Scanner<'a>,
    readings: &mut Vec<Reading<'a>>,
) -> Result<Result<Range<usize>, Fault>, Error> {
    if scanner.peek() != Some(b'[') {
        scanner.scalar()?;
        return Ok(Err(READINGS));
    }
    let begin = readings.len();
    let mut fault = None;
    scanner.array(|scanner| {
        match reading(scanner)? {
            _ if fault.is_some() => {}
            Ok(_) if readings.len() >= MAX_FRAME_READINGS => fault = Some(TOO_MANY),
            Ok(reading) => readings.push(reading),
            Err(wrong) => fault = Some(wrong),
        }
        Ok(())
    })?;
    Ok(match fault {
        Some(fault) => Err(fault),
        None if readings.len() == begin => Err(READINGS),
        None => Ok(begin..readings.len()),
    })
}

fn reading<'a>(scanner: &mut Scanner<'a>) -> Result<Result<Reading<'a>, Fault>, Error> {
    if scanner.peek() != Some(b'{') {
        scanner.scalar()?;
        return Ok(Err(READINGS));
    }
    let (mut metric, mut value, mut unit, mut at) = (None, None, None, None);
    scanner.object(|scanner, key| {
        let field = match key {
            "metric" => &mut metric,
            "value" => &mut value,
            "unit" => &mut unit,
            "timestamp" => &mut at,
            _ => return scanner.skip(),
        };
        *field = Some(scanner.scalar()?);
        Ok(())
    })?;
    Ok(checked(metric, value, unit, at))
}

fn checked<'a>(
    metric: Option<Scalar<'a>>,
    value: Option<Scalar<'a>>,
    unit: Option<Scalar<'a>>,
    at: Option<Scalar<'a>>,
) -> Result<Reading<'a>, Fault> {
    let unit = match unit {
        None | Some(Scalar::Null) => None,
        Some(unit) => Some(unit.text(MAX_UNIT_BYTES, UNIT)?),
    };
    Ok(Reading {
        metric: metric.map_or(Err(METRIC), |metric| metric.name(METRIC))?,
        value: value.map_or(Err(VALUE), Scalar::value)?,
        unit,
        at: at.map_or(Ok(None), Scalar::moment)?,
    })
}
