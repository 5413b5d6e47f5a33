//! `X-Request-Id` (EA §1.5, EA4): echoed if valid, generated if it is absent or not safe to log.

use std::fmt;

use http::{HeaderMap, HeaderValue};
use muster_core::Entropy;
use muster_core::entropy::random_uuid;
use muster_protocol::elastic::REQUEST_ID_HEADER;

/// Maximum bytes of an id that is echoed. Agents send 26.
const MAX_BYTES: usize = 128;

/// The id of a request: short, and safe to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Box<str>);

impl RequestId {
    /// Returns the client's id, or a new one. It is copied, because the header's bytes would keep the connection's read
    /// buffer alive while a check-in is parked.
    pub fn of(headers: &HeaderMap, entropy: &dyn Entropy) -> Self {
        let given = headers.get(REQUEST_ID_HEADER).and_then(|value| value.to_str().ok());
        Self(match given {
            Some(id) if is_plain(id) => id.into(),
            _ => random_uuid(entropy).into(),
        })
    }

    /// Returns the value of the response's header.
    pub fn to_header(&self) -> HeaderValue {
        // Checked by `is_plain`, so the fallback is not reached.
        HeaderValue::from_str(&self.0).unwrap_or(HeaderValue::from_static(""))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// No spaces, quotes or control characters: an id must not be able to forge a log line or a field of one.
fn is_plain(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(&byte);
    (1..=MAX_BYTES).contains(&id.len()) && id.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Zeroes;
    impl Entropy for Zeroes {
        fn fill(&self, buffer: &mut [u8]) {
            buffer.fill(0);
        }
    }

    fn of(value: Option<&[u8]>) -> String {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(REQUEST_ID_HEADER, HeaderValue::from_bytes(value).unwrap());
        }
        RequestId::of(&headers, &Zeroes).to_string()
    }

    #[test]
    fn ea4_a_plain_id_is_echoed_and_anything_else_replaced() {
        assert_eq!(of(Some(b"01JD0000000000000000000000")), "01JD0000000000000000000000");
        let made = "00000000-0000-4000-8000-000000000000";
        assert_eq!(of(None), made);
        let long = vec![b'a'; 129];
        for bad in [&b""[..], b"a b", b"a\tb", b"a\"b", b"\xff", &long] {
            assert_eq!(of(Some(bad)), made, "{bad:?}");
        }
    }
}
