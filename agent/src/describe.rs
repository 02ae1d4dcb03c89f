//! What devices say of themselves: Home Assistant's MQTT discovery.
//!
//! Announcements name topics, values, units and devices; what comes on those topics then becomes
//! samples, and says which devices are there. Pure: topics and payloads in; samples, statuses and
//! topics to subscribe to out.

pub mod announcement;
pub mod availability;
mod claims;
mod known;
pub mod preset;
pub mod sparkplug;
pub mod template;
mod words;
pub mod zigbee;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use valtronics_protocol::{time::UnixMillis, value::Value};

use crate::decode::{Sample, TIME_FIELDS, device_time};
use announcement::{Device, Entity, Kind, Refused, Subject, entities};
use availability::{Availability, Rule, Watched};
use claims::Claims;
use known::{Known, count_down};
use template::{Engine, Payload, json_value, spelled};

/// The most entities: a large house has some thousand. Those beyond are refused.
const MAX_ENTITIES: usize = 5000;
/// The most bytes of all announcements that count: five thousand of 1.5 KiB.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// The longest word of an availability that is remembered for devices that are announced later.
const MAX_WORD_BYTES: usize = 1024;

/// What is known of devices by their announcements.
#[derive(Debug, Default)]
pub struct Described {
    prefix: Box<str>,
    engine: Engine,
    /// By the topic of the announcement.
    announced: HashMap<Box<str>, Announced>,
    entities: usize,
    bytes: usize,
    /// By the topic of their state.
    states: HashMap<Arc<str>, Vec<Arc<Entity>>>,
    /// By the topic of their availability.
    watched: HashMap<Arc<str>, Watch>,
    /// By their identifier.
    devices: HashMap<Arc<str>, Known>,
    /// Which identifiers have a name.
    names: Claims<Arc<str>, Arc<str>>,
    /// Which places have the metric of a device.
    metrics: Claims<(Option<Arc<str>>, Arc<str>), u64>,
}

#[derive(Debug)]
struct Announced {
    hash: u64,
    bytes: usize,
    entities: Vec<Arc<Entity>>,
}

#[derive(Debug, Default)]
struct Watch {
    devices: BTreeMap<Arc<str>, usize>,
    last: Option<Box<[u8]>>,
}

/// What an announcement changes.
#[derive(Debug, Default, PartialEq)]
pub struct Change {
    /// Topics to subscribe to.
    pub wanted: BTreeSet<Arc<str>>,
    /// Topics that nothing needs any more.
    pub unwanted: BTreeSet<Arc<str>>,
    /// Devices that are now known to be there, or not.
    pub presences: Vec<Presence>,
    /// How long devices may be silent; `None` takes it back.
    pub silences: Vec<(Arc<str>, Option<Duration>)>,
    /// Why one of several entities was left out.
    pub refused: Option<Refused>,
}

/// Whether a device is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Presence {
    /// The device.
    pub device: Arc<str>,
    /// Whether it is.
    pub is_there: bool,
    /// The topic that said so.
    pub topic: Arc<str>,
}

/// What a message on an announced topic says.
#[derive(Debug, Default)]
pub struct Heard {
    /// The values in it.
    pub samples: Vec<Sample>,
    /// Devices that are now known to be there, or not.
    pub presences: Vec<Presence>,
    /// What was wrong with a value.
    pub failed: Option<&'static str>,
}

impl Described {
    /// Begins with no announcements; they come on topics under `prefix`.
    #[must_use]
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.into(), ..Self::default() }
    }

    /// Returns what is subscribed to for announcements.
    pub fn filters(&self) -> [String; 2] {
        [format!("{}/+/+/config", self.prefix), format!("{}/+/+/+/config", self.prefix)]
    }

    /// Returns the topics that announcements have named.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<str>> {
        let only_watched = self.watched.keys().filter(|topic| !self.states.contains_key(*topic));
        self.states.keys().chain(only_watched)
    }

    /// Tells whether a topic is for announcements, and for who reads them: `homeassistant/status`
    /// is no device's.
    #[must_use]
    pub fn is_reserved(&self, topic: &str) -> bool {
        topic.strip_prefix(&*self.prefix).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Takes an announcement; `None` when the topic is none of one. An empty one takes it back.
    ///
    /// # Errors
    /// When it is refused; what was announced there before still counts.
    pub fn announce(&mut self, topic: &str, payload: &[u8]) -> Option<Result<Change, Refused>> {
        let subject = Subject::parse(&self.prefix, topic)?;
        Some(self.replace(topic, &subject, payload))
    }

    fn replace(
        &mut self,
        topic: &str,
        subject: &Subject<'_>,
        payload: &[u8],
    ) -> Result<Change, Refused> {
        let mut hasher = DefaultHasher::new();
        payload.hash(&mut hasher);
        let hash = hasher.finish();
        let old = self.announced.get(topic);
        if old.is_some_and(|old| old.hash == hash) {
            return Ok(Change::default());
        }
        let (new, refused) = match payload {
            b"" => (Vec::new(), None),
            payload => entities(subject, payload)?,
        };
        let (old_entities, old_bytes) = old.map_or((0, 0), |old| (old.entities.len(), old.bytes));
        let count = self.entities - old_entities + new.len();
        let bytes = self.bytes - old_bytes + payload.len();
        if count > MAX_ENTITIES || bytes > MAX_BYTES {
            return Err(Refused::Full);
        }
        (self.entities, self.bytes) = (count, bytes);
        let mut change = Change { refused, ..Change::default() };
        let new: Vec<Arc<Entity>> = new.into_iter().map(Arc::new).collect();
        // First the new ones: what both need is never given up.
        new.iter().for_each(|entity| self.add(entity, &mut change));
        if let Some(old) = self.announced.remove(topic) {
            old.entities.iter().for_each(|entity| self.remove(entity, &mut change));
        }
        if !new.is_empty() {
            let announced = Announced { hash, bytes: payload.len(), entities: new };
            self.announced.insert(topic.into(), announced);
        } else {
            self.bytes -= payload.len();
        }
        Ok(change)
    }

    fn is_needed(&self, topic: &str) -> bool {
        self.states.contains_key(topic) || self.watched.contains_key(topic)
    }

    fn add(&mut self, entity: &Arc<Entity>, change: &mut Change) {
        for topic in topics(entity).filter(|topic| !self.is_needed(topic)) {
            change.wanted.insert(Arc::clone(topic));
        }
        self.states.entry(Arc::clone(&entity.topic)).or_default().push(Arc::clone(entity));
        self.metrics.claim(metric_of(entity), place_of(entity));
        let Some(device) = &entity.device else { return };
        self.names.claim(Arc::clone(&device.name), Arc::clone(&device.id));
        let id = Arc::clone(&device.id);
        let known = self.devices.entry(id).or_insert_with(|| Known::new(device.clone()));
        known.device.clone_from(device);
        known.add(entity.expire_after);
        if let Some(silence) = known.silence() {
            change.silences.push((called(&self.names, device), silence));
        }
        let Some(rule) = &entity.availability else { return };
        for watched in &rule.topics {
            let watch = self.watched.entry(Arc::clone(&watched.topic)).or_default();
            *watch.devices.entry(Arc::clone(&device.id)).or_default() += 1;
        }
        let is_new = known.watch(rule, || said_before(rule, &self.watched, &self.engine));
        let last = rule.topics.last().filter(|_| is_new);
        if let (Some(is_there), Some(watched)) = (known.is_there(), last) {
            let (device, topic) = (called(&self.names, device), Arc::clone(&watched.topic));
            change.presences.push(Presence { device, is_there, topic });
        }
    }

    fn remove(&mut self, entity: &Arc<Entity>, change: &mut Change) {
        if let Some(entities) = self.states.get_mut(&entity.topic) {
            entities.retain(|other| !Arc::ptr_eq(other, entity));
            if entities.is_empty() {
                self.states.remove(&entity.topic);
            }
        }
        self.metrics.release(&metric_of(entity), &place_of(entity));
        if let Some(device) = &entity.device {
            self.names.release(&device.name, &device.id);
            self.leave(device, entity, change);
        }
        for topic in topics(entity).filter(|topic| !self.is_needed(topic)) {
            change.unwanted.insert(Arc::clone(topic));
        }
    }

    fn leave(&mut self, device: &Device, entity: &Entity, change: &mut Change) {
        for watched in entity.availability.iter().flat_map(|rule| &rule.topics) {
            let Some(watch) = self.watched.get_mut(&watched.topic) else { continue };
            count_down(&mut watch.devices, &device.id);
            if watch.devices.is_empty() {
                self.watched.remove(&watched.topic);
            }
        }
        let Some(known) = self.devices.get_mut(&device.id) else { return };
        if known.remove(entity.expire_after, entity.availability.as_ref()) {
            self.devices.remove(&device.id);
        } else if let Some(silence) = known.silence() {
            change.silences.push((called(&self.names, device), silence));
        }
    }

    /// Reads a message; `None` when nobody has announced its topic.
    pub fn hear(&mut self, topic: &str, payload: &[u8], now: UnixMillis) -> Option<Heard> {
        if !self.is_needed(topic) {
            return None;
        }
        let mut heard = Heard::default();
        let Some(read) = Payload::new(payload) else {
            heard.failed = Some("a payload that is no text, or too long");
            return Some(heard);
        };
        if let Some(watch) = self.watched.get_mut(topic) {
            watch.last = (payload.len() <= MAX_WORD_BYTES).then(|| payload.into());
            for id in watch.devices.keys() {
                let Some(known) = self.devices.get_mut(id) else { continue };
                known.hear(topic, &read, &self.engine);
                if let Some(is_there) = known.is_there() {
                    let device = called(&self.names, &known.device);
                    heard.presences.push(Presence { device, is_there, topic: topic.into() });
                }
            }
        }
        let entities = self.states.get(topic).map(Vec::as_slice).unwrap_or_default();
        // An empty message deletes one that the broker has kept.
        if !payload.is_empty() && !entities.is_empty() {
            self.read(entities, &read, now, &mut heard);
        }
        Some(heard)
    }

    fn read(
        &self,
        entities: &[Arc<Entity>],
        payload: &Payload<'_>,
        now: UnixMillis,
        heard: &mut Heard,
    ) {
        let at = moment(payload, now);
        let mut seen = BTreeSet::new();
        for entity in entities {
            let value = match self.engine.value(&entity.template, payload) {
                Ok(value) => value.and_then(|value| of_kind(&entity.kind, value)),
                Err(why) => {
                    heard.failed = Some(why);
                    continue;
                }
            };
            let Some(value) = value else { continue };
            let device = entity.device.as_ref().map(|device| called(&self.names, device));
            let shared = self.metrics.is_shared(&metric_of(entity));
            let metric = Arc::clone(if shared { &entity.object } else { &entity.metric });
            // Several entities may show one value, such as a switch and its sensor.
            if seen.insert((device.clone(), Arc::clone(&metric))) {
                let unit = entity.unit.clone();
                heard.samples.push(Sample { device, metric, value, unit, at, received: None });
            }
        }
    }
}

/// Begins with what the topics of a rule have said of other devices.
fn said_before(
    rule: &Arc<Rule>,
    watched: &HashMap<Arc<str>, Watch>,
    engine: &Engine,
) -> Availability {
    let mut availability = Availability::new(Arc::clone(rule));
    for Watched { topic, .. } in &rule.topics {
        let last = watched.get(topic).and_then(|watch| watch.last.as_deref());
        if let Some(payload) = last.and_then(Payload::new) {
            availability.hear(topic, &payload, engine);
        }
    }
    availability
}

fn topics(entity: &Entity) -> impl Iterator<Item = &Arc<str>> {
    let watched = entity.availability.iter().flat_map(|rule| &rule.topics);
    std::iter::once(&entity.topic).chain(watched.map(|watched| &watched.topic))
}

/// Returns what a device is called: by its name, unless another one has it too.
fn called(names: &Claims<Arc<str>, Arc<str>>, device: &Device) -> Arc<str> {
    Arc::clone(if names.is_shared(&device.name) { &device.id } else { &device.name })
}

fn metric_of(entity: &Entity) -> (Option<Arc<str>>, Arc<str>) {
    let device = entity.device.as_ref().map(|device| Arc::clone(&device.id));
    (device, Arc::clone(&entity.metric))
}

fn place_of(entity: &Entity) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&entity.topic, &entity.template).hash(&mut hasher);
    hasher.finish()
}

fn of_kind(kind: &Kind, value: Value) -> Option<Value> {
    match kind {
        Kind::Plain => Some(value),
        Kind::Number => value.as_f64().is_some().then_some(value),
        Kind::TwoWords { on, off } => {
            let word = spelled(&value);
            let is_on = word.eq_ignore_ascii_case(on);
            (is_on || word.eq_ignore_ascii_case(off)).then_some(Value::Bool(is_on))
        }
    }
}

/// Returns the moment that a document names.
fn moment(payload: &Payload<'_>, now: UnixMillis) -> Option<UnixMillis> {
    let fields = payload.document()?.as_object()?;
    let times = TIME_FIELDS.iter().chain(&["last_seen"]);
    times
        .filter_map(|field| fields.get(*field))
        .find_map(|time| device_time(&json_value(time)?, now))
}

#[cfg(test)]
mod tests;
