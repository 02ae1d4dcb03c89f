//! `POST /api/v1/telemetry`: readings from whatever can speak HTTP.

use std::sync::{Arc, atomic::Ordering};

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
};
use tokio::sync::oneshot;

use super::{
    Api, auth::Authenticated, durable::Durable, error::ApiError, extract::Read, idempotency,
};
use crate::{
    auth::Scope,
    clock,
    engine::{EngineGone, Input},
    ingest::{
        Batch, json,
        names::Names,
        resolve::{merge, take_learned, unknown},
    },
    store_task::{RegisterError, Registrant},
    used_key::Once,
};

pub(super) async fn post(
    State(api): State<Api>,
    user: Authenticated,
    headers: HeaderMap,
    Read(body): Read<String>,
) -> Result<StatusCode, ApiError> {
    let claims = user.need(Scope::Uplink)?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    if kind.is_some_and(|kind| kind.contains("senml")) {
        let why = "SenML is not supported by this version yet: send application/json";
        return Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, why));
    }
    let received_at = clock::now();
    let key = idempotency::read(&headers, &claims.sub, &body, received_at)?;
    if let Some(key) = &key
        && idempotency::was_taken(&api, key).await?
    {
        return Ok(StatusCode::ACCEPTED);
    }
    let parsed = json::parse(&body, true)
        .map_err(|error| ApiError::bad_request(format!("the body cannot be read: {error}")))?;
    for (at, message) in parsed.messages.iter().enumerate() {
        if let Err(fault) = &message.content {
            return Err(unprocessable(format!("item {at}: {fault}")));
        }
    }
    let contents = || parsed.messages.iter().filter_map(|message| message.content.as_ref().ok());
    let (sub, devices) = (Arc::clone(&claims.sub), claims.devices.clone());
    let mut names = Names::new(Registrant { sub, gateway: None, devices }, api.store.clone());
    let wanted = contents().filter_map(|content| unknown(&names, content, &parsed.readings));
    match names.learn(merge(wanted.collect())).await {
        Ok(()) => {}
        Err(RegisterError::Full(full)) => return Err(unprocessable(full)),
        Err(RegisterError::Forbidden(why)) => {
            return Err(ApiError::new(StatusCode::FORBIDDEN, why));
        }
        Err(unavailable @ RegisterError::Unavailable) => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Err(ApiError::new(status, unavailable.to_string()).retry_after(5));
        }
    }
    let (ticket, durable) = Durable::ticket();
    let (once, state) = match key {
        Some(wanted) => {
            let (answer, state) = oneshot::channel();
            (Some(Box::new(Once { wanted, answer })), Some(state))
        }
        None => (None, None),
    };
    let mut batch = Batch {
        received_at,
        once,
        arrived_at: Some(clock::instant()),
        ticket: Some(ticket),
        ..Batch::default()
    };
    for content in contents() {
        // All of a body's names are remembered together, so none can be missing.
        let known = take_learned(&names, content, &parsed.readings, &mut batch);
        debug_assert!(known.is_some());
    }
    api.gate.monitor.replaced_over_http.fetch_add(batch.replaced, Ordering::Relaxed);
    let bytes = u32::try_from(body.len().max(1)).unwrap_or(u32::MAX);
    let permit = Arc::clone(&api.intake).acquire_many_owned(bytes).await;
    batch.permit = Some(permit.map_err(|_| EngineGone)?);
    api.engine.send(Input::Batch(batch)).await?;
    if let Some(state) = state {
        idempotency::may_go_on(state.await.map_err(|_| EngineGone)?)?;
    }
    durable.wait().await?;
    Ok(StatusCode::ACCEPTED)
}

fn unprocessable(why: String) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, why)
}
