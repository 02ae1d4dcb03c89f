//! `GET /api/v1/openapi.json`: this API, described by hand (OpenAPI 3.1).

use axum::{http::header, response::IntoResponse};

pub(super) async fn describe() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json"))
}
