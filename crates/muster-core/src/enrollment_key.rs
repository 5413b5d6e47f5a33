//! Enrollment keys, which authorize agents to enroll, and can set their policy and tags.

use std::ops::RangeInclusive;

use crate::credential::{ApiKey, SecretHash};
use crate::entropy::Entropy;
use crate::id::{EnrollmentKeyId, KeyId, PolicyId, SpaceId};
use crate::one_time::OneTime;
use crate::time::Timestamp;

/// Maximum number of live enroll secrets of a space: FleetDM's limit.
pub const MAX_SECRETS: u64 = 50;
/// Minimum and maximum length of an enroll secret that an administrator chooses, bytes. Only a hash of it is stored, which
/// would not protect a secret that can be guessed.
const SECRET_BYTES: RangeInclusive<usize> = 16..=255;

/// Agents that an enrollment key is for, which determines its form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyFamily {
    /// Elastic Agents and muster-agents: a token of an id and a secret.
    #[default]
    Elastic,
    /// orbit and osqueryd: an enroll secret, which has no id, and can be chosen by an administrator.
    Fleetd,
}

impl KeyFamily {
    /// Returns its name in the API and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Elastic => "elastic",
            Self::Fleetd => "fleetd",
        }
    }

    /// Parses a name.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Elastic, Self::Fleetd].into_iter().find(|family| family.as_str() == word)
    }

    /// Generates a key with its secret.
    pub fn generate(self, entropy: &dyn Entropy) -> ApiKey {
        match self {
            Self::Elastic => ApiKey::generate(entropy),
            Self::Fleetd => ApiKey::generate_opaque(entropy),
        }
    }

    /// Returns what agents enroll with.
    pub fn token(self, key: &ApiKey) -> String {
        match self {
            Self::Elastic => key.token(),
            Self::Fleetd => key.secret().to_owned(),
        }
    }
}

/// Checks an enroll secret that an administrator chose. No message contains any part of it.
pub fn check_secret(secret: &str) -> Result<(), &'static str> {
    if !SECRET_BYTES.contains(&secret.len()) {
        return Err("an enroll secret has 16 to 255 bytes");
    }
    // osqueryd trims a secret that it reads from a file, but not one from the environment (FL §1.3).
    if secret.trim() != secret || secret.chars().any(char::is_control) {
        return Err("an enroll secret must not contain control characters, or begin or end with a space");
    }
    Ok(())
}

/// Record of an enrollment key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrollmentKey {
    /// Id of the record.
    pub id: EnrollmentKeyId,
    /// Agents that it is for.
    pub family: KeyFamily,
    /// Name, unique among the keys of a policy that are not revoked.
    pub name: String,
    /// Id part of the key, which is not secret.
    pub key_id: KeyId,
    /// SHA-256 of the secret.
    pub hash: SecretHash,
    /// Secret, sealed with the master key; `None` if the token is shown only on creation.
    pub sealed_token: Option<Vec<u8>>,
    /// Policy of agents that enroll with it; `None` if the assignment rules decide.
    pub policy_id: Option<PolicyId>,
    /// Tags that are added to those of the agent.
    pub tags: Vec<String>,
    /// Space of the key and of agents that enroll with it.
    pub space: SpaceId,
    /// Creation time.
    pub created_at: Timestamp,
    /// Expiration time.
    pub expires_at: Option<Timestamp>,
    /// Time of revocation, after which no agent can enroll with it (D20).
    pub revoked_at: Option<Timestamp>,
    /// Maximum number of uses.
    pub max_uses: Option<i64>,
    /// Of a one-time secret: for whom it is, and who has used it.
    pub one_time: Option<OneTime>,
    /// Number of uses.
    pub uses: i64,
    /// Time of the last use.
    pub last_used_at: Option<Timestamp>,
    /// Excluded from lists and bulk changes unless requested.
    pub hidden: bool,
    /// User who created it.
    pub created_by: String,
}

/// Reason why a key is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Revoked.
    #[error("revoked")]
    Revoked,
    /// Expired.
    #[error("expired")]
    Expired,
    /// Has reached its maximum number of uses.
    #[error("used up")]
    UsedUp,
}

impl EnrollmentKey {
    /// Checks whether an agent can enroll with the key at `now`.
    pub fn admits(&self, now: Timestamp) -> Result<(), Unusable> {
        // Revocation first: an administrator who revoked a key should read that, even if it has expired since.
        if self.revoked_at.is_some() {
            return Err(Unusable::Revoked);
        }
        if self.expires_at.is_some_and(|end| end <= now) {
            return Err(Unusable::Expired);
        }
        // This check alone would let two concurrent enrollments through: the store repeats it in the commit that counts
        // the use.
        let is_spent = self.one_time.as_ref().is_some_and(OneTime::is_used_up);
        if is_spent || self.max_uses.is_some_and(|max| self.uses >= max) {
            return Err(Unusable::UsedUp);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Sequence;

    #[test]
    fn m26_fl77_generated_secrets_are_24_random_bytes_in_base64() {
        let entropy = Sequence::new();
        let (one, other) = (KeyFamily::Fleetd.generate(&entropy), KeyFamily::Fleetd.generate(&entropy));
        let secret = KeyFamily::Fleetd.token(&one);
        assert_eq!((secret.len(), secret.ends_with('=')), (32, false));
        assert_ne!(secret, KeyFamily::Fleetd.token(&other));
        assert_eq!(one.id, ApiKey::opaque(&secret).id, "found by the secret alone");
        assert_eq!(check_secret(&secret), Ok(()));
    }

    #[test]
    fn fl77_fl79_secrets_with_special_characters_are_accepted_and_guessable_ones_are_not() {
        assert_eq!(check_secret("85O6XRG8'!l~P&zWt_'f&$QK"), Ok(()));
        assert_eq!(check_secret(&"x".repeat(255)), Ok(()));
        for bad in ["", "short", &"x".repeat(256), " sixteen bytes ok", "sixteen bytes\nand more"] {
            assert!(check_secret(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn families_of_keys_have_names() {
        for family in [KeyFamily::Elastic, KeyFamily::Fleetd] {
            assert_eq!(KeyFamily::parse(family.as_str()), Some(family));
        }
        assert_eq!(KeyFamily::parse("orbit"), None);
    }
}
