//! Keys and tokens in the headers of requests.

use http::HeaderMap;
use http::header::AUTHORIZATION;
use muster_listen::cookie;

/// Name of the cookie with the device token.
pub const DEVICE_COOKIE: &str = "muster_device";

/// Returns the key in the header `Authorization: NodeKey …`. The scheme is compared without case (FL §1.10).
pub fn osquery_key(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("NodeKey").then(|| key.trim())
}

/// Returns the key in the header `Authorization: Node key …`, whose prefix is compared with case (FL166).
pub fn orbit_key(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Node key ")
}

/// Returns the device token in the cookie of the page.
pub fn device_token(headers: &HeaderMap) -> Option<&str> {
    cookie(headers, DEVICE_COOKIE)
}
