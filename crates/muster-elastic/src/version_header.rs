//! `Elastic-Api-Version` (EA §1.8, EA5–EA7): a single version exists, and it is the default.

use http::{HeaderMap, HeaderValue};
use muster_protocol::elastic::{API_VERSION, API_VERSION_HEADER};

use super::error::ApiError;

/// The version header of every response after this check.
pub const VALUE: HeaderValue = HeaderValue::from_static(API_VERSION);

/// Refuses unknown and malformed versions.
pub fn check(headers: &HeaderMap) -> Result<(), ApiError> {
    let mut values = headers.get_all(API_VERSION_HEADER).iter();
    match (values.next().map(HeaderValue::as_bytes), values.next()) {
        // Scripts and health checks often don't send the header.
        (None, _) => Ok(()),
        (Some(value), None) if value == API_VERSION.as_bytes() => Ok(()),
        (Some(value), None) if is_date(value) => Err(ApiError::of("ErrUnsupportedAPIVersion")),
        _ => Err(ApiError::of("ErrInvalidAPIVersionFormat")),
    }
}

// Only the shape is checked, as in `2023-99-99`: any date but the known one is an unsupported version.
fn is_date(value: &[u8]) -> bool {
    value.len() == 10
        && value
            .iter()
            .enumerate()
            .all(|(at, byte)| if at == 4 || at == 7 { *byte == b'-' } else { byte.is_ascii_digit() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(values: &[&'static str]) -> Result<(), String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(API_VERSION_HEADER, HeaderValue::from_static(value));
        }
        check(&headers).map_err(|error| error.code().to_owned())
    }

    #[test]
    fn ea5_ea6_ea7_absent_and_known_versions_are_accepted_others_refused() {
        assert_eq!(verdict(&[]), Ok(()));
        assert_eq!(verdict(&["2023-06-01"]), Ok(()));
        for malformed in ["banana", "", "2023-6-1", "2023-06-01 ", "20230-6-01", "2023/06/01"] {
            assert_eq!(verdict(&[malformed]), Err("ErrInvalidAPIVersionFormat".into()), "{malformed:?}");
        }
        assert_eq!(verdict(&["2023-06-01", "2023-06-01"]), Err("ErrInvalidAPIVersionFormat".into()));
        assert_eq!(verdict(&["2020-01-01"]), Err("ErrUnsupportedAPIVersion".into()));
    }
}
