//! Responses to unknown paths and methods: pages for browsers, JSON for clients of the API.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use muster_core::{Error, ErrorKind};
use muster_fleet::Fleet;

use crate::failure;
use crate::links::Link;
use crate::visitor::Visitor;

/// Makes a router of pages and of the API answer browsers with pages, where it has neither.
pub fn in_html(router: Router, fleet: Arc<Fleet>) -> Router {
    router.layer(from_fn_with_state(fleet, answer))
}

async fn answer(State(fleet): State<Arc<Fleet>>, request: Request, next: Next) -> Response {
    if is_api(request.uri().path()) || !wants_html(request.headers()) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let response = next.run(Request::from_parts(parts.clone(), body)).await;
    if is_html(response.headers()) {
        return response;
    }
    match response.status() {
        // The API demands credentials before it says that there is no such path.
        StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED => match without_slash(&parts) {
            Some(link) => Redirect::permanent(link.as_str()).into_response(),
            None => no_page(parts, &fleet).await,
        },
        StatusCode::METHOD_NOT_ALLOWED => {
            let error =
                Error::new(ErrorKind::Invalid, "method_not_allowed", "this address accepts no requests of this kind")
                    .remedy("go back, load the page again, and retry");
            let mut response = failure::outside(&error);
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response
        }
        _ => response,
    }
}

/// Says that there is no such page: to people who are logged in, with the navigation.
async fn no_page(mut parts: Parts, fleet: &Arc<Fleet>) -> Response {
    let error = Error::not_found("page", parts.uri.path());
    let space = space_of(parts.uri.path()).map(str::to_owned);
    // A space that does not exist has no navigation; that of the default space leads out of it.
    for space in [space.as_deref(), None] {
        if let Ok(visitor) = Visitor::of(&mut parts, fleet, space).await {
            return failure::inside(&visitor, &error, visitor.tab);
        }
    }
    failure::outside(&error)
}

/// Returns the link to the page whose path was asked for with a slash at its end; `None` if there was none.
fn without_slash(parts: &Parts) -> Option<Link> {
    let path = parts.uri.path();
    let page = path.trim_end_matches('/');
    // Browsers read `//host` as the address of another server.
    if parts.method != Method::GET || page == path || page.is_empty() || page.starts_with("//") {
        return None;
    }
    let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    Some(Link::to(&format!("{page}{query}")))
}

/// Returns the space that a path names.
fn space_of(path: &str) -> Option<&str> {
    path.strip_prefix("/s/")?.split('/').next().filter(|space| !space.is_empty())
}

/// Returns whether a path is one of the API, in any space.
fn is_api(path: &str) -> bool {
    let inner = path.strip_prefix("/s/").and_then(|rest| rest.split_once('/')).map_or(path, |(_, rest)| rest);
    inner.trim_start_matches('/').split('/').next() == Some("api")
}

fn wants_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|one| one.trim().split(';').next() == Some("text/html"))
}

fn is_html(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_api_are_recognized_in_every_space() {
        assert!(is_api("/api/fleet/agents") && is_api("/s/shop/api/status"));
        assert!(!is_api("/agents/api") && !is_api("/s/shop/agents") && !is_api("/apis"));
    }
}
