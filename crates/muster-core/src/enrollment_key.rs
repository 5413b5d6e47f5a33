//! Enrollment keys: they admit agents, and may name the policy and the tags these get.

use crate::credential::SecretHash;
use crate::id::{EnrollmentKeyId, KeyId, PolicyId, SpaceId};
use crate::time::Timestamp;

/// An enrollment key's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrollmentKey {
    /// The record's id.
    pub id: EnrollmentKeyId,
    /// What people call it; unique among a policy's keys that are not revoked.
    pub name: String,
    /// The public half of the key.
    pub key_id: KeyId,
    /// SHA-256 of the secret.
    pub hash: SecretHash,
    /// The secret sealed with the master key, for keys whose token may be shown again; `None`: shown once.
    pub sealed_token: Option<Vec<u8>>,
    /// The policy that agents get; `None`: assignment rules decide, or none is assigned.
    pub policy_id: Option<PolicyId>,
    /// Tags that agents get, beside their own.
    pub tags: Vec<String>,
    /// The space that it belongs to, and the agents that it admits.
    pub space: SpaceId,
    /// Creation time.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked; it admits nobody from then on (D20).
    pub revoked_at: Option<Timestamp>,
    /// How often it may be used.
    pub max_uses: Option<i64>,
    /// How often it was used.
    pub uses: i64,
    /// When it was used last.
    pub last_used_at: Option<Timestamp>,
    /// Left out of lists and bulk changes unless asked for.
    pub hidden: bool,
    /// Who made it.
    pub created_by: String,
}

/// Why a key does not admit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Revoked.
    Revoked,
    /// Past its end.
    Expired,
    /// Used as often as allowed.
    UsedUp,
}

impl EnrollmentKey {
    /// Whether the key admits an agent at `now`.
    pub fn admits(&self, now: Timestamp) -> Result<(), Refusal> {
        if self.revoked_at.is_some() {
            return Err(Refusal::Revoked);
        }
        if self.expires_at.is_some_and(|end| end <= now) {
            return Err(Refusal::Expired);
        }
        if self.max_uses.is_some_and(|max| self.uses >= max) {
            return Err(Refusal::UsedUp);
        }
        Ok(())
    }
}
