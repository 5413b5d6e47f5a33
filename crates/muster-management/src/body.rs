//! Parsing of JSON request bodies, with errors that name the invalid field.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use muster_core::Error;
use muster_core::error_chain::chain;
use muster_protocol::objects::Objects;
use serde::de::DeserializeOwned;

use super::error::{ApiError, http_error};
use muster_listen::body::RequestBodyError;

/// A JSON body. An empty body is parsed as `{}`, because some clients send none.
pub struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        // Before the body is read, which would be of no use.
        if let Some(refused) = unsupported_coding(request.headers()) {
            return Err(refused);
        }
        let limit = MaxBody::of(&request);
        let bytes = Bytes::from_request(request, state).await.map_err(|rejection| unreadable(&rejection, limit))?;
        parse(&bytes).map(Self).map_err(|error| ApiError(error).into_response())
    }
}

/// Maximum length of the body of a request, bytes. The router adds it to each request.
#[derive(Clone, Copy, Debug)]
pub struct MaxBody(pub usize);

impl MaxBody {
    /// Returns the limit of a request, if it has one.
    pub fn of(request: &Request) -> Option<Self> {
        request.extensions().get().copied()
    }

    /// Returns the error message for a longer body.
    pub fn message(limit: Option<Self>) -> String {
        match limit {
            Some(Self(bytes)) => format!("the request body is longer than the maximum of {bytes} bytes"),
            None => "the request body is too long".to_owned(),
        }
    }
}

/// Creates the response for a body that could not be read: too large, late, or interrupted.
pub fn unreadable(rejection: &BytesRejection, limit: Option<MaxBody>) -> Response {
    if is_late(rejection) {
        return http_error(StatusCode::REQUEST_TIMEOUT, "body_late", "the request body did not arrive in time");
    }
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            http_error(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", MaxBody::message(limit))
        }
        status => http_error(status, "body_unreadable", rejection.body_text()),
    }
}

/// Returns whether the connection layer reported a late body. hyper and axum wrap its error, so the chain is searched.
fn is_late(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<RequestBodyError>() == Some(&RequestBodyError::Late) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Returns the response for a body with a content coding. Bodies are not decoded here, and an encoded one would
/// otherwise be reported as invalid JSON.
fn unsupported_coding(headers: &HeaderMap) -> Option<Response> {
    let coding = headers.get(CONTENT_ENCODING)?;
    if coding.is_empty() || coding.as_bytes().eq_ignore_ascii_case(b"identity") {
        return None;
    }
    let message = format!("Content-Encoding {coding:?} is not supported: send the body without encoding");
    Some(http_error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_encoding", message))
}

/// Parses JSON; the error names the field.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    // Required fields are still reported as missing, by name.
    let text: &[u8] = if bytes.iter().all(u8::is_ascii_whitespace) { b"{}" } else { bytes };
    // serde's derived decoders also accept an array of a struct's values. `Objects` refuses that inside the body.
    if text.trim_ascii_start().first() == Some(&b'[') {
        return Err(Error::invalid("body", "expected a JSON object, not an array"));
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(Objects(&mut json)).map_err(|error| {
        let path = error.path().to_string();
        let error = error.into_inner();
        let reason = chain(&error).to_string();
        // The field says where a value is; a position in the text is of use only for invalid JSON.
        let reason = if error.is_data() { reason.split(" at line ").next().unwrap_or(&reason) } else { &reason };
        field_error(&path, reason)
    })?;
    // A second value after the first would otherwise be ignored silently.
    json.end().map_err(|error| Error::invalid("body", chain(&error).to_string()))?;
    Ok(value)
}

/// Returns the error of a value that a decoder rejects at a path.
pub fn field_error(path: &str, reason: &str) -> Error {
    // serde reports "unknown field `x`" at the path of the object. The invalid field is x itself. Its message is the only
    // place that has the name.
    let unknown = reason.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')).map(|(name, _)| name);
    let missing = reason.strip_prefix("missing field `").and_then(|rest| rest.split_once('`')).map(|(name, _)| name);
    // A path that ends in `?` was interrupted while a key was parsed.
    let path = match path.trim_end_matches(['?', '.']) {
        "" => ".",
        path => path,
    };
    let field = match (path, unknown.or(missing)) {
        (".", Some(name)) => name.to_owned(),
        // The text ended before the name of a field.
        ("." | "?", None) => "body".to_owned(),
        (path, Some(name)) if !path.ends_with(name) => format!("{path}.{name}"),
        (path, _) => path.to_owned(),
    };
    Error::invalid(field, reason)
}

#[cfg(test)]
mod tests {
    use muster_protocol::management::action::CreateAction;
    use muster_protocol::management::agent_action::Reassign;
    use muster_protocol::management::bulk::BulkTags;
    use muster_protocol::management::enrollment_key::CreateEnrollmentKey;

    use super::*;

    fn field_of<T: DeserializeOwned>(body: &str) -> String {
        parse::<T>(body.as_bytes()).err().and_then(|error| error.field).unwrap_or_default()
    }

    #[test]
    fn mg13_unknown_and_invalid_fields_are_named() {
        assert_eq!(field_of::<CreateEnrollmentKey>(r#"{"nmae": "x"}"#), "nmae");
        assert_eq!(field_of::<CreateEnrollmentKey>(r#"{"tags": ["a", 1]}"#), "tags[1]");
        assert_eq!(field_of::<CreateAction>(r#"{"action": {"type": "SETTINGS", "dta": 1}}"#), "action.dta");
        assert_eq!(field_of::<Reassign>("{}"), "policy_id");
        assert_eq!(field_of::<CreateEnrollmentKey>("nonsense"), "body");
        assert_eq!(field_of::<CreateEnrollmentKey>("{} {}"), "body");
        let selector = parse::<BulkTags>(br#"{"agents": null}"#).unwrap_err();
        assert_eq!(selector.message, "agents: must be a list of agent ids, or a query");
        // A truncated document has no field to name.
        assert_eq!(field_of::<CreateEnrollmentKey>("{"), "body");
        assert_eq!(field_of::<CreateEnrollmentKey>(r#"{"name": "x"#), "name");
    }

    #[test]
    fn an_array_is_not_a_body() {
        for array in ["[]", " [\"name\"]", "[null]"] {
            assert_eq!(field_of::<CreateEnrollmentKey>(array), "body", "{array}");
        }
    }

    #[test]
    fn nested_structs_are_not_parsed_from_arrays() {
        assert_eq!(field_of::<CreateAction>(r#"{"action": ["SETTINGS"]}"#), "action");
        assert_eq!(field_of::<CreateAction>("{"), "body");
    }

    #[test]
    fn an_empty_body_is_an_empty_object() {
        assert!(parse::<CreateEnrollmentKey>(b" \n").is_ok());
    }

    #[test]
    fn a_deeply_nested_body_is_refused() {
        let deep = format!(r#"{{"action": {{"type": "SETTINGS", "data": {}}}}}"#, "[".repeat(100_000));
        assert!(parse::<CreateAction>(deep.as_bytes()).is_err());
    }
}
