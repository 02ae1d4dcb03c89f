//! Messages of a broker: which topics are read, and reading a message into readings.

use std::{collections::HashMap, sync::Arc, time::Duration};

use rumqttc::Publish;
use serde::Deserialize;
use toml::{Spanned, de::DeValue};
use valtronics_protocol::{
    event::Status,
    reading::{Reading, is_name},
    time::UnixMillis,
};

use super::{
    StatusChange,
    outlet::{DEVICES, Outlet},
};
use crate::{
    config::{fault::Fault, section::Section},
    decode::{
        Context, Outcome, Sample, json,
        topic::{Captures, Template},
    },
    describe::{Change, Described, Heard, Presence},
    normalize::{Normalizer, Rules},
};

/// Which topics a source reads, and how.
#[derive(Debug, Clone)]
pub struct Config {
    topics: Vec<Topic>,
    discovery: Option<Discovery>,
}

/// Where devices announce themselves, and the rules for what they say.
#[derive(Debug, Clone)]
struct Discovery {
    prefix: String,
    rules: Rules,
}

#[derive(Deserialize)]
struct DiscoveryKeys {
    #[serde(default)]
    discovery: Announcements,
}

/// `true`, `false`, or the prefix of the announcements' topics.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected true, false, or a prefix such as \"homeassistant\"")]
enum Announcements {
    Usual(bool),
    Prefix(Spanned<String>),
}

impl Default for Announcements {
    fn default() -> Self {
        Self::Usual(true)
    }
}

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
    /// Reads `discovery`, and `read`: templates, or tables with rules of their own, which come
    /// before the source's.
    ///
    /// # Errors
    /// When a template or a rule is none that this version knows, or nothing is read.
    pub fn read(section: &mut Section<'_>, rules: &Section<'_>) -> Result<Self, Fault> {
        let span = section.span();
        let DiscoveryKeys { discovery } = section.read()?;
        let prefix = match discovery {
            Announcements::Usual(true) => Some("homeassistant".to_owned()),
            Announcements::Usual(false) => None,
            Announcements::Prefix(prefix) => {
                if prefix.get_ref().is_empty() || prefix.get_ref().contains(['+', '#', '\0']) {
                    return Err(Fault::at(&prefix, "expected a prefix such as \"homeassistant\""));
                }
                Some(prefix.into_inner().trim_end_matches('/').to_owned())
            }
        };
        let discovery = match prefix {
            Some(prefix) => Some(Discovery { prefix, rules: rules.clone().read()? }),
            None => None,
        };
        let list = section.take("read");
        if list.is_none() && discovery.is_none() {
            return Err(Fault::in_span(span, "missing key `read`, the topics to read"));
        }
        let topics = list.map_or(Ok(Vec::new()), |list| topics(list, rules))?;
        Ok(Self { topics, discovery })
    }
}

fn topics(list: Spanned<DeValue<'_>>, rules: &Section<'_>) -> Result<Vec<Topic>, Fault> {
    let span = list.span();
    let DeValue::Array(items) = list.into_inner() else {
        let wanted = "expected a list such as [\"plant/{device}/{metric}\"]";
        return Err(Fault::in_span(span, wanted));
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
    Ok(topics)
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
pub struct Messages {
    /// As configured: the first that fits reads.
    readers: Vec<Reader>,
    announced: Option<(Described, Normalizer)>,
    /// What was said of devices on this connection.
    there: HashMap<Arc<str>, bool>,
}

#[derive(Debug)]
struct Reader {
    template: Template,
    context: Context,
    normalizer: Normalizer,
}

/// What a message gives.
#[derive(Debug, Default)]
pub struct Taken {
    /// The readings in it.
    pub readings: Vec<Reading>,
    /// Topics to subscribe to.
    pub wanted: Vec<Arc<str>>,
    /// Topics to unsubscribe from.
    pub unwanted: Vec<Arc<str>>,
    /// Devices whose status has changed.
    pub changes: Vec<StatusChange>,
    /// How long devices may be silent.
    pub silences: Vec<(Arc<str>, Option<Duration>)>,
}

impl Messages {
    /// Reads messages whose device is `device` where nothing names one.
    #[must_use]
    pub fn new(config: &Config, device: &Arc<str>) -> Self {
        let normalizer = |rules: &Rules| Normalizer::new(rules.clone(), Arc::clone(device));
        let reader = |Topic { template, rules }: &Topic| Reader {
            template: template.clone(),
            context: Context::new(rules.time.as_deref().map(Arc::from)),
            normalizer: normalizer(rules),
        };
        let announced =
            |Discovery { prefix, rules }: &Discovery| (Described::new(prefix), normalizer(rules));
        Self {
            readers: config.topics.iter().map(reader).collect(),
            announced: config.discovery.as_ref().map(announced),
            there: HashMap::new(),
        }
    }

    /// Returns what is subscribed to on a new connection.
    pub fn filters(&self) -> impl Iterator<Item = String> {
        let announced = self.announced.as_ref().map(|(described, _)| described);
        let named = announced.into_iter().flat_map(Described::topics);
        let named = named.filter(|topic| !self.is_read(topic)).map(|topic| topic.to_string());
        let read = self.readers.iter().map(|reader| reader.template.filter());
        read.chain(announced.into_iter().flat_map(Described::filters)).chain(named)
    }

    /// Tells whether a template has this topic: then it is subscribed to already.
    fn is_read(&self, topic: &str) -> bool {
        self.readers.iter().any(|reader| reader.template.read(topic).is_some())
    }

    /// Notes that the connection is gone: what is retained says anew who is there.
    pub fn disconnected(&mut self) {
        self.there.clear();
    }

    /// Reads one message; what is wrong with it is counted and said.
    pub fn take(&mut self, publish: &Publish, now: UnixMillis, outlet: &mut Outlet) -> Taken {
        let mut taken = Taken::default();
        if self.announce(publish, now, outlet, &mut taken) {
            return taken;
        }
        let mut outcome = None;
        let heard = self
            .announced
            .as_mut()
            .and_then(|(described, _)| described.hear(&publish.topic, &publish.payload, now));
        if let Some(Heard { presences, .. }) = &heard {
            self.meet(presences, now, &mut taken);
        }
        let found = self.readers.iter_mut().find_map(|reader| {
            let captures = reader.template.read(&publish.topic)?;
            Some((captures, reader))
        });
        let samples = match (found, heard, &mut self.announced) {
            (Some((captures, reader)), _, _) => {
                let mut samples = Vec::new();
                outcome = Some(reader.read(captures, publish, now, &mut samples));
                Some((samples, &mut reader.normalizer))
            }
            (None, Some(Heard { samples, failed, .. }), Some((_, normalizer))) => {
                outcome = Some(failed.map_or(Outcome::Good, Outcome::Damaged));
                Some((samples, normalizer))
            }
            (None, None, _) | (None, _, None) => None,
        };
        match outcome {
            Some(Outcome::Good) => outlet.tally.good += 1,
            Some(Outcome::Foreign) | None => outlet.tally.foreign += 1,
            Some(Outcome::Damaged(cause)) => {
                outlet.tally.damaged += 1;
                outlet.complain(&format!("{cause} on topic {}", publish.topic));
            }
        }
        if let Some((mut samples, normalizer)) = samples {
            hold_back_retained(publish, &mut samples, outlet);
            taken.readings = normalizer.readings(samples, now, &mut outlet.tally);
        }
        taken
    }

    /// Takes an announcement, if it is one.
    fn announce(
        &mut self,
        publish: &Publish,
        now: UnixMillis,
        outlet: &mut Outlet,
        taken: &mut Taken,
    ) -> bool {
        let announced = self.announced.as_mut();
        let change = announced
            .and_then(|(described, _)| described.announce(&publish.topic, &publish.payload));
        let (change, refused) = match change {
            None => return false,
            Some(Ok(change)) => {
                let refused = change.refused;
                (change, refused)
            }
            Some(Err(refused)) => (Change::default(), Some(refused)),
        };
        match refused {
            None => outlet.tally.good += 1,
            Some(why) => {
                outlet.tally.damaged += 1;
                outlet.complain(&format!("{why} on topic {}", publish.topic));
            }
        }
        let Change { wanted, unwanted, presences, silences, .. } = change;
        taken.wanted = wanted.into_iter().filter(|topic| !self.is_read(topic)).collect();
        taken.unwanted = unwanted.into_iter().filter(|topic| !self.is_read(topic)).collect();
        taken.silences = silences;
        self.meet(&presences, now, taken);
        true
    }

    /// Makes status changes of what is said of devices, unless it was said before.
    fn meet(&mut self, presences: &[Presence], now: UnixMillis, taken: &mut Taken) {
        for Presence { device, is_there, topic } in presences {
            let is_new = self.there.len() < DEVICES || self.there.contains_key(device);
            if !is_new || self.there.insert(Arc::clone(device), *is_there) == Some(*is_there) {
                continue;
            }
            let (status, word) = match is_there {
                true => (Status::Online, "online"),
                false => (Status::Offline, "offline"),
            };
            taken.changes.push(StatusChange {
                device: Arc::clone(device),
                status,
                reason: format!("Reported {word} on MQTT topic {topic}"),
                timestamp: now,
            });
        }
    }
}

impl Reader {
    fn read(
        &mut self,
        captures: Captures<'_>,
        publish: &Publish,
        now: UnixMillis,
        samples: &mut Vec<Sample>,
    ) -> Outcome {
        let Captures { device, metric } = captures;
        self.context.now = now;
        let metric = metric.unwrap_or_default();
        let outcome = json::message(&publish.payload, metric, &mut self.context, samples);
        if let Some(device) = device.filter(|device| is_name(device)) {
            let device = self.context.name(device);
            for sample in samples {
                sample.device.get_or_insert_with(|| Arc::clone(&device));
            }
        }
        outcome
    }
}

/// Leaves out what a broker kept from before the subscription, unless it has a time of its own.
fn hold_back_retained(publish: &Publish, samples: &mut Vec<Sample>, outlet: &mut Outlet) {
    if publish.retain {
        let count = samples.len();
        samples.retain(|sample| sample.at.is_some());
        let retained = (count - samples.len()) as u64;
        outlet.tally.read += retained;
        outlet.tally.held_back.retained += retained;
    }
}
