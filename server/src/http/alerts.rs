//! `/api/v1/alerts`: alerts, newest first, and what people do with them.

use std::{collections::BTreeSet, str::FromStr};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;
use valtronics_protocol::{
    event::{Alert, AlertStatus},
    id::{AlertId, DeviceId},
    time::UnixMillis,
};

use super::{
    Api,
    auth::Authenticated,
    durable::Durable,
    error::ApiError,
    extract::Read,
    page::Limit,
    parameter::{moment, parameter, unprocessable},
};
use crate::{
    auth::{DeviceGrant, Scope},
    clock,
    domain::alerts::Change,
    engine::{AlertChange, EngineGone, Input},
    store::WantedAlerts,
};

/// What of a query says which alerts; a bad value is named with its parameter.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    status: Option<String>,
    severity: Option<String>,
    device_id: Option<String>,
    from: Option<String>,
    to: Option<String>,
    #[serde(default)]
    limit: Limit,
    /// The `next` of the page before.
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
    let Limit(limit) = wanted.limit;
    let mut wanted = wanted.read(clock::now())?;
    let mut alerts: Vec<Alert> = Vec::new();
    loop {
        let asked = wanted.clone();
        let page = api.store.read(move |store| store.alerts(&asked)).await?;
        for alert in seen(&api, &grant, page.alerts).await? {
            if alerts.len() == limit {
                let next = Some(alert.alert_id.to_string());
                return Ok(Json(Alerts { alerts, next }));
            }
            alerts.push(alert);
        }
        match page.next {
            Some(next) => wanted.upto = Some(next),
            None => return Ok(Json(Alerts { alerts, next: None })),
        }
    }
}

impl Wanted {
    fn read(self, now: UnixMillis) -> Result<WantedAlerts, ApiError> {
        let id = |text: &str| u64::from_str(text).ok().map(DeviceId);
        let statuses = "active, acknowledged, shelved or resolved";
        let severities = "info, warning or critical";
        Ok(WantedAlerts {
            upto: self.cursor.map(AlertId),
            status: parameter("status", self.status.as_deref(), word, statuses)?,
            severity: parameter("severity", self.severity.as_deref(), word, severities)?,
            device: parameter("device_id", self.device_id.as_deref(), id, "a device's id")?,
            from: moment("from", self.from.as_deref(), now)?,
            to: moment("to", self.to.as_deref(), now)?,
        })
    }
}

fn word<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_value(text.into()).ok()
}

/// Returns the alerts that a token may see, as HTTP shows them.
async fn seen(
    api: &Api,
    grant: &DeviceGrant,
    mut alerts: Vec<Alert>,
) -> Result<Vec<Alert>, EngineGone> {
    if !grant.is_all() {
        let of: BTreeSet<DeviceId> = alerts.iter().map(|alert| alert.device_id).collect();
        let grant = grant.clone();
        let allowed = api.engine.read(move |state, _| {
            let devices = of.into_iter().filter_map(|id| state.device(id));
            let seen = devices.filter(|of| grant.allows(of.id(), &of.registered.name, &of.key));
            seen.map(crate::state::Device::id).collect::<BTreeSet<_>>()
        });
        let allowed = allowed.await?;
        alerts.retain(|alert| allowed.contains(&alert.device_id));
    }
    for alert in &mut alerts {
        alert.channel = None;
    }
    Ok(alerts)
}

pub(super) async fn acknowledge(
    State(api): State<Api>,
    user: Authenticated,
    Read(Path(id)): Read<Path<String>>,
) -> Result<Json<Alert>, ApiError> {
    change(&api, &user, &id, Change::Acknowledge).await
}

pub(super) async fn resolve(
    State(api): State<Api>,
    user: Authenticated,
    Read(Path(id)): Read<Path<String>>,
) -> Result<Json<Alert>, ApiError> {
    change(&api, &user, &id, Change::Resolve).await
}

/// The body of `shelve`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shelve {
    until: UnixMillis,
}

pub(super) async fn shelve(
    State(api): State<Api>,
    user: Authenticated,
    Read(Path(id)): Read<Path<String>>,
    Read(body): Read<String>,
) -> Result<Json<Alert>, ApiError> {
    user.need(Scope::AlertsWrite)?;
    let Shelve { until } =
        serde_json::from_str(&body).map_err(|error| unprocessable(format!("until: {error}")))?;
    if until <= clock::now() {
        return Err(unprocessable("until: lies in the past"));
    }
    change(&api, &user, &id, Change::Shelve(until)).await
}

/// Changes an alert, and answers with it when that is durable.
async fn change(
    api: &Api,
    user: &Authenticated,
    id: &str,
    change: Change,
) -> Result<Json<Alert>, ApiError> {
    let grant = user.need(Scope::AlertsWrite)?.devices.clone();
    let no_alert = || ApiError::not_found("alert");
    let id = id.parse().map(AlertId).map_err(|_| no_alert())?;
    let (ticket, durable) = Durable::ticket();
    let (answer, answered) = oneshot::channel();
    let wanted = AlertChange { id, change, grant: grant.clone(), ticket, answer };
    api.engine.send(Input::Alert(wanted)).await?;
    let was_open = answered.await.map_err(|_| EngineGone)??;
    durable.wait().await?;
    let alert = api.store.read(move |store| store.alert(id)).await?;
    let alert = seen(api, &grant, alert.into_iter().collect()).await?.pop().ok_or_else(no_alert)?;
    if !was_open && alert.status == AlertStatus::Resolved && change != Change::Resolve {
        let why = "the alert is resolved: nothing but a new one can be acknowledged or shelved";
        return Err(ApiError::new(StatusCode::CONFLICT, why));
    }
    Ok(Json(alert))
}
