//! What the engine takes in, one after the other.

use std::sync::Arc;

use valtronics_protocol::request::{MessageId, Subscribe, Unsubscribe};

use super::{AdmitGateway, AgentCame, AlertChange, ListAgents, Look, OpenRequest, RuleEdit};
use crate::{
    auth::Claims,
    commit::{Committed, Oldest, RegistryChange},
    hub::{HubLimits, Page, SessionId, SystemSample},
    ingest::Batch,
    outbox::Outbox,
    tally::AgentId,
    used_key::Once,
};

/// What a session asks of the engine.
#[derive(Debug)]
pub enum Command {
    /// A connection has authenticated.
    Attach {
        /// Which.
        session: SessionId,
        /// Where its messages go.
        outbox: Arc<Outbox>,
        /// What its token says.
        claims: Claims,
    },
    /// It has a new token.
    Regrant {
        /// Which.
        session: SessionId,
        /// What its token says.
        claims: Claims,
    },
    /// It subscribes.
    Subscribe {
        /// Which.
        session: SessionId,
        /// What it wants.
        subscribe: Subscribe,
        /// What the answer carries back.
        id: Option<MessageId>,
    },
    /// It has authenticated on a path that subscribes by itself.
    SubscribeEndpoint {
        /// Which.
        session: SessionId,
        /// What the path and its query ask for.
        subscribe: Subscribe,
    },
    /// It unsubscribes.
    Unsubscribe {
        /// Which.
        session: SessionId,
        /// What it wants no more.
        unsubscribe: Unsubscribe,
        /// What the answer carries back.
        id: Option<MessageId>,
    },
    /// It has drained its outbox.
    Drained(SessionId),
    /// It has ended.
    Detach(SessionId),
}

impl Command {
    /// Tells whether the outbox counts an answer to it.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        match self {
            Self::Regrant { .. }
            | Self::Subscribe { .. }
            | Self::SubscribeEndpoint { .. }
            | Self::Unsubscribe { .. } => true,
            Self::Attach { .. } | Self::Drained(_) | Self::Detach(_) => false,
        }
    }
}

/// What everybody else asks of the engine.
pub enum Input {
    /// Readings and status reports.
    Batch(Batch),
    /// Names that have come into being; always before the first batch that uses them.
    Registered(Vec<RegistryChange>),
    /// The store has committed what it was given last.
    Committed(Committed),
    /// The store has read events that are not at hand.
    Page(Page),
    /// The store has let go of what is older than these positions.
    Pruned(Oldest),
    /// A gateway wants to connect.
    AdmitGateway(AdmitGateway),
    /// A gateway has connected, or its connection has ended.
    Gateway {
        /// The subject of its token.
        sub: Arc<str>,
        /// Its name.
        name: Arc<str>,
        /// Whether it has come.
        connected: bool,
    },
    /// An agent has come.
    AgentCame(AgentCame),
    /// One of its connections has ended.
    AgentGone(AgentId),
    /// Somebody asks whether an idempotency key was used.
    LookAtKey(Once),
    /// Somebody wants to see agents.
    Agents(ListAgents),
    /// A connection takes a numbering over.
    OpenQueue(OpenRequest),
    /// The state of the host.
    System(SystemSample),
    /// Changed limits.
    Limits(HubLimits),
    /// Rules that replace those of files, or one edited over HTTP.
    Rules(RuleEdit),
    /// An alert acknowledged, shelved or resolved over HTTP.
    Alert(AlertChange),
    /// Somebody wants to look at the state.
    Read(Look),
    /// Tell this part of the subscribers, of so many, that the server goes away.
    Goodbye {
        /// Which part, from 0.
        part: u64,
        /// Of how many.
        parts: u64,
    },
    /// Commit what is left, and end.
    Stop,
}
