//! The alert rules, and how they are edited.

use std::sync::Arc;

use tokio::sync::oneshot;
use valtronics_protocol::time::UnixMillis;

use super::{Behind, Engine};
use crate::{commit::RuleChange, domain::rule::Rule, ingest::Ticket};

/// The most rules that are edited over HTTP: as many as one answer may list (programs, "HTTP"). Each
/// remembers something of every device that it covers.
const MOST_STORED: usize = 1000;

/// The alert rules by where they come from; a name stands once.
#[derive(Debug, Default)]
pub struct Rules {
    /// Of files: read-only over HTTP.
    pub files: Vec<Rule>,
    /// Edited over HTTP.
    pub stored: Vec<Rule>,
}

/// A change of the alert rules.
pub enum RuleEdit {
    /// The rules of files were read again.
    Files(Vec<Rule>),
    /// A rule was written over HTTP; the ticket is told when that is durable.
    Put(Rule, Ticket, oneshot::Sender<Result<(), NotEdited>>),
    /// A rule was deleted over HTTP: whether there was one; the same.
    Delete(Arc<str>, Ticket, oneshot::Sender<Result<bool, NotEdited>>),
}

/// Why a rule is not edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotEdited {
    /// It is of a file.
    #[error("the rule stands in a file of the server: edit it there")]
    ReadOnly,
    /// It would be one too many.
    #[error("there are {MOST_STORED} rules already, the most there may be: delete one")]
    TooMany,
    /// It would have to wait for the store for too long.
    #[error(transparent)]
    Behind(#[from] Behind),
}

impl Rules {
    /// Returns the rules that count: a file's before one of the same name that was stored.
    #[must_use]
    pub fn all(&self) -> Vec<Rule> {
        let of_file = |rule: &&Rule| self.files.iter().any(|file| file.name == rule.name);
        let stored = self.stored.iter().filter(|rule| !of_file(rule));
        self.files.iter().chain(stored).cloned().collect()
    }

    /// Returns the rules of files as a JSON array.
    #[must_use]
    pub fn files_json(&self) -> Arc<str> {
        serde_json::to_string(&self.files).expect("a rule has text keys only").into()
    }

    /// Takes in a rule, or what replaces one.
    fn put(&mut self, rule: Rule) -> Result<(), NotEdited> {
        self.in_file(&rule.name)?;
        let is_full = self.stored.len() >= MOST_STORED;
        match self.stored.iter_mut().find(|known| known.name == rule.name) {
            Some(known) => *known = rule,
            None if is_full => return Err(NotEdited::TooMany),
            None => self.stored.push(rule),
        }
        Ok(())
    }

    /// Lets go of a rule; false when there is none.
    fn delete(&mut self, name: &str) -> Result<bool, NotEdited> {
        self.in_file(name)?;
        let before = self.stored.len();
        self.stored.retain(|rule| *rule.name != *name);
        Ok(self.stored.len() < before)
    }

    fn in_file(&self, name: &str) -> Result<(), NotEdited> {
        let of_file = self.files.iter().any(|file| *file.name == *name);
        if of_file { Err(NotEdited::ReadOnly) } else { Ok(()) }
    }
}

impl Engine {
    /// Changes the alert rules.
    pub(super) fn edit_rules(&mut self, edit: RuleEdit, now: UnixMillis) {
        match edit {
            RuleEdit::Files(files) => {
                self.rules.files = files;
                self.pending.file_rules = Some(self.rules.files_json());
            }
            RuleEdit::Put(rule, ticket, answer) => {
                if let Err(behind) = self.request() {
                    // Whoever asked may have gone.
                    let _ = answer.send(Err(behind.into()));
                    return;
                }
                let name = Arc::clone(&rule.name);
                let json = serde_json::to_string(&rule).expect("a rule has text keys only");
                let put = self.rules.put(rule);
                let is_done = put.is_ok();
                // Whoever asked may have gone; what he wanted is done all the same.
                let _ = answer.send(put);
                if !is_done {
                    return;
                }
                self.pending.rules.push(RuleChange { name, json: Some(json.into()) });
                self.wait(Some(ticket), None);
            }
            RuleEdit::Delete(name, ticket, answer) => {
                if let Err(behind) = self.request() {
                    let _ = answer.send(Err(behind.into()));
                    return;
                }
                let deleted = self.rules.delete(&name);
                let _ = answer.send(deleted);
                if deleted != Ok(true) {
                    return self.wait(Some(ticket), None);
                }
                self.pending.rules.push(RuleChange { name, json: None });
                self.wait(Some(ticket), None);
            }
        }
        let mut drafts = Vec::new();
        self.alerts.set_rules(self.rules.all(), now, &mut drafts);
        for device in self.state.devices_mut() {
            device.watch(&mut self.alerts, now, &mut drafts);
        }
        self.draft(drafts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str) -> Rule {
        Rule::parse_json(r#"{"metric":"t","kind":"threshold","above":1}"#, Some(name)).unwrap()
    }

    #[test]
    fn there_is_an_end_to_rules() {
        let mut rules = Rules { files: vec![rule("of-file")], ..Rules::default() };
        for n in 0..MOST_STORED {
            assert_eq!(rules.put(rule(&n.to_string())), Ok(()));
        }
        assert_eq!(rules.put(rule("more")), Err(NotEdited::TooMany));
        assert_eq!(rules.put(rule("7")), Ok(()), "it is there already");
        assert_eq!(rules.put(rule("of-file")), Err(NotEdited::ReadOnly));
        assert_eq!(rules.delete("of-file"), Err(NotEdited::ReadOnly));
        assert_eq!((rules.delete("7"), rules.delete("7")), (Ok(true), Ok(false)));
        assert_eq!(rules.put(rule("more")), Ok(()));
        assert_eq!(rules.all().len(), MOST_STORED + 1);
    }
}
