//! Checks of the claims of an ID token whose signature is valid (OpenID Connect Core, section 3.1.3.7).

use std::time::Duration;

use serde_json::{Map, Value};
use subtle::ConstantTimeEq as _;

use crate::reported::shortened_to;
use crate::time::Timestamp;

/// Accepted difference between the clocks.
const LEEWAY: Duration = Duration::from_secs(60);
/// Maximum length of a foreign value in a message, bytes.
const SHOWN: usize = 100;

/// What an ID token must say.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// The issuer.
    pub issuer: &'a str,
    /// The client for which it was issued.
    pub client_id: &'a str,
    /// The value that the login was begun with.
    pub nonce: &'a str,
    /// The current time.
    pub now: Timestamp,
}

/// Reason why an ID token is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Issued by somebody else.
    #[error("the token was issued by {0:?}")]
    Issuer(String),
    /// Issued for another client.
    #[error("the token was issued for another client")]
    Audience,
    /// Issued in another login.
    #[error("the token belongs to another login: its nonce differs")]
    Nonce,
    /// It has expired.
    #[error("the token expired at {0}")]
    Expired(String),
    /// Issued in the future.
    #[error("the token is not valid yet; compare the clocks of this server and the provider")]
    Early,
    /// A required claim is missing or malformed.
    #[error("the token has no valid claim `{0}`")]
    Missing(&'static str),
}

/// Checks the claims.
pub fn check(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), TokenFault> {
    let issuer = claims.get("iss").and_then(Value::as_str).ok_or(TokenFault::Missing("iss"))?;
    if issuer != expected.issuer {
        return Err(TokenFault::Issuer(shortened_to(issuer, SHOWN).into_owned()));
    }
    check_audience(claims, expected.client_id)?;
    let ends = time(claims, "exp")?.ok_or(TokenFault::Missing("exp"))?;
    if ends.plus(LEEWAY) <= expected.now {
        return Err(TokenFault::Expired(ends.to_rfc3339_seconds()));
    }
    let issued = time(claims, "iat")?.ok_or(TokenFault::Missing("iat"))?;
    // `nbf` is optional. No token is valid before it was issued, either.
    let begins = time(claims, "nbf")?.unwrap_or(issued).max(issued);
    if begins > expected.now.plus(LEEWAY) {
        return Err(TokenFault::Early);
    }
    let nonce = claims.get("nonce").and_then(Value::as_str).ok_or(TokenFault::Missing("nonce"))?;
    if bool::from(nonce.as_bytes().ct_eq(expected.nonce.as_bytes())) { Ok(()) } else { Err(TokenFault::Nonce) }
}

fn check_audience(claims: &Map<String, Value>, client: &str) -> Result<(), TokenFault> {
    let is_client = |value: &Value| value.as_str() == Some(client);
    let (named, several) = match claims.get("aud") {
        Some(Value::Array(all)) => (all.iter().any(is_client), all.len() > 1),
        Some(one @ Value::String(_)) => (is_client(one), false),
        _ => return Err(TokenFault::Missing("aud")),
    };
    // With several audiences, only the authorized party may use the token.
    let party = match claims.get("azp") {
        Some(party) => is_client(party),
        None => !several,
    };
    if named && party { Ok(()) } else { Err(TokenFault::Audience) }
}

/// Reads a time in seconds, which may have a fraction (RFC 7519 §2).
fn time(claims: &Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, TokenFault> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_f64().filter(|seconds| (0.0..1e11).contains(seconds));
    let seconds = seconds.ok_or(TokenFault::Missing(name))?;
    Ok(Some(Timestamp::from_micros((seconds * 1e6) as i64)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn with(changes: &Value) -> Result<(), TokenFault> {
        let mut claims = json!({
            "iss": "https://id.example", "aud": "muster", "sub": "17", "nonce": "n", "exp": NOW + 300, "iat": NOW
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let present = |map: Map<String, Value>| map.into_iter().filter(|(_, value)| !value.is_null()).collect();
        let claims: Map<String, Value> = present(claims.as_object().unwrap().clone());
        let now = Timestamp::from_micros(NOW * 1_000_000);
        check(&claims, &Expected { issuer: "https://id.example", client_id: "muster", nonce: "n", now })
    }

    #[test]
    fn a_token_of_this_log_in_is_accepted() {
        assert_eq!(with(&json!({})), Ok(()));
        assert_eq!(with(&json!({"aud": ["muster"], "exp": NOW - 59, "iat": NOW + 59})), Ok(()));
        assert_eq!(with(&json!({"aud": ["other", "muster"], "azp": "muster"})), Ok(()));
    }

    #[test]
    fn every_other_token_is_rejected_with_its_own_reason() {
        assert_eq!(with(&json!({"iss": "https://id.example/"})), Err(TokenFault::Issuer("https://id.example/".into())));
        for other in [json!({"aud": "other"}), json!({"aud": ["other", "muster"]}), json!({"azp": "other"})] {
            assert_eq!(with(&other), Err(TokenFault::Audience), "{other}");
        }
        assert_eq!(with(&json!({"nonce": "m"})), Err(TokenFault::Nonce));
        assert!(matches!(with(&json!({"exp": NOW - 60})), Err(TokenFault::Expired(_))));
        assert_eq!(with(&json!({"iat": NOW + 61})), Err(TokenFault::Early));
        assert_eq!(with(&json!({"nbf": NOW + 61})), Err(TokenFault::Early));
        for name in ["iss", "aud", "exp", "iat", "nonce"] {
            assert_eq!(with(&json!({name: null})), Err(TokenFault::Missing(name)));
        }
        assert_eq!(with(&json!({"exp": "tomorrow"})), Err(TokenFault::Missing("exp")));
        assert_eq!(with(&json!({"exp": 1e300})), Err(TokenFault::Missing("exp")));
    }
}
