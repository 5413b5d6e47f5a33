//! `/assets`: the style sheet and the scripts of all pages.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

/// Path of an asset.
pub const PATH: &str = "/assets/{name}";

/// htmx, which replaces parts of a page.
const HTMX: &str = include_str!("../assets/htmx.js");
/// The style sheet, in parts: one for each family of pages.
const STYLES: &str = concat!(
    include_str!("../assets/style.css"),
    include_str!("../assets/agents.css"),
    include_str!("../assets/hosts.css"),
    include_str!("../assets/policies.css"),
    include_str!("../assets/settings.css"),
);
/// The script, in parts. Pages work without it where that is possible.
const SCRIPTS: &str = concat!(
    include_str!("../assets/muster.js"),
    include_str!("../assets/forms.js"),
    include_str!("../assets/agents.js"),
    include_str!("../assets/hosts.js"),
    include_str!("../assets/policies.js"),
);

/// The paths of the assets. Each contains a hash of the content, so that browsers may keep them, and get another one after an
/// upgrade.
pub struct Paths {
    /// Path of the style sheet.
    pub style: String,
    /// Path of htmx.
    pub htmx: String,
    /// Path of the script of the pages themselves.
    pub script: String,
}

/// Returns the paths of the assets.
pub fn paths() -> &'static Paths {
    static PATHS: LazyLock<Paths> = LazyLock::new(|| {
        let path = |content: &str, name| {
            let mut hasher = DefaultHasher::new();
            content.hash(&mut hasher);
            format!("/assets/{:016x}-{name}", hasher.finish())
        };
        Paths { style: path(STYLES, "style.css"), htmx: path(HTMX, "htmx.js"), script: path(SCRIPTS, "muster.js") }
    });
    &PATHS
}

/// Serves an asset. Needs no session: the login page has the same style.
pub async fn serve(Path(name): Path<String>) -> Response {
    let named = |path: &str| path.rsplit('/').next() == Some(name.as_str());
    let paths = paths();
    let (kind, content): (_, &'static str) = if named(&paths.style) {
        ("text/css; charset=utf-8", STYLES)
    } else if named(&paths.htmx) {
        ("text/javascript; charset=utf-8", HTMX)
    } else if named(&paths.script) {
        ("text/javascript; charset=utf-8", SCRIPTS)
    } else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, content).into_response()
}
