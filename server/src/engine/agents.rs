//! The agents that were ever here, and what was counted of each.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use tokio::sync::oneshot;
use valtronics_protocol::{counters::Counters, time::UnixMillis};

use crate::tally::{AgentChange, AgentId, AgentKey, AgentRecord, Tally};

/// The most agents of one subject that are remembered: as many as it may have gateways, and as many
/// again with names that it uses no more. Beyond, the one that was away longest is forgotten.
const MOST_OF_SUB: usize = 2000;

/// An agent has come.
#[derive(Debug)]
pub struct AgentCame {
    /// By what it is known again.
    pub key: AgentKey,
    /// The agent's version, if it says one.
    pub version: Option<String>,
    /// The numbering that it uses, if it has one.
    pub queue: Option<Arc<str>>,
    /// How far its clock is ahead of ours, in ms; `None` where it does not say its time.
    pub clock_offset_ms: Option<i64>,
    /// Where it comes from.
    pub address: IpAddr,
    /// Where the answer goes.
    pub answer: oneshot::Sender<AgentId>,
}

/// An agent at one moment, with what is committed of it.
#[derive(Debug, Clone)]
pub struct AgentView {
    /// Which.
    pub id: AgentId,
    /// By what it is known again.
    pub key: AgentKey,
    /// Whether it has a connection.
    pub connected: bool,
    /// What is known; its tally is that of the last commit.
    pub record: AgentRecord,
    /// How many readings came in that no commit holds yet.
    pub pending: u64,
}

/// Somebody wants to see agents.
#[derive(Debug)]
pub struct ListAgents {
    /// From which on.
    pub from: AgentId,
    /// How many at most.
    pub most: usize,
    /// Where the answer goes.
    pub answer: oneshot::Sender<Vec<AgentView>>,
}

#[derive(Debug, Default)]
pub(super) struct Agents {
    known: BTreeMap<AgentId, Known>,
    ids: HashMap<AgentKey, AgentId>,
    last: AgentId,
    /// Those that changed, and whether more of them has than sums.
    changed: BTreeMap<AgentId, bool>,
    forgotten: Vec<AgentChange>,
    /// What the commit that is under way holds.
    under_way: Vec<(AgentId, Tally)>,
}

#[derive(Debug)]
struct Known {
    key: AgentKey,
    record: AgentRecord,
    committed: Tally,
    connections: usize,
}

impl Agents {
    pub(super) fn restore(stored: Vec<(AgentId, AgentKey, AgentRecord)>) -> Self {
        let mut agents = Self::default();
        for (id, key, record) in stored {
            let committed = record.tally.clone();
            agents.last = agents.last.max(id);
            agents.ids.insert(key.clone(), id);
            agents.known.insert(id, Known { key, record, committed, connections: 0 });
        }
        agents
    }

    /// Takes in an agent, and tells which it is.
    pub(super) fn came(&mut self, came: AgentCame, now: UnixMillis) {
        let AgentCame { key, version, queue, clock_offset_ms, address, answer } = came;
        let id = match self.ids.get(&key) {
            Some(id) => *id,
            None => {
                self.make_room(&key.sub);
                self.last = AgentId(self.last.0 + 1);
                self.ids.insert(key.clone(), self.last);
                self.last
            }
        };
        let known = self.known.entry(id).or_insert_with(|| Known {
            key,
            record: AgentRecord {
                version: None,
                queue: None,
                address,
                last_seen: now,
                clock_offset_ms,
                tally: Tally::default(),
                reported: None,
            },
            committed: Tally::default(),
            connections: 0,
        });
        known.connections += 1;
        let record = &mut known.record;
        (record.version, record.queue, record.address) = (version, queue, address);
        (record.last_seen, record.clock_offset_ms) = (now, clock_offset_ms);
        self.changed.insert(id, true);
        // Whoever asked may have gone: then its end comes, too.
        let _ = answer.send(id);
    }

    /// Notes that a connection has ended.
    pub(super) fn gone(&mut self, id: AgentId, now: UnixMillis) {
        if let Some(known) = self.known.get_mut(&id) {
            known.connections = known.connections.saturating_sub(1);
            known.record.last_seen = now;
            self.changed.entry(id).or_default();
        }
    }

    /// Adds what was counted of a batch.
    pub(super) fn count(
        &mut self,
        id: AgentId,
        tally: &Tally,
        reported: Option<Box<Counters>>,
        at: UnixMillis,
    ) {
        if let Some(known) = self.known.get_mut(&id) {
            let is_new = reported.is_some() || !tally.refused.is_empty();
            *self.changed.entry(id).or_default() |= is_new;
            known.record.tally += tally;
            known.record.reported =
                reported.map_or(known.record.reported, |reported| Some(*reported));
            known.record.last_seen = known.record.last_seen.max(at);
        }
    }

    /// Tells whether nothing is to be written.
    pub(super) fn is_committed(&self) -> bool {
        self.changed.is_empty() && self.forgotten.is_empty()
    }

    /// Takes out what the next commit is to hold.
    pub(super) fn take_changes(&mut self) -> Vec<AgentChange> {
        let mut changes = std::mem::take(&mut self.forgotten);
        for (id, is_new) in std::mem::take(&mut self.changed) {
            if let Some(Known { key, record, .. }) = self.known.get(&id) {
                self.under_way.push((id, record.tally.clone()));
                let (key, record) = (key.clone(), Some(record.clone()));
                changes.push(AgentChange { id, key, record, is_new });
            }
        }
        changes
    }

    /// Notes that what was taken out is committed.
    pub(super) fn committed(&mut self) {
        for (id, tally) in self.under_way.drain(..) {
            if let Some(known) = self.known.get_mut(&id) {
                known.committed = tally;
            }
        }
    }

    /// Answers who wants to see agents.
    pub(super) fn list(&self, request: ListAgents) {
        let ListAgents { from, most, answer } = request;
        // Whoever asked may have gone.
        let _ = answer.send(self.views(from, most));
    }

    fn views(&self, from: AgentId, most: usize) -> Vec<AgentView> {
        let view = |(id, known): (&AgentId, &Known)| AgentView {
            id: *id,
            key: known.key.clone(),
            connected: known.connections > 0,
            record: AgentRecord { tally: known.committed.clone(), ..known.record.clone() },
            pending: known.record.tally.received - known.committed.received,
        };
        self.known.range(from..).take(most).map(view).collect()
    }

    fn make_room(&mut self, sub: &Arc<str>) {
        let of_sub = || self.known.iter().filter(|(_, known)| known.key.sub == *sub);
        if of_sub().count() < MOST_OF_SUB {
            return;
        }
        let away = of_sub().filter(|(_, known)| known.connections == 0);
        let Some(id) = away.min_by_key(|(_, known)| known.record.last_seen).map(|(id, _)| *id)
        else {
            return;
        };
        if let Some(Known { key, .. }) = self.known.remove(&id) {
            self.ids.remove(&key);
            self.changed.remove(&id);
            self.forgotten.push(AgentChange { id, key, record: None, is_new: true });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::AgentKind;

    fn came(agents: &mut Agents, name: usize, at: i64) -> AgentId {
        let (answer, mut answered) = oneshot::channel();
        let (sub, name) = ("site".into(), name.to_string().into());
        let key = AgentKey { sub, kind: AgentKind::Gateway, name };
        let address = std::net::Ipv4Addr::LOCALHOST.into();
        let (version, queue, clock_offset_ms) = (None, None, None);
        let came = AgentCame { key, version, queue, clock_offset_ms, address, answer };
        agents.came(came, UnixMillis(at));
        answered.try_recv().unwrap()
    }

    #[test]
    fn what_is_not_committed_is_pending() {
        let mut agents = Agents::default();
        let id = came(&mut agents, 1, 0);
        let tally = Tally { received: 3, stored: 2, duplicated: 1, ..Tally::default() };
        agents.count(id, &tally, None, UnixMillis(5));
        let shown = |agents: &Agents| {
            let view = agents.views(AgentId(0), 9).pop().unwrap();
            (view.record.tally.stored, view.pending)
        };
        assert_eq!(shown(&agents), (0, 3));
        assert_eq!(agents.take_changes().len(), 1);
        agents.count(id, &tally, None, UnixMillis(6));
        assert_eq!(shown(&agents), (0, 6));
        agents.committed();
        assert_eq!(shown(&agents), (2, 3));
        assert!(!agents.is_committed());
    }

    #[test]
    fn the_agent_that_was_away_longest_is_forgotten() {
        let mut agents = Agents::default();
        for n in 0..MOST_OF_SUB {
            let id = came(&mut agents, n, n as i64);
            if n > 0 {
                agents.gone(id, UnixMillis(n as i64));
            }
        }
        agents.take_changes();
        let new = came(&mut agents, MOST_OF_SUB, 9999);
        let changes = agents.take_changes();
        let shown: Vec<_> = changes.iter().map(|c| (c.id, c.record.is_some())).collect();
        // The first one is connected.
        assert_eq!(shown, [(AgentId(2), false), (new, true)]);
        assert_eq!(agents.views(AgentId(0), usize::MAX).len(), MOST_OF_SUB);
    }
}
