//! The objects of a telegram: `1-0:1.8.1(000004.426*kWh)`.
//!
//! A code is medium, channel, and three numbers that say what it is (IEC 62056-61). A channel from 1
//! on is a meter behind this one. What has a unit is a value, known or not; of what has none only
//! those objects that are known.

use std::{collections::BTreeMap, sync::Arc};

use valtronics_protocol::{time::UnixMillis, value::Value};

use crate::decode::{Context, Sample, device_time};

/// The meters behind this one, by channel.
#[derive(Debug, Clone, Default)]
pub(super) struct Meters(BTreeMap<u8, Meter>);

#[derive(Debug, Clone, Default)]
struct Meter {
    kind: Option<&'static str>,
    id: Option<Box<str>>,
    /// The time of the last value that was taken, as the meter wrote it.
    taken: Box<str>,
}

/// The known objects of the electricity meter; `#` stands for a tariff.
const OBJECTS: &[(&str, &str)] = &[
    ("1.8.0", "energy_import"),
    ("1.8.#", "energy_import_tariff_#"),
    ("2.8.0", "energy_export"),
    ("2.8.#", "energy_export_tariff_#"),
    ("3.8.0", "reactive_energy_import"),
    ("3.8.#", "reactive_energy_import_tariff_#"),
    ("4.8.0", "reactive_energy_export"),
    ("4.8.#", "reactive_energy_export_tariff_#"),
    ("1.7.0", "power_import"),
    ("2.7.0", "power_export"),
    ("3.7.0", "reactive_power_import"),
    ("4.7.0", "reactive_power_export"),
    ("9.7.0", "apparent_power_import"),
    ("10.7.0", "apparent_power_export"),
    ("13.7.0", "power_factor"),
    ("14.7.0", "frequency"),
    ("16.7.0", "power"),
    ("21.7.0", "power_import_l1"),
    ("41.7.0", "power_import_l2"),
    ("61.7.0", "power_import_l3"),
    ("22.7.0", "power_export_l1"),
    ("42.7.0", "power_export_l2"),
    ("62.7.0", "power_export_l3"),
    ("23.7.0", "reactive_power_import_l1"),
    ("43.7.0", "reactive_power_import_l2"),
    ("63.7.0", "reactive_power_import_l3"),
    ("24.7.0", "reactive_power_export_l1"),
    ("44.7.0", "reactive_power_export_l2"),
    ("64.7.0", "reactive_power_export_l3"),
    ("33.7.0", "power_factor_l1"),
    ("53.7.0", "power_factor_l2"),
    ("73.7.0", "power_factor_l3"),
    ("31.7.0", "current_l1"),
    ("51.7.0", "current_l2"),
    ("71.7.0", "current_l3"),
    ("32.7.0", "voltage_l1"),
    ("52.7.0", "voltage_l2"),
    ("72.7.0", "voltage_l3"),
    ("32.32.0", "voltage_sags_l1"),
    ("52.32.0", "voltage_sags_l2"),
    ("72.32.0", "voltage_sags_l3"),
    ("32.36.0", "voltage_swells_l1"),
    ("52.36.0", "voltage_swells_l2"),
    ("72.36.0", "voltage_swells_l3"),
    ("1.4.0", "average_demand"),
    ("1.6.0", "maximum_demand"),
    ("17.0.0", "power_limit"),
    ("31.4.0", "current_limit"),
    ("96.14.0", "tariff"),
    ("96.7.21", "power_failures"),
    ("96.7.9", "long_power_failures"),
    ("96.3.10", "breaker_state"),
];

/// Reads the objects of a telegram; returns what is wrong with a line that is none.
pub(super) fn read(
    content: &str,
    meters: &mut Meters,
    context: &mut Context,
    out: &mut Vec<Sample>,
) -> Option<&'static str> {
    let begin = out.len();
    let mut at = None;
    let mut fault = None;
    let mut lines = content.lines().skip(1).map(str::trim_end).peekable();
    while let Some(line) = lines.next() {
        if line.is_empty() || line == "!" {
            continue;
        }
        let Some(object) = Object::parse(line) else {
            fault = Some("a telegram with a line that is no object");
            continue;
        };
        // A value may stand on a line of its own (DSMR 2 and 3).
        let below = lines.next_if(|line| line.starts_with('('));
        if object.code == "1.0.0" {
            at = moment(object.first, context.now);
        } else if object.channel > 0 && object.medium != "1" {
            meters.read(&object, below, context, out);
        } else if let Some((metric, value, unit)) = object.value(context) {
            out.push(context.sample(metric, value, unit));
        }
    }
    let of_this_meter = |sample: &&mut Sample| sample.device.is_none();
    out.iter_mut().skip(begin).filter(of_this_meter).for_each(|sample| sample.at = at);
    fault
}

/// Tells whether a line is an object.
pub(super) fn is_object(line: &str) -> bool {
    Object::parse(line.trim_end()).is_some()
}

/// A line of a telegram.
struct Object<'a> {
    medium: &'a str,
    channel: u8,
    /// What it is, without the storage number behind a `*`.
    code: &'a str,
    /// What stands in the first brackets, and in the last.
    first: &'a str,
    last: &'a str,
}

impl<'a> Object<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (name, values) = line.split_once('(')?;
        let (medium, rest) = name.split_once('-')?;
        let (channel, code) = rest.split_once(':')?;
        let code = code.split_once('*').map_or(code, |(code, _)| code);
        let numbers = code.split('.').all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        let inside = values.strip_suffix(')')?;
        let mut values = inside.split(")(");
        let first = values.next()?;
        let last = values.last().unwrap_or(first);
        let channel = channel.parse().ok()?;
        (numbers && code.contains('.')).then_some(Self { medium, channel, code, first, last })
    }

    /// Returns what an object of the electricity meter says, if it says a value.
    fn value(&self, context: &mut Context) -> Option<(Arc<str>, Value, Option<Arc<str>>)> {
        // Lists of past events and of past months are no present values.
        if self.code.starts_with("98.") || self.code.starts_with("99.") {
            return None;
        }
        let name = self.name();
        let (value, unit) = measured(self.last)?;
        if name.is_none() && unit.is_none() {
            return None;
        }
        let metric = context.name(name.as_deref().unwrap_or(self.code));
        Some((metric, value, unit.map(|unit| context.name(unit))))
    }

    fn name(&self) -> Option<String> {
        let (stem, tariff) = self.code.rsplit_once('.')?;
        let known = |code: &str| OBJECTS.iter().find(|(known, _)| *known == code);
        if let Some((_, name)) = known(self.code) {
            return Some((*name).to_owned());
        }
        known(&format!("{stem}.#")).map(|(_, name)| name.replace('#', tariff))
    }
}

impl Meters {
    /// Takes an object of a meter behind this one.
    fn read(
        &mut self,
        object: &Object<'_>,
        below: Option<&str>,
        context: &mut Context,
        out: &mut Vec<Sample>,
    ) {
        let meter = self.0.entry(object.channel).or_default();
        match object.code {
            "24.1.0" => meter.kind = kind(object.last),
            "96.1.0" | "96.1.1" | "96.1.2" => meter.id = identity(object.last),
            code if code.starts_with("24.2.") || code == "24.3.0" => {
                let below = below.and_then(|line| line.strip_prefix('(')?.strip_suffix(')'));
                let text = below.unwrap_or(object.last);
                let unit = below.map(|_| object.last);
                if *object.first == *meter.taken {
                    return;
                }
                let Some((value, own_unit)) = measured(text) else { return };
                let Some(unit) = own_unit.or(unit) else { return };
                let kind = meter.kind.unwrap_or("meter");
                let id = meter.id.clone().unwrap_or_else(|| object.channel.to_string().into());
                let (metric, unit) = (context.name(kind), context.name(unit));
                let device = Some(context.name(&format!("{kind}-{id}")));
                let at = moment(object.first, context.now);
                let sample = context.sample(metric, value, Some(unit));
                let sample = Sample { device, at, ..sample };
                // Without a time of its own it is new with each telegram.
                if sample.at.is_some() {
                    meter.taken = object.first.into();
                }
                out.push(sample);
            }
            _ => {}
        }
    }
}

/// Reads a value and its unit: `000004.426*kWh`.
fn measured(text: &str) -> Option<(Value, Option<&str>)> {
    let (number, unit) = text.split_once('*').map_or((text, None), |(n, unit)| (n, Some(unit)));
    // Beyond 12 digits it is an identity.
    let is_number = number.len() <= 16 && !number.is_empty();
    Some((Value::parse_number(number).filter(|_| is_number)?, unit))
}

/// Names what a meter measures by the type of its device (EN 13757-3, section 5.7).
fn kind(code: &str) -> Option<&'static str> {
    Some(match code.parse::<u8>().ok()? {
        2 => "electricity",
        3 => "gas",
        4 | 12 => "heat",
        6 => "warm_water",
        7 => "water",
        10 | 11 => "cooling",
        _ => return None,
    })
}

/// Reads an identity, which is written in hexadecimal digits of its letters.
fn identity(text: &str) -> Option<Box<str>> {
    let pairs = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok()?;
        let letter = u8::from_str_radix(pair, 16).ok()?;
        letter.is_ascii_graphic().then_some(char::from(letter))
    });
    let letters: Option<String> = pairs.collect();
    let readable = letters.filter(|_| text.len().is_multiple_of(2));
    let identity = readable.unwrap_or_else(|| text.to_owned());
    (!identity.is_empty()).then(|| identity.into())
}

/// Reads `YYMMDDhhmmss` with `W` (UTC+1) or `S` (UTC+2); without the letter it is no moment.
fn moment(text: &str, now: UnixMillis) -> Option<UnixMillis> {
    let zone = match text.as_bytes().last()? {
        b'W' => "+01:00",
        b'S' => "+02:00",
        _ => return None,
    };
    let part = |range| text.get(range);
    let (year, month, day) = (part(0..2)?, part(2..4)?, part(4..6)?);
    let (hour, minute, second) = (part(6..8)?, part(8..10)?, part(10..12)?);
    let moment = format!("20{year}-{month}-{day}T{hour}:{minute}:{second}{zone}");
    device_time(&Value::Text(moment.into()), now)
}
