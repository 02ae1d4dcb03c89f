//! Whether the server lives, and whether it can do its work.

use axum::{extract::State, http::StatusCode};

use super::{Api, error::ApiError};

pub(super) async fn alive(State(api): State<Api>) -> Result<&'static str, ApiError> {
    api.engine.read(|_, _| ()).await?;
    Ok("ok\n")
}

pub(super) async fn ready(State(api): State<Api>) -> Result<&'static str, ApiError> {
    api.engine.read(|_, _| ()).await?;
    if api.store.is_writable() {
        return Ok("ok\n");
    }
    let why =
        "the store cannot write (is the disk full?): live data goes on, nothing is acknowledged";
    Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why).retry_after(5))
}
