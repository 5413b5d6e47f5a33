//! Credentials of requests: the `Authorization` header, the session cookie, and proof against cross-site requests.

use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_core::credential::ApiKey;
use muster_core::error_chain::chain;
use muster_core::id::KeyId;
use muster_core::identity::SESSION_LIFETIME;
use muster_core::{Error, ErrorKind};
use muster_fleet::identity::sign_in::Presented;
use zeroize::Zeroizing;

/// Name of the cookie of a session.
pub const COOKIE: &str = "muster_session";
/// Maximum length of the header, bytes.
const MAX_HEADER: usize = 2_048;

/// Returns the credentials of a request; `None` if it has none.
pub fn presented(headers: &HeaderMap, accepts_basic: bool) -> Result<Option<Presented>, Error> {
    match headers.get(AUTHORIZATION) {
        Some(value) => authorization(value, accepts_basic).map(Some),
        // A cookie is sent by browsers whatever the page wants, so explicit credentials take precedence.
        None => Ok(cookie(headers).map(Presented::Session)),
    }
}

fn authorization(value: &HeaderValue, accepts_basic: bool) -> Result<Presented, Error> {
    let text = value.to_str().ok().filter(|text| text.len() <= MAX_HEADER).ok_or_else(|| unusable("malformed"))?;
    let (scheme, rest) = text.trim().split_once(' ').ok_or_else(|| unusable("malformed"))?;
    match scheme.to_ascii_lowercase().as_str() {
        // The same token under both names: clients of Kibana use either (MG7).
        "apikey" | "bearer" => {
            let key = ApiKey::parse(rest).map_err(|error| unusable(&chain(&error).to_string()))?;
            Ok(Presented::Token(key))
        }
        "basic" if accepts_basic => basic(rest.trim()).ok_or_else(|| unusable("malformed")),
        "basic" => Err(Error::new(
            ErrorKind::Unauthenticated,
            "basic_not_accepted",
            "this server does not accept user names and passwords in the Authorization header",
        )
        .remedy("use an API token: Authorization: ApiKey …; or set auth.basic = true")),
        _ => Err(unusable("unknown scheme; supported: ApiKey, Bearer")),
    }
}

fn basic(text: &str) -> Option<Presented> {
    let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
    let (name, password) = std::str::from_utf8(&bytes).ok()?.split_once(':')?;
    Some(Presented::Password(Zeroizing::new(name.to_owned()), Zeroizing::new(password.to_owned())))
}

fn unusable(reason: &str) -> Error {
    let message = format!("the Authorization header cannot be used: {reason}");
    Error::new(ErrorKind::Unauthenticated, "unauthenticated", message)
        .remedy("send an API token, as `muster token create` prints it: Authorization: ApiKey …")
}

/// Returns the key in the session cookie. A malformed cookie counts as none, as after a log-out.
pub fn cookie(headers: &HeaderMap) -> Option<ApiKey> {
    ApiKey::parse(muster_listen::cookie(headers, COOKIE)?).ok()
}

/// Returns the id of the session that a request is made in; `None` for one with other credentials.
pub fn session(headers: &HeaderMap) -> Option<KeyId> {
    let is_session = headers.get(AUTHORIZATION).is_none();
    cookie(headers).filter(|_| is_session).map(|key| key.id)
}

/// Returns the header that gives a browser its session.
pub fn session_cookie(cookie: &str, is_secure: bool) -> Result<HeaderValue, Error> {
    set_cookie(COOKIE, cookie, SESSION_LIFETIME.as_secs(), is_secure)
}

/// Returns the value of `Set-Cookie`. `Lax`, because a browser brings cookies back from an OpenID provider by a link.
pub fn set_cookie(name: &str, content: &str, seconds: u64, is_secure: bool) -> Result<HeaderValue, Error> {
    let secure = if is_secure { "; Secure" } else { "" };
    let text = format!("{name}={content}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    let mut value = HeaderValue::from_str(&text).map_err(Error::internal)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether a browser says that a request comes from a page of this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Site {
    Same,
    Other,
    /// No browser, or an old one.
    Unknown,
}

fn site(headers: &HeaderMap) -> Site {
    if let Some(site) = headers.get("sec-fetch-site") {
        // Pages cannot set this header. `same-site` is another host or port, which is not ours.
        return if site == "same-origin" { Site::Same } else { Site::Other };
    }
    let Some(origin) = headers.get(ORIGIN) else { return Site::Unknown };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if origin.is_some() && origin == host { Site::Same } else { Site::Other }
}

/// Fails unless a browser says that the request comes from a page of this server: for changes and WebSockets that are
/// authenticated by a cookie, which pages of other sites can send too (MG4).
pub fn check_same_origin(headers: &HeaderMap) -> Result<(), Error> {
    if site(headers) == Site::Same { Ok(()) } else { Err(cross_site()) }
}

/// Fails if a browser says that the request comes from a page of another site. For requests without a cookie.
pub fn check_not_cross_site(headers: &HeaderMap) -> Result<(), Error> {
    if site(headers) == Site::Other { Err(cross_site()) } else { Ok(()) }
}

fn cross_site() -> Error {
    let message = "a change or a WebSocket that is authenticated by a cookie must come from a page of this server";
    Error::new(ErrorKind::Forbidden, "cross_site", message)
        .remedy("in scripts, use an API token: Authorization: ApiKey …")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn of(value: &str, accepts_basic: bool) -> Result<String, &'static str> {
        let found = presented(&headers(&[("authorization", value)]), accepts_basic);
        found.map(|one| one.unwrap().shown()).map_err(|error| error.code)
    }

    #[test]
    fn mg7_tokens_are_accepted_under_both_schemes_and_passwords_only_if_enabled() {
        for scheme in ["ApiKey", "apikey", "Bearer", "BEARER"] {
            assert_eq!(of(&format!("{scheme} aWQ6c2VjcmV0"), false), Ok("id".into()), "{scheme}");
        }
        assert_eq!(of("Basic YW5uOnBhOnNz", true), Ok("ann".into()));
        assert_eq!(of("Basic YW5uOnBhOnNz", false), Err("basic_not_accepted"));
        let long = "x".repeat(4_000);
        for bad in ["ApiKey", "ApiKey %", "ApiKey aWQ=", "Digest x", "Basic !", &format!("ApiKey {long}")] {
            assert_eq!(of(bad, true), Err("unauthenticated"), "{bad}");
        }
        assert!(presented(&HeaderMap::new(), true).unwrap().is_none());
    }

    #[test]
    fn the_session_cookie_is_found_among_others_and_yields_to_a_header() {
        let both = headers(&[("cookie", "a=b; muster_session=aWQ6c2VjcmV0; c=d")]);
        assert_eq!(cookie(&both).unwrap().id.as_str(), "id");
        assert!(matches!(presented(&both, false), Ok(Some(Presented::Session(_)))));
        assert!(cookie(&headers(&[("cookie", "muster_session=")])).is_none());
        let header = headers(&[("cookie", "muster_session=aWQ6c2VjcmV0"), ("authorization", "ApiKey eDp5")]);
        assert!(matches!(presented(&header, false), Ok(Some(Presented::Token(key))) if key.id.as_str() == "x"));
    }

    #[test]
    fn mg4_only_pages_of_this_server_prove_their_origin() {
        let check = |pairs: &[(&'static str, &str)]| site(&headers(pairs));
        assert_eq!(check(&[("sec-fetch-site", "same-origin")]), Site::Same);
        assert_eq!(check(&[("sec-fetch-site", "same-site"), ("origin", "http://h"), ("host", "h")]), Site::Other);
        assert_eq!(check(&[("sec-fetch-site", "cross-site")]), Site::Other);
        assert_eq!(check(&[("origin", "https://h:8230"), ("host", "h:8230")]), Site::Same);
        assert_eq!(check(&[("origin", "https://h:8231"), ("host", "h:8230")]), Site::Other);
        assert_eq!(check(&[("origin", "null"), ("host", "h")]), Site::Other);
        assert_eq!(check(&[("host", "h")]), Site::Unknown);
    }
}
