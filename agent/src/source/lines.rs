//! Text lines of a source: what its configuration says of them, and reading them into its outlet.

use std::sync::Arc;

use serde::Deserialize;
use toml::Spanned;
use tracing::info;
use valtronics_protocol::time::UnixMillis;

use super::outlet::{Outlet, Stopping};
use crate::{
    clock,
    config::{fault::Fault, section::Section},
    decode::{
        Counts, Decoder, Format, FormatName, Sample, csv::Csv, dsmr::Dsmr, guess::Guess,
        nmea::Nmea, pattern::Pattern, vedirect::Vedirect,
    },
    normalize::{Normalizer, Rules},
};

/// How the lines of a source are read.
#[derive(Debug, Clone)]
pub struct Config {
    format: Format,
    rules: Rules,
}

#[derive(Deserialize)]
struct Keys {
    format: Option<Spanned<String>>,
    #[serde(default)]
    columns: Vec<Arc<str>>,
    pattern: Option<Spanned<String>>,
}

impl Config {
    /// Reads the keys of a source's table that are about its lines.
    ///
    /// # Errors
    /// When a value is none that this version knows.
    pub fn read(section: &mut Section<'_>, mut rules: Section<'_>) -> Result<Self, Fault> {
        let Keys { format, columns, pattern } = section.read()?;
        let rules = rules.read()?;
        let pattern = pattern.map(|text| {
            let parsed = text.get_ref().parse::<Pattern>();
            parsed.map_err(|error| Fault::at(&text, error.to_string()))
        });
        let format = match (&format, pattern.transpose()?) {
            (None, Some(pattern)) => Format::Pattern(pattern),
            (None, None) if columns.is_empty() => Format::Guess(Guess::default()),
            (None, None) => Format::Csv(Csv::new(&columns)),
            (Some(named), pattern) => match (format_name(named)?, pattern) {
                (FormatName::Json, None) => Format::Json,
                (FormatName::Csv, None) => Format::Csv(Csv::new(&columns)),
                (FormatName::Kv, None) => Format::Kv,
                (FormatName::Nmea, None) => Format::Nmea(Nmea::default()),
                (FormatName::Vedirect, None) => Format::Vedirect(Vedirect::default()),
                (FormatName::Dsmr, None) => Format::Dsmr(Dsmr::default()),
                (FormatName::Pattern, Some(pattern)) => Format::Pattern(pattern),
                (FormatName::Pattern, None) => {
                    return Err(Fault::at(named, "format \"pattern\" needs the key `pattern`"));
                }
                (_, Some(_)) => {
                    return Err(Fault::at(named, "`pattern` goes with format \"pattern\" only"));
                }
            },
        };
        Ok(Self { format, rules })
    }
}

fn format_name(named: &Spanned<String>) -> Result<FormatName, Fault> {
    let known = FormatName::ALL.into_iter().find(|format| format.as_str() == named.get_ref());
    known.ok_or_else(|| {
        let names = FormatName::ALL.map(FormatName::as_str).join(", ");
        Fault::at(named, format!("expected one of {names}"))
    })
}

/// Reads the bytes of one source.
#[derive(Debug)]
pub struct Lines {
    decoder: Decoder,
    normalizer: Normalizer,
    counted: Counts,
}

impl Lines {
    /// Reads lines whose device is `device` where they name none.
    #[must_use]
    pub fn new(config: &Config, device: Arc<str>) -> Self {
        let time = config.rules.time.as_deref().map(Arc::from);
        Self {
            decoder: Decoder::new(config.format.clone(), time),
            normalizer: Normalizer::new(config.rules.clone(), device),
            counted: Counts::default(),
        }
    }

    /// Takes bytes, and hands on the readings that they complete.
    ///
    /// # Errors
    /// When the agent stops.
    pub async fn feed(&mut self, bytes: &[u8], outlet: &mut Outlet) -> Result<(), Stopping> {
        let (now, mut samples) = (clock::now(), Vec::new());
        self.decoder.feed(bytes, now, &mut samples);
        self.hand_on(samples, now, outlet).await
    }

    /// Hands on what waits for more bytes: a last line without an end, or lines whose format is not
    /// clear yet. Not for a port, where half a line may be half a number.
    ///
    /// # Errors
    /// When the agent stops.
    pub async fn finish(&mut self, outlet: &mut Outlet) -> Result<(), Stopping> {
        let mut samples = Vec::new();
        self.decoder.finish(&mut samples);
        self.hand_on(samples, clock::now(), outlet).await
    }

    async fn hand_on(
        &mut self,
        samples: Vec<Sample>,
        now: UnixMillis,
        outlet: &mut Outlet,
    ) -> Result<(), Stopping> {
        if let Some(format) = self.decoder.decided.take() {
            info!(source = %outlet.name, format, "the format is clear");
        }
        let counts = self.decoder.counts();
        let tally = &mut outlet.tally;
        tally.good += counts.good - self.counted.good;
        tally.damaged += counts.damaged - self.counted.damaged;
        tally.foreign += counts.foreign - self.counted.foreign;
        self.counted = counts;
        let readings = self.normalizer.readings(samples, now, tally);
        if let Some(cause) = self.decoder.last_damage.take() {
            outlet.complain(cause);
        }
        outlet.send(now, readings).await
    }

    /// Begins anew with the next byte.
    pub fn restart(&mut self) {
        self.decoder.restart();
    }
}
