//! What nodes of Sparkplug B say of themselves: births name metrics, types and units; data has
//! aliases only; deaths end that.
//!
//! Pure: topics and payloads in; samples, who is there, and whether something is unknown out. A name is
//! never guessed: an alias means what the last birth said, and nothing once that may be out of date.

mod birth;
mod sequence;

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::Arc,
};

use valtronics_protocol::{
    reading::{MAX_NAME_BYTES, MAX_UNIT_BYTES, is_name},
    time::UnixMillis,
};

use super::Presence;
use crate::decode::{
    Sample,
    sparkplug::{
        self, is_control,
        topic::{Kind, Topic},
        value::{self, Lacking},
        wire::{Malformed, Metric, Payload},
    },
};
use birth::Birth;
use sequence::{Place, Sequence};

/// The most nodes and devices: as many as a source has statuses for. New ones are refused.
pub const MAX_DEVICES: usize = 10_000;
/// The most metrics of all births that count, some 20 MiB: a large plant has some ten thousand.
/// A birth with more is refused.
pub const MAX_METRICS: usize = 100_000;
/// The qualities that say that a value is none (specification, "Quality Codes"): bad and stale.
const WORTHLESS: [u64; 2] = [0, 500];

/// What is known of nodes by their births.
#[derive(Debug, Default)]
pub struct Sparkplug {
    /// By group and node.
    nodes: HashMap<Arc<str>, Node>,
    devices: usize,
}

#[derive(Debug)]
struct Node {
    own: Device,
    devices: HashMap<Box<str>, Device>,
    sequence: Sequence,
    /// Pairs its birth with its death.
    bd_seq: Option<u64>,
    is_dead: bool,
    /// A message of it was missed since its birth.
    has_gap: bool,
}

/// A device, or what a node has itself.
#[derive(Debug)]
struct Device {
    name: Arc<str>,
    birth: Option<Birth>,
}

/// What a message says.
#[derive(Debug, Default, PartialEq)]
pub struct News {
    /// The values in it.
    pub samples: Vec<Sample>,
    /// How many values can be none of a reading.
    pub unfit: u64,
    /// Devices that are now known to be there, or not.
    pub presences: Vec<Presence>,
    /// The node whose births are needed.
    pub unborn: Option<Arc<str>>,
}

/// Why a message is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no payload.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Group, node and device make no name.
    #[error("a name of more than 128 bytes or with control characters")]
    Name,
    /// See [`MAX_DEVICES`].
    #[error("more nodes and devices than are remembered")]
    TooManyDevices,
    /// See [`MAX_METRICS`].
    #[error("more metrics in births than are remembered")]
    TooManyMetrics,
}

impl Sparkplug {
    /// Reads a message.
    ///
    /// # Errors
    /// When it is refused; what was known before still counts.
    pub fn hear(
        &mut self,
        topic: &Topic<'_>,
        bytes: &[u8],
        now: UnixMillis,
    ) -> Result<News, Refused> {
        let payload = sparkplug::payload(bytes)?;
        if topic.kind == Kind::Birth {
            self.check_room(topic, payload.metrics.len())?;
        }
        let mut news = News::default();
        self.node(topic)?.hear(topic, &payload, bytes, now, &mut news);
        Ok(news)
    }

    /// Notes that messages may have been missed: births among them, so that aliases mean nothing
    /// any more.
    pub fn disconnected(&mut self) {
        for node in self.nodes.values_mut() {
            node.forget();
        }
    }

    /// Returns the nodes that are not known to be dead, and whose births are needed.
    pub fn unborn(&self) -> impl Iterator<Item = &Arc<str>> {
        let unborn = |node: &&Node| !node.is_dead && node.own.birth.is_none();
        self.nodes.values().filter(unborn).map(|node| &node.own.name)
    }

    fn check_room(&self, topic: &Topic<'_>, wanted: usize) -> Result<(), Refused> {
        let counting: usize = self.nodes.values().map(Node::metrics).sum();
        let node = self.nodes.get(&*node_name(topic));
        let replaced = match topic.device {
            None => node.map(Node::metrics),
            Some(device) => node.and_then(|node| node.devices.get(device)).map(Device::metrics),
        };
        let has_room = counting - replaced.unwrap_or_default() + wanted <= MAX_METRICS;
        has_room.then_some(()).ok_or(Refused::TooManyMetrics)
    }

    /// Finds a message's node, which knows its device then.
    fn node(&mut self, topic: &Topic<'_>) -> Result<&mut Node, Refused> {
        let name = node_name(topic);
        let known = self.nodes.get(&*name);
        let knows_device =
            |node: &Node| topic.device.is_none_or(|device| node.devices.contains_key(device));
        if !known.is_some_and(knows_device) {
            let device = topic.device.map(|device| format!("{name}/{device}"));
            if !is_name(device.as_deref().unwrap_or(&name)) {
                return Err(Refused::Name);
            }
            let new = usize::from(known.is_none()) + usize::from(device.is_some());
            if self.devices + new > MAX_DEVICES {
                return Err(Refused::TooManyDevices);
            }
            self.devices += new;
        }
        let name: Arc<str> = name.into();
        let node = self.nodes.entry(Arc::clone(&name)).or_insert_with(|| Node::new(&name));
        if let Some(device) = topic.device.filter(|device| !node.devices.contains_key(*device)) {
            let named = Device { name: format!("{name}/{device}").into(), birth: None };
            node.devices.insert(device.into(), named);
        }
        Ok(node)
    }
}

impl Node {
    fn new(name: &Arc<str>) -> Self {
        Self {
            own: Device { name: Arc::clone(name), birth: None },
            devices: HashMap::new(),
            sequence: Sequence::default(),
            bd_seq: None,
            is_dead: false,
            has_gap: false,
        }
    }

    fn hear(
        &mut self,
        topic: &Topic<'_>,
        payload: &Payload<'_>,
        bytes: &[u8],
        now: UnixMillis,
        news: &mut News,
    ) {
        let mut hasher = DefaultHasher::new();
        (topic.whole, bytes).hash(&mut hasher);
        let hash = hasher.finish();
        let mut is_unborn = self.has_gap || self.own.birth.is_none();
        match (topic.kind, topic.device) {
            (Kind::Death, None) => return self.die(topic, payload, news),
            (Kind::Birth, None) if !is_unborn && self.sequence.has(hash) => return,
            (Kind::Birth, None) => {
                self.begin(payload, hash);
                is_unborn = false;
            }
            (Kind::Birth | Kind::Data | Kind::Death, _) => {
                match self.sequence.place(payload.seq, hash) {
                    Place::Next => {}
                    Place::Repeated => return,
                    Place::Later => self.has_gap = true,
                }
                is_unborn |= self.has_gap;
            }
        }
        let device = topic.device.and_then(|device| self.devices.get_mut(device));
        let device = device.unwrap_or(&mut self.own);
        match topic.kind {
            Kind::Birth => {
                device.birth = Some(Birth::new(payload));
                news.presences.push(presence(device, true, topic));
            }
            Kind::Data => is_unborn |= device.birth.is_none(),
            Kind::Death => {
                device.birth = None;
                news.presences.push(presence(device, false, topic));
            }
        }
        if topic.kind != Kind::Death {
            let knows_all = device.read(payload, now, news);
            // Nobody else could tell more than a birth does.
            is_unborn |= topic.kind == Kind::Data && !knows_all;
        }
        news.unborn = is_unborn.then(|| Arc::clone(&self.own.name));
    }

    /// Begins anew: what its devices had is told anew after this.
    fn begin(&mut self, payload: &Payload<'_>, hash: u64) {
        self.forget();
        self.sequence = Sequence::after(payload.seq, hash);
        self.bd_seq = payload.bd_seq();
        self.is_dead = false;
    }

    fn die(&mut self, topic: &Topic<'_>, payload: &Payload<'_>, news: &mut News) {
        if is_outdated(payload.bd_seq(), self.bd_seq) {
            return;
        }
        self.forget();
        self.is_dead = true;
        let devices = std::iter::once(&self.own).chain(self.devices.values());
        news.presences.extend(devices.map(|device| presence(device, false, topic)));
    }

    fn forget(&mut self) {
        self.sequence = Sequence::default();
        self.has_gap = false;
        self.own.birth = None;
        self.devices.values_mut().for_each(|device| device.birth = None);
    }

    fn metrics(&self) -> usize {
        self.own.metrics() + self.devices.values().map(Device::metrics).sum::<usize>()
    }
}

impl Device {
    fn metrics(&self) -> usize {
        self.birth.as_ref().map_or(0, Birth::len)
    }

    /// Makes samples of what a payload holds; tells whether each alias means something.
    fn read(&self, payload: &Payload<'_>, now: UnixMillis, news: &mut News) -> bool {
        let mut knows_all = true;
        for metric in &payload.metrics {
            if metric.value.is_none() || metric.name.is_some_and(is_control) {
                continue;
            }
            knows_all &= metric.name.is_some() || self.meaning(metric).is_some();
            match self.sample(payload, metric, now) {
                Ok(sample) => news.samples.extend(sample),
                Err(Lacking::Absent) => {}
                Err(Lacking::Unfit) => news.unfit += 1,
            }
        }
        knows_all
    }

    fn meaning(&self, metric: &Metric<'_>) -> Option<birth::Meaning<'_>> {
        self.birth.as_ref()?.meaning(metric)
    }

    /// Makes a sample; what names itself is read before any birth.
    fn sample(
        &self,
        payload: &Payload<'_>,
        metric: &Metric<'_>,
        now: UnixMillis,
    ) -> Result<Option<Sample>, Lacking> {
        let meaning = self.meaning(metric);
        let known = meaning.as_ref().map(|meaning| meaning.name);
        let name = known.map(|name| &**name).or(metric.name).unwrap_or_default();
        if is_control(name) {
            return Ok(None);
        }
        let is_worthless = metric.quality.is_some_and(|quality| WORTHLESS.contains(&quality));
        if is_worthless || name.is_empty() || name.len() > MAX_NAME_BYTES {
            return Err(Lacking::Unfit);
        }
        let raw = metric.value.ok_or(Lacking::Absent)?;
        let datatype = metric.datatype.or(meaning.as_ref().and_then(|meaning| meaning.datatype));
        let value = value::value(datatype, raw)?;
        let at = payload.time_of(metric, now);
        // Of the past, and nothing says when.
        if metric.is_historical && at.is_none() {
            return Err(Lacking::Unfit);
        }
        let said = metric.unit.filter(|unit| unit.len() <= MAX_UNIT_BYTES).map(Arc::from);
        Ok(Some(Sample {
            device: Some(Arc::clone(&self.name)),
            metric: known.map_or_else(|| name.into(), Arc::clone),
            value,
            unit: said.or_else(|| meaning.and_then(|meaning| meaning.unit.cloned())),
            at,
            received: None,
        }))
    }
}

fn node_name(topic: &Topic<'_>) -> String {
    format!("{}/{}", topic.group, topic.node)
}

fn presence(device: &Device, is_there: bool, topic: &Topic<'_>) -> Presence {
    Presence { device: Arc::clone(&device.name), is_there, topic: topic.whole.into() }
}

/// Tells whether a death is that of a connection before the birth that counts. Numbers count up modulo
/// 256; some nodes count one up before they say goodbye.
fn is_outdated(death: Option<u64>, birth: Option<u64>) -> bool {
    let (Some(death), Some(birth)) = (death, birth) else { return false };
    (1..=128).contains(&(birth.wrapping_sub(death) % 256))
}
