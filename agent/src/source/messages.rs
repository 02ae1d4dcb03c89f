//! Messages of a broker: which topics are read, and reading a message into readings.

use std::sync::Arc;

use rumqttc::Publish;
use serde::Deserialize;
use toml::Spanned;
use valtronics_protocol::{
    reading::{Reading, is_name},
    time::UnixMillis,
};

use super::outlet::Outlet;
use crate::{
    config::{fault::Fault, section::Section},
    decode::{
        Context, Outcome, json,
        topic::{Captures, Template},
    },
    normalize::{Normalizer, Rules},
};

/// Which topics a source reads, and how.
#[derive(Debug, Clone)]
pub struct Config(Vec<Topic>);

#[derive(Debug, Clone)]
struct Topic {
    template: Template,
    rules: Rules,
}

#[derive(Deserialize)]
struct TopicKeys {
    topic: Spanned<String>,
}

/// Documents of other programs that describe themselves: a later version reads them.
const PRESETS: [&str; 10] = [
    "homeassistant",
    "zigbee2mqtt",
    "tasmota",
    "shelly",
    "esphome",
    "ttn",
    "openmqttgateway",
    "meshtastic",
    "ruuvi",
    "homie",
];

impl Config {
    /// Reads `read`: templates, or tables with rules of their own, which come before the source's.
    ///
    /// # Errors
    /// When a template or a rule is none that this version knows.
    pub fn read(section: &mut Section<'_>, rules: &Section<'_>) -> Result<Self, Fault> {
        let span = section.span();
        let missing = || Fault::in_span(span, "missing key `read`, the topics to read");
        let list = section.take("read").ok_or_else(missing)?;
        let span = list.span();
        let toml::de::DeValue::Array(items) = list.into_inner() else {
            return Err(Fault::in_span(
                span,
                "expected a list such as [\"plant/{device}/{metric}\"]",
            ));
        };
        let mut topics = Vec::new();
        for item in items {
            if let Some(text) = item.get_ref().as_str() {
                let template = template(&Spanned::new(item.span(), text.to_owned()))?;
                topics.push(Topic { template, rules: rules.clone().read()? });
                continue;
            }
            let mut table = Section::of(item)?;
            let TopicKeys { topic } = table.read()?;
            let mut own = table.part::<Rules>();
            table.finish()?;
            own.inherit(rules);
            topics.push(Topic { template: template(&topic)?, rules: own.read()? });
        }
        if topics.is_empty() {
            return Err(Fault::in_span(span, "expected at least one topic"));
        }
        Ok(Self(topics))
    }

    /// Returns what is subscribed to.
    pub fn filters(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|topic| topic.template.filter())
    }
}

fn template(text: &Spanned<String>) -> Result<Template, Fault> {
    let topic = text.get_ref();
    if PRESETS.contains(&topic.as_str()) {
        let why = format!("the preset \"{topic}\" is not supported by this version");
        return Err(Fault::at(text, why));
    }
    topic.parse().map_err(|error: String| Fault::at(text, error))
}

/// Reads the messages of one source.
#[derive(Debug)]
pub struct Messages(Vec<Reader>);

#[derive(Debug)]
struct Reader {
    template: Template,
    context: Context,
    normalizer: Normalizer,
}

impl Messages {
    /// Reads messages whose device is `device` where nothing names one.
    #[must_use]
    pub fn new(config: &Config, device: &Arc<str>) -> Self {
        let reader = |Topic { template, rules }: &Topic| {
            let time_field = rules.time.as_deref().map(Arc::from);
            Reader {
                template: template.clone(),
                context: Context::new(time_field),
                normalizer: Normalizer::new(rules.clone(), Arc::clone(device)),
            }
        };
        Self(config.0.iter().map(reader).collect())
    }

    /// Reads one message; what is wrong with it is counted and said.
    ///
    /// What a broker kept from before the subscription is a reading only with a time of its own.
    pub fn take(
        &mut self,
        publish: &Publish,
        now: UnixMillis,
        outlet: &mut Outlet,
    ) -> Vec<Reading> {
        let found = self.0.iter_mut().find_map(|reader| {
            let captures = reader.template.read(&publish.topic)?;
            Some((captures, reader))
        });
        let Some((Captures { device, metric }, reader)) = found else {
            outlet.tally.foreign += 1;
            return Vec::new();
        };
        reader.context.now = now;
        let mut samples = Vec::new();
        let metric = metric.unwrap_or_default();
        match json::message(&publish.payload, metric, &mut reader.context, &mut samples) {
            Outcome::Good => outlet.tally.good += 1,
            Outcome::Foreign => outlet.tally.foreign += 1,
            Outcome::Damaged(cause) => {
                outlet.tally.damaged += 1;
                outlet.complain(&format!("{cause} on topic {}", publish.topic));
                return Vec::new();
            }
        }
        if publish.retain {
            let count = samples.len();
            samples.retain(|sample| sample.at.is_some());
            let retained = (count - samples.len()) as u64;
            outlet.tally.read += retained;
            outlet.tally.held_back.retained += retained;
        }
        if let Some(device) = device.filter(|device| is_name(device)) {
            let device = reader.context.name(device);
            for sample in &mut samples {
                sample.device.get_or_insert_with(|| Arc::clone(&device));
            }
        }
        reader.normalizer.readings(samples, now, &mut outlet.tally)
    }
}
