//! Enrollment keys.

use muster_core::enrollment_key::EnrollmentKey;
use muster_core::id::{EnrollmentKeyId, KeyId, PolicyId, SpaceId};
use muster_core::policy::PolicyHead;
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};
use crate::query::{Listed, Page, Readable};

/// A change of enrollment keys.
#[derive(Clone, Debug)]
pub enum EnrollmentKeyWrite {
    /// Inserts an enrollment key. Fails with `NameTaken` if an active key of the same policy has the name.
    Insert(Box<EnrollmentKey>),
    /// Notes a use. `KeyRefused` unless the key admits at `now`, checked inside the commit (one use of a
    /// `max_uses: 1` key wins).
    Use {
        /// The key.
        id: EnrollmentKeyId,
        /// Time of the use.
        now: Timestamp,
        /// Whether it counts. The agent that takes the place of one that this key let in is no further one: the key
        /// must be neither revoked nor expired, but the number of its uses stays and does not matter.
        counts: bool,
    },
    /// Revokes a key; ignored if it is revoked. Fails with `Missing`.
    Revoke {
        /// The key.
        id: EnrollmentKeyId,
        /// Time.
        now: Timestamp,
    },
    /// Deletes a key. Fails with `Missing`.
    Delete {
        /// The key.
        id: EnrollmentKeyId,
    },
}

impl From<EnrollmentKeyWrite> for Write {
    fn from(write: EnrollmentKeyWrite) -> Self {
        Self::EnrollmentKey(write)
    }
}

reads! {
    /// Reads of enrollment keys.
    pub trait EnrollmentKeyStore {
        /// One enrollment key.
        async fn enrollment_key(&self, id: &EnrollmentKeyId) -> Result<Option<EnrollmentKey>, StoreError>;
        /// One enrollment key, if it is of the space.
        async fn enrollment_key_in(
            &self,
            space: &SpaceId,
            id: &EnrollmentKeyId,
        ) -> Result<Option<EnrollmentKey>, StoreError>;
        /// The enrollment key with this public half.
        async fn enrollment_key_by_key_id(&self, key: &KeyId) -> Result<Option<EnrollmentKey>, StoreError>;
        /// The enrollment key with this public half, and the head of its policy, or of the default policy of its space if the
        /// key names none. One read, because every enrollment needs both.
        async fn enrollment_key_with_policy(
            &self,
            key: &KeyId,
        ) -> Result<Option<(EnrollmentKey, Option<PolicyHead>)>, StoreError>;
        /// Enrollment keys of a space, newest first, of one policy or of all.
        async fn enrollment_keys(
            &self,
            space: &SpaceId,
            policy: Option<&PolicyId>,
            page: Page,
        ) -> Result<Listed<EnrollmentKey>, StoreError>;
        /// Enrollment keys of a space behind the one of this time of creation and id, newest first, of one policy or of all.
        async fn enrollment_keys_after(
            &self,
            space: &SpaceId,
            policy: Option<&PolicyId>,
            after: (Timestamp, &EnrollmentKeyId),
            limit: u32,
        ) -> Result<Readable<EnrollmentKey>, StoreError>;
        /// Ids of keys that expired before a time, the oldest first, at most `limit`; revoked ones, too.
        async fn enrollment_keys_expired_before(
            &self,
            before: Timestamp,
            limit: u32,
        ) -> Result<Vec<EnrollmentKeyId>, StoreError>;
    }
}
