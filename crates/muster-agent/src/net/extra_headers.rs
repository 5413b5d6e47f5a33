//! Additional headers of requests to the server (`--header`), for gateways in front of it.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::state::enrollment::Secret;

/// Headers that frame a request, or that the agent sets itself (EA §2).
const RESERVED: [&str; 16] = [
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "elastic-api-version",
    "expect",
    "host",
    "kbn-xsrf",
    "te",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "x-request-id",
];

/// Why a header cannot be used. The texts contain no value, which may be a credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// The name or the value is malformed.
    #[error("the header {0:?} is malformed")]
    Malformed(String),
    /// The agent sets this header itself.
    #[error("the header {0:?} is set by the agent itself")]
    Reserved(String),
}

/// Parses the headers.
pub fn parse(headers: &[(String, Secret)]) -> Result<HeaderMap, BadHeader> {
    let mut parsed = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let malformed = || BadHeader::Malformed(name.clone());
        let known = HeaderName::try_from(name.as_str()).map_err(|_| malformed())?;
        if RESERVED.contains(&known.as_str()) {
            return Err(BadHeader::Reserved(name.clone()));
        }
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| malformed())?;
        // Keeps it out of debug output.
        value.set_sensitive(true);
        parsed.append(known, value);
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_parsed_and_those_of_the_agent_are_refused() {
        let parse = |name: &str, value: &str| parse(&[(name.to_owned(), Secret::new(value))]);
        assert_eq!(parse("X-Gateway", "a b").unwrap()["x-gateway"], "a b");
        assert_eq!(parse("Authorization", "canary"), Err(BadHeader::Reserved("Authorization".into())));
        assert_eq!(parse("a b", "canary"), Err(BadHeader::Malformed("a b".into())));
        assert_eq!(parse("a", "canary\r\nb: c"), Err(BadHeader::Malformed("a".into())));
    }
}
