//! What pages read from a request besides its parameters: the id in the path, and the form.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;
use muster_core::Error;
use muster_fleet::Fleet;
use muster_management::credentials::check_same_origin;
use muster_management::form;
use serde::de::DeserializeOwned;

use crate::failure;
use crate::visitor::Visitor;

/// Maximum size of a form that contains no document, bytes.
const MAX_FORM: usize = 16 << 10;

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

/// A form of at most `MAX` bytes, with the person who sent it. One that cannot be read, or that does not come from a page of
/// this server, leads to a page that says so.
pub struct Posted<T, const MAX: usize = MAX_FORM>(pub Visitor, pub T);

impl<T: DeserializeOwned, const MAX: usize> FromRequest<Arc<Fleet>> for Posted<T, MAX> {
    type Rejection = Response;

    async fn from_request(request: Request, fleet: &Arc<Fleet>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let visitor = Visitor::from_request_parts(&mut parts, fleet).await?;
        match form::read_up_to(MAX, &parts.headers, body).await {
            Ok(form) => Ok(Self(visitor, form)),
            Err(error) => Err(failure::inside(&visitor, &error, visitor.tab)),
        }
    }
}

/// The person who sent a form without fields: a button. Fails like [`Posted`].
pub struct Pressed(pub Visitor);

impl FromRequestParts<Arc<Fleet>> for Pressed {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, fleet: &Arc<Fleet>) -> Result<Self, Response> {
        let visitor = Visitor::from_request_parts(parts, fleet).await?;
        match check_same_origin(&parts.headers) {
            Ok(()) => Ok(Self(visitor)),
            Err(error) => Err(failure::inside(&visitor, &error, visitor.tab)),
        }
    }
}

/// Returns the number of the newest change, which a live list asks for again as `seen`; `None` if an open page has seen it. To be
/// called before the list is read, so that a change in between is not missed.
pub fn newest_change(fleet: &Fleet, headers: &HeaderMap, seen: Option<i64>) -> Option<i64> {
    let newest = *fleet.change_log().newest().borrow();
    let is_renewal = headers.contains_key("hx-request");
    (!is_renewal || seen != Some(newest)).then_some(newest)
}
