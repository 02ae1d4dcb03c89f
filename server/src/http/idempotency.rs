//! The header `Idempotency-Key` of `POST /api/v1/telemetry`.

use std::sync::Arc;

use axum::http::{HeaderMap, StatusCode};
use tokio::sync::oneshot;
use valtronics_protocol::time::UnixMillis;

use super::{Api, error::ApiError};
use crate::{
    engine::{EngineGone, Input},
    used_key::{Digest, KeyState, Once, UsedKey},
};

/// The most bytes of a key: a UUID has 36, and whoever needs more can hash.
const MAX_KEY_BYTES: usize = 255;

/// Reads the key that a request carries for its body.
pub(super) fn read(
    headers: &HeaderMap,
    sub: &Arc<str>,
    body: &str,
    at: UnixMillis,
) -> Result<Option<UsedKey>, ApiError> {
    let mut values = headers.get_all("idempotency-key").into_iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().unwrap_or_default();
    let good =
        (1..=MAX_KEY_BYTES).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    if !good || values.next().is_some() {
        let why = "Idempotency-Key is one key of 1 to 255 visible ASCII characters";
        return Err(ApiError::bad_request(why));
    }
    let (key, body) = (Digest::of(key), Digest::of(body));
    Ok(Some(UsedKey { sub: Arc::clone(sub), key, body, at }))
}

/// Tells whether a body was taken under its key before.
pub(super) async fn was_taken(api: &Api, wanted: &UsedKey) -> Result<bool, ApiError> {
    let (answer, answered) = oneshot::channel();
    let once = Once { wanted: wanted.clone(), answer };
    api.engine.send(Input::LookAtKey(once)).await?;
    match answered.await.map_err(|_| EngineGone)? {
        KeyState::Repeated => Ok(true),
        state => may_go_on(state).map(|()| false),
    }
}

/// Refuses what cannot be taken under its key.
pub(super) fn may_go_on(state: KeyState) -> Result<(), ApiError> {
    match state {
        // One that is under way is answered when the first is durable.
        KeyState::New | KeyState::Repeated => Ok(()),
        KeyState::OtherBody => {
            let why = "this Idempotency-Key was used for another body: use a new one";
            Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, why))
        }
        KeyState::Full => {
            let why = "no more Idempotency-Keys of this day can be remembered: send none";
            Err(ApiError::new(StatusCode::TOO_MANY_REQUESTS, why).retry_after(60))
        }
    }
}
