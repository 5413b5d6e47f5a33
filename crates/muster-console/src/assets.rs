//! `/assets`: the style sheet and the scripts of all pages.

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

/// Path of an asset.
pub const PATH: &str = "/assets/{name}";

/// Path of the style sheet. It ends with the program's version, so that browsers may keep it.
pub const STYLE: &str = concat!("/assets/", env!("CARGO_PKG_VERSION"), "-style.css");
/// Path of htmx, which replaces parts of a page.
pub const HTMX: &str = concat!("/assets/", env!("CARGO_PKG_VERSION"), "-htmx.js");
/// Path of the script of the pages themselves.
pub const SCRIPT: &str = concat!("/assets/", env!("CARGO_PKG_VERSION"), "-muster.js");

/// The style sheet, in parts: one for each family of pages.
const STYLES: &str = concat!(
    include_str!("../assets/style.css"),
    include_str!("../assets/agents.css"),
    include_str!("../assets/policies.css"),
    include_str!("../assets/settings.css"),
);
/// The script, in parts. Pages work without it where that is possible.
const SCRIPTS: &str = concat!(
    include_str!("../assets/muster.js"),
    include_str!("../assets/agents.js"),
    include_str!("../assets/policies.js"),
);

/// Serves an asset. Needs no session: the login page has the same style.
pub async fn serve(Path(name): Path<String>) -> Response {
    let named = |path: &str| path.rsplit('/').next() == Some(name.as_str());
    let (kind, content): (_, &'static str) = if named(STYLE) {
        ("text/css; charset=utf-8", STYLES)
    } else if named(HTMX) {
        ("text/javascript; charset=utf-8", include_str!("../assets/htmx.js"))
    } else if named(SCRIPT) {
        ("text/javascript; charset=utf-8", SCRIPTS)
    } else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CACHE_CONTROL, HeaderValue::from_static("public, max-age=604800")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, content).into_response()
}
