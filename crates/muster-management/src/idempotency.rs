//! The header `Idempotency-Key` of changes (MG15).

use std::sync::Arc;

use axum::body::{Body, Bytes, HttpBody as _, to_bytes};
use axum::extract::{FromRequest as _, Request};
use axum::http::header::{CONTENT_TYPE, IF_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use muster_core::Error;
use muster_core::authorization::OpContext;
use muster_core::error::OUTCOME_UNKNOWN;
use muster_fleet::Fleet;
use muster_fleet::idempotency::{Begun, Fingerprint, MAX_RESPONSE, StoredResponse, Verdict};

use super::body::{MaxBody, unreadable};
use super::error::{ApiError, ErrorCode, http_error};

/// The header with the key.
pub const KEY_HEADER: HeaderName = HeaderName::from_static("idempotency-key");
/// The header of a response that was stored.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// Marks requests that return a secret and can be repeated, in their extensions.
#[derive(Clone, Copy)]
pub struct Disclosure;

/// Returns the key of a request.
pub fn key(headers: &HeaderMap) -> Result<Option<String>, Error> {
    let mut values = headers.get_all(&KEY_HEADER).iter();
    let (Some(value), next) = (values.next(), values.next()) else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| next.is_none());
    // Its characters are checked by the service.
    text.map(|text| Some(text.to_owned()))
        .ok_or_else(|| Error::invalid("Idempotency-Key", "must be sent once, with visible ASCII characters only"))
}

/// Executes a request unless it was executed before with the same key.
pub async fn once(fleet: Arc<Fleet>, context: OpContext, key: String, request: Request, next: Next) -> Response {
    let limit = MaxBody::of(&request);
    let is_disclosure = request.extensions().get::<Disclosure>().is_some();
    let (parts, body) = request.into_parts();
    // The limit of the body's length is among the extensions.
    let read = Bytes::from_request(Request::from_parts(parts.clone(), body), &()).await;
    let body = match read {
        Ok(body) => body,
        Err(rejection) => return unreadable(&rejection, limit),
    };
    // In a task of its own, so that the request is finished even if the client disconnects: the usual reason for a repetition.
    let task = tokio::spawn(async move {
        let fingerprint = fingerprint(&context, &parts, &body);
        match fleet.idempotency().begin(&context, &key, fingerprint).await {
            Ok(Verdict::Execute(begun)) => {
                let response = next.run(Request::from_parts(parts, Body::from(body))).await;
                if is_disclosure {
                    // Not stored: a repetition discloses the secret again, which is checked and recorded again.
                    fleet.idempotency().failed(begun).await;
                    return response;
                }
                finish(&fleet, begun, response).await
            }
            Ok(Verdict::Answer(stored)) => replay(stored),
            Ok(Verdict::OtherRequest) => {
                let message = "this idempotency key was used with another request";
                http_error(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", message)
            }
            Err(error) => ApiError(error).into_response(),
        }
    });
    task.await.unwrap_or_else(|error| ApiError(Error::internal(error)).into_response())
}

fn fingerprint(context: &OpContext, parts: &Parts, body: &[u8]) -> Fingerprint {
    let header = |name: HeaderName| parts.headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
    Fingerprint::of(&[
        parts.method.as_str().as_bytes(),
        context.space().as_str().as_bytes(),
        parts.uri.to_string().as_bytes(),
        header(CONTENT_TYPE),
        header(IF_MATCH),
        body,
    ])
}

async fn finish(fleet: &Fleet, begun: Begun, response: Response) -> Response {
    if !response.status().is_success() {
        // Repetitions of a request that may have been executed are rejected.
        let code = response.extensions().get::<ErrorCode>().map(|code| code.0);
        let is_unknown = code == Some(OUTCOME_UNKNOWN) || response.status() == StatusCode::INTERNAL_SERVER_ERROR;
        if !is_unknown {
            fleet.idempotency().failed(begun).await;
        }
        return response;
    }
    let is_short = response.body().size_hint().upper().is_some_and(|length| length <= MAX_RESPONSE as u64);
    if !is_short {
        fleet.idempotency().succeeded(begun, None).await;
        return response;
    }
    let (parts, body) = response.into_parts();
    match to_bytes(body, MAX_RESPONSE).await {
        Ok(body) => {
            fleet.idempotency().succeeded(begun, stored(&parts.headers, parts.status, &body)).await;
            Response::from_parts(parts, Body::from(body))
        }
        // Bodies in memory can be read.
        Err(error) => ApiError(Error::internal(error)).into_response(),
    }
}

fn stored(headers: &HeaderMap, status: StatusCode, body: &[u8]) -> Option<StoredResponse> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let body = std::str::from_utf8(body).ok()?;
    Some(StoredResponse { status: status.as_u16(), content_type: content_type.to_owned(), body: body.to_owned() })
}

fn replay(stored: StoredResponse) -> Response {
    let StoredResponse { status, content_type, body } = stored;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let replayed = [(REPLAYED, "true".to_owned()), (CONTENT_TYPE, content_type)];
    (status, replayed, body).into_response()
}
