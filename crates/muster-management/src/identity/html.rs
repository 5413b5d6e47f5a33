//! Plain HTML pages for browsers. Their content is in the response once more, for the pages for administrators, which give it
//! their style and navigation.

use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

/// The content of a page, as HTML.
#[derive(Clone, Debug)]
pub struct Content {
    /// Title.
    pub title: &'static str,
    /// Content below the title. Everything in it that comes from others is escaped.
    pub html: String,
}

/// Returns a page without scripts, which no other site can frame.
pub fn page(status: StatusCode, title: &'static str, content: &str) -> Response {
    let html = format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title} - Muster</title></head>\
         <body><main><h1>{title}</h1>{content}</main></body></html>"
    );
    let plain = HeaderValue::from_static;
    let headers = [
        (CONTENT_TYPE, plain("text/html; charset=utf-8")),
        (CACHE_CONTROL, plain("no-store")),
        (X_CONTENT_TYPE_OPTIONS, plain("nosniff")),
        (REFERRER_POLICY, plain("same-origin")),
        (
            CONTENT_SECURITY_POLICY,
            plain("default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"),
        ),
    ];
    let mut response = (status, headers, html).into_response();
    response.extensions_mut().insert(Content { title, html: content.to_owned() });
    response
}

/// Escapes a text for HTML.
pub fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}
