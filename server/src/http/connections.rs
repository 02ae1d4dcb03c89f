//! `GET /api/v1/connections`: who is connected, and what each has sent and got; and
//! `PUT /api/v1/connections/{id}/log`: one connection's messages in the log for a while.

use std::{net::IpAddr, time::Duration};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use valtronics_protocol::time::{UnixMillis, period};

use super::{
    Api,
    auth::Authenticated,
    error::ApiError,
    extract::Read,
    page::{Limit, Page},
};
use crate::{
    auth::Scope,
    hub::SessionId,
    monitor::{Connection, Sum},
};

/// The shortest and the longest time of a raised log level: shorter shows nothing, and what is
/// forgotten fills the disk for a day at most.
const LOG_FOR: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(86_400);

#[derive(Serialize)]
pub(super) struct Connections {
    stats: Stats,
    connections: Vec<Listed>,
    next: Option<String>,
}

/// The figures of the original's `ConnectionMonitor`: of those who authenticated, since the start.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    total_connections: u64,
    active_connections: u64,
    messages_received: u64,
    messages_sent: u64,
    /// In seconds, of the active ones.
    average_connection_duration: f64,
    messages_per_connection: f64,
}

/// A connection as HTTP shows it.
#[derive(Serialize)]
pub(super) struct Listed {
    id: u64,
    /// `null` until it has authenticated.
    user: Option<String>,
    address: IpAddr,
    connected_at: UnixMillis,
    duration_seconds: f64,
    messages_received: u64,
    messages_sent: u64,
    subscriptions: usize,
    queued_bytes: usize,
    /// How many superseded messages were merged away, because it read too slowly.
    lagged: u64,
    log_level: Level,
}

/// How much of a connection is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    /// What is out of the ordinary.
    Info,
    /// Each message.
    Debug,
}

/// `{"level":"debug","for":"10m"}`; without `for` ten minutes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    level: Level,
    #[serde(rename = "for", default = "ten_minutes", with = "period")]
    period: Duration,
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

pub(super) async fn list(
    State(api): State<Api>,
    user: Authenticated,
    Read(Query(Page { limit: Limit(limit), cursor })): Read<Query<Page>>,
) -> Result<Json<Connections>, ApiError> {
    user.need(Scope::Admin)?;
    let monitor = &api.gate.monitor;
    let stats = Stats::new(&monitor.sums().subscribers);
    let from = SessionId(cursor.unwrap_or_default());
    let mut found = monitor.subscribers(from, limit + 1);
    let next = found.get(limit).map(|connection| connection.id.0.to_string());
    found.truncate(limit);
    let connections = found.iter().map(|connection| Listed::new(connection)).collect();
    Ok(Json(Connections { stats, connections, next }))
}

pub(super) async fn log(
    State(api): State<Api>,
    user: Authenticated,
    Read(Path(id)): Read<Path<String>>,
    Read(body): Read<String>,
) -> Result<Json<Listed>, ApiError> {
    let admin = user.need(Scope::Admin)?;
    let wanted: Wanted = serde_json::from_str(&body).map_err(|error| match error.is_data() {
        true => unprocessable(error.to_string()),
        false => ApiError::bad_request(format!("the body is not JSON: {error}")),
    })?;
    if !LOG_FOR.contains(&wanted.period) {
        return Err(unprocessable("for is from 1s to 24h"));
    }
    let found = id.parse().ok().and_then(|id| api.gate.monitor.subscriber(SessionId(id)));
    let connection = found.ok_or_else(|| ApiError::not_found("connection"))?;
    let period = match wanted.level {
        Level::Info => Duration::ZERO,
        Level::Debug => wanted.period,
    };
    connection.log_for(period);
    let (connection_id, seconds) = (connection.id.0, period.as_secs());
    tracing::info!(connection = connection_id, by = %admin.sub, level = ?wanted.level, seconds, "a connection's log level is set");
    Ok(Json(Listed::new(&connection)))
}

fn unprocessable(why: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, why)
}

impl Stats {
    fn new(sum: &Sum) -> Self {
        let (received, sent) = (sum.figures.received.messages.get(), sum.figures.messages_sent());
        Self {
            total_connections: sum.admitted,
            active_connections: sum.authenticated,
            messages_received: received,
            messages_sent: sent,
            average_connection_duration: ratio(sum.lived.as_secs_f64(), sum.authenticated),
            messages_per_connection: ratio((received + sent) as f64, sum.admitted),
        }
    }
}

/// Divides, to the thousandth; zero of none.
fn ratio(of: f64, by: u64) -> f64 {
    if by == 0 { 0.0 } else { thousandths(of / by as f64) }
}

fn thousandths(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

impl Listed {
    fn new(connection: &Connection) -> Self {
        let depth = connection.depth().unwrap_or_default();
        Self {
            id: connection.id.0,
            user: connection.user().map(ToString::to_string),
            address: connection.address,
            connected_at: connection.connected_at,
            duration_seconds: thousandths(connection.age().as_secs_f64()),
            messages_received: connection.figures.received.messages.get(),
            messages_sent: connection.figures.messages_sent(),
            subscriptions: depth.subscriptions,
            queued_bytes: depth.queued_bytes,
            lagged: depth.merged_telemetry + depth.merged_system,
            log_level: if connection.is_logged() { Level::Debug } else { Level::Info },
        }
    }
}
