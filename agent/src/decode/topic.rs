//! Topic templates: `plant/{site}/{device}/{metric}`.
//!
//! `{device}` and `{metric}` name what they stand for; any other name is a level of no meaning, as
//! `+` is. So two sites must not have devices of one name: then they need templates of their own
//! (`plant/north/{device}/{metric}` under a source called north). `#` at the end is any number of
//! levels, and `{metric...}` is as well, but names the metric. A template without `{device}` gives
//! the source's name to its device.

use valtronics_protocol::reading::is_name;

/// A template of topics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Level>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Literal(Box<str>),
    Device,
    Metric,
    Any,
    Rest,
    Metrics,
}

/// What a topic says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Captures<'t> {
    /// The device.
    pub device: Option<&'t str>,
    /// The metric, or what comes before the names of a document.
    pub metric: Option<&'t str>,
}

impl std::str::FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut levels = Vec::new();
        for level in text.split('/') {
            match levels.last() {
                Some(Level::Rest) => return Err("# stands at the end only".into()),
                Some(Level::Metrics) => return Err("{metric...} stands at the end only".into()),
                _ => {}
            }
            let name = level.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let part = match (name, level) {
                (Some("device"), _) => Level::Device,
                (Some("metric"), _) => Level::Metric,
                (Some("metric..."), _) => Level::Metrics,
                (Some(name), _) if is_name(name) && !name.contains(['{', '}']) => Level::Any,
                (None, "+") => Level::Any,
                (None, "#") => Level::Rest,
                (None, literal) if !literal.contains(['{', '}', '+', '#', '\0']) => {
                    Level::Literal(literal.into())
                }
                _ => {
                    return Err(format!("`{level}` is no level of a topic such as a/{{device}}/b"));
                }
            };
            let is_second = levels.contains(&part)
                || (part == Level::Metrics && levels.contains(&Level::Metric));
            if is_second && matches!(part, Level::Device | Level::Metric | Level::Metrics) {
                return Err(format!("`{level}` stands twice"));
            }
            levels.push(part);
        }
        Ok(Self(levels))
    }
}

impl Template {
    /// Returns what is subscribed to (MQTT 3.1.1, section 4.7).
    #[must_use]
    pub fn filter(&self) -> String {
        let level = |level: &Level| match level {
            Level::Literal(literal) => literal.to_string(),
            Level::Device | Level::Metric | Level::Any => "+".into(),
            Level::Rest | Level::Metrics => "#".into(),
        };
        self.0.iter().map(level).collect::<Vec<_>>().join("/")
    }

    /// Reads a topic; `None` when it is another one's.
    #[must_use]
    pub fn read<'t>(&self, topic: &'t str) -> Option<Captures<'t>> {
        let mut captures = Captures { device: None, metric: None };
        let mut rest = Some(topic);
        for part in &self.0 {
            match part {
                Level::Rest => return Some(captures),
                Level::Metrics => {
                    captures.metric = rest;
                    return Some(captures);
                }
                Level::Literal(_) | Level::Any | Level::Device | Level::Metric => {}
            }
            let (level, left) = match rest?.split_once('/') {
                Some((level, left)) => (level, Some(left)),
                None => (rest?, None),
            };
            rest = left;
            match part {
                Level::Literal(literal) if **literal != *level => return None,
                Level::Literal(_) | Level::Any | Level::Rest | Level::Metrics => {}
                Level::Device => captures.device = Some(level),
                Level::Metric => captures.metric = Some(level),
            }
        }
        rest.is_none().then_some(captures)
    }
}
