//! A domain error in this API's shape: `{statusCode, error, message, code, field?, remedy?}`.

use axum::Json;
use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use muster_core::{Error, ErrorKind};
use muster_listen::reply::{Reply, ReplyBody};
use muster_protocol::management::ErrorBody;

/// An error on its way out.
#[derive(Debug)]
pub struct ApiError(pub Error);

/// What handlers answer.
pub type ApiResult<T> = Result<T, ApiError>;

impl<E: Into<Error>> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

const fn status_of(kind: ErrorKind) -> StatusCode {
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

/// Seconds after which it is worth while to try again.
const fn retry_after(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::TooMany => Some("1"),
        ErrorKind::Unavailable => Some("5"),
        _ => None,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Error { kind, code, message, field, remedy, internal, .. } = self.0;
        if let Some(internal) = internal {
            tracing::warn!(code, %internal, "management request failed");
        }
        let mut response = with_status(status_of(kind), code, message, field, remedy);
        if let Some(seconds) = retry_after(kind) {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(seconds));
        }
        response
    }
}

/// An error of HTTP itself, which the domain has no kind for.
pub fn http_error(status: StatusCode, code: &str, message: impl Into<String>) -> Response {
    with_status(status, code, message.into(), None, None)
}

/// [`http_error`] for the connection layer, which refuses requests before there is a router.
pub fn error_reply(status: StatusCode, code: &str, message: String) -> Reply {
    let body = serde_json::to_vec(&body(status, code, message, None, None)).unwrap_or_default();
    let mut reply = Reply::new(ReplyBody::from(Bytes::from(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

fn with_status(
    status: StatusCode,
    code: &str,
    message: String,
    field: Option<String>,
    remedy: Option<String>,
) -> Response {
    (status, Json(body(status, code, message, field, remedy))).into_response()
}

fn body(status: StatusCode, code: &str, message: String, field: Option<String>, remedy: Option<String>) -> ErrorBody {
    let error = status.canonical_reason().unwrap_or("Error").to_owned();
    ErrorBody { status_code: status.as_u16(), error, message, code: code.to_owned(), field, remedy }
}
