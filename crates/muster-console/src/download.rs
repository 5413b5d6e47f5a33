//! Responses that a browser stores as a file.

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse as _, Response};

/// Returns a response that is stored under a name, which must be plain ASCII without quotation marks.
pub fn download(kind: &'static str, name: &str, content: Body) -> Response {
    let plain = HeaderValue::from_static;
    let name = HeaderValue::try_from(format!("attachment; filename=\"{name}\"")).unwrap_or(plain("attachment"));
    let headers = [
        (CONTENT_TYPE, plain(kind)),
        (CONTENT_DISPOSITION, name),
        (CACHE_CONTROL, plain("no-store")),
        (X_CONTENT_TYPE_OPTIONS, plain("nosniff")),
    ];
    (headers, content).into_response()
}
