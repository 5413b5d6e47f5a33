//! Login of a command on a device without a browser: it shows a code, which a logged-in person approves (RFC 8628).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Login;
use crate::authorization::PrivilegeSet;
use crate::credential::SecretHash;
use crate::entropy::{Entropy, random_bytes};
use crate::id::{KeyId, UserId};
use crate::time::Timestamp;

/// Time in which a code must be approved.
pub const DEVICE_LIFETIME: Duration = Duration::from_secs(600);
/// Minimum time between two polls of a device.
pub const DEVICE_INTERVAL: Duration = Duration::from_secs(2);
/// Maximum number of logins that wait for approval. Anybody can begin one.
pub const MOST_DEVICE_LOG_INS: u64 = 1_000;

/// Letters of codes: without vowels, so that no words appear, and without digits, which look like letters (RFC 8628 §6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// Number of letters: 20^8 codes, of which at most a thousand are in use.
const LENGTH: usize = 8;

/// A login that waits for approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceLogIn {
    /// Id of the key that the device polls with.
    pub key_id: KeyId,
    /// SHA-256 of its secret.
    pub hash: SecretHash,
    /// Code that the person types.
    pub user_code: UserCode,
    /// Name of the device, as it tells it.
    pub device: String,
    /// Address of the device; `None` for one on the server's host.
    pub address: Option<String>,
    /// What the person decided.
    pub decision: Option<Decision>,
    /// Time of the request.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// What a person decided about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The device gets a token.
    Approved(Approval),
    /// It gets none.
    Denied,
}

/// The token that an approved device gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// The person.
    pub user: UserId,
    /// What the person could do when it approved.
    pub privileges: PrivilegeSet,
    /// The person's groups at the OpenID provider.
    pub groups: Vec<String>,
    /// When the token ends.
    pub expires_at: Timestamp,
    /// What the token ends with before.
    pub login: Login,
}

/// Code that a person types: eight letters, shown as `WDJB-MJHT`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UserCode(String);

impl UserCode {
    /// Creates a code.
    pub fn generate(entropy: &dyn Entropy) -> Self {
        // 64 bits modulo 20: the bias is far below anything that could be of use.
        let letter = |_| {
            let number = u64::from_be_bytes(random_bytes(entropy)) % LETTERS.len() as u64;
            char::from(LETTERS[number as usize])
        };
        Self((0..LENGTH).map(letter).collect())
    }

    /// Reads a code as people type it: in any case, with or without the hyphen and spaces.
    pub fn parse(text: &str) -> Option<Self> {
        // Bounded first: the text comes from a request.
        if text.len() > 4 * LENGTH {
            return None;
        }
        let letters = text.bytes().filter(|byte| !b"- ".contains(byte)).map(|byte| byte.to_ascii_uppercase());
        let code: Vec<u8> = letters.collect();
        let fits = code.len() == LENGTH && code.iter().all(|letter| LETTERS.contains(letter));
        fits.then(|| Self(code.into_iter().map(char::from).collect()))
    }

    /// Returns the letters without the hyphen.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the code as people read it.
    pub fn shown(&self) -> String {
        let (first, second) = self.0.split_at(self.0.len() / 2);
        format!("{first}-{second}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Sequence;

    #[test]
    fn codes_are_read_as_people_type_them() {
        let code = UserCode::generate(&Sequence::new());
        assert_eq!(UserCode::parse(&code.shown()), Some(code.clone()));
        assert_eq!(UserCode::parse(&format!(" {} ", code.shown().to_lowercase())), Some(code.clone()));
        assert_eq!(UserCode::parse(code.as_str()), Some(code));
        for bad in ["", "BCDF", "BCDF-GHJA", "BCDF-GHJKL", "BCDFGHJ1", &"B".repeat(1_000)] {
            assert_eq!(UserCode::parse(bad), None, "{bad}");
        }
    }
}
