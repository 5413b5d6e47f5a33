//! Building blocks of responses.

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use muster_core::Error;
use muster_protocol::elastic::{API_VERSION_HEADER, REQUEST_ID_HEADER};
use serde::Serialize;

use super::error::ApiError;
use super::request_id::RequestId;
use super::version_header;
use muster_listen::reply::{Reply, ReplyBody};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// Creates a 200 without a body.
pub fn empty() -> Reply {
    Response::new(ReplyBody::empty())
}

/// Creates a 200 with a body of this content type.
pub fn typed(body: impl Into<ReplyBody>, content_type: HeaderValue) -> Reply {
    let mut reply = Response::new(body.into());
    reply.headers_mut().insert(CONTENT_TYPE, content_type);
    reply
}

/// Creates a 200 with serialized JSON.
pub fn json_bytes(body: impl Into<ReplyBody>) -> Reply {
    typed(body, JSON)
}

/// Creates a 200 with a value as JSON.
pub fn json<T: Serialize>(value: &T) -> Result<Reply, ApiError> {
    let bytes = serde_json::to_vec(value).map_err(Error::internal)?;
    Ok(json_bytes(Bytes::from(bytes)))
}

fn text(status: StatusCode, body: &'static str) -> Reply {
    let mut reply = typed(Bytes::from_static(body.as_bytes()), TEXT);
    *reply.status_mut() = status;
    reply
}

/// Creates the response for an unknown path (EA3): plain text, as Go's HTTP server sends it.
pub fn not_found() -> Reply {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}

/// Creates the response for a method that the path does not support (EA3).
pub fn method_not_allowed(allow: HeaderValue) -> Reply {
    let mut reply = empty();
    *reply.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    reply.headers_mut().insert(ALLOW, allow);
    reply
}

/// Creates the response when too many requests are running on the listener (EA17).
pub fn full() -> Reply {
    let mut reply = typed(Bytes::from_static(b"Server capacity exceeded."), HeaderValue::from_static("text/plain"));
    *reply.status_mut() = StatusCode::TOO_MANY_REQUESTS;
    reply
}

/// Creates the response for an error. Errors of the server or the store are logged with their internal details.
pub fn failure(error: ApiError, id: &RequestId) -> Reply {
    let status = error.status();
    let cause = error.cause().map(tracing::field::display);
    // 501 is the client's mistake: it asked for the PGP key without TLS.
    if status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED {
        tracing::error!(request = %id, status = status.as_u16(), code = error.code(), cause, "request failed");
    } else {
        tracing::debug!(request = %id, status = status.as_u16(), code = error.code(), cause, "request refused");
    }
    error.into_reply()
}

/// Adds the headers of every response.
pub fn finish(mut reply: Reply, id: &RequestId, versioned: bool) -> Reply {
    let headers = reply.headers_mut();
    headers.insert(REQUEST_ID_HEADER, id.to_header());
    if versioned {
        headers.insert(API_VERSION_HEADER, version_header::VALUE);
    }
    reply
}
