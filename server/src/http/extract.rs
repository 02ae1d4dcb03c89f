//! Parts of a request; what cannot be read of it is a problem like any other.

use axum::{
    extract::{
        FromRequest, FromRequestParts, Request,
        rejection::{PathRejection, QueryRejection, StringRejection},
    },
    http::request::Parts,
};

use super::error::ApiError;

/// A part of the request, of which axum's own refusal would be plain text.
pub(super) struct Read<E>(pub(super) E);

impl<S: Sync, E: FromRequestParts<S>> FromRequestParts<S> for Read<E>
where
    ApiError: From<E::Rejection>,
{
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Ok(Self(E::from_request_parts(parts, state).await?))
    }
}

impl<S: Sync, E: FromRequest<S>> FromRequest<S> for Read<E>
where
    ApiError: From<E::Rejection>,
{
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        Ok(Self(E::from_request(request, state).await?))
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<StringRejection> for ApiError {
    fn from(rejection: StringRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}
