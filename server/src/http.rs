//! HTTP: the upgrade to WebSocket, and our own API beside it.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Router, middleware,
    routing::{get, post, put},
};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::{
    engine::EngineHandle, history::History, hub::SessionId, session::Gate, store_task::StoreHandle,
    uplink::Uplinks,
};

mod agents;
mod alerts;
mod auth;
mod connections;
mod cors;
mod devices;
mod durable;
mod error;
mod extract;
mod health;
mod history;
mod idempotency;
mod metrics;
mod openapi;
mod page;
mod parameter;
mod rules;
mod telemetry;
mod upgrade;

/// What the handlers share.
#[derive(Clone)]
pub struct Api(Arc<Shared>);

/// The parts of [`Api`].
pub struct Shared {
    /// The door.
    pub gate: Arc<Gate>,
    /// The way to the engine.
    pub engine: EngineHandle,
    /// The way to the registry.
    pub store: StoreHandle,
    /// The way to what is stored.
    pub history: History,
    /// What uplinks share.
    pub uplinks: Arc<Uplinks>,
    /// Where connections live.
    pub connections: TaskTracker,
    /// Origins that may connect besides the server's own.
    pub origins: watch::Receiver<Vec<String>>,
    /// The server listens on loopback only.
    pub loopback_only: bool,
    /// The next session's name.
    pub next_session: std::sync::atomic::AtomicU64,
    /// What all HTTP intake may have under way, in bytes.
    pub intake: Arc<tokio::sync::Semaphore>,
    /// `/metrics` needs no token.
    pub metrics_open: bool,
}

/// The address of the client, which a trusted proxy may have said.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub IpAddr);

impl std::ops::Deref for Api {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Shared {
    fn new_session(&self) -> SessionId {
        SessionId(self.next_session.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }
}

/// The largest body in bytes (programs, "HTTP").
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// Makes the routes.
pub fn router(shared: Shared) -> Router {
    let api = Api(Arc::new(shared));
    Router::new()
        .route("/ws", get(upgrade::all_channels))
        .route("/ws/{channel}", get(upgrade::one_channel))
        .route("/uplink", get(upgrade::uplink))
        // For the routes above only.
        .route_layer(middleware::from_fn_with_state(api.clone(), upgrade::note_refusal))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::text))
        .route("/api/v1/openapi.json", get(openapi::describe))
        .route("/api/v1/agents", get(agents::list))
        .route("/api/v1/connections", get(connections::list))
        .route("/api/v1/connections/{id}/log", put(connections::log))
        .route("/api/v1/devices", get(devices::list))
        .route("/api/v1/devices/{id}", get(devices::one))
        .route("/api/v1/devices/{id}/telemetry", get(history::read))
        .route("/api/v1/alerts", get(alerts::list))
        .route("/api/v1/alerts/{id}/acknowledge", post(alerts::acknowledge))
        .route("/api/v1/alerts/{id}/resolve", post(alerts::resolve))
        .route("/api/v1/alerts/{id}/shelve", post(alerts::shelve))
        .route("/api/v1/rules", get(rules::list))
        .route("/api/v1/rules/{name}", get(rules::one).put(rules::put).delete(rules::delete))
        .route("/api/v1/telemetry", post(telemetry::post))
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(api.clone(), cors::answer))
        .with_state(api)
}

/// Makes the answer to whoever speaks plain HTTP where only TLS is served.
pub fn only_tls() -> Router {
    Router::new().fallback(error::only_tls)
}
