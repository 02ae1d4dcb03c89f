//! The words of announcements: which components there are, what abbreviations stand for, and `~`.

use serde_json::{Map, Value as Json};

use super::announcement::Refused;

/// The most bytes of a topic; the names of devices in it are shorter.
const MAX_TOPIC_BYTES: usize = 512;
/// The components with a state; what only takes commands, or tells of moments, has none.
pub(super) const COMPONENTS: [&str; 18] = [
    "alarm_control_panel",
    "binary_sensor",
    "climate",
    "cover",
    "device_tracker",
    "fan",
    "humidifier",
    "lawn_mower",
    "light",
    "lock",
    "number",
    "select",
    "sensor",
    "siren",
    "switch",
    "text",
    "vacuum",
    "water_heater",
];
/// Other components that exist.
pub(super) const STATELESS: [&str; 12] = [
    "button",
    "camera",
    "date",
    "datetime",
    "device_automation",
    "event",
    "image",
    "notify",
    "scene",
    "tag",
    "time",
    "update",
];

/// The abbreviations that are read here, and what they stand for.
const ABBREVIATIONS: [(&str, &str); 30] = [
    ("avty", "availability"),
    ("avty_mode", "availability_mode"),
    ("avty_t", "availability_topic"),
    ("avty_tpl", "availability_template"),
    ("cmps", "components"),
    ("cns", "connections"),
    ("curr_hum_t", "current_humidity_topic"),
    ("curr_hum_tpl", "current_humidity_template"),
    ("curr_temp_t", "current_temperature_topic"),
    ("curr_temp_tpl", "current_temperature_template"),
    ("dev", "device"),
    ("e", "encoding"),
    ("exp_aft", "expire_after"),
    ("ids", "identifiers"),
    ("p", "platform"),
    ("pl_avail", "payload_available"),
    ("pl_not_avail", "payload_not_available"),
    ("pl_off", "payload_off"),
    ("pl_on", "payload_on"),
    ("stat_cla", "state_class"),
    ("stat_off", "state_off"),
    ("stat_on", "state_on"),
    ("stat_t", "state_topic"),
    ("stat_tpl", "state_template"),
    ("stat_val_tpl", "state_value_template"),
    ("t", "topic"),
    ("temp_unit", "temperature_unit"),
    ("uniq_id", "unique_id"),
    ("unit_of_meas", "unit_of_measurement"),
    ("val_tpl", "value_template"),
];

/// The topics that are read.
const READ_TOPICS: [&str; 5] = [
    "topic",
    "state_topic",
    "availability_topic",
    "current_temperature_topic",
    "current_humidity_topic",
];

/// Writes abbreviations out.
pub(super) fn lengthen(document: &mut Map<String, Json>) {
    let short = std::mem::take(document);
    for (key, mut value) in short {
        let long = ABBREVIATIONS.iter().find(|(short, _)| *short == key);
        let key = long.map_or(key, |(_, long)| (*long).to_owned());
        match &mut value {
            Json::Object(inner) if key == "device" => lengthen(inner),
            Json::Array(items) if key == "availability" => {
                items.iter_mut().filter_map(Json::as_object_mut).for_each(lengthen);
            }
            Json::Object(inner) if key == "availability" => lengthen(inner),
            _ => {}
        }
        document.insert(key, value);
    }
}

/// Puts the base in place of `~` at the begin or the end of topics.
pub(super) fn resolve(document: &mut Map<String, Json>, base: &str) -> Result<(), Refused> {
    for (key, value) in document.iter_mut().filter(|(key, _)| key.ends_with("topic")) {
        if let Json::String(topic) = value {
            if let Some(rest) = topic.strip_prefix('~') {
                *topic = format!("{base}{rest}");
            } else if let Some(rest) = topic.strip_suffix('~') {
                *topic = format!("{rest}{base}");
            }
            let is_topic =
                (1..=MAX_TOPIC_BYTES).contains(&topic.len()) && !topic.contains(['+', '#', '\0']);
            if !is_topic && READ_TOPICS.contains(&key.as_str()) {
                return Err(Refused::Wrong("topic"));
            }
        }
    }
    match document.get_mut("availability") {
        Some(Json::Array(items)) => {
            for item in items {
                let item = item.as_object_mut().ok_or(Refused::Wrong("availability"))?;
                resolve(item, base)?;
            }
            Ok(())
        }
        Some(Json::Object(item)) => resolve(item, base),
        Some(_) => Err(Refused::Wrong("availability")),
        None => Ok(()),
    }
}
