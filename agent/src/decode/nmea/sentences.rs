//! Which field of which sentence is what (NMEA 0183, section 6; gpsd, "NMEA Revealed").

use super::{Reader, special};

/// What stands in a sentence.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item {
    /// `V` here: nothing in it counts.
    Valid(usize),
    /// A number of this metric, in this unit.
    Number(usize, &'static str, &'static str),
    /// The first of these numbers that is there, each in its unit.
    Either(&'static str, &'static [(usize, &'static str)]),
    /// A number, negative where the next field says west, south or left.
    Signed(usize, &'static str, &'static str),
    /// Latitude, N or S, longitude, E or W.
    Position(usize),
    /// A time of day.
    Time(usize),
    /// A time of day and the fields of day, month and year, which may be one.
    Dated(usize, [usize; 3]),
    /// Something of its own.
    Special(fn(&mut Reader<'_, '_>)),
}

use Item::{Dated, Either, Number, Position, Signed, Special, Time, Valid};

const TRUE_WIND_SPEED: &[(usize, &str)] = &[(4, "kn"), (6, "m/s")];
const RELATIVE_WIND_SPEED: &[(usize, &str)] = &[(2, "kn"), (4, "m/s"), (6, "km/h")];

/// Each type, and what its fields are, counted from 0 behind the type.
pub(super) const SENTENCES: &[(&str, &[Item])] = &[
    ("DBK", &[Either("depth_below_keel", DEPTH)]),
    ("DBS", &[Either("depth_below_surface", DEPTH)]),
    ("DBT", &[Either("depth_below_transducer", DEPTH)]),
    ("DPT", &[Special(special::depth)]),
    (
        "GGA",
        &[
            Time(0),
            Number(5, "fix_quality", ""),
            Number(6, "satellites", ""),
            Special(special::fix),
        ],
    ),
    ("GLL", &[Valid(5), Time(4), Position(0)]),
    (
        "GNS",
        &[
            Time(0),
            Position(1),
            Number(6, "satellites", ""),
            Number(7, "hdop", ""),
            Number(8, "altitude", "m"),
            Number(9, "geoid_separation", "m"),
        ],
    ),
    (
        "GSA",
        &[
            Number(1, "fix_type", ""),
            Number(14, "pdop", ""),
            Number(15, "hdop", ""),
            Number(16, "vdop", ""),
        ],
    ),
    (
        "GST",
        &[
            Time(0),
            Number(5, "latitude_error", "m"),
            Number(6, "longitude_error", "m"),
            Number(7, "altitude_error", "m"),
        ],
    ),
    ("GSV", &[Special(special::satellites_in_view)]),
    ("HDG", &[Special(special::compass)]),
    ("HDM", &[Number(0, "heading_magnetic", "°")]),
    ("HDT", &[Number(0, "heading_true", "°")]),
    (
        "MDA",
        &[
            Either("barometric_pressure", &[(2, "bar"), (0, "inHg")]),
            Number(4, "air_temperature", "°C"),
            Number(6, "water_temperature", "°C"),
            Number(8, "relative_humidity", "%"),
            Number(9, "absolute_humidity", "%"),
            Number(10, "dew_point", "°C"),
            Number(12, "wind_direction_true", "°"),
            Number(14, "wind_direction_magnetic", "°"),
            Either("wind_speed_true", &[(16, "kn"), (18, "m/s")]),
        ],
    ),
    (
        "MHU",
        &[
            Number(0, "relative_humidity", "%"),
            Number(1, "absolute_humidity", "%"),
            Number(2, "dew_point", "°C"),
        ],
    ),
    ("MMB", &[Either("barometric_pressure", &[(2, "bar"), (0, "inHg")])]),
    ("MTA", &[Special(special::air_temperature)]),
    ("MTW", &[Special(special::water_temperature)]),
    (
        "MWD",
        &[
            Number(0, "wind_direction_true", "°"),
            Number(2, "wind_direction_magnetic", "°"),
            Either("wind_speed_true", TRUE_WIND_SPEED),
        ],
    ),
    ("MWV", &[Valid(4), Special(special::wind)]),
    (
        "RMC",
        &[
            Dated(0, [8, 8, 8]),
            Valid(1),
            Position(2),
            Number(6, "speed_over_ground", "kn"),
            Number(7, "course_over_ground", "°"),
            Signed(9, "magnetic_variation", "°"),
        ],
    ),
    ("ROT", &[Valid(1), Number(0, "rate_of_turn", "°/min")]),
    ("RPM", &[Valid(4), Special(special::revolutions)]),
    ("RSA", &[Special(special::rudder)]),
    (
        "VHW",
        &[
            Number(0, "heading_true", "°"),
            Number(2, "heading_magnetic", "°"),
            Either("speed_through_water", &[(4, "kn"), (6, "km/h")]),
        ],
    ),
    ("VLW", &[Number(0, "distance_total", "nmi"), Number(2, "distance_trip", "nmi")]),
    (
        "VTG",
        &[
            Number(0, "course_over_ground", "°"),
            Number(2, "course_over_ground_magnetic", "°"),
            Either("speed_over_ground", &[(4, "kn"), (6, "km/h")]),
        ],
    ),
    (
        "VWR",
        &[
            Signed(0, "wind_angle_apparent", "°"),
            Either("wind_speed_apparent", RELATIVE_WIND_SPEED),
        ],
    ),
    ("VWT", &[Signed(0, "wind_angle_true", "°"), Either("wind_speed_true", RELATIVE_WIND_SPEED)]),
    ("XDR", &[Special(special::transducers)]),
    ("XTE", &[Valid(0), Valid(1), Special(special::cross_track)]),
    ("ZDA", &[Dated(0, [1, 2, 3])]),
];

const DEPTH: &[(usize, &str)] = &[(2, "m"), (0, "ft"), (4, "fathom")];
