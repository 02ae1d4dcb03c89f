//! Parameters of a query that have a form of their own: a bad value is 422 and names its parameter.

use axum::http::StatusCode;
use valtronics_protocol::time::UnixMillis;

use super::error::ApiError;
use crate::moment::{FORM, Moment};

/// Reads a parameter, if it was given; `right` says what would be right.
pub(super) fn parameter<T>(
    name: &str,
    text: Option<&str>,
    read: impl FnOnce(&str) -> Option<T>,
    right: &str,
) -> Result<Option<T>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || unprocessable(format!("{name}: is {right}"));
    read(text).map(Some).ok_or_else(wrong)
}

/// Reads a parameter that names a moment.
pub(super) fn moment(
    name: &str,
    text: Option<&str>,
    now: UnixMillis,
) -> Result<Option<UnixMillis>, ApiError> {
    let read = |text: &str| Some(text.parse::<Moment>().ok()?.at(now));
    parameter(name, text, read, FORM)
}

pub(super) fn unprocessable(why: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, why)
}
