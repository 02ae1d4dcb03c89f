//! What nodes of Sparkplug B say of themselves: births name metrics, types and units; data has
//! aliases only; deaths end that.
//!
//! Pure: topics and payloads in; samples, who is there, and whether something is unknown out. A name is
//! never guessed: an alias means what the last birth said, and nothing once that may be out of date.

mod birth;
mod device;
mod sequence;

use std::{
    collections::{HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::Arc,
};

use valtronics_protocol::{reading::is_name, time::UnixMillis};

use super::Presence;
use crate::decode::{
    Sample,
    sparkplug::{
        self,
        topic::{Kind, Topic},
        wire::{Malformed, Payload},
    },
};
use device::Device;
use sequence::{Place, Sequence};

/// The most nodes and devices: as many as a source has statuses for. New ones are refused.
pub const MAX_DEVICES: usize = 10_000;
/// The most metrics of all births that count, some 20 MiB: a large plant has some ten thousand.
/// A birth with more is refused.
pub const MAX_METRICS: usize = 100_000;
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
        let name = node_name(topic);
        self.admit(&name, topic)?;
        let node = self.nodes.get_mut(&*name).expect("it was admitted");
        Ok(node.hear(topic, &payload, bytes, now))
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

    /// Gets to know a message's node and device.
    fn admit(&mut self, name: &str, topic: &Topic<'_>) -> Result<(), Refused> {
        let known = self.nodes.get(name);
        let is_known =
            |node: &Node| topic.device.is_none_or(|device| node.devices.contains_key(device));
        if known.is_some_and(is_known) {
            return Ok(());
        }
        let device = topic.device.map(|device| (device, format!("{name}/{device}")));
        if !is_name(device.as_ref().map_or(name, |(_, whole)| whole)) {
            return Err(Refused::Name);
        }
        let new = usize::from(known.is_none()) + usize::from(device.is_some());
        if self.devices + new > MAX_DEVICES {
            return Err(Refused::TooManyDevices);
        }
        self.devices += new;
        let name: Arc<str> = name.into();
        let node = self.nodes.entry(Arc::clone(&name)).or_insert_with(|| Node::new(name));
        node.devices.extend(device.map(|(own, whole)| (own.into(), Device::new(whole.into()))));
        Ok(())
    }
}

impl Node {
    fn new(name: Arc<str>) -> Self {
        Self {
            own: Device::new(name),
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
    ) -> News {
        let mut news = News::default();
        if (topic.kind, topic.device) == (Kind::Death, None) {
            self.die(topic, payload, &mut news);
            return news;
        }
        let Some(is_current) = self.follow(topic, payload, bytes) else { return news };
        let device = topic.device.and_then(|device| self.devices.get_mut(device));
        let device = device.unwrap_or(&mut self.own);
        let is_understood = device.hear(topic, payload, now, &mut news);
        if !is_current || !is_understood {
            news.unborn = Some(Arc::clone(&self.own.name));
        }
        news
    }

    /// Puts a message into its place; tells whether what is known of the node is current then, or
    /// `None` of a message that was there already.
    fn follow(&mut self, topic: &Topic<'_>, payload: &Payload<'_>, bytes: &[u8]) -> Option<bool> {
        let mut hasher = DefaultHasher::new();
        (topic.whole, bytes).hash(&mut hasher);
        let hash = hasher.finish();
        let is_current = !self.has_gap && self.own.birth.is_some();
        let is_birth = (topic.kind, topic.device) == (Kind::Birth, None);
        // One that is needed counts, even if it is the same as before.
        if is_birth && !(is_current && self.sequence.has(hash)) {
            self.begin(payload, hash);
            return Some(true);
        }
        match self.sequence.place(payload.seq, hash) {
            Place::Next => {}
            Place::Repeated => return None,
            Place::Later => self.has_gap = true,
        }
        Some(is_current && !self.has_gap)
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
        news.presences.extend(devices.map(|device| device.presence(false, topic)));
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

fn node_name(topic: &Topic<'_>) -> String {
    format!("{}/{}", topic.group, topic.node)
}

/// Tells whether a death is that of a connection before the birth that counts. Numbers count up modulo
/// 256; some nodes count one up before they say goodbye.
fn is_outdated(death: Option<u64>, birth: Option<u64>) -> bool {
    let (Some(death), Some(birth)) = (death, birth) else { return false };
    (1..=128).contains(&(birth.wrapping_sub(death) % 256))
}
