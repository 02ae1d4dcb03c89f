//! Sentences in which one field decides what another one means.

use valtronics_protocol::value::Value;

use super::{
    Reader,
    sentences::Item::{Number, Position},
};

/// GGA: without a fix (quality 0) there is no position, whatever the fields say.
pub(super) fn fix(reader: &mut Reader<'_, '_>) {
    if matches!(reader.fields.text(5), "" | "0") {
        return;
    }
    for item in [
        Position(1),
        Number(7, "hdop", ""),
        Number(8, "altitude", "m"),
        Number(10, "geoid_separation", "m"),
    ] {
        reader.read(&item);
    }
}

/// DPT: the offset is up to the surface where positive, down to the keel where negative.
pub(super) fn depth(reader: &mut Reader<'_, '_>) {
    let (depth, offset) = (reader.fields.number(0), reader.fields.number(1));
    reader.read(&Number(0, "depth_below_transducer", "m"));
    if let (Some(depth), Some(offset)) = (depth, offset.filter(|offset| *offset != 0.0)) {
        let metric = if offset > 0.0 { "depth_below_surface" } else { "depth_below_keel" };
        reader.say(metric, Value::finite(rounded(depth + offset)), Some("m"));
    }
}

/// GSV: the first of a group says how many satellites there are; each system has a group of its own.
pub(super) fn satellites_in_view(reader: &mut Reader<'_, '_>) {
    if reader.fields.text(1) == "1" {
        reader.read(&Number(2, "satellites_in_view", ""));
    }
}

/// HDG: what the compass shows, its deviation, and the variation of the place.
pub(super) fn compass(reader: &mut Reader<'_, '_>) {
    let turn = |from: Option<f64>, by: &Option<Value>| {
        Some(rounded((from? + by.as_ref()?.as_f64()?).rem_euclid(360.0)))
    };
    let (deviation, variation) = (reader.signed(1), reader.signed(3));
    let shown = reader.fields.number(0);
    let magnetic = turn(shown, &deviation);
    match magnetic {
        Some(magnetic) => {
            reader.read(&Number(0, "heading_compass", "°"));
            reader.say("heading_magnetic", Value::finite(magnetic), Some("°"));
        }
        None => {
            reader.read(&Number(0, "heading_magnetic", "°"));
        }
    }
    let heading = turn(magnetic.or(shown), &variation);
    reader.say("heading_true", heading.and_then(Value::finite), Some("°"));
    reader.say("magnetic_deviation", deviation, Some("°"));
    reader.say("magnetic_variation", variation, Some("°"));
}

/// MTA: the temperature of the air.
pub(super) fn air_temperature(reader: &mut Reader<'_, '_>) {
    temperature(reader, "air_temperature");
}

/// MTW: the temperature of the water.
pub(super) fn water_temperature(reader: &mut Reader<'_, '_>) {
    temperature(reader, "water_temperature");
}

fn temperature(reader: &mut Reader<'_, '_>, metric: &str) {
    let unit = match reader.fields.text(1) {
        "C" => "°C",
        "F" => "°F",
        "K" => "K",
        _ => return,
    };
    let value = reader.fields.value(0);
    reader.say(metric, value, Some(unit));
}

/// MWV: relative to the bow as felt (`R`), or as it is (`T`); the speed has its unit's letter.
pub(super) fn wind(reader: &mut Reader<'_, '_>) {
    let (angle, speed) = match reader.fields.text(1) {
        "R" => ("wind_angle_apparent", "wind_speed_apparent"),
        "T" => ("wind_angle_true", "wind_speed_true"),
        _ => return,
    };
    reader.read(&Number(0, angle, "°"));
    let unit = match reader.fields.text(3) {
        "N" => "kn",
        "K" => "km/h",
        "M" => "m/s",
        "S" => "mph",
        _ => return,
    };
    let value = reader.fields.value(2);
    reader.say(speed, value, Some(unit));
}

/// RPM: of the engine or the shaft with this number.
pub(super) fn revolutions(reader: &mut Reader<'_, '_>) {
    let what = match reader.fields.text(0) {
        "E" => "engine",
        "S" => "shaft",
        _ => return,
    };
    let number = reader.fields.text(1);
    let (value, pitch) = (reader.fields.value(2), reader.fields.value(3));
    reader.say(&format!("{what}_{number}_revolutions"), value, Some("rpm"));
    reader.say(&format!("{what}_{number}_pitch"), pitch, Some("%"));
}

/// RSA: the starboard or single rudder, and the port one, each with its validity.
pub(super) fn rudder(reader: &mut Reader<'_, '_>) {
    for (place, metric) in [(0, "rudder_angle"), (2, "rudder_angle_port")] {
        if reader.fields.text(place + 1) == "A" {
            reader.read(&Number(place, metric, "°"));
        }
    }
}

/// XTE: to which side to steer to come back to the track, negative to the left.
pub(super) fn cross_track(reader: &mut Reader<'_, '_>) {
    if matches!(reader.fields.text(3), "L" | "R") {
        let value = reader.signed(2);
        reader.say("cross_track_error", value, Some("nmi"));
    }
}

/// XDR: groups of kind, value, unit's letter and name.
pub(super) fn transducers(reader: &mut Reader<'_, '_>) {
    for place in (0..reader.fields.0.len()).step_by(4) {
        let (kind, letter) = (reader.fields.text(place), reader.fields.text(place + 2));
        let name = match reader.fields.text(place + 3) {
            "" => kind_name(kind),
            name => name,
        };
        let unit = match (kind, letter) {
            (_, "B") => "bar",
            (_, "C") => "°C",
            (_, "D") => "°",
            (_, "F") => "°F",
            (_, "H") => "Hz",
            (_, "I") => "A",
            (_, "K") if kind == "C" => "K",
            (_, "K") => "kg/m³",
            (_, "l") => "L/s",
            (_, "M") if kind == "V" => "m³",
            (_, "M") => "m",
            (_, "N") => "N",
            ("P", "P") => "Pa",
            (_, "P") => "%",
            (_, "R") => "rpm",
            (_, "S") => "ppt",
            (_, "V") => "V",
            _ => "",
        };
        if !name.is_empty() {
            let value = reader.fields.value(place + 1);
            reader.say(name, value, Some(unit));
        }
    }
}

/// Names a transducer that has no name of its own by its kind.
fn kind_name(kind: &str) -> &'static str {
    match kind {
        "A" => "angle",
        "C" => "temperature",
        "D" => "depth",
        "F" => "frequency",
        "G" => "generic",
        "H" => "humidity",
        "I" => "current",
        "L" => "salinity",
        "N" => "force",
        "P" => "pressure",
        "R" => "flow",
        "S" => "switch",
        "T" => "tachometer",
        "U" => "voltage",
        "V" => "volume",
        _ => "",
    }
}

/// Takes away what adding two decimals leaves behind them.
fn rounded(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}
