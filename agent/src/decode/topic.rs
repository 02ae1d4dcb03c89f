//! Topic templates: `plant/{site}/{device}/{metric}`.
//!
//! `{device}` and `{metric}` name what they stand for; any other name is a level of no meaning, as
//! `+` is. `#` at the end is any number of levels. A template without `{device}` gives the
//! source's name to its device.

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
            if levels.last() == Some(&Level::Rest) {
                return Err("# stands at the end only".into());
            }
            let name = level.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            let part = match (name, level) {
                (Some("device"), _) => Level::Device,
                (Some("metric"), _) => Level::Metric,
                (Some(name), _) if is_name(name) && !name.contains(['{', '}']) => Level::Any,
                (None, "+") => Level::Any,
                (None, "#") => Level::Rest,
                (None, literal) if !literal.contains(['{', '}', '+', '#', '\0']) => {
                    Level::Literal(literal.into())
                }
                _ => return Err(format!("`{level}` is no level of a topic such as a/{{device}}/b")),
            };
            if matches!(part, Level::Device | Level::Metric) && levels.contains(&part) {
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
            Level::Rest => "#".into(),
        };
        self.0.iter().map(level).collect::<Vec<_>>().join("/")
    }

    /// Reads a topic; `None` when it is another one's.
    #[must_use]
    pub fn read<'t>(&self, topic: &'t str) -> Option<Captures<'t>> {
        let mut captures = Captures { device: None, metric: None };
        let mut levels = topic.split('/');
        for part in &self.0 {
            if *part == Level::Rest {
                return Some(captures);
            }
            let level = levels.next()?;
            match part {
                Level::Literal(literal) if **literal != *level => return None,
                Level::Literal(_) | Level::Any | Level::Rest => {}
                Level::Device => captures.device = Some(level),
                Level::Metric => captures.metric = Some(level),
            }
        }
        levels.next().is_none().then_some(captures)
    }
}
