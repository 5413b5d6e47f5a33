//! Compression of pages and assets. Rows of a table repeat themselves: a list has a tenth of its size afterwards.

use std::io::Write as _;

use axum::body::{Body, HttpBody as _, to_bytes};
use axum::extract::Request;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use flate2::Compression;
use flate2::write::GzEncoder;

/// Smaller bodies fit into one packet anyway.
const MIN: u64 = 1_024;

/// Compresses the response to a `GET`, if the browser accepts it. Responses to forms can contain secrets beside text that was
/// sent with the request, whose length would then tell something of the secret; they are sent as they are.
pub async fn compress(request: Request, next: Next) -> Response {
    let is_wanted = request.method() == Method::GET && accepts_gzip(request.headers());
    let response = next.run(request).await;
    // Streams, such as CSV files, have no size that is known before, and are sent as they come.
    let is_whole = response.body().size_hint().exact().is_some_and(|size| size >= MIN);
    if !is_wanted || !is_whole || !is_text(response.headers()) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    match to_bytes(body, usize::MAX).await.map_err(std::io::Error::other).and_then(|bytes| gzip(&bytes)) {
        Ok(bytes) => {
            parts.headers.remove(CONTENT_LENGTH);
            parts.headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            parts.headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
            Response::from_parts(parts, Body::from(bytes))
        }
        Err(error) => {
            tracing::error!(%error, "cannot compress a page");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::new(4));
    encoder.write_all(bytes)?;
    encoder.finish()
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|one| {
        let mut parts = one.split(';').map(str::trim);
        parts.next() == Some("gzip") && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

fn is_text(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    !headers.contains_key(CONTENT_ENCODING)
        && (kind.starts_with("text/html") || kind.starts_with("text/css") || kind.starts_with("text/javascript"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_browsers_that_accept_gzip_get_it() {
        let accepts = |value: &'static str| {
            accepts_gzip(&[(ACCEPT_ENCODING, HeaderValue::from_static(value))].into_iter().collect())
        };
        assert!(accepts("gzip") && accepts("br;q=1, gzip; q=0.5"));
        assert!(!accepts("br") && !accepts("gzip;q=0") && !accepts_gzip(&HeaderMap::new()));
    }
}
