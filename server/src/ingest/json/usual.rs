//! Readings spelled as the documentation spells them: fields in its order, no white space, no escapes.
//!
//! That is what nearly every frame is made of, and what a program writes whose lists are in order.
//! Whatever is spelled otherwise, or wrong, is left to `fields`, which reads all that JSON allows.

use std::borrow::Cow;

use valtronics_protocol::{
    reading::{MAX_UNIT_BYTES, is_clean, is_name},
    uplink::MAX_FRAME_READINGS,
    value::Value,
};

use super::{Content, Message, Reading, scan::Scanner};

/// Reads a message; its readings are added to those of its frame.
pub(super) fn message<'a>(
    scanner: &mut Scanner<'a>,
    readings: &mut Vec<Reading<'a>>,
) -> Option<Message<'a>> {
    let begin = readings.len();
    let message = scanner.attempt(|scanner| {
        scanner.literal(br#"{"type":"readings","#)?;
        let seq = match scanner.literal(br#""seq":"#) {
            None => None,
            Some(()) => Some(number(scanner)?),
        };
        scanner.literal(br#""device":""#)?;
        let device = scanner.opened_text().filter(|device| is_name(device))?;
        scanner.literal(br#","readings":["#)?;
        loop {
            let reading = reading(scanner).filter(|_| readings.len() < MAX_FRAME_READINGS)?;
            readings.push(reading);
            if scanner.literal(b",").is_none() {
                break;
            }
        }
        scanner.literal(b"]}")?;
        let (device, readings) = (Cow::Borrowed(device), begin..readings.len());
        Some(Message {
            seq,
            content: Ok(Content::Readings { device, readings, historical: false }),
        })
    });
    if message.is_none() {
        readings.truncate(begin);
    }
    message
}

/// Reads a message's number and the comma behind it.
fn number(scanner: &mut Scanner<'_>) -> Option<u64> {
    let Value::Int(seq) = scanner.plain_number()? else {
        return None;
    };
    scanner.literal(b",")?;
    u64::try_from(seq).ok()
}

#[inline]
fn reading<'a>(scanner: &mut Scanner<'a>) -> Option<Reading<'a>> {
    scanner.literal(br#"{"metric":""#)?;
    let metric = scanner.opened_text().filter(|metric| is_name(metric))?;
    scanner.literal(br#","value":"#)?;
    let value = scanner.plain_number()?;
    let unit = match scanner.literal(br#","unit":""#) {
        None => None,
        Some(()) => Some(scanner.opened_text().filter(|unit| is_clean(unit, MAX_UNIT_BYTES))?),
    };
    let at = match scanner.literal(br#","timestamp":""#) {
        None => None,
        Some(()) => Some(scanner.opened_moment()?),
    };
    scanner.literal(b"}")?;
    Some(Reading { metric: Cow::Borrowed(metric), value, unit: unit.map(Cow::Borrowed), at })
}
