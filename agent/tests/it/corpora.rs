//! Captures of real devices, where they are at hand: `VALTRONICS_CORPORA` names their folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use valtronics_agent::decode::{
    Counts, Decoder, Format, Sample, dsmr::Dsmr, guess::Guess, nmea::Nmea, vedirect::Vedirect,
};
use valtronics_protocol::time::UnixMillis;

/// 2026-11-01T00:00:00Z: after every capture.
const NOW: UnixMillis = UnixMillis(1_793_491_200_000);

/// Finds a folder of captures, or says that there is none.
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    let found =
        std::env::var_os("VALTRONICS_CORPORA").map(|corpora| Path::new(&corpora).join(name));
    if found.is_none() {
        eprintln!("VALTRONICS_CORPORA is not set: {name} is not tested on captures");
    }
    found
}

/// Lists the files whose name ends like this.
fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.to_str().is_some_and(|path| path.ends_with(end))).collect();
    files.sort();
    assert!(!files.is_empty(), "nothing ends with {end} in {}", folder.display());
    files
}

fn decode(bytes: &[u8], piece: usize, format: &Format) -> (Vec<Sample>, Counts) {
    let (mut decoder, mut samples) = (Decoder::new(format.clone(), None), Vec::new());
    bytes.chunks(piece).for_each(|piece| decoder.feed(piece, NOW, &mut samples));
    decoder.finish(&mut samples);
    (samples, decoder.counts())
}

/// Decodes a file whole and in pieces, which must change nothing.
fn check_pieces(file: &Path, format: &Format) -> (Vec<Sample>, Counts) {
    let bytes = fs::read(file).unwrap();
    let whole = decode(&bytes, bytes.len().max(1), format);
    for piece in [1, 2, 7, 16, 64] {
        assert_eq!(decode(&bytes, piece, format), whole, "{} by {piece}", file.display());
    }
    whole
}

fn numbers(samples: &[Sample], metric: &str) -> Vec<f64> {
    let of_metric = samples.iter().filter(|sample| &*sample.metric == metric);
    of_metric.filter_map(|sample| sample.value.as_f64()).collect()
}

#[test]
fn nmea_is_what_gpsd_makes_of_it() {
    let Some(folder) = folder("nmea0183/gpsd") else { return };
    let (mut good, mut damaged, mut compared) = (0, 0, 0);
    for file in files(&folder, ".log") {
        let (samples, counts) = check_pieces(&file, &Format::Nmea(Nmea::default()));
        good += counts.good;
        damaged += counts.damaged;
        let expected = fs::read(format!("{}.chk", file.display())).unwrap();
        let expected = String::from_utf8_lossy(&expected);
        let reports = expected.lines().filter(|line| line.contains(r#""class":"TPV""#));
        for report in reports.map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
            for (key, metric) in [("lat", "latitude"), ("lon", "longitude")] {
                let Some(expected) = report[key].as_f64() else { continue };
                let found = numbers(&samples, metric);
                let near = found.iter().any(|number| (number - expected).abs() < 2e-6);
                assert!(near, "{}: no {metric} {expected}", file.display());
                compared += 1;
            }
        }
    }
    assert!(good > 900 && compared > 200, "{good} {compared}");
    assert_eq!(damaged, 35, "sentences with a wrong checksum, as counted beside the captures");
}

#[test]
fn nmea_of_boats_has_the_values_expected() {
    let Some(folder) = folder("nmea0183/signalk") else { return };
    let cases = fs::read_to_string(folder.join("marine-weather.jsonl")).unwrap();
    for case in cases.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
        let line = format!("{}\r\n", case["line"].as_str().unwrap());
        let (samples, counts) = decode(line.as_bytes(), 64, &Format::Nmea(Nmea::default()));
        let right = u64::from(case["checksum_ok"] == true);
        assert_eq!((counts.good, counts.damaged), (right, 1 - right), "{line}");
        for (metric, expected) in case["expect"].as_object().into_iter().flatten() {
            // Radians, kelvin and metres a second there; what the sentence says here.
            let same_unit = ["deg", "m", "%"].iter().any(|unit| expected[1] == *unit);
            let Some(value) = expected[0].as_f64().filter(|_| same_unit) else { continue };
            if samples
                .iter()
                .any(|sample| &*sample.metric == metric && sample.unit.as_deref() == Some("m"))
            {
                let found = numbers(&samples, metric);
                assert!(
                    found.iter().any(|number| (number - value).abs() < 1e-3),
                    "{line}: {found:?}"
                );
            }
        }
    }
}

#[test]
fn blocks_of_chargers_are_all_good_but_the_torn_first() {
    let Some(folder) = folder("vedirect/karioja") else { return };
    for (file, blocks) in files(&folder, ".dump").iter().zip([53, 55]) {
        let (samples, counts) = check_pieces(file, &Format::Vedirect(Vedirect::default()));
        assert_eq!(counts, Counts { good: blocks, damaged: 0, foreign: 1 }, "{}", file.display());
        let volts = numbers(&samples, "battery_voltage");
        assert!(
            volts.len() as u64 == blocks && volts.iter().all(|volts| (10.0..16.0).contains(volts))
        );
    }
    for file in files(folder.parent().unwrap().join("dbr").as_path(), ".bin") {
        assert_eq!(check_pieces(&file, &Format::Vedirect(Vedirect::default())).0, []);
    }
}

#[test]
fn telegrams_of_many_meters_are_good_and_guessed() {
    let Some(folder) = folder("dsmr/ndokter") else { return };
    for file in files(&folder, ".txt") {
        let (samples, counts) = check_pieces(&file, &Format::Dsmr(Dsmr::default()));
        assert_eq!((counts.good, counts.damaged), (1, 0), "{}", file.display());
        assert!(numbers(&samples, "power_import").len() == 1, "{}", file.display());
        let guessed = check_pieces(&file, &Format::Guess(Guess::default()));
        assert_eq!(guessed, (samples, counts), "{}", file.display());
    }
}
