//! Error responses of this API: `{statusCode, error, message, code, field?, remedy?}`.

use std::num::NonZeroU16;

use axum::Json;
use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use muster_core::policy::problem::{Problem, Problems};
use muster_core::{Error, ErrorKind};
use muster_listen::reply::{Reply, ReplyBody};
use muster_protocol::management::ErrorBody;
use muster_protocol::management::envelope::Diagnostic;

/// Maximum number of problems in a response.
const MAX_DIAGNOSTICS: usize = 100;

/// A domain error that becomes a response.
#[derive(Debug)]
pub struct ApiError(pub Error);

/// The code of an error response, for middleware.
#[derive(Clone, Copy, Debug)]
pub struct ErrorCode(pub &'static str);

/// The result of a handler.
pub type ApiResult<T> = Result<T, ApiError>;

impl<E: Into<Error>> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

/// Returns the status of a kind of error.
pub const fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorKind::Forbidden => StatusCode::FORBIDDEN,
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::Conflict => StatusCode::CONFLICT,
        ErrorKind::TooMany => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Returns the value of `Retry-After`, in seconds, of an error that does not know it.
fn retry_after(kind: ErrorKind) -> Option<u16> {
    match kind {
        ErrorKind::TooMany => Some(1),
        ErrorKind::Unavailable => Some(5),
        // Repeating the same request is not expected to help.
        _ => None,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Error { kind, code, message, field, remedy, problems, source, retry_after: known, .. } = self.0;
        // Internal details may contain paths or values, so they are logged and never sent.
        if let Some(cause) = source {
            tracing::warn!(code, %cause, "management request failed");
        }
        let problems = problems.map(|problems| diagnostics(*problems)).unwrap_or_default();
        let body = ErrorBody { message, code: code.to_owned(), field, remedy, problems, ..ErrorBody::default() };
        let mut response = with_status(status_of(kind), body);
        response.extensions_mut().insert(ErrorCode(code));
        if kind == ErrorKind::Unauthenticated {
            // Not `Basic`, for which a browser would ask the user itself.
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("ApiKey"));
        }
        if let Some(seconds) = known.map(NonZeroU16::get).or_else(|| retry_after(kind)) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Creates the response for an error of HTTP itself, for which the domain has no kind.
pub fn http_error(status: StatusCode, code: &str, message: impl Into<String>) -> Response {
    with_status(status, ErrorBody { message: message.into(), code: code.to_owned(), ..ErrorBody::default() })
}

/// Like [`http_error`], for the connection layer, which refuses requests before they reach the router.
pub fn error_reply(status: StatusCode, code: &str, message: String) -> Reply {
    let plain = ErrorBody { message, code: code.to_owned(), ..ErrorBody::default() };
    // The body consists of strings and a number, so serialization does not fail.
    let body = serde_json::to_vec(&with_words(status, plain)).unwrap_or_default();
    let mut reply = Reply::new(ReplyBody::from(Bytes::from(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

fn with_status(status: StatusCode, body: ErrorBody) -> Response {
    (status, Json(with_words(status, body))).into_response()
}

// `error` is the status in words, as in Kibana. Scripts should rely on `code`.
fn with_words(status: StatusCode, body: ErrorBody) -> ErrorBody {
    let error = status.canonical_reason().unwrap_or("Error").to_owned();
    ErrorBody { status_code: status.as_u16(), error, ..body }
}

/// Converts the problems or warnings of a policy; at most the first 100.
pub fn diagnostics(problems: Problems) -> Vec<Diagnostic> {
    problems.0.into_iter().take(MAX_DIAGNOSTICS).map(diagnostic).collect()
}

fn diagnostic(problem: Problem) -> Diagnostic {
    let Problem { path, reason, remedy, place } = problem;
    Diagnostic {
        path,
        line: place.map(|place| place.line),
        column: place.map(|place| place.column),
        reason,
        hint: Some(remedy).filter(|remedy| !remedy.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mg14_responses_with_429_and_503_state_when_to_retry() {
        for kind in [ErrorKind::TooMany, ErrorKind::Unavailable] {
            let response = ApiError(Error::new(kind, "x", "x")).into_response();
            assert!(response.headers().contains_key(RETRY_AFTER), "{kind:?}");
        }
        let response = ApiError(Error::new(ErrorKind::Invalid, "x", "x")).into_response();
        assert!(!response.headers().contains_key(RETRY_AFTER));
    }
}
