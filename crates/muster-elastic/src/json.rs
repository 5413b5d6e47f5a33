//! Strict parsing of JSON bodies: duplicate keys, invalid UTF-8, lone surrogates, trailing data and excessive nesting are
//! refused (D22). Unknown fields are accepted (EA8).

use std::borrow::Cow;

use muster_core::reported::shortened_to;
use serde::Deserialize;

use super::error::ApiError;
use super::strict_json::{self, BadJson, Known};

/// Returns the text of a body, with the value of member `key` replaced by `null` if it is an object that was read before:
/// that object is neither checked nor decoded again. `length` returns the object's length if a text begins with it.
pub fn without_known<'a>(
    body: &'a [u8],
    key: &str,
    length: &dyn Fn(&[u8]) -> Option<usize>,
) -> Result<Cow<'a, str>, ApiError> {
    let (text, known) = strict_json::check_but(body, Known { key, length }).map_err(|error| bad_json(body, error))?;
    // The copy of the rest is cheaper than decoding the value, which is usually half of the body.
    let Some(place) = known else { return Ok(text.into()) };
    // `null` reads as absent, and an absent document is unchanged.
    Ok([&text[..place.start], "null", &text[place.end..]].concat().into())
}

/// Parses a body, or returns 400 `BadRequest`.
pub fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, ApiError> {
    parse_checked(strict_json::check(body).map_err(|error| bad_json(body, error))?)
}

/// Parses a body that was checked.
pub fn parse_checked<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, ApiError> {
    // serde's derived decoders also accept an array of a struct's values. Every body of the protocol is an object.
    if !text.trim_start().starts_with('{') {
        return Err(ApiError::bad_request("expected a JSON object"));
    }
    serde_json::from_str(text).map_err(ApiError::bad_request)
}
/// Returns the error for a text that is rejected, with the member of the outermost object that is at fault.
fn bad_json(body: &[u8], error: BadJson) -> ApiError {
    match strict_json::member_at(body, error.position) {
        Some(member) => ApiError::bad_request(format!("{}: {error}", shortened_to(&member, 64))),
        None => ApiError::bad_request(error),
    }
}
