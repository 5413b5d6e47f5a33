//! Enrollment keys, which authorize agents to enroll, and can set their policy and tags.

use crate::credential::SecretHash;
use crate::id::{EnrollmentKeyId, KeyId, PolicyId, SpaceId};
use crate::time::Timestamp;

/// Record of an enrollment key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrollmentKey {
    /// Id of the record.
    pub id: EnrollmentKeyId,
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
        if self.max_uses.is_some_and(|max| self.uses >= max) {
            return Err(Unusable::UsedUp);
        }
        Ok(())
    }
}
