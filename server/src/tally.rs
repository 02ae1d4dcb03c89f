//! What became of all that an agent has sent: the server's half of the proof that nothing is lost.
//!
//! A connection counts what it receives, and why it refuses something; the engine adds what it
//! stores. Both become durable in the transaction that holds the readings, so after any fault
//! `stored` says exactly what is in the store, and
//!
//! ```text
//! received = stored + duplicated + expired + refused (each reason)
//! ```
//!
//! Readings only; a message that cannot be read counts as one.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};
use valtronics_protocol::{counters::Counters, error::ErrorCode, time::UnixMillis};

/// Names an agent in the order in which agents came first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentId(pub u64);

/// By what an agent is known again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AgentKey {
    /// The subject of its token.
    pub sub: Arc<str>,
    /// What its name is of.
    pub kind: AgentKind,
    /// The name; empty when it has none.
    pub name: Arc<str>,
}

/// What the name of an agent is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AgentKind {
    /// Our own agent's gateway.
    Gateway = 0,
    /// The numbering of an agent that others write.
    Queue = 1,
}

/// What was counted of one agent's readings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Readings that came in.
    pub received: u64,
    /// Readings that are stored, or were until they were older than history is kept.
    pub stored: u64,
    /// Readings that came again, and were stored before.
    pub duplicated: u64,
    /// Readings that were older than history is kept when they came.
    pub expired: u64,
    /// Readings that were refused, by the code of the answer.
    pub refused: BTreeMap<String, u64>,
    /// Numbers that were left out: what they named was lost before it was sent.
    pub lost: u64,
    /// Status events that came in.
    pub events_received: u64,
    /// Those of them that came again.
    pub events_duplicated: u64,
}

impl Tally {
    /// Counts readings that are refused.
    pub fn refuse(&mut self, code: ErrorCode, count: u64) {
        if count > 0 {
            let name = serde_json::to_value(code).ok();
            let name = name.as_ref().and_then(|name| name.as_str()).unwrap_or("other");
            *self.refused.entry(name.to_owned()).or_default() += count;
        }
    }
}

impl std::ops::AddAssign<&Self> for Tally {
    fn add_assign(&mut self, other: &Self) {
        self.received = self.received.saturating_add(other.received);
        self.stored = self.stored.saturating_add(other.stored);
        self.duplicated = self.duplicated.saturating_add(other.duplicated);
        self.expired = self.expired.saturating_add(other.expired);
        for (code, count) in &other.refused {
            *self.refused.entry(code.clone()).or_default() += count;
        }
        self.lost = self.lost.saturating_add(other.lost);
        self.events_received = self.events_received.saturating_add(other.events_received);
        self.events_duplicated = self.events_duplicated.saturating_add(other.events_duplicated);
    }
}

/// What is known of an agent, and outlives the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentRecord {
    /// The agent's version, if it says one.
    pub version: Option<String>,
    /// The numbering that it uses, if it has one.
    pub queue: Option<Arc<str>>,
    /// Where it came from last.
    pub address: IpAddr,
    /// When something came from it last.
    pub last_seen: UnixMillis,
    /// How far its clock is ahead of the server's, in ms; null until it is measured.
    pub clock_offset_ms: Option<i64>,
    /// What the server has counted.
    pub tally: Tally,
    /// What the agent has counted, as it said last.
    pub reported: Option<Counters>,
}

/// A change of what is known of an agent.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentChange {
    /// Which.
    pub id: AgentId,
    /// By what it is known again.
    pub key: AgentKey,
    /// What is known now; `None` when it is forgotten.
    pub record: Option<AgentRecord>,
    /// Whether more has changed than sums and the last sign of life, which do so all the time.
    pub is_new: bool,
}
