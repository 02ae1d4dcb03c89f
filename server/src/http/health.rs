//! Whether the server lives, and whether it can do its work.

use axum::{extract::State, http::StatusCode};

use super::{Api, error::ApiError};
use crate::store_task::Health;

pub(super) async fn alive(State(api): State<Api>) -> Result<&'static str, ApiError> {
    api.engine.read(|_, _| ()).await?;
    Ok("ok\n")
}

pub(super) async fn ready(State(api): State<Api>) -> Result<&'static str, ApiError> {
    api.engine.read(|_, _| ()).await?;
    let why = match api.store.health() {
        Health::Good => return Ok("ok\n"),
        Health::Short => "the disk is full, but for the room that was kept for this: free some",
        Health::Full => {
            "the disk is full: live data goes on, nothing is acknowledged until there is room"
        }
        Health::Failing => {
            "the store cannot write: live data goes on, nothing is acknowledged until it can"
        }
    };
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why).retry_after(5))
}
