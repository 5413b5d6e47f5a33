//! Cookies of requests.

use http::HeaderMap;
use http::header::COOKIE;

/// Maximum length of a header with cookies that is searched, bytes.
const MAX_LINE: usize = 8_192;

/// Returns the content of the first cookie with this name. A header that is too long, or is no text, has none.
pub fn cookie<'h>(headers: &'h HeaderMap, wanted: &str) -> Option<&'h str> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = lines.filter(|line| line.len() <= MAX_LINE).flat_map(|line| line.split(';'));
    pairs.filter_map(|pair| pair.trim().split_once('=')).find(|(name, _)| *name == wanted).map(|(_, content)| content)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name_in_any_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(cookie(&headers, "a"), None);
        headers.append(COOKIE, HeaderValue::from_bytes(b"a=\xff").unwrap());
        headers.append(COOKIE, HeaderValue::from_static("aa=1; b"));
        headers.append(COOKIE, HeaderValue::from_static("c=2;a=3=4; a=5"));
        headers.append(COOKIE, HeaderValue::try_from(format!("long={}", "x".repeat(MAX_LINE))).unwrap());
        assert_eq!(cookie(&headers, "a"), Some("3=4"));
        assert_eq!((cookie(&headers, "b"), cookie(&headers, "long")), (None, None));
    }
}
