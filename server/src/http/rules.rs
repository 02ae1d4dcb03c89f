//! `/api/v1/rules`: alert rules.
//!
//! A rule may concern any device, those of later days too: a token for some devices only may read
//! rules, and edits none.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Serialize;
use tokio::sync::oneshot;

use super::{Api, auth::Authenticated, durable::Durable, error::ApiError, extract::Read};
use crate::{
    auth::Scope,
    domain::rule::Rule,
    engine::{EngineGone, Input, NotEdited, RuleEdit},
};

#[derive(Serialize)]
pub(super) struct Rules {
    rules: Vec<Rule>,
    next: Option<String>,
}

pub(super) async fn list(
    State(api): State<Api>,
    user: Authenticated,
) -> Result<Json<Rules>, ApiError> {
    user.need(Scope::AlertsRead)?;
    let rules = api.engine.read(|_, alerts| alerts.rules().to_vec()).await?;
    Ok(Json(Rules { rules, next: None }))
}

pub(super) async fn one(
    State(api): State<Api>,
    user: Authenticated,
    Read(Path(name)): Read<Path<String>>,
) -> Result<Json<Rule>, ApiError> {
    user.need(Scope::AlertsRead)?;
    let find = move |_: &crate::state::State, alerts: &crate::domain::alerts::Alerts| {
        alerts.rules().iter().find(|rule| *rule.name == *name).cloned()
    };
    api.engine.read(find).await?.map(Json).ok_or_else(|| ApiError::not_found("rule"))
}

pub(super) async fn put(
    State(api): State<Api>,
    user: Authenticated,
    Read(Path(name)): Read<Path<String>>,
    Read(body): Read<String>,
) -> Result<Json<Rule>, ApiError> {
    may_edit(&user)?;
    let rule = Rule::parse_json(&body, Some(&name))
        .map_err(|error| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    let ((ticket, durable), (answer, answered)) = (Durable::ticket(), oneshot::channel());
    api.engine.send(Input::Rules(RuleEdit::Put(rule.clone(), ticket, answer))).await?;
    answered.await.map_err(|_| EngineGone)?.map_err(not_edited)?;
    durable.wait().await?;
    Ok(Json(rule))
}

pub(super) async fn delete(
    State(api): State<Api>,
    user: Authenticated,
    Read(Path(name)): Read<Path<String>>,
) -> Result<StatusCode, ApiError> {
    may_edit(&user)?;
    let ((ticket, durable), (answer, answered)) = (Durable::ticket(), oneshot::channel());
    let name: Arc<str> = name.into();
    api.engine.send(Input::Rules(RuleEdit::Delete(name, ticket, answer))).await?;
    let known = answered.await.map_err(|_| EngineGone)?.map_err(not_edited)?;
    durable.wait().await?;
    match known {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(ApiError::not_found("rule")),
    }
}

fn may_edit(user: &Authenticated) -> Result<(), ApiError> {
    if user.need(Scope::AlertsWrite)?.devices.is_all() {
        return Ok(());
    }
    let why = "rules concern every device, and the token is for some only: get one without devices";
    Err(ApiError::new(StatusCode::FORBIDDEN, why))
}

fn not_edited(why: NotEdited) -> ApiError {
    let status = match why {
        NotEdited::ReadOnly => StatusCode::CONFLICT,
        NotEdited::TooMany => StatusCode::UNPROCESSABLE_ENTITY,
        NotEdited::Behind(behind) => return behind.into(),
    };
    ApiError::new(status, why.to_string())
}
