//! Zigbee2MQTT: what its bridge says of devices, and what they say.
//!
//! `bridge/devices` names the unit of each property: `voltage` of a battery is in mV, of a plug in
//! V. <https://www.zigbee2mqtt.io/guide/usage/mqtt_topics_and_messages.html>

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::Deserialize;
use serde_json::value::RawValue;
use valtronics_protocol::{reading::is_name, time::UnixMillis};

use super::{Heard, Presence};
use crate::decode::{Context, Outcome, device_time, json};

/// The most devices: twice what one coordinator takes.
const MAX_DEVICES: usize = 1000;
/// The largest list of devices.
const MAX_LIST_BYTES: usize = 4 * 1024 * 1024;
/// The largest description of a device; most take a tenth.
const MAX_DEVICE_BYTES: usize = 128 * 1024;
/// The most properties with a unit of a device.
const MAX_PROPERTIES: usize = 500;
/// Fields that are no measurement.
const SKIP: [&str; 4] = ["device", "update", "last_seen", "elapsed"];

/// What is known of the devices of a bridge.
#[derive(Debug, Default)]
pub struct Zigbee {
    context: Context,
    /// By their name.
    devices: HashMap<Arc<str>, Device>,
    is_bridge_there: Option<bool>,
}

#[derive(Debug, Default)]
struct Device {
    units: BTreeMap<String, Arc<str>>,
    is_there: Option<bool>,
}

#[derive(Deserialize)]
struct Listed {
    friendly_name: String,
    #[serde(default)]
    definition: Option<Definition>,
}

#[derive(Deserialize)]
struct Definition {
    #[serde(default)]
    exposes: Vec<Expose>,
}

#[derive(Deserialize)]
struct Expose {
    property: Option<String>,
    unit: Option<String>,
    #[serde(default)]
    features: Vec<Expose>,
}

#[derive(Deserialize)]
struct State {
    state: String,
}

impl Zigbee {
    /// What is subscribed to: names of devices may have any number of levels.
    pub const FILTER: &str = "zigbee2mqtt/#";

    /// Tells whether it reads a topic.
    #[must_use]
    pub fn has(topic: &str) -> bool {
        topic.starts_with("zigbee2mqtt/")
    }

    /// Reads a message; `None` when it is none of Zigbee2MQTT.
    pub fn hear(&mut self, topic: &str, payload: &[u8], now: UnixMillis) -> Option<Heard> {
        let name = topic.strip_prefix("zigbee2mqtt/")?;
        let mut heard = Heard::default();
        if name == "bridge/devices" {
            heard.failed = self.learn(payload).err();
        } else if name == "bridge/state" {
            self.is_bridge_there = is_online(payload);
            let all = self.devices.keys().filter_map(|name| self.presence(name, topic));
            heard.presences.extend(all);
        } else if let Some(name) = name.strip_suffix("/availability") {
            if let Some(is_there) = is_online(payload).filter(|_| is_name(name)) {
                if let Some(device) = self.meet(name) {
                    device.is_there = Some(is_there);
                }
                heard.presences.extend(self.presence(name, topic));
            }
        } else if !name.starts_with("bridge/") && !is_command(name) && !payload.is_empty() {
            self.read(name, payload, now, &mut heard);
        }
        Some(heard)
    }

    /// Learns units from the list of devices, one by one: what is wrong with one harms no other.
    fn learn(&mut self, payload: &[u8]) -> Result<(), &'static str> {
        const WRONG: &str = "a list of devices that is none";
        if payload.is_empty() {
            return Ok(());
        }
        if payload.len() > MAX_LIST_BYTES {
            return Err(WRONG);
        }
        let list: Vec<&RawValue> = serde_json::from_slice(payload).map_err(|_| WRONG)?;
        for raw in list.iter().map(|raw| raw.get()).filter(|raw| raw.len() <= MAX_DEVICE_BYTES) {
            let Ok(Listed { friendly_name, definition }) = serde_json::from_str(raw) else {
                continue;
            };
            // The coordinator has no definition, and sends nothing.
            let Some(Definition { exposes }) = definition.filter(|_| is_name(&friendly_name))
            else {
                continue;
            };
            let mut units = BTreeMap::new();
            collect(&exposes, "", &mut units);
            if let Some(device) = self.meet(&friendly_name) {
                device.units = units;
            }
        }
        Ok(())
    }

    fn read(&mut self, name: &str, payload: &[u8], now: UnixMillis, heard: &mut Heard) {
        // One that publishes each property by itself: `NAME/PROPERTY`.
        let (device, property) = match name.rsplit_once('/') {
            Some((device, property))
                if self.devices.contains_key(device) && !self.devices.contains_key(name) =>
            {
                (device, property)
            }
            Some(_) | None => (name, ""),
        };
        if !is_name(device) {
            return;
        }
        self.context.now = now;
        let samples = &mut heard.samples;
        if let Outcome::Damaged(why) = json::message(payload, property, &mut self.context, samples)
        {
            heard.failed = Some(why);
            return;
        }
        let last_seen = samples.iter().find(|sample| &*sample.metric == "last_seen");
        let at = last_seen.and_then(|sample| device_time(&sample.value, now));
        samples.retain(|sample| {
            let first = sample.metric.split('.').next().unwrap_or_default();
            !SKIP.contains(&first)
        });
        self.meet(device);
        let name = self.context.name(device);
        let units = self.devices.get(device).map(|device| &device.units);
        for sample in samples {
            sample.device = Some(Arc::clone(&name));
            sample.unit = units.and_then(|units| units.get(&*sample.metric)).cloned();
            sample.at = at.or(sample.at);
        }
    }

    /// Finds a device, or notes it; `None` when there are too many.
    fn meet(&mut self, name: &str) -> Option<&mut Device> {
        if !self.devices.contains_key(name) {
            if self.devices.len() >= MAX_DEVICES {
                return None;
            }
            self.devices.insert(name.into(), Device::default());
        }
        self.devices.get_mut(name)
    }

    /// Tells whether a device is there: without its bridge none is.
    fn presence(&self, name: &str, topic: &str) -> Option<Presence> {
        let said = self.devices.get(name).and_then(|device| device.is_there);
        let is_there = match (self.is_bridge_there, said) {
            (Some(false), _) | (_, Some(false)) => false,
            (Some(true), _) | (None, Some(true)) => true,
            (None, None) => return None,
        };
        Some(Presence { device: name.into(), is_there, topic: topic.into() })
    }
}

fn collect(exposes: &[Expose], prefix: &str, units: &mut BTreeMap<String, Arc<str>>) {
    for Expose { property, unit, features } in exposes {
        let path = match property {
            Some(property) if prefix.is_empty() => property.clone(),
            Some(property) => format!("{prefix}.{property}"),
            None => prefix.to_owned(),
        };
        collect(features, &path, units);
        if let Some(unit) = unit.as_deref().filter(|_| units.len() < MAX_PROPERTIES) {
            units.insert(path, unit.into());
        }
    }
}

/// Reads `{"state":"online"}`, or the bare word of older versions.
fn is_online(payload: &[u8]) -> Option<bool> {
    let document = serde_json::from_slice::<State>(payload).map(|document| document.state).ok();
    let word = document.or_else(|| String::from_utf8(payload.to_vec()).ok())?;
    match word.trim() {
        "online" => Some(true),
        "offline" => Some(false),
        _ => None,
    }
}

/// Tells whether a topic is one on which others ask something of a device.
fn is_command(name: &str) -> bool {
    name.split('/').skip(1).any(|level| matches!(level, "set" | "get"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
    const DEVICES: &str = r#"[{"friendly_name":"Coordinator","type":"Coordinator","definition":null},
        {"broken":true},
        {"friendly_name":"porch/sensor","definition":{"exposes":[
            {"type":"numeric","property":"voltage","unit":"mV"},
            {"type":"numeric","property":"temperature","unit":"°C"}]}},
        {"friendly_name":"plug","definition":{"exposes":[
            {"type":"switch","features":[{"property":"state"},{"property":"countdown","unit":"s"}]},
            {"type":"numeric","property":"voltage","unit":"V"},
            {"type":"composite","property":"limits","features":[{"property":"max","unit":"A"}]}]}}]"#;

    fn bridge() -> Zigbee {
        let mut zigbee = Zigbee::default();
        let heard = zigbee.hear("zigbee2mqtt/bridge/devices", DEVICES.as_bytes(), NOW).unwrap();
        assert_eq!(heard.failed, None);
        zigbee
    }

    fn check(topic: &str, payload: &str, expected: &[&str]) {
        let topic = format!("zigbee2mqtt/{topic}");
        let heard = bridge().hear(&topic, payload.as_bytes(), NOW).unwrap();
        let shown = heard.samples.iter().map(|sample| {
            let device = sample.device.as_deref().unwrap_or("-");
            let unit = sample.unit.as_deref().unwrap_or("-");
            format!("{device} {} {} {unit}", sample.metric, sample.value)
        });
        assert_eq!(shown.collect::<Vec<_>>(), expected, "{topic}");
    }

    #[test]
    fn each_device_has_its_own_units() {
        let voltage = ["porch/sensor voltage 3005 mV", "porch/sensor temperature 21.5 °C"];
        check("porch/sensor", r#"{"voltage":3005,"temperature":21.5,"device":{"a":1}}"#, &voltage);
        check(
            "plug",
            r#"{"voltage":230,"state":"ON"}"#,
            &["plug voltage 230 V", "plug state ON -"],
        );
        check("plug", r#"{"limits":{"max":16}}"#, &["plug limits.max 16 A"]);
        check("plug/countdown", "5", &["plug countdown 5 s"]);
        check("stranger", r#"{"voltage":3}"#, &["stranger voltage 3 -"]);
        check("plug/set", r#"{"state":"ON"}"#, &[]);
        check("bridge/logging", r#"{"level":"info"}"#, &[]);
        check("plug", "", &[]);
    }

    #[test]
    fn without_the_bridge_no_device_is_there() {
        let mut zigbee = bridge();
        let mut hear = |topic: &str, payload: &str| {
            let topic = format!("zigbee2mqtt/{topic}");
            let heard = zigbee.hear(&topic, payload.as_bytes(), NOW).unwrap();
            let mut found: Vec<_> = heard
                .presences
                .iter()
                .map(|presence| format!("{} {}", presence.device, presence.is_there))
                .collect();
            found.sort();
            found.join(", ")
        };
        assert_eq!(hear("plug/availability", "offline"), "plug false");
        assert_eq!(hear("bridge/state", r#"{"state":"online"}"#), "plug false, porch/sensor true");
        assert_eq!(hear("plug/availability", r#"{"state":"online"}"#), "plug true");
        assert_eq!(hear("bridge/state", "offline"), "plug false, porch/sensor false");
    }

    #[test]
    fn what_is_broken_is_said_and_bounded() {
        let mut zigbee = Zigbee::default();
        let mut hear = |topic: &str, payload: &str| {
            let topic = format!("zigbee2mqtt/{topic}");
            zigbee.hear(&topic, payload.as_bytes(), NOW).unwrap().failed
        };
        assert_eq!(hear("bridge/devices", "[{]"), Some("a list of devices that is none"));
        assert_eq!(hear("plug", "{"), Some("a payload that is no JSON"));
        let deep = format!(r#"[{{"friendly_name":"a","definition":{}}}]"#, "[".repeat(100_000));
        assert_eq!(hear("bridge/devices", &deep), Some("a list of devices that is none"));
        let many: Vec<_> = (0..2000)
            .map(|n| format!(r#"{{"friendly_name":"d{n}","definition":{{"exposes":[]}}}}"#))
            .collect();
        assert_eq!(hear("bridge/devices", &format!("[{}]", many.join(","))), None);
        assert_eq!(zigbee.devices.len(), MAX_DEVICES);
    }
}
