//! One-time enroll secrets: each admits the orbit and the osqueryd of one host, once (FL §4.6).

use std::time::Duration;

use crate::agent::Family;
use crate::denial::Denial;
use crate::time::Timestamp;

/// Maximum number of one-time secrets of a space that are not revoked. They do not count towards the limit of shared ones.
pub const MAX_SECRETS: u64 = 10_000;
/// Time after the first use of a secret within which the other program of the host can use it.
pub const SECOND_USE: Duration = Duration::from_secs(60 * 60);
/// Life of a secret for which none is given.
pub const DEFAULT_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Maximum length of a hardware UUID or a serial number, bytes.
const MAX_NAME: usize = 256;

/// Identifiers of a host's hardware. They may be empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hardware<'a> {
    /// Hardware UUID.
    pub uuid: &'a str,
    /// Serial number.
    pub serial: &'a str,
}

/// For whom a one-time secret is, and who has used it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OneTime {
    /// Hardware UUID of the host, in lower case; of the host that used it first, if none was given.
    pub uuid: Option<String>,
    /// Serial number of the host, in lower case; of the host that used it first, if none was given.
    pub serial: Option<String>,
    /// Time at which an orbit enrolled with it.
    pub orbit_used_at: Option<Timestamp>,
    /// Time at which an osqueryd enrolled with it.
    pub osquery_used_at: Option<Timestamp>,
}

impl OneTime {
    /// Returns whether both programs of a host have used it.
    pub fn is_used_up(&self) -> bool {
        self.orbit_used_at.is_some() && self.osquery_used_at.is_some()
    }

    /// Checks whether a program of a host can enroll with it. The store repeats this in the commit that records the use, so that of two
    /// concurrent enrollments one fails (FL82, FL83, FL85).
    pub fn check(&self, family: Family, hardware: &Hardware<'_>, now: Timestamp) -> Result<(), Denial> {
        let (own, other) = match family {
            Family::Orbit => (self.orbit_used_at, self.osquery_used_at),
            _ => (self.osquery_used_at, self.orbit_used_at),
        };
        if own.is_some() || other.is_some_and(|other| now.since(other) >= SECOND_USE) {
            return Err(Denial::OneTimeSecretSpent);
        }
        let sent = [normalized(hardware.uuid), normalized(hardware.serial)];
        let known = [&self.uuid, &self.serial];
        let differ = known.iter().zip(&sent).any(|(known, sent)| matches!((known, sent), (Some(k), Some(s)) if k != s));
        // A host that reports nothing to compare is not shown to be the right one. With a secret for any host, it could not be bound to this
        // one, and the secret would admit the osqueryd of another.
        let is_known = sent.iter().any(Option::is_some);
        let is_bound = known.iter().any(|known| known.is_some());
        let is_compared = known.iter().zip(&sent).any(|(known, sent)| known.is_some() && sent.is_some());
        if differ || !is_known || (is_bound && !is_compared) { Err(Denial::OneTimeSecretMismatch) } else { Ok(()) }
    }
}

/// Returns an identifier in the form in which it is compared; `None` if it is empty or too long.
pub fn normalized(text: &str) -> Option<String> {
    let text = text.trim();
    ((1..=MAX_NAME).contains(&text.len()) && !text.chars().any(char::is_control)).then(|| text.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    fn check(secret: &OneTime, family: Family, uuid: &str, serial: &str, now: u64) -> Result<(), Denial> {
        secret.check(family, &Hardware { uuid, serial }, at(now))
    }

    #[test]
    fn fl82_each_program_uses_it_once_and_the_second_within_an_hour() {
        let fresh = OneTime::default();
        assert_eq!(check(&fresh, Family::Orbit, "u", "", 0), Ok(()));
        let used = OneTime { uuid: Some("u".into()), orbit_used_at: Some(at(100)), ..OneTime::default() };
        assert_eq!(check(&used, Family::Orbit, "u", "", 101), Err(Denial::OneTimeSecretSpent));
        assert_eq!(check(&used, Family::Osquery, "u", "", 100 + 3_599), Ok(()));
        assert_eq!(check(&used, Family::Osquery, "u", "", 100 + 3_600), Err(Denial::OneTimeSecretSpent));
        let both = OneTime { osquery_used_at: Some(at(101)), ..used };
        assert!(both.is_used_up() && !fresh.is_used_up());
        assert_eq!(check(&both, Family::Osquery, "u", "", 102), Err(Denial::OneTimeSecretSpent));
    }

    #[test]
    fn fl83_another_host_is_a_mismatch() {
        let mine = OneTime { uuid: Some("u".into()), serial: Some("s".into()), ..OneTime::default() };
        for (uuid, serial) in [("U", "S"), ("u", ""), ("", " s ")] {
            assert_eq!(check(&mine, Family::Orbit, uuid, serial, 0), Ok(()), "{uuid} {serial}");
        }
        for (uuid, serial) in [("v", "s"), ("u", "t"), ("", "")] {
            assert_eq!(
                check(&mine, Family::Orbit, uuid, serial, 0),
                Err(Denial::OneTimeSecretMismatch),
                "{uuid} {serial}"
            );
        }
        let of_any = OneTime::default();
        assert_eq!(check(&of_any, Family::Orbit, " ", "", 0), Err(Denial::OneTimeSecretMismatch));
        assert_eq!(check(&of_any, Family::Orbit, "", "s", 0), Ok(()));
    }
}
