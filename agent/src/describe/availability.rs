//! Whether a device is there, by what topics say of it: Home Assistant's `availability`.

use std::sync::Arc;

use super::template::{Engine, Payload, Template, spelled};

/// How several topics count together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Mode {
    /// All have to say so.
    All,
    /// One has to say so.
    Any,
    /// The last one that said something counts.
    #[default]
    Latest,
}

/// A topic, and its words for "available" and "not available".
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Watched {
    /// The topic.
    pub topic: Arc<str>,
    /// Where the word stands in the message.
    pub template: Template,
    /// The word for "available".
    pub available: Box<str>,
    /// The word for "not available".
    pub not_available: Box<str>,
}

/// When something is available.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    /// How the topics count.
    pub mode: Mode,
    /// The topics.
    pub topics: Vec<Watched>,
}

/// A rule, and what its topics have said.
#[derive(Debug)]
pub struct Availability {
    rule: Arc<Rule>,
    said: Vec<Option<bool>>,
    latest: Option<bool>,
}

impl Availability {
    /// Begins with nothing said.
    #[must_use]
    pub fn new(rule: Arc<Rule>) -> Self {
        let said = vec![None; rule.topics.len()];
        Self { rule, said, latest: None }
    }

    /// Returns the rule.
    #[must_use]
    pub fn rule(&self) -> &Arc<Rule> {
        &self.rule
    }

    /// Takes what a topic says; what is neither word is none of it.
    pub fn hear(&mut self, topic: &str, payload: &Payload<'_>, engine: &Engine) {
        for (watched, said) in self.rule.topics.iter().zip(&mut self.said) {
            if *watched.topic != *topic {
                continue;
            }
            let Ok(Some(value)) = engine.value(&watched.template, payload) else { continue };
            let word = spelled(&value);
            let heard = match () {
                () if word.eq_ignore_ascii_case(&watched.available) => true,
                () if word.eq_ignore_ascii_case(&watched.not_available) => false,
                () => continue,
            };
            *said = Some(heard);
            self.latest = Some(heard);
        }
    }

    /// Tells whether it is there; `None` while that is not known.
    #[must_use]
    pub fn is_available(&self) -> Option<bool> {
        let (mut all, mut any) = (Some(true), Some(false));
        for said in &self.said {
            match said {
                Some(true) => any = Some(true),
                Some(false) => all = Some(false),
                None => {
                    all = all.filter(|all| !all);
                    any = any.filter(|any| *any);
                }
            }
        }
        match self.rule.mode {
            Mode::All => all,
            Mode::Any => any,
            Mode::Latest => self.latest,
        }
    }
}
