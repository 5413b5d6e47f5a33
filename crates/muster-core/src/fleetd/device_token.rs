//! Tokens of Fleet Desktop: orbit generates one each hour and announces it, and the desktop program of the user presents it
//! (FL §3.2).

use std::time::Duration;

use crate::agent::AgentRecord;
use crate::credential::{ApiKey, CredentialKind, LiveCredential};
use crate::error::{Error, ErrorKind};
use crate::id::KeyId;
use crate::status;
use crate::time::Timestamp;

/// Time for which a token is valid after it was announced. Announcing it again does not make this longer (FL70).
pub const VALID_FOR: Duration = Duration::from_secs(3600);

/// Lengths of a token, bytes; orbit's are UUIDs of 36. A shorter one could be guessed.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 32..=255;

/// Checks that a token is long enough, and can be part of a URL without escapes (FL58).
pub fn check(token: &str) -> Result<(), Error> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    if TOKEN_BYTES.contains(&token.len()) && token.bytes().all(is_plain) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Invalid, "bad_device_token", "invalid device auth token"))
}

/// Returns whether a token that was announced at `issued_at` is valid.
pub fn is_valid(issued_at: Timestamp, now: Timestamp) -> bool {
    // A time in the future was written before the clock was set back; the token must not be valid until then.
    issued_at <= now.plus(VALID_FOR) && now.since(issued_at) < VALID_FOR
}

/// Returns the record with a new token. The previous one stays until its own end, so that a page that is open goes on
/// working (FL70); `None` if the token is known.
pub fn announce(before: &AgentRecord, token: &ApiKey, seen: Option<Timestamp>, now: Timestamp) -> Option<AgentRecord> {
    let mut credentials = before.credentials.clone();
    if credentials.iter().any(|credential| credential.key_id == token.id) {
        return None;
    }
    let tokens = || before.credentials.iter().filter(|credential| credential.kind == CredentialKind::DeviceToken);
    let previous = tokens().filter(|previous| is_valid(previous.issued_at, now)).max_by_key(|token| token.issued_at);
    let previous: Option<&KeyId> = previous.map(|previous| &previous.key_id);
    for old in tokens().filter(|old| Some(&old.key_id) != previous) {
        credentials.revoke(&old.key_id);
    }
    // There is room: of the tokens, only one is left.
    credentials.issue(LiveCredential::of(token, CredentialKind::DeviceToken, now)).ok()?;
    Some(status::finish(before, AgentRecord { credentials, ..before.clone() }, seen, now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{agent, at};

    fn tokens(record: &AgentRecord) -> usize {
        record.credentials.iter().filter(|credential| credential.kind == CredentialKind::DeviceToken).count()
    }

    #[test]
    fn fl58_tokens_need_no_escapes() {
        assert!(check("0b1c6b7e-4b39-4b0e-9a7d-3f8f4f7b2f60").is_ok());
        for bad in ["", "a/b", "a b", "a%20", "ü", "a?b"] {
            assert!(
                check(bad).is_err() && check(&format!("{}{bad}", "x".repeat(32))).is_err() != bad.is_empty(),
                "{bad:?}"
            );
        }
        assert!(["x".repeat(31), "x".repeat(256)].iter().all(|bad| check(bad).is_err()), "too short or too long");
    }

    #[test]
    fn fl70_the_previous_token_stays_and_a_repeated_one_gets_no_longer_life() {
        let keys = ["one", "two", "three"].map(ApiKey::opaque);
        let first = announce(&agent(), &keys[0], None, at(0)).unwrap();
        assert_eq!(announce(&first, &keys[0], None, at(1800)), None);
        let second = announce(&first, &keys[1], None, at(3000)).unwrap();
        assert_eq!(tokens(&second), 2);
        let third = announce(&second, &keys[2], None, at(3300)).unwrap();
        assert_eq!(tokens(&third), 2);
        assert!(third.credentials.matching(&keys[0]).is_none() && third.credentials.matching(&keys[1]).is_some());
        let later = announce(&second, &keys[2], None, at(9000)).unwrap();
        assert_eq!(tokens(&later), 1, "ended ones are removed");
        assert!(is_valid(at(0), at(3599)) && !is_valid(at(0), at(3600)) && !is_valid(at(9000), at(0)));
    }
}
