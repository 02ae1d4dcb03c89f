//! Units: one canonical spelling of each, with its UCUM code.
//!
//! Only the spelling is made canonical; values are never converted. What is not known stays as it
//! was written.

use std::{borrow::Cow, collections::HashMap, sync::LazyLock};

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
    Unit("kV", "kV", &[]),
    Unit("A", "A", &["amp", "amps", "ampere", "Ampere"]),
    Unit("mA", "mA", &[]),
    Unit("µA", "uA", &["uA"]),
    Unit("Ah", "A.h", &[]),
    Unit("mAh", "mA.h", &[]),
    Unit("W", "W", &["watt", "watts", "Watt", "Watts"]),
    Unit("mW", "mW", &["milliwatt"]),
    Unit("kW", "kW", &["KW", "kw"]),
    Unit("MW", "MW", &["megawatt"]),
    Unit("W/m²", "W/m2", &["W/m2", "W/m^2"]),
    Unit("Wh", "W.h", &["wh"]),
    Unit("kWh", "kW.h", &["kwh", "KWh", "KWH"]),
    Unit("MWh", "MW.h", &[]),
    Unit("VA", "V.A", &["va"]),
    Unit("kVA", "kV.A", &["kva"]),
    Unit("var", "V.A{reactive}", &["VAr", "VAR", "Var"]),
    Unit("kvar", "kV.A{reactive}", &["kVAr", "kVAR"]),
    Unit("Hz", "Hz", &["hz", "HZ", "hertz"]),
    Unit("kHz", "kHz", &["khz"]),
    Unit("MHz", "MHz", &[]),
    Unit("hPa", "hPa", &["hpa"]),
    Unit("mbar", "mbar", &["mBar"]),
    Unit("bar", "bar", &["Bar"]),
    Unit("psi", "[psi]", &["PSI"]),
    Unit("Pa", "Pa", &[]),
    Unit("kPa", "kPa", &["kpa"]),
    Unit("m", "m", &["meter", "metre", "meters", "metres"]),
    Unit("mm", "mm", &[]),
    Unit("cm", "cm", &[]),
    Unit("km", "km", &[]),
    Unit("m³", "m3", &["m3", "m^3"]),
    Unit("L", "L", &["l", "litre", "liter"]),
    Unit("L/min", "L/min", &["l/min", "lpm"]),
    Unit("m³/h", "m3/h", &["m3/h"]),
    Unit("mm/h", "mm/h", &[]),
    Unit("m/s", "m/s", &["mps"]),
    Unit("km/h", "km/h", &["kmh", "kph"]),
    Unit("mph", "[mi_i]/h", &["mi/h"]),
    Unit("kn", "[kn_i]", &["knots", "kt", "kts"]),
    Unit("°", "deg", &["deg", "degrees", "º"]),
    Unit("lx", "lx", &["lux", "Lux"]),
    Unit("lm", "lm", &["lumen"]),
    Unit("ppm", "[ppm]", &["PPM"]),
    Unit("ppb", "[ppb]", &["PPB"]),
    Unit("µg/m³", "ug/m3", &["ug/m3", "µg/m3", "ug/m³"]),
    Unit("mg/m³", "mg/m3", &["mg/m3"]),
    Unit("µS/cm", "uS/cm", &["uS/cm"]),
    Unit("dB", "dB", &["db"]),
    Unit("dBm", "dB{mW}", &["dbm"]),
    Unit("s", "s", &["sec", "secs", "second", "seconds"]),
    Unit("ms", "ms", &[]),
    Unit("µs", "us", &["us"]),
    Unit("min", "min", &["minute", "minutes"]),
    Unit("h", "h", &["hour", "hours", "hr"]),
    Unit("d", "d", &["day", "days"]),
    Unit("rpm", "{rev}/min", &["RPM", "r/min"]),
    Unit("Ω", "Ohm", &["ohm", "Ohm", "ohms", "\u{2126}"]),
    Unit("kΩ", "kOhm", &["kohm", "kOhm"]),
    Unit("kg", "kg", &["Kg"]),
    Unit("g", "g", &[]),
    Unit("B", "By", &["byte", "bytes"]),
    Unit("kB", "kBy", &["KB"]),
    Unit("MB", "MBy", &[]),
];

/// Every spelling, those that are canonical included.
static SPELLINGS: LazyLock<HashMap<&str, &Unit>> = LazyLock::new(|| {
    let spellings = |unit: &'static Unit| {
        let all = unit.2.iter().chain([&unit.0]);
        all.map(move |spelling| (*spelling, unit))
    };
    UNITS.iter().flat_map(spellings).collect()
});

/// Returns the canonical spelling of a unit; an unknown one is returned without blanks around it.
///
/// The Greek letter μ (U+03BC) becomes the micro sign µ (U+00B5) in any unit.
#[must_use]
pub fn canonical(spelled: &str) -> Cow<'_, str> {
    let spelled = spelled.trim();
    if let Some(unit) = SPELLINGS.get(spelled) {
        return Cow::Borrowed(unit.0);
    }
    if !spelled.contains('\u{3bc}') {
        return Cow::Borrowed(spelled);
    }
    let spelled = spelled.replace('\u{3bc}', "\u{b5}");
    Cow::Owned(SPELLINGS.get(&*spelled).map_or(spelled, |unit| unit.0.to_owned()))
}

/// Returns the UCUM code of a canonical symbol.
#[must_use]
pub fn ucum(symbol: &str) -> Option<&'static str> {
    SPELLINGS.get(symbol).filter(|unit| unit.0 == symbol).map(|unit| unit.1)
}

/// Tells whether this is a spelling of a unit that is known.
#[must_use]
pub fn is_known(spelled: &str) -> bool {
    SPELLINGS.contains_key(spelled)
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
            ("\u{3bc}g/m³", "\u{b5}g/m³"),
            ("\u{3bc}g/m3", "\u{b5}g/m³"),
            ("\u{3bc}Sv/h", "\u{b5}Sv/h"),
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
