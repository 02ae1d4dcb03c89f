//! Captures of devices that describe themselves, or whose messages are known.

use std::{collections::BTreeMap, fs};

use serde_json::Value as Json;
use valtronics_agent::{
    decode::Sample,
    describe::{Described, Heard, announcement::Refused, preset::Preset, zigbee::Zigbee},
};

use crate::corpora::{NOW, files, folder};

fn hear(preset: &str, topic: &str, payload: &str) -> Heard {
    let mut preset = Preset::named(preset).unwrap();
    preset.hear(topic, payload.as_bytes(), NOW).expect("the preset has the topic")
}

fn units(samples: &[Sample]) -> BTreeMap<&str, &str> {
    samples.iter().map(|sample| (&*sample.metric, sample.unit.as_deref().unwrap_or("-"))).collect()
}

#[test]
fn announcements_are_accepted_and_refused_as_by_their_inventor() {
    let Some(folder) = folder("ha-discovery/ha-core") else { return };
    let rules = fs::read_to_string(folder.join("discovery-rules.jsonl")).unwrap();
    for rule in rules.lines().map(|line| serde_json::from_str::<Json>(line).unwrap()) {
        let [topic, payload, expected] =
            ["topic", "payload", "expect"].map(|field| rule[field].as_str().unwrap());
        let prefix = match topic.split_once("/binary_sensor/") {
            Some((prefix, _)) if !topic.starts_with("homeassistant/") => prefix,
            _ => "homeassistant",
        };
        let mut described = Described::new(prefix);
        let outcome = described.announce(topic, payload.as_bytes());
        match expected {
            "ignored" | "refused: illegal topic" | "refused: unknown component" => {
                assert_eq!(outcome, None, "{topic}");
            }
            "refused: not JSON" => assert_eq!(outcome, Some(Err(Refused::NoJson))),
            "refused: availability malformed" => {
                assert_eq!(outcome, Some(Err(Refused::Wrong("availability"))));
            }
            "removes the entity" => assert!(outcome.unwrap().unwrap().wanted.is_empty()),
            _ => {
                let wanted = outcome.expect(topic).expect(payload).wanted;
                let topics: Vec<_> = wanted.iter().map(|topic| &**topic).collect();
                let is_base =
                    payload.contains("some/base/topic") && expected.contains("avail_item1");
                let expected: &[&str] = match payload {
                    _ if is_base => &[
                        "avail_item2/some/base/topic",
                        "some/base/topic/avail_item1",
                        "test_topic/some/base/topic",
                    ],
                    _ if payload.contains("unpack") => {
                        &["some/base/topic/avail_item1", "test_topic/some/base/topic"]
                    }
                    _ if payload.contains("foobar/sensor") => &["foobar/sensor"],
                    _ => &["test-topic"],
                };
                assert_eq!(topics, expected, "{payload}");
            }
        }
    }
}

#[test]
fn batteries_and_plugs_of_zigbee_have_their_own_volts() {
    let Some(folder) = folder("zigbee2mqtt/exposes-presets") else { return };
    let presets = fs::read_to_string(folder.join("numeric-units.json")).unwrap();
    let presets: BTreeMap<String, Json> = serde_json::from_str(&presets).unwrap();
    // A device for each preset, as two presets may have one property.
    let devices: Vec<Json> = presets
        .iter()
        .map(|(name, expose)| {
            serde_json::json!({ "friendly_name": name, "definition": { "exposes": [expose] } })
        })
        .collect();
    let mut zigbee = Zigbee::default();
    let list = serde_json::to_vec(&devices).unwrap();
    assert_eq!(zigbee.hear("zigbee2mqtt/bridge/devices", &list, NOW).unwrap().failed, None);
    for (name, expose) in &presets {
        let property = expose["property"].as_str().unwrap();
        let payload = format!(r#"{{"{property}":5}}"#);
        let topic = format!("zigbee2mqtt/{name}");
        let heard = zigbee.hear(&topic, payload.as_bytes(), NOW).unwrap();
        let found: Vec<_> =
            heard.samples.iter().map(|sample| (&*sample.metric, sample.unit.as_deref())).collect();
        assert_eq!(found, [(property, expose["unit"].as_str())], "{name}");
    }
}

#[test]
fn units_of_tasmota_are_those_of_its_integration() {
    let Some(folder) = folder("tasmota/hatasmota") else { return };
    let table = fs::read_to_string(folder.join("units.json")).unwrap();
    let table: Json = serde_json::from_str(&table).unwrap();
    for (metric, unit) in table["fixed"].as_object().unwrap() {
        let payload = format!(r#"{{"S":{{"{metric}":5}}}}"#);
        let heard = hear("tasmota", "tele/t/SENSOR", &payload);
        let found = heard.samples.first().and_then(|sample| sample.unit.as_deref());
        let expected = match unit.as_str().map(str::trim) {
            Some("lux") => Some("lx"),
            Some("CONCENTRATION_MICROGRAMS_PER_CUBIC_METER") => Some("µg/m³"),
            Some("ENERGY_KILO_WATT_HOUR") => Some("kWh"),
            Some("REACTIVE_ENERGY_KILO_VOLT_AMPERE_HOUR") => Some("kvarh"),
            Some("ELECTRICAL_VOLT_AMPERE") => Some("VA"),
            Some("VAr") => Some("var"),
            // Colours and counts of particles are no units here.
            Some("R" | "G" | "B" | "ppd" | "") | None => None,
            Some(unit) => Some(unit),
        };
        assert_eq!(found, expected, "{metric}");
    }
}

#[test]
fn components_of_shelly_have_units() {
    let Some(folder) = folder("shelly/aioshelly") else { return };
    let mut checked = 0;
    for file in files(&folder, ".json") {
        let document: Json = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        let status = document.get("status").unwrap_or(&document);
        for (component, fields) in status.as_object().unwrap() {
            if !component.contains(':') {
                continue;
            }
            let heard = hear("shelly", &format!("s/status/{component}"), &fields.to_string());
            let rpc = format!(r#"{{"method":"NotifyStatus","params":{{"{component}":{fields}}}}}"#);
            assert_eq!(heard.failed, None, "{fields}");
            assert_eq!(heard.samples, hear("shelly", "s/events/rpc", &rpc).samples, "{fields}");
            for (metric, unit) in units(&heard.samples) {
                let power = metric.ends_with("power") && !metric.contains("aprt");
                let energy = metric.ends_with("_energy") || metric.ends_with("aenergy.total");
                assert!(!power || unit == "W", "{metric} {unit}");
                assert!(!energy || unit == "Wh", "{metric} {unit}");
                assert!(!metric.ends_with("tF") && !metric.contains("by_minute"), "{metric}");
                checked += usize::from(unit != "-");
            }
        }
    }
    assert!(checked > 50, "{checked}");
}

#[test]
fn uplinks_of_the_things_network_are_read_and_broken_ones_are_said() {
    let Some(folder) = folder("ttn-v3/docs") else { return };
    let topic = "v3/app1/devices/dev1/up";
    let (mut read, mut broken) = (0, 0);
    for file in files(&folder, ".json") {
        let text = fs::read_to_string(&file).unwrap();
        let heard = hear("ttn", topic, &text);
        let invalid = file.to_str().unwrap().contains("INVALID");
        assert_eq!(heard.failed.is_some(), invalid, "{}", file.display());
        broken += usize::from(invalid);
        read += heard.samples.len();
        let document = serde_json::from_str::<Json>(&text).unwrap_or_default();
        let decoded = document["uplink_message"]["decoded_payload"].as_object();
        for field in decoded.into_iter().flatten().map(|(field, _)| field) {
            assert!(heard.samples.iter().any(|sample| *sample.metric == **field), "{field}");
        }
    }
    assert!(read > 5 && broken == 3, "{read} {broken}");
}
