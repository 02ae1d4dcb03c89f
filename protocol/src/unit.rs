//! Units: one canonical spelling of each, with its UCUM code.
//!
//! Only the spelling is made canonical; values are never converted. What is not known stays as it
//! was written.

use std::borrow::Cow;

/// A unit: the symbol that people read, its UCUM code, and other spellings of it.
struct Unit(&'static str, &'static str, &'static [&'static str]);

/// The units that sensors of this field speak of. `C` is the degree Celsius here, not the coulomb:
/// that is what thermometers mean by it.
const UNITS: &[Unit] = &[
    Unit("°C", "Cel", &["C", "℃", "degC", "deg C", "celsius", "Celsius", "ºC", "˚C", "° C"]),
    Unit("°F", "[degF]", &["F", "℉", "degF", "fahrenheit", "Fahrenheit", "ºF"]),
    Unit("K", "K", &["kelvin", "Kelvin"]),
    Unit("%", "%", &["percent", "pct", "%RH", "%rh", "% RH"]),
    Unit("V", "V", &["volt", "volts", "Volt", "Volts"]),
    Unit("mV", "mV", &["millivolt"]),
    Unit("A", "A", &["amp", "amps", "ampere", "Ampere"]),
    Unit("mA", "mA", &[]),
    Unit("W", "W", &["watt", "watts", "Watt", "Watts"]),
    Unit("kW", "kW", &["KW", "kw"]),
    Unit("Wh", "W.h", &["wh"]),
    Unit("kWh", "kW.h", &["kwh", "KWh", "KWH"]),
    Unit("VA", "V.A", &["va"]),
    Unit("var", "V.A{reactive}", &["VAr", "VAR", "Var"]),
    Unit("Hz", "Hz", &["hz", "HZ", "hertz"]),
    Unit("hPa", "hPa", &["hpa"]),
    Unit("mbar", "mbar", &["mBar"]),
    Unit("bar", "bar", &["Bar"]),
    Unit("Pa", "Pa", &[]),
    Unit("kPa", "kPa", &["kpa"]),
    Unit("m", "m", &["meter", "metre", "meters", "metres"]),
    Unit("mm", "mm", &[]),
    Unit("cm", "cm", &[]),
    Unit("km", "km", &[]),
    Unit("m³", "m3", &["m3", "m^3"]),
    Unit("L", "L", &["l", "litre", "liter"]),
    Unit("m/s", "m/s", &["mps"]),
    Unit("km/h", "km/h", &["kmh", "kph"]),
    Unit("kn", "[kn_i]", &["knots", "kt", "kts"]),
    Unit("°", "deg", &["deg", "degrees", "º"]),
    Unit("lx", "lx", &["lux", "Lux"]),
    Unit("lm", "lm", &["lumen"]),
    Unit("ppm", "[ppm]", &["PPM"]),
    Unit("ppb", "[ppb]", &["PPB"]),
    Unit("µg/m³", "ug/m3", &["μg/m³", "ug/m3", "µg/m3", "μg/m3", "ug/m³"]),
    Unit("µS/cm", "uS/cm", &["μS/cm", "uS/cm"]),
    Unit("dB", "dB", &["db"]),
    Unit("dBm", "dB[mW]", &["dbm"]),
    Unit("s", "s", &["sec", "secs", "second", "seconds"]),
    Unit("ms", "ms", &[]),
    Unit("min", "min", &["minute", "minutes"]),
    Unit("h", "h", &["hour", "hours", "hr"]),
    Unit("d", "d", &["day", "days"]),
    Unit("rpm", "{rpm}", &["RPM", "r/min"]),
    Unit("Ω", "Ohm", &["ohm", "Ohm", "ohms", "\u{2126}"]),
    Unit("kg", "kg", &["Kg"]),
    Unit("g", "g", &[]),
    Unit("B", "By", &["byte", "bytes"]),
];

/// Returns the canonical spelling of a unit; an unknown one is returned without blanks around it.
#[must_use]
pub fn canonical(spelled: &str) -> Cow<'_, str> {
    let spelled = spelled.trim();
    let known = |unit: &&Unit| unit.0 == spelled || unit.2.contains(&spelled);
    UNITS.iter().find(known).map_or(Cow::Borrowed(spelled), |unit| Cow::Borrowed(unit.0))
}

/// Returns the UCUM code of a canonical symbol.
#[must_use]
pub fn ucum(symbol: &str) -> Option<&'static str> {
    UNITS.iter().find(|unit| unit.0 == symbol).map(|unit| unit.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_become_one() {
        for (spelled, expected) in [
            ("C", "°C"),
            ("  C ", "°C"),
            ("℃", "°C"),
            ("μg/m³", "µg/m³"),
            ("m3", "m³"),
            ("VAR", "var"),
            ("mW", "mW"),
            ("MW", "MW"),
            ("widgets", "widgets"),
            ("", ""),
        ] {
            assert_eq!(canonical(spelled), expected, "{spelled:?}");
        }
    }

    #[test]
    fn every_symbol_is_its_own_and_no_spelling_means_two() {
        let mut seen = std::collections::HashSet::new();
        for unit in UNITS {
            assert_eq!(canonical(unit.0), unit.0);
            assert_eq!(ucum(unit.0), Some(unit.1));
            for spelling in unit.2.iter().chain([&unit.0]) {
                assert!(seen.insert(*spelling), "{spelling} stands twice");
            }
        }
    }
}
