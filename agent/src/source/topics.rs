//! Which topics of a broker a source reads: the keys `read` and `discovery`.

use serde::Deserialize;
use toml::{Spanned, de::DeValue};
use valtronics_protocol::reading::is_name;

use crate::{
    config::{fault::Fault, section::Section},
    decode::topic::Template,
    describe::preset,
    normalize::Rules,
};

/// Where devices announce themselves, unless `discovery` says otherwise.
const PREFIX: &str = "homeassistant";
/// Presets that a later version reads.
const LATER: [&str; 3] = ["meshtastic", "ruuvi", "homie"];

/// Which topics a source reads, and how.
#[derive(Debug, Clone)]
pub struct Config {
    /// What `read` lists.
    pub topics: Vec<Topic>,
    /// What devices announce.
    pub discovery: Option<Discovery>,
}

/// Where devices announce themselves, and the rules for what they say.
#[derive(Debug, Clone)]
pub struct Discovery {
    /// What the topics of announcements begin with.
    pub prefix: String,
    /// The source's rules.
    pub rules: Rules,
}

/// One entry of `read`.
#[derive(Debug, Clone)]
pub struct Topic {
    /// Which topics.
    pub pattern: Pattern,
    /// Its rules.
    pub rules: Rules,
}

/// Which topics an entry of `read` means.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// Those of a template.
    Template(Template),
    /// Those of a program, by the name of its preset.
    Preset(&'static str),
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
    Prefix(String),
}

impl Default for Announcements {
    fn default() -> Self {
        Self::Usual(true)
    }
}

#[derive(Deserialize)]
struct TopicKeys {
    topic: Spanned<String>,
}

impl Config {
    /// Reads `discovery`, and `read`: templates and presets, or tables with rules of their own,
    /// which come before the source's. Without `read` the usual presets count.
    ///
    /// # Errors
    /// When a template or a rule is none that this version knows, or nothing is read.
    pub fn read(section: &mut Section<'_>, rules: &Section<'_>) -> Result<Self, Fault> {
        let span = section.span();
        let DiscoveryKeys { discovery } = section.read()?;
        let prefix = match discovery {
            Announcements::Usual(true) => Some(PREFIX.to_owned()),
            Announcements::Usual(false) => None,
            Announcements::Prefix(prefix) => {
                if !is_name(&prefix) || prefix.contains(['+', '#']) || prefix.ends_with('/') {
                    let why = format!("`discovery` is no prefix of topics such as \"{PREFIX}\"");
                    return Err(Fault::in_span(span, why));
                }
                Some(prefix)
            }
        };
        let rules_of_source = rules.clone().read::<Rules>()?;
        let usual = preset::USUAL
            .map(|name| Topic { pattern: Pattern::Preset(name), rules: rules_of_source.clone() });
        let topics = match section.take("read") {
            Some(list) => topics(list, rules)?,
            None if prefix.is_some() => usual.into(),
            None => return Err(Fault::in_span(span, "missing key `read`, the topics to read")),
        };
        let discovery = prefix.map(|prefix| Discovery { prefix, rules: rules_of_source });
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
            let pattern = pattern(&Spanned::new(item.span(), text.to_owned()))?;
            topics.push(Topic { pattern, rules: rules.clone().read()? });
            continue;
        }
        let mut table = Section::of(item)?;
        let TopicKeys { topic } = table.read()?;
        let mut own = table.part::<Rules>();
        table.finish()?;
        own.inherit(rules);
        topics.push(Topic { pattern: pattern(&topic)?, rules: own.read()? });
    }
    if topics.is_empty() {
        return Err(Fault::in_span(span, "expected at least one topic"));
    }
    Ok(topics)
}

fn pattern(text: &Spanned<String>) -> Result<Pattern, Fault> {
    let topic = text.get_ref().as_str();
    if let Some(name) = preset::NAMES.into_iter().find(|name| *name == topic) {
        return Ok(Pattern::Preset(name));
    }
    if topic == PREFIX {
        let why = "what announces itself is read anyway, unless `discovery` is false";
        return Err(Fault::at(text, why));
    }
    if LATER.contains(&topic) {
        let why = format!("the preset \"{topic}\" is not supported by this version");
        return Err(Fault::at(text, why));
    }
    topic.parse().map(Pattern::Template).map_err(|error: String| Fault::at(text, error))
}
