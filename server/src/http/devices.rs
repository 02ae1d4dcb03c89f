//! `GET /api/v1/devices`: devices with their status and last values.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use serde::Serialize;
use valtronics_protocol::{event::Status, id::DeviceId, time::UnixMillis, value::Value};

use super::{
    Api,
    auth::Authenticated,
    error::ApiError,
    extract::Read,
    page::{Limit, Page},
};
use crate::{
    auth::{DeviceGrant, Scope},
    state::Device,
};

/// How many metrics one turn of the engine looks at, and those of a device more: more would stop the
/// fan-out for long.
const A_TURN: usize = 1024;

#[derive(Serialize)]
pub(super) struct Devices {
    devices: Vec<Listed>,
    next: Option<String>,
}

/// A device as HTTP shows it.
#[derive(Serialize)]
pub(super) struct Listed {
    id: DeviceId,
    key: String,
    name: String,
    agent: Option<String>,
    status: Status,
    last_seen: Option<UnixMillis>,
    metrics: serde_json::Map<String, serde_json::Value>,
}

pub(super) async fn list(
    State(api): State<Api>,
    user: Authenticated,
    Read(Query(Page { limit: Limit(limit), cursor })): Read<Query<Page>>,
) -> Result<Json<Devices>, ApiError> {
    let claims = user.need(Scope::DevicesRead)?;
    let mut from = cursor.unwrap_or(1).max(1);
    let (mut devices, mut next) = (Vec::new(), None);
    loop {
        let grant = claims.devices.clone();
        let (listed, after) =
            api.engine.read(move |state, _| list_some(state.devices(), from, &grant)).await?;
        for device in listed {
            if devices.len() == limit {
                next = Some(device.id.0.to_string());
                return Ok(Json(Devices { devices, next }));
            }
            devices.push(device);
        }
        match after {
            Some(after) => from = after,
            None => return Ok(Json(Devices { devices, next })),
        }
    }
}

/// Lists what a grant shows of the devices from an id on; returns where to go on.
fn list_some(devices: &[Device], from: u64, grant: &DeviceGrant) -> (Vec<Listed>, Option<u64>) {
    let begin = usize::try_from(from - 1).unwrap_or(usize::MAX).min(devices.len());
    let rest = devices.get(begin..).unwrap_or_default();
    let seen = |device: &&Device| grant.allows(device.id(), &device.registered.name, &device.key);
    let mut left = A_TURN;
    let fits = |device: &&Device| {
        let fits = left > 0;
        left = left.saturating_sub(device.metrics.len() + 1);
        fits
    };
    let count = rest.iter().take_while(fits).count();
    let listed = rest.iter().take(count).filter(seen).map(Listed::new).collect();
    (listed, (rest.len() > count).then(|| from + count as u64))
}

pub(super) async fn one(
    State(api): State<Api>,
    user: Authenticated,
    Read(Path(id)): Read<Path<String>>,
) -> Result<Json<Listed>, ApiError> {
    let grant = user.need(Scope::DevicesRead)?.devices.clone();
    let id = id.parse().map(DeviceId).map_err(|_| ApiError::not_found("device"))?;
    let found = api.engine.read(move |state, _| {
        let device = state.device(id)?;
        let seen = grant.allows(id, &device.registered.name, &device.key);
        seen.then(|| Listed::new(device))
    });
    found.await?.map(Json).ok_or_else(|| ApiError::not_found("device"))
}

impl Listed {
    fn new(device: &Device) -> Self {
        let metric = |metric: &crate::state::Metric| {
            let last = metric.last.as_ref()?;
            let value: &Value = &last.value;
            let shown = serde_json::json!({
                "value": value, "unit": &*metric.unit, "timestamp": last.at,
            });
            Some((metric.name.to_string(), shown))
        };
        Self {
            id: device.id(),
            key: device.key.to_string(),
            name: device.registered.name.to_string(),
            agent: device.registered.gateway.as_ref().map(ToString::to_string),
            status: device.published_status(),
            last_seen: device.health.last_seen(),
            metrics: device.metrics.iter().filter_map(metric).collect(),
        }
    }
}
