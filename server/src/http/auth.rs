//! Who sends a request: the token of `Authorization: Bearer`.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, StatusCode, header, request::Parts},
};

use super::{Api, Peer, error::ApiError};
use crate::{
    auth::{Claims, Scope},
    clock,
};

/// Returns the token of the handshake or request; other schemes are others' business.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The claims of a good token.
pub(super) struct Authenticated(pub(super) Claims);

impl Authenticated {
    /// Demands a scope.
    pub(super) fn need(&self, scope: Scope) -> Result<&Claims, ApiError> {
        if self.0.scopes.contains(scope) {
            return Ok(&self.0);
        }
        let why = format!("the token has no scope {}: get one that has", scope.as_str());
        Err(ApiError::new(StatusCode::FORBIDDEN, why))
    }
}

impl FromRequestParts<Api> for Authenticated {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let unauthorized = |why: &str| ApiError::new(StatusCode::UNAUTHORIZED, why);
        let token = bearer(&parts.headers)
            .ok_or_else(|| unauthorized("send Authorization: Bearer and a token"))?;
        api.gate.keys.verify(token).await.map(Self).map_err(|fault| {
            if let Some(Peer(address)) = parts.extensions.get() {
                api.gate.admission().refused_token(*address, token, fault, clock::instant());
            }
            unauthorized(&format!("the token is refused: {fault:?}"))
        })
    }
}
