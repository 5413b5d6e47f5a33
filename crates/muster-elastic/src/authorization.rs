//! The `Authorization` header: `ApiKey <base64(id:secret)>` (EA §1.6, EA10–EA13).

use http::HeaderMap;
use http::header::AUTHORIZATION;
use muster_core::credential::{ApiKey, TokenError};
use muster_core::error_chain::chain;

use super::error::ApiError;

/// Maximum length of the header's value, bytes. Keys of this server need 90, Elastic's 60.
const MAX_HEADER_BYTES: usize = 1024;

/// Returns the key that a request presents. The sequence of checks decides which error a client sees.
pub fn api_key(headers: &HeaderMap) -> Result<ApiKey, ApiError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(ApiError::of("ErrNoAuthHeader"))?;
    // Two headers are refused: a proxy and this server might use different ones.
    if values.next().is_some() || value.len() > MAX_HEADER_BYTES {
        return Err(ApiError::of("ErrMalformedHeader"));
    }
    // Case-sensitive, as in Elastic's server (EA11).
    let token = value.as_bytes().strip_prefix(b"ApiKey ").ok_or(ApiError::of("ErrMalformedHeader"))?;
    let refused = |error: TokenError| ApiError::of(code(error)).message(chain(&error).to_string());
    // Bytes outside UTF-8 can't be base64 either.
    let token = std::str::from_utf8(token).map_err(|_| refused(TokenError::NotBase64))?;
    ApiKey::parse(token).map_err(refused)
}

/// The protocol's code for an invalid token (EA12, EA13). The message comes from the token error, because agents log it, and
/// the person who pasted the token reads it there.
fn code(error: TokenError) -> &'static str {
    match error {
        TokenError::Quoted | TokenError::NotBase64 | TokenError::NotText => "ErrInvalidToken",
        TokenError::Empty | TokenError::NotIdAndSecret => "ErrMalformedToken",
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use http::HeaderValue;

    use super::*;

    fn refusal(values: &[&str]) -> (u16, String) {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        let error = api_key(&headers).unwrap_err();
        (error.status().as_u16(), error.code().to_owned())
    }

    fn encoded(text: impl AsRef<[u8]>) -> String {
        format!("ApiKey {}", STANDARD.encode(text))
    }

    #[test]
    fn ea10_no_header_is_401() {
        assert_eq!(refusal(&[]), (401, "ErrNoAuthHeader".into()));
    }

    #[test]
    fn ea11_other_schemes_and_several_headers_are_400() {
        let good = encoded("id:secret");
        for values in [&["Bearer x"][..], &["apikey x"], &["ApiKey"], &["Basic eDp5"], &[&good, &good]] {
            assert_eq!(refusal(values), (400, "ErrMalformedHeader".into()), "{values:?}");
        }
        assert_eq!(refusal(&[&encoded("x".repeat(2000))]), (400, "ErrMalformedHeader".into()));
    }

    #[test]
    fn ea12_tokens_that_are_not_base64_or_not_text_are_401() {
        for value in ["ApiKey %%%", "ApiKey x", &encoded([0xff, 0xfe])] {
            assert_eq!(refusal(&[value]), (401, "ErrInvalidToken".into()), "{value}");
        }
    }

    #[test]
    fn ea13_tokens_without_exactly_one_colon_are_400() {
        for value in [encoded("nocolon"), encoded("a:b:c"), encoded("")] {
            assert_eq!(refusal(&[&value]), (400, "ErrMalformedToken".into()), "{value}");
        }
    }

    #[test]
    fn the_message_names_the_fault_of_the_token() {
        let message = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            let text = format!("{:?}", api_key(&headers).unwrap_err());
            assert!(!text.contains("s3cret"), "{text}");
            text
        };
        for (value, reason) in [
            (r#"ApiKey "aWQ6czNjcmV0""#, "in quotes"),
            ("ApiKey 'aWQ6czNjcmV0'", "in quotes"),
            ("ApiKey s3cret!", "not base64"),
            ("ApiKey aWQ6czNjcmV", "not base64"),
            (encoded("s3cret").as_str(), "does not decode to id:secret"),
        ] {
            assert!(message(value).contains(reason), "{value}: {}", message(value));
        }
    }

    #[test]
    fn space_around_the_token_is_trimmed() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("ApiKey   {} ", STANDARD.encode("a:b"))).unwrap());
        assert_eq!(api_key(&headers).unwrap().id.as_str(), "a");
    }
}
