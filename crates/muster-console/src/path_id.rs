//! The id in the path of a page.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use axum::response::Response;
use muster_core::Error;
use muster_fleet::Fleet;

use crate::failure;

/// The parameter `id` of the path, whether or not the path also names a space.
pub struct Id(pub String);

impl FromRequestParts<Arc<Fleet>> for Id {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, fleet: &Arc<Fleet>) -> Result<Self, Response> {
        let Ok(params) = RawPathParams::from_request_parts(parts, fleet).await else {
            return Err(failure::outside(&Error::invalid("path", "malformed")));
        };
        let id = params.iter().find(|(name, _)| *name == "id").map(|(_, id)| id.to_owned());
        Ok(Self(id.unwrap_or_default()))
    }
}
