//! `GET /api/v1/agents`: gateways and other agents, and what became of all that each has sent.

use std::net::IpAddr;

use axum::{
    Json,
    extract::{Query, State},
};
use serde::Serialize;
use tokio::sync::oneshot;
use valtronics_protocol::{counters::Counters, time::UnixMillis};

use super::{
    Api,
    auth::Authenticated,
    error::ApiError,
    extract::Read,
    page::{Limit, Page},
};
use crate::{
    auth::Scope,
    engine::{AgentView, EngineGone, Input, ListAgents},
    tally::{AgentId, AgentKind, AgentRecord, Tally},
};

#[derive(Serialize)]
pub(super) struct Agents {
    agents: Vec<Listed>,
    next: Option<String>,
}

/// An agent as HTTP shows it.
#[derive(Serialize)]
struct Listed {
    /// The gateway's; `null` for agents that others write.
    name: Option<String>,
    sub: String,
    queue: Option<String>,
    version: Option<String>,
    connected: bool,
    address: IpAddr,
    last_seen: UnixMillis,
    /// How many readings wait at the agent, as it said last.
    queue_depth: Option<u64>,
    clock_offset_ms: Option<i64>,
    counters: Counted,
    /// The agent's own counters.
    reported: Option<Counters>,
}

/// `received` is the sum of `stored`, `duplicated`, `expired`, `refused` and `pending`.
#[derive(Serialize)]
struct Counted {
    #[serde(flatten)]
    committed: Tally,
    /// Readings that no commit holds yet.
    pending: u64,
}

pub(super) async fn list(
    State(api): State<Api>,
    user: Authenticated,
    Read(Query(Page { limit: Limit(limit), cursor })): Read<Query<Page>>,
) -> Result<Json<Agents>, ApiError> {
    user.need(Scope::SystemRead)?;
    let (answer, answered) = oneshot::channel();
    let from = AgentId(cursor.unwrap_or_default());
    let request = ListAgents { from, most: limit + 1, answer };
    api.engine.send(Input::Agents(request)).await?;
    let mut found = answered.await.map_err(|_| EngineGone)?;
    let next = found.get(limit).map(|agent| agent.id.0.to_string());
    found.truncate(limit);
    Ok(Json(Agents { agents: found.into_iter().map(Listed::new).collect(), next }))
}

impl Listed {
    fn new(agent: AgentView) -> Self {
        let AgentView { key, connected, record, pending, .. } = agent;
        let AgentRecord { version, queue, address, last_seen, clock_offset_ms, tally, reported } =
            record;
        let committed = Tally { received: tally.received + pending, ..tally };
        Self {
            name: (key.kind == AgentKind::Gateway).then(|| key.name.to_string()),
            sub: key.sub.to_string(),
            queue: queue.map(|queue| queue.to_string()),
            version,
            connected,
            address,
            last_seen,
            queue_depth: reported.map(|reported| reported.waiting),
            clock_offset_ms,
            counters: Counted { committed, pending },
            reported,
        }
    }
}
