//! Web pages of other origins (WebSocket API, section 8): what a browser asks before a page's script
//! may use the API, and what the server answers (Fetch standard, "CORS protocol").

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::{Api, error::ApiError};
use crate::origin;

/// What a preflight is told. No cookies are involved: a page shows its token itself.
const PREFLIGHT: [(HeaderName, &str); 3] = [
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE"),
    (header::ACCESS_CONTROL_ALLOW_HEADERS, "Authorization, Content-Type, Idempotency-Key"),
    // Ten minutes: a page that lives on asks rarely, and a change of the list is soon noticed.
    (header::ACCESS_CONTROL_MAX_AGE, "600"),
];

/// Refuses pages that may not connect.
///
/// # Errors
/// 403 when the request comes from one.
pub(super) fn check_origin(api: &Api, headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let (origin, host) = (text(header::ORIGIN), text(header::HOST));
    if origin::allowed(origin, host, &api.origins.borrow(), api.loopback_only) {
        return Ok(());
    }
    let why = "pages of this origin may not connect: list it under [origins] allow";
    Err(ApiError::new(StatusCode::FORBIDDEN, why))
}

/// Answers pages on `/api/v1`; the other paths know no pages of other origins.
pub(super) async fn answer(
    State(api): State<Api>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    if !request.uri().path().starts_with("/api/v1/") {
        return Ok(next.run(request).await);
    }
    check_origin(&api, request.headers())?;
    let origin = request.headers().get(header::ORIGIN).cloned();
    let mut response = if is_preflight(&request) {
        (StatusCode::NO_CONTENT, PREFLIGHT).into_response()
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        let readable = HeaderValue::from_static("Retry-After");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, readable);
    }
    Ok(response)
}

fn is_preflight(request: &Request) -> bool {
    let asks = |name| request.headers().contains_key(name);
    request.method() == Method::OPTIONS
        && asks(header::ORIGIN)
        && asks(header::ACCESS_CONTROL_REQUEST_METHOD)
}
