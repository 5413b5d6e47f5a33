//! Responses to unknown paths and methods, and to logins that fail at a provider: pages for browsers, JSON for clients of
//! the API.

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Redirect, Response};
use muster_core::{Error, ErrorKind};
use muster_fleet::Fleet;
use muster_management::identity::device_page;
use muster_management::identity::html::Content;
use muster_management::identity::log_in::LogInRefused;

use crate::frame::{Frame, page};
use crate::links::Link;
use crate::visitor::Visitor;
use crate::{failure, log_in, preferences};

/// Makes a router of pages and of the API answer browsers with pages, where it has neither, and where a login fails.
pub fn in_html(fleet: Arc<Fleet>, router: Router) -> Router {
    router.layer(from_fn_with_state(fleet, answer)).layer(from_fn(preferences::apply))
}

async fn answer(State(fleet): State<Arc<Fleet>>, request: Request, next: Next) -> Response {
    if !wants_html(request.headers()) {
        return next.run(request).await;
    }
    if request.uri().path() == device_page::PATH {
        return framed(&fleet, request, next).await;
    }
    let (parts, body) = request.into_parts();
    let mut response = next.run(Request::from_parts(parts.clone(), body)).await;
    if is_html(response.headers()) {
        return response;
    }
    // Browsers come to these addresses of the API by links and redirects.
    if let Some(LogInRefused { error, return_to }) = response.extensions_mut().remove() {
        return log_in::refused(&fleet, &return_to, &error).await;
    }
    if is_api(parts.uri.path()) {
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

/// A page of the API in the frame of the pages.
#[derive(Template)]
#[template(path = "content.html")]
struct Framed {
    frame: Frame,
    /// HTML, in which everything that comes from others is escaped.
    content: String,
}

/// Answers with a page of the API in the frame of the pages: with the navigation, if somebody is logged in.
async fn framed(fleet: &Arc<Fleet>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let visitor = Visitor::from_request_parts(&mut parts, fleet).await.ok();
    let mut response = next.run(Request::from_parts(parts, body)).await;
    let Some(Content { title, html }) = response.extensions_mut().remove() else { return response };
    let frame = visitor.map_or_else(|| Frame::outside(title), |visitor| Frame::new(&visitor, title, ""));
    page(response.status(), &Framed { frame, content: html })
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
