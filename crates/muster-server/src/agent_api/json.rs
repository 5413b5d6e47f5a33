//! JSON bodies, strictly: duplicate keys, broken UTF-8, lone surrogates, trailing data and endless nesting are refused
//! (D22); unknown fields are not (EA8).

use muster_core::strict_json;
use serde::Deserialize;

use super::error::ApiError;

/// Reads a body; 400 `BadRequest` when it can't be one. Every body of the protocol is an object; decoders would take a
/// list of its values as well.
pub fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    let text = strict_json::check(body).map_err(ApiError::bad_request)?;
    if !text.trim_start().starts_with('{') {
        return Err(ApiError::bad_request("a JSON object is expected"));
    }
    serde_json::from_str(text).map_err(ApiError::bad_request)
}
