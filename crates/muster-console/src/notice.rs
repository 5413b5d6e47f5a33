//! Notices: a form that succeeds leads to another page, which says once what was done.

use axum::extract::Request;
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use muster_core::Error;
use muster_listen::cookie;
use muster_management::credentials;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::failure;
use crate::links::Link;

/// Name of the cookie that brings a notice to the next page.
const COOKIE: &str = "muster_notice";
/// Seconds that a browser keeps a notice for a page that does not come.
const LIFETIME: u64 = 60;
/// Maximum length of a notice, characters.
const MAX: usize = 300;

/// Sends the browser to another page of this server, which shows a notice.
pub fn redirect(page: Link, notice: &str) -> Response {
    let short: String = notice.chars().take(MAX).collect();
    let content = utf8_percent_encode(&short, NON_ALPHANUMERIC).to_string();
    match (HeaderValue::try_from(String::from(page)), credentials::set_cookie(COOKIE, &content, LIFETIME, false)) {
        (Ok(path), Ok(cookie)) => (StatusCode::SEE_OTHER, [(LOCATION, path), (SET_COOKIE, cookie)]).into_response(),
        (_, Err(error)) => failure::outside(&error),
        (Err(error), _) => failure::outside(&Error::internal(error)),
    }
}

/// Returns the notice of a request; empty if there is none.
pub fn of(headers: &HeaderMap) -> String {
    let content = cookie(headers, COOKIE).unwrap_or_default();
    percent_decode_str(content).decode_utf8_lossy().chars().take(MAX).collect()
}

/// Removes the notice from the browser with the page that shows it. Parts of open pages leave it to the next page.
pub async fn forget(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let is_page = request.method() == Method::GET && !headers.contains_key("hx-request");
    let is_shown = is_page && cookie(headers, COOKIE).is_some();
    let mut response = next.run(request).await;
    let is_html = response.headers().get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    if is_shown
        && is_html
        && let Ok(gone) = credentials::set_cookie(COOKIE, "", 0, false)
    {
        response.headers_mut().append(SET_COOKIE, gone);
    }
    response
}
