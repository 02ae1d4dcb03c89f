//! `GET /api/v1/devices/{id}/telemetry`: readings of the past, or what each step of time came to.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde::{Deserialize, Serialize};
use valtronics_protocol::{
    id::DeviceId,
    time::{UnixMillis, parse_period},
    value::Value,
};

use super::{
    Api,
    auth::Authenticated,
    error::ApiError,
    extract::Read,
    page::Limit,
    parameter::{moment, parameter, unprocessable},
};
use crate::{
    auth::{DeviceGrant, Scope},
    clock,
    commit::MetricIndex,
    history::HistoryError,
    state,
    store::{self, Cursor, Gap, Page, Points, Span},
};

/// The most points of a page, and how many when nothing is said (programs, "HTTP").
const MOST: usize = 100_000;
/// The most steps between `from` and `to`: a page full.
const MOST_STEPS: u128 = MOST as u128;
/// How far back is read when nothing is said (programs, "History"), and how long a step may be that
/// must be read from single readings.
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    metric: String,
    from: Option<String>,
    to: Option<String>,
    step: Option<String>,
    arrived_from: Option<String>,
    #[serde(default)]
    limit: Limit<MOST>,
    cursor: Option<String>,
}

pub(super) async fn read(
    State(api): State<Api>,
    user: Authenticated,
    Read(Path(id)): Read<Path<String>>,
    Read(Query(wanted)): Read<Query<Wanted>>,
) -> Result<impl IntoResponse, ApiError> {
    let grant = user.need(Scope::TelemetryRead)?.devices.clone();
    let device = id.parse().map(DeviceId).map_err(|_| ApiError::not_found("device"))?;
    let name = wanted.metric.clone();
    let found = api.engine.read(move |state, _| find(state, device, &name, &grant)).await?;
    let (metric, unit) = found?;
    let query = wanted.query(device, metric, api.history.keep, clock::now())?;
    let make = move |page| Answer::new(device, wanted.metric, unit, page).to_json();
    let body = api.history.read(query, make).await?;
    let headers =
        [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "private, no-cache")];
    Ok((headers, body))
}

/// Finds a metric, and its unit.
fn find(
    state: &state::State,
    id: DeviceId,
    name: &str,
    grant: &DeviceGrant,
) -> Result<(MetricIndex, Option<String>), ApiError> {
    let device = state.device(id);
    let device = device.filter(|device| grant.allows(id, &device.registered.name, &device.key));
    let metrics = &device.ok_or_else(|| ApiError::not_found("device"))?.metrics;
    let mut metrics = (0..).map(MetricIndex).zip(metrics);
    let found = metrics.find(|(_, metric)| *metric.name == *name);
    let (index, metric) = found.ok_or_else(|| ApiError::not_found("metric"))?;
    Ok((index, (!metric.unit.is_empty()).then(|| metric.unit.to_string())))
}

impl Wanted {
    fn query(
        &self,
        device: DeviceId,
        metric: MetricIndex,
        keep: Duration,
        now: UnixMillis,
    ) -> Result<store::Query, ApiError> {
        let arrived_from = moment("arrived_from", self.arrived_from.as_deref(), now)?;
        // Who asks for what he missed gets it, however old it is.
        let begin = if arrived_from.is_some() { UnixMillis::MIN } else { now.minus(HOUR) };
        let from = moment("from", self.from.as_deref(), now)?.unwrap_or(begin);
        let to = moment("to", self.to.as_deref(), now)?.unwrap_or(UnixMillis::MAX);
        if to <= from {
            return Err(unprocessable("to: it lies after from"));
        }
        let right = "a period of 1ms at least, such as 5m";
        let step = parameter("step", self.step.as_deref(), period, right)?;
        if step.is_some_and(|step| step > HOUR && step.as_millis() % 60_000 != 0) {
            let why = "step: when it is longer than an hour it is in whole minutes";
            return Err(unprocessable(why));
        }
        let held = to.min(now).since(from.max(now.minus(keep)));
        if step.is_some_and(|step| held.as_millis() / step.as_millis().max(1) > MOST_STEPS) {
            let why = "step: there are at most 100000 steps between from and to";
            return Err(unprocessable(why));
        }
        let arrived_from = arrived_from.unwrap_or(UnixMillis::MIN);
        let cursor = self.cursor.as_deref().map(cursor).transpose()?;
        let Limit(limit) = self.limit;
        Ok(store::Query { device, metric, from, to, arrived_from, step, limit, cursor })
    }
}

impl From<HistoryError> for ApiError {
    fn from(error: HistoryError) -> Self {
        match error {
            HistoryError::Busy => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).retry_after(5)
            }
            HistoryError::Store(error) => {
                tracing::error!(%error, "history cannot be read");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "history cannot be read")
            }
        }
    }
}

fn period(text: &str) -> Option<Duration> {
    parse_period(text).ok().filter(|step| step.as_millis() > 0)
}

fn cursor(text: &str) -> Result<Cursor, ApiError> {
    let parse = || {
        let (at, rest) = text.split_once('.')?;
        let (ordinal, as_of) = rest.split_once('.')?;
        let as_of = UnixMillis(as_of.parse().ok()?);
        Some(Cursor { at: at.parse().ok()?, ordinal: ordinal.parse().ok()?, as_of })
    };
    parse().ok_or_else(|| ApiError::bad_request("cursor: it is the next of the page before"))
}

#[derive(Serialize)]
struct Answer {
    device_id: DeviceId,
    metric: String,
    unit: Option<String>,
    points: Shown,
    gaps: Vec<Lost>,
    as_of: UnixMillis,
    next: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Shown {
    Readings(Vec<Reading>),
    Steps(Vec<Summed>),
}

#[derive(Serialize)]
struct Reading {
    timestamp: UnixMillis,
    value: Value,
}

/// Readings of the device that its agent has lost.
#[derive(Serialize)]
struct Lost {
    from: UnixMillis,
    to: UnixMillis,
    lost: u64,
}

/// What a step came to; of values that are no numbers only `last` and `count`.
#[derive(Serialize)]
struct Summed {
    timestamp: UnixMillis,
    #[serde(flatten)]
    numbers: Option<Numbers>,
    last: Value,
    count: u64,
}

#[derive(Serialize)]
struct Numbers {
    min: Value,
    max: Value,
    mean: f64,
}

impl Answer {
    fn new(device_id: DeviceId, metric: String, unit: Option<String>, page: Page) -> Self {
        let points = match page.points {
            Points::Readings(points) => {
                let reading = |(timestamp, value)| Reading { timestamp, value };
                Shown::Readings(points.into_iter().map(reading).collect())
            }
            Points::Spans(spans) => Shown::Steps(spans.into_iter().map(Summed::from).collect()),
        };
        let gap = |Gap { from, to, lost }| Lost { from, to, lost };
        let gaps = page.gaps.into_iter().map(gap).collect();
        let next = page.next.map(|Cursor { at, ordinal, as_of }| {
            let as_of = as_of.0;
            format!("{at}.{ordinal}.{as_of}")
        });
        Self { device_id, metric, unit, points, gaps, as_of: page.as_of, next }
    }

    fn to_json(&self) -> Bytes {
        serde_json::to_vec(self).expect("its keys are texts").into()
    }
}

impl From<Span> for Summed {
    fn from(Span { start, numbers, last, count }: Span) -> Self {
        let numbers = numbers.map(|store::Numbers { min, max, sum, count }| Numbers {
            min,
            max,
            mean: sum / count as f64,
        });
        Self { timestamp: UnixMillis(start), numbers, last, count }
    }
}
