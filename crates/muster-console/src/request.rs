//! What pages read from a request besides its parameters: the id in the path, and the form.

use std::sync::Arc;

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::header::REFERER;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use muster_core::Error;
use muster_fleet::Fleet;
use muster_management::form;
use serde::de::DeserializeOwned;

use crate::failure;

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

/// Returns the path of the page that a form was on, with its query. The host is left out: the form is of this server.
pub fn page_of_form(headers: &HeaderMap) -> Option<String> {
    let page: Uri = headers.get(REFERER)?.to_str().ok()?.parse().ok()?;
    let path = page.path_and_query()?.to_string();
    (!path.starts_with("//")).then_some(path)
}

/// The form of a request, of at most `MAX` bytes. One that cannot be read, or that does not come from a page of this server,
/// leads to a page that says so.
pub struct Posted<T, const MAX: usize = MAX_FORM>(pub T);

impl<T: DeserializeOwned, const MAX: usize> FromRequest<Arc<Fleet>> for Posted<T, MAX> {
    type Rejection = Response;

    async fn from_request(request: Request, _: &Arc<Fleet>) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let read = form::read_up_to(MAX, &parts.headers, body).await;
        read.map(Self).map_err(|error| failure::outside(&error))
    }
}

/// Returns the number of the newest change, which a live list asks for again as `seen`; `None` if an open page has seen it. To be
/// called before the list is read, so that a change in between is not missed.
pub fn newest_change(fleet: &Fleet, headers: &HeaderMap, seen: Option<i64>) -> Option<i64> {
    let newest = *fleet.change_log().newest().borrow();
    let is_renewal = headers.contains_key("hx-request");
    (!is_renewal || seen != Some(newest)).then_some(newest)
}
