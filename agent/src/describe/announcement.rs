//! Announcements of Home Assistant's MQTT discovery: which topics hold which values of which device.
//!
//! One message on `PREFIX/COMPONENT/[NODE/]OBJECT/config` announces one entity, one on
//! `PREFIX/device/ID/config` all of a device, in the words or abbreviations of
//! <https://www.home-assistant.io/integrations/mqtt/>.

use std::sync::Arc;

use serde_json::{Map, Value as Json};
use valtronics_protocol::reading::{MAX_UNIT_BYTES, is_clean, is_name};

use super::{
    availability::{Mode, Rule, Watched},
    template::Template,
    words::{COMPONENTS, STATELESS, lengthen, resolve},
};

/// The largest announcement: one of a device with hundreds of entities takes half of it.
const MAX_BYTES: usize = 256 * 1024;
/// The most bytes of a word such as `payload_on`.
const MAX_WORD_BYTES: usize = 256;
/// The most topics that say whether an entity is there; two or three are usual.
const MAX_AVAILABILITY: usize = 8;

/// Fields that every document of this kind has: their names tell nothing.
const NAMELESS: [&str; 2] = ["value", "val"];

/// Why an announcement is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is too large.
    #[error("an announcement of more than {MAX_BYTES} bytes")]
    TooLarge,
    /// It is no JSON object.
    #[error("an announcement that is no JSON")]
    NoJson,
    /// It says something that cannot be.
    #[error("an announcement with a wrong `{0}`")]
    Wrong(&'static str),
    /// There are too many.
    #[error("more announcements than are kept")]
    Full,
}

/// Which entities a topic announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subject<'t> {
    component: &'t str,
    node: Option<&'t str>,
    object: &'t str,
}

impl<'t> Subject<'t> {
    /// Reads a topic under the prefix; `None` where it announces nothing.
    #[must_use]
    pub fn parse(prefix: &str, topic: &'t str) -> Option<Self> {
        let inner = topic.strip_prefix(prefix)?.strip_prefix('/')?.strip_suffix("/config")?;
        let mut levels = inner.split('/');
        let (component, second, third) = (levels.next()?, levels.next()?, levels.next());
        let (node, object) = third.map_or((None, second), |object| (Some(second), object));
        let is_word = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        };
        let is_known = component == "device"
            || COMPONENTS.contains(&component)
            || STATELESS.contains(&component);
        let is_right = levels.next().is_none() && is_word(second) && is_word(object) && is_known;
        is_right.then_some(Self { component, node, object })
    }
}

/// A device as it is announced.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Device {
    /// What tells it from any other.
    pub id: Arc<str>,
    /// What people call it.
    pub name: Arc<str>,
}

/// How a state is read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    /// As what it is.
    Plain,
    /// As a number, since it has a unit or statistics.
    Number,
    /// As one of two words.
    TwoWords {
        /// The word for true.
        on: Box<str>,
        /// The word for false.
        off: Box<str>,
    },
}

/// One value of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct Entity {
    /// Whose value it is; absent where the announcement names no device.
    pub device: Option<Device>,
    /// The metric, by the field that holds it.
    pub metric: Arc<str>,
    /// The metric, by the name that only this entity has.
    pub object: Arc<str>,
    /// The unit as it was spelled.
    pub unit: Option<Arc<str>>,
    /// The topic that holds it.
    pub topic: Arc<str>,
    /// Where it stands in the message.
    pub template: Template,
    /// How it is read.
    pub kind: Kind,
    /// When it is there.
    pub availability: Option<Arc<Rule>>,
    /// After how many seconds of silence it is not.
    pub expire_after: Option<u64>,
}

/// Reads an announcement: the entities with a state, perhaps none, and why one was left out.
///
/// # Errors
/// When all of it is refused.
pub fn entities(
    subject: &Subject<'_>,
    payload: &[u8],
) -> Result<(Vec<Entity>, Option<Refused>), Refused> {
    if payload.len() > MAX_BYTES {
        return Err(Refused::TooLarge);
    }
    let mut document: Map<String, Json> =
        serde_json::from_slice(payload).map_err(|_| Refused::NoJson)?;
    lengthen(&mut document);
    let base = document.get("~").and_then(Json::as_str).unwrap_or_default().to_owned();
    resolve(&mut document, &base)?;
    let shared = Shared {
        device: device(&document, subject),
        availability: availability(&document)?.map(Arc::new),
        state_topic: document.get("state_topic").cloned(),
    };
    if subject.component != "device" {
        let found = read(subject.component, subject.object, &document, &shared)?;
        return Ok((found, None));
    }
    let Some(Json::Object(components)) = document.remove("components") else {
        return Err(Refused::Wrong("components"));
    };
    let (mut found, mut refused) = (Vec::new(), None);
    for (object, component) in components {
        match component_of_device(&object, component, &base, &shared) {
            Ok(entities) => found.extend(entities),
            Err(why) => refused = Some(why),
        }
    }
    Ok((found, refused))
}

/// What counts for all components of a device.
struct Shared {
    device: Option<Device>,
    availability: Option<Arc<Rule>>,
    state_topic: Option<Json>,
}

fn component_of_device(
    object: &str,
    component: Json,
    base: &str,
    shared: &Shared,
) -> Result<Vec<Entity>, Refused> {
    let Json::Object(mut component) = component else {
        return Err(Refused::Wrong("components"));
    };
    lengthen(&mut component);
    let own_base = component.get("~").and_then(Json::as_str).unwrap_or(base).to_owned();
    resolve(&mut component, &own_base)?;
    if let (Some(topic), None) = (&shared.state_topic, component.get("state_topic")) {
        component.insert("state_topic".into(), topic.clone());
    }
    let platform = component.get("platform").and_then(Json::as_str).unwrap_or_default().to_owned();
    read(&platform, object, &component, shared)
}

/// Reads who the device is; one without a name of any kind is named by its topic.
fn device(document: &Map<String, Json>, subject: &Subject<'_>) -> Option<Device> {
    let node = if subject.component == "device" { Some(subject.object) } else { subject.node };
    let said = document.get("device").and_then(Json::as_object);
    let first = |key: &str| match said?.get(key)? {
        Json::String(text) => Some(text.clone()),
        Json::Array(items) => items.iter().find_map(|item| match item {
            // Of a connection the address counts, not its kind.
            Json::Array(pair) => Some(pair.get(1)?.as_str()?.to_owned()),
            item => Some(item.as_str().map_or_else(|| item.to_string(), str::to_owned)),
        }),
        number @ Json::Number(_) => Some(number.to_string()),
        _ => None,
    };
    let text = |key: &str| said?.get(key)?.as_str().map(|text| text.trim().to_owned());
    let id = first("identifiers").or_else(|| first("connections"));
    let name = text("name").filter(|name| is_name(name));
    let id = id.or_else(|| name.clone()).or_else(|| node.map(str::to_owned))?;
    is_name(&id).then_some(())?;
    let id: Arc<str> = id.into();
    Some(Device { name: name.map_or_else(|| Arc::clone(&id), Arc::from), id })
}

/// Reads the values of one component.
fn read(
    component: &str,
    object: &str,
    document: &Map<String, Json>,
    shared: &Shared,
) -> Result<Vec<Entity>, Refused> {
    if !COMPONENTS.contains(&component) {
        return Ok(Vec::new());
    }
    let text = |key: &str| document.get(key).and_then(Json::as_str);
    let word = |key: &'static str| word(document.get(key), key);
    let device = shared.device.as_ref();
    let own = availability(document)?.map(Arc::new);
    let availability = own.or_else(|| shared.availability.clone());
    let expire_after = document.get("expire_after").and_then(|after| match after {
        Json::String(text) => text.trim().parse().ok(),
        after => after.as_u64(),
    });
    let on_off = ["binary_sensor", "fan", "humidifier", "light", "siren", "switch"];
    let (on, off) = (word("payload_on")?, word("payload_off")?);
    let on = word("state_on")?.or(on).unwrap_or_else(|| "ON".into());
    let off = word("state_off")?.or(off).unwrap_or_else(|| "OFF".into());
    let is_number = text("unit_of_measurement").or(text("state_class")).is_some();
    let state_kind = match () {
        () if on_off.contains(&component) => Kind::TwoWords { on, off },
        () if is_number => Kind::Number,
        () => Kind::Plain,
    };
    let is_document = text("schema") == Some("json") || component == "vacuum";
    let state = text("value_template").or(text("state_value_template")).or(text("state_template"));
    let state = state.or(is_document.then_some("{{ value_json.state }}"));
    let temperature_unit = text("temperature_unit").or(Some("°C"));
    let values = [
        ("state_topic", state, text("unit_of_measurement"), state_kind, None),
        (
            "current_temperature_topic",
            text("current_temperature_template"),
            temperature_unit,
            Kind::Number,
            Some("current_temperature"),
        ),
        (
            "current_humidity_topic",
            text("current_humidity_template"),
            Some("%"),
            Kind::Number,
            Some("current_humidity"),
        ),
    ];
    let mut found = Vec::new();
    for (topic, template, unit, kind, name) in values {
        let Some(topic) = text(topic) else { continue };
        let template = template.map_or(Ok(Template::Whole), Template::parse);
        let template = template.map_err(|_| Refused::Wrong("value_template"))?;
        let object = name.unwrap_or_else(|| bare(object, device));
        let field = template.field().filter(|field| !NAMELESS.contains(&field.as_str()));
        let metric = field.filter(|field| is_name(field)).unwrap_or_else(|| object.to_owned());
        found.push(Entity {
            device: device.cloned(),
            metric: metric.into(),
            object: object.into(),
            unit: unit.filter(|unit| is_clean(unit, MAX_UNIT_BYTES)).map(Arc::from),
            topic: topic.into(),
            template,
            kind,
            availability: availability.clone(),
            expire_after,
        });
    }
    Ok(found)
}

/// Takes the device out of an entity's name: it is said already.
fn bare<'o>(object: &'o str, device: Option<&Device>) -> &'o str {
    let Some(device) = device else { return object };
    let without = |name: &str| {
        let rest = object.strip_prefix(name)?.strip_prefix(['_', '-'])?;
        (!rest.is_empty()).then_some(rest)
    };
    without(&device.id).or_else(|| without(&device.name)).unwrap_or(object)
}

fn availability(document: &Map<String, Json>) -> Result<Option<Rule>, Refused> {
    let text = |key: &str| document.get(key).and_then(Json::as_str);
    let mode = match text("availability_mode") {
        Some("all") => Mode::All,
        Some("any") => Mode::Any,
        Some("latest") | None => Mode::Latest,
        Some(_) => return Err(Refused::Wrong("availability_mode")),
    };
    let list = match document.get("availability") {
        Some(Json::Array(items)) => items.iter().filter_map(Json::as_object).collect(),
        Some(Json::Object(item)) => vec![item],
        _ => Vec::new(),
    };
    let mut topics = Vec::new();
    for item in list {
        topics.extend(watched(item, "topic", "value_template")?);
    }
    topics.extend(watched(document, "availability_topic", "availability_template")?);
    if topics.len() > MAX_AVAILABILITY {
        return Err(Refused::Wrong("availability"));
    }
    Ok((!topics.is_empty()).then_some(Rule { mode, topics }))
}

fn watched(
    document: &Map<String, Json>,
    topic: &str,
    template: &str,
) -> Result<Option<Watched>, Refused> {
    let text = |key: &str| document.get(key).and_then(Json::as_str);
    let Some(topic) = text(topic) else { return Ok(None) };
    let template = text(template).map_or(Ok(Template::Whole), Template::parse);
    let word = |key, usual: &str| {
        let word = word(document.get(key), key)?;
        Ok(word.unwrap_or_else(|| usual.into()))
    };
    Ok(Some(Watched {
        topic: topic.into(),
        template: template.map_err(|_| Refused::Wrong("availability_template"))?,
        available: word("payload_available", "online")?,
        not_available: word("payload_not_available", "offline")?,
    }))
}

/// Reads a word that a topic will say.
fn word(value: Option<&Json>, key: &'static str) -> Result<Option<Box<str>>, Refused> {
    let word: Box<str> = match value {
        None | Some(Json::Null) => return Ok(None),
        Some(Json::String(word)) => word.trim().into(),
        Some(Json::Bool(_) | Json::Number(_)) => {
            value.map(Json::to_string).unwrap_or_default().into()
        }
        Some(Json::Array(_) | Json::Object(_)) => return Err(Refused::Wrong(key)),
    };
    if word.len() > MAX_WORD_BYTES { Err(Refused::Wrong(key)) } else { Ok(Some(word)) }
}
