//! Presets: programs and devices whose topics and fields are known, by name.
//!
//! A preset is a `Table`; only Zigbee2MQTT, which describes itself, is more. Pure: topics and
//! payloads in, samples and who is there out.

mod tables;

use valtronics_protocol::{reading::is_name, time::UnixMillis, value::Value};

use super::{Heard, Presence, zigbee::Zigbee};
use crate::decode::{
    Context, Outcome, Sample, device_time, json,
    topic::{Captures, Template},
};

/// What is known of a program's messages.
#[derive(Debug)]
struct Table {
    name: &'static str,
    messages: &'static [Message],
    presences: &'static [Said],
    /// Units by the end of a metric's name; `temperature_` stands for `temperature_0` and so on.
    units: &'static [(&'static str, &'static str)],
    /// Units that a document says beside its values: in which field, and of which values.
    said_units: &'static [(&'static str, &'static [&'static str])],
    /// Fields, or all below them, that are no measurement or a second one of the same.
    skip: &'static [&'static str],
}

/// Which topics have values.
#[derive(Debug)]
struct Message {
    topic: &'static str,
    /// Where the values are in the document.
    root: &'static str,
    /// Where its time is; the first one counts.
    times: &'static [&'static str],
}

/// Which topics say who is there.
#[derive(Debug)]
struct Said {
    topic: &'static str,
    there: &'static str,
    gone: &'static str,
}

/// Reads the messages of one program.
#[derive(Debug)]
pub enum Preset {
    /// By a table.
    Table(Tabled),
    /// By what Zigbee2MQTT says of its devices.
    Zigbee(Zigbee),
}

/// Reads messages by a table.
#[derive(Debug)]
pub struct Tabled {
    table: &'static Table,
    messages: Vec<(Template, &'static Message)>,
    presences: Vec<(Template, &'static Said)>,
    context: Context,
}

/// The names of all presets.
pub const NAMES: [&str; 6] =
    ["zigbee2mqtt", "tasmota", "shelly", "esphome", "ttn", "openmqttgateway"];

/// Those that are read where the configuration names none: what ESPHome sends is announced, and its
/// topics are as any program's.
pub const USUAL: [&str; 5] = ["zigbee2mqtt", "tasmota", "shelly", "ttn", "openmqttgateway"];

impl Preset {
    /// Finds a preset.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        if name == "zigbee2mqtt" {
            return Some(Self::Zigbee(Zigbee::default()));
        }
        let table = tables::ALL.iter().find(|table| table.name == name)?;
        let template = |topic: &str| topic.parse().expect("the topics of presets are right");
        Some(Self::Table(Tabled {
            table,
            messages: table.messages.iter().map(|each| (template(each.topic), each)).collect(),
            presences: table.presences.iter().map(|each| (template(each.topic), each)).collect(),
            context: Context::default(),
        }))
    }

    /// Returns what is subscribed to.
    #[must_use]
    pub fn filters(&self) -> Vec<String> {
        match self {
            Self::Zigbee(_) => vec![Zigbee::FILTER.to_owned()],
            Self::Table(Tabled { messages, presences, .. }) => {
                let messages = messages.iter().map(|(template, _)| template);
                let presences = presences.iter().map(|(template, _)| template);
                messages.chain(presences).map(Template::filter).collect()
            }
        }
    }

    /// Tells whether it reads a topic.
    #[must_use]
    pub fn has(&self, topic: &str) -> bool {
        match self {
            Self::Zigbee(_) => Zigbee::has(topic),
            Self::Table(Tabled { messages, presences, .. }) => {
                messages.iter().any(|(template, _)| template.read(topic).is_some())
                    || presences.iter().any(|(template, _)| template.read(topic).is_some())
            }
        }
    }

    /// Reads a message; `None` when it is not this program's.
    pub fn hear(&mut self, topic: &str, payload: &[u8], now: UnixMillis) -> Option<Heard> {
        match self {
            Self::Zigbee(zigbee) => zigbee.hear(topic, payload, now),
            Self::Table(tabled) => tabled.hear(topic, payload, now),
        }
    }
}

impl Tabled {
    fn hear(&mut self, topic: &str, payload: &[u8], now: UnixMillis) -> Option<Heard> {
        for (template, said) in &self.presences {
            if let Some(Captures { device: Some(device), .. }) = template.read(topic) {
                let presences = presence(device, payload, said, topic).into_iter().collect();
                return Some(Heard { presences, ..Heard::default() });
            }
        }
        let (captures, message) = self
            .messages
            .iter()
            .find_map(|(template, message)| Some((template.read(topic)?, *message)))?;
        let Captures { device, metric } = captures;
        let mut heard = Heard::default();
        if metric.is_none() && message.topic.ends_with("{metric...}") {
            return Some(heard);
        }
        let metric = metric.unwrap_or_default().replace('/', ".");
        if self.table.skip.iter().any(|field| is_below(&metric, field)) {
            return Some(heard);
        }
        self.context.now = now;
        let outcome = json::message(payload, &metric, &mut self.context, &mut heard.samples);
        if let Outcome::Damaged(why) = outcome {
            heard.failed = Some(why);
            return Some(heard);
        }
        self.refine(message, &mut heard.samples);
        if let Some(device) = device.filter(|device| is_name(device)) {
            let device = self.context.name(device);
            heard.samples.iter_mut().for_each(|sample| sample.device = Some(device.clone()));
        }
        Some(heard)
    }

    /// Leaves of a document what is measured, with its unit and time.
    fn refine(&mut self, message: &Message, samples: &mut Vec<Sample>) {
        let Self { table, context, .. } = self;
        let at = message.times.iter().find_map(|time| {
            let sample = samples.iter().find(|sample| &*sample.metric == *time)?;
            device_time(&sample.value, context.now)
        });
        let said_units: Vec<_> = table
            .said_units
            .iter()
            .filter_map(|(field, metrics)| {
                let sample = samples.iter().find(|sample| &*sample.metric == *field)?;
                let Value::Text(unit) = &sample.value else { return None };
                Some((context.name(unit), *metrics))
            })
            .collect();
        samples.retain_mut(|sample| {
            let full = std::sync::Arc::clone(&sample.metric);
            let name = match message.root {
                "" => &*full,
                root => match full.strip_prefix(root).and_then(|rest| rest.strip_prefix('.')) {
                    Some(name) => name,
                    None => return false,
                },
            };
            if table.skip.iter().any(|field| is_called(name, field) || is_below(name, field)) {
                return false;
            }
            let said = said_units
                .iter()
                .find(|(_, metrics)| metrics.iter().any(|metric| is_called(name, metric)));
            sample.unit = match said {
                Some((unit, _)) => Some(unit.clone()),
                None => table
                    .units
                    .iter()
                    .find(|(metric, _)| is_called(name, metric))
                    .map(|(_, unit)| context.name(unit)),
            };
            sample.metric = context.name(name);
            sample.at = at.or(sample.at);
            true
        });
    }
}

/// Reads whether a device is there; words count in either case.
fn presence(device: &str, payload: &[u8], said: &Said, topic: &str) -> Option<Presence> {
    let word = std::str::from_utf8(payload).ok()?.trim();
    let is_there = word.eq_ignore_ascii_case(said.there);
    let is_word = is_there || word.eq_ignore_ascii_case(said.gone);
    (is_word && is_name(device)).then(|| Presence {
        device: device.into(),
        is_there,
        topic: topic.into(),
    })
}

/// Tells whether a dotted name ends with a field, perhaps with its place in a list behind it.
fn is_called(name: &str, field: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let ends = |name: &str| {
        name.strip_suffix(field).is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    if field.ends_with('_') {
        let last = name.rsplit('.').next().unwrap_or(name);
        return last.strip_prefix(field).is_some_and(is_number);
    }
    ends(name) || name.rsplit_once('.').is_some_and(|(list, place)| is_number(place) && ends(list))
}

/// Tells whether a dotted name goes through a field.
fn is_below(name: &str, field: &str) -> bool {
    name.split('.').any(|part| part == field)
}

#[cfg(test)]
mod tests;
