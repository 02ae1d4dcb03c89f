//! `GET /api/v1/alerts`: alerts that are not resolved, newest first.

use axum::{
    Json,
    extract::{Query, State},
};
use serde::{Deserialize, Serialize};
use valtronics_protocol::{
    event::{Alert, AlertStatus, Severity},
    id::{AlertId, DeviceId},
};

use super::{Api, auth::Authenticated, error::ApiError, extract::Read, page::Limit};
use crate::auth::Scope;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    status: Option<AlertStatus>,
    severity: Option<Severity>,
    device_id: Option<u64>,
    #[serde(default)]
    limit: Limit,
    cursor: Option<u64>,
}

#[derive(Serialize)]
pub(super) struct Alerts {
    alerts: Vec<Alert>,
    next: Option<String>,
}

pub(super) async fn list(
    State(api): State<Api>,
    user: Authenticated,
    Read(Query(wanted)): Read<Query<Wanted>>,
) -> Result<Json<Alerts>, ApiError> {
    let grant = user.need(Scope::AlertsRead)?.devices.clone();
    if wanted.status == Some(AlertStatus::Resolved) {
        let why = "resolved alerts are not listed by this version yet";
        return Err(ApiError::new(axum::http::StatusCode::NOT_IMPLEMENTED, why));
    }
    let page = api.engine.read(move |state, _| {
        let upto = AlertId(wanted.cursor.unwrap_or(u64::MAX));
        let alerts = state.open_alerts.range(..=upto).rev().map(|(_, open)| &open.alert);
        let shown = |alert: &&Alert| {
            let device = state.device(alert.device_id);
            device.is_some_and(|d| grant.allows(d.id(), &d.registered.name, &d.key))
                && wanted.status.is_none_or(|status| alert.status == status)
                && wanted.severity.is_none_or(|severity| alert.severity == severity)
                && wanted.device_id.is_none_or(|id| alert.device_id == DeviceId(id))
        };
        let mut alerts = alerts.filter(shown);
        let page: Vec<Alert> = alerts.by_ref().take(wanted.limit.0).cloned().collect();
        let next = alerts.next().map(|alert| alert.alert_id.to_string());
        (page, next)
    });
    let (mut alerts, next) = page.await?;
    for alert in &mut alerts {
        alert.channel = None;
    }
    Ok(Json(Alerts { alerts, next }))
}
