//! JSON bodies, strictly: duplicate keys, broken UTF-8, lone surrogates, trailing data and endless nesting are refused
//! (D22); unknown fields are not (EA8).

use std::borrow::Cow;

use serde::Deserialize;

use super::error::ApiError;
use super::strict_json::{self, Known};

/// The text of a body whose member `key` may hold an object that was read before: then it says `null` there, and that
/// object is neither checked nor read again. `length` tells how long it is if the rest of the text begins with it.
pub fn without_known<'a>(
    body: &'a [u8],
    key: &str,
    length: &dyn Fn(&[u8]) -> Option<usize>,
) -> Result<Cow<'a, str>, ApiError> {
    let (text, known) = strict_json::check_but(body, Known { key, length }).map_err(ApiError::bad_request)?;
    let Some(place) = known else { return Ok(text.into()) };
    Ok([&text[..place.start], "null", &text[place.end..]].concat().into())
}

/// Reads a body; 400 `BadRequest` when it can't be one. Every body of the protocol is an object; decoders would take a
/// list of its values as well.
pub fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    parse_checked(strict_json::check(body).map_err(ApiError::bad_request)?)
}

/// Reads a body that was checked.
pub fn parse_checked<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ApiError> {
    if !text.trim_start().starts_with('{') {
        return Err(ApiError::bad_request("expected a JSON object"));
    }
    serde_json::from_str(text).map_err(ApiError::bad_request)
}
