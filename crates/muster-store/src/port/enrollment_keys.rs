//! Enrollment keys.

use muster_core::agent::Family;
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
    /// Inserts an enrollment key. Fails with `NameTaken` if an active key of the same policy has the name, with `Exists` if
    /// a key has the key id, also a revoked one that was not released, and with `TooMany` if the space has the maximum number of enroll secrets.
    Insert(Box<EnrollmentKey>),
    /// Records a use. Fails with `KeyRefused` unless the key admits at `now`. This is checked in the commit, so that of
    /// two concurrent uses of a key with `max_uses: 1` one fails.
    Use {
        /// The key.
        id: EnrollmentKeyId,
        /// Time of the use.
        now: Timestamp,
        /// Whether the use is counted. An agent that replaces one that enrolled with this key is not counted: the key
        /// must be neither revoked nor expired, but the number of uses does not matter and is not changed.
        counts: bool,
    },
    /// Records the use of a one-time secret by a program of a host. Fails with `KeyRefused` unless it is the first of this program, within an
    /// hour of that of the other one, on the same host, and the secret is valid at `now`. This is checked in the commit. What identifies the
    /// host is kept, unless the secret has it.
    UseOneTime {
        /// The key.
        id: EnrollmentKeyId,
        /// The program: orbit or osqueryd.
        family: Family,
        /// Hardware UUID of the host, in lower case; empty if it has none.
        uuid: String,
        /// Serial number of the host, in lower case; empty if it has none.
        serial: String,
        /// Time of the use.
        now: Timestamp,
    },
    /// Revokes a key; ignored if it is revoked. Fails with `Missing`.
    Revoke {
        /// The key.
        id: EnrollmentKeyId,
        /// Time.
        now: Timestamp,
    },
    /// Gives up the key id of a revoked key, so that its secret can be inserted again; ignored unless it is revoked. The record stays for
    /// the agents that enrolled with it.
    Release {
        /// The key.
        id: EnrollmentKeyId,
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
        /// Selects an enrollment key.
        async fn enrollment_key(&self, id: &EnrollmentKeyId) -> Result<Option<EnrollmentKey>, StoreError>;
        /// Selects an enrollment key of the space.
        async fn enrollment_key_in(
            &self,
            space: &SpaceId,
            id: &EnrollmentKeyId,
        ) -> Result<Option<EnrollmentKey>, StoreError>;
        /// Selects the enrollment key with this key id.
        async fn enrollment_key_by_key_id(&self, key: &KeyId) -> Result<Option<EnrollmentKey>, StoreError>;
        /// Selects the enrollment key with this key id, and the head of its policy, or of the default policy of its
        /// space if the key has none. One read, because every enrollment needs both.
        async fn enrollment_key_with_policy(
            &self,
            key: &KeyId,
        ) -> Result<Option<(EnrollmentKey, Option<PolicyHead>)>, StoreError>;
        /// Returns a page of the enrollment keys of a space, newest first, of one policy or of all.
        async fn enrollment_keys(
            &self,
            space: &SpaceId,
            policy: Option<&PolicyId>,
            page: Page,
        ) -> Result<Listed<EnrollmentKey>, StoreError>;
        /// Selects the enrollment keys of a space after the one with this creation time and id, newest first, of one
        /// policy or of all.
        async fn enrollment_keys_after(
            &self,
            space: &SpaceId,
            policy: Option<&PolicyId>,
            after: (Timestamp, &EnrollmentKeyId),
            limit: u32,
        ) -> Result<Readable<EnrollmentKey>, StoreError>;
        /// Returns a page of the one-time secrets of a space, newest first.
        async fn one_time_secrets(&self, space: &SpaceId, page: Page) -> Result<Listed<EnrollmentKey>, StoreError>;
        /// Selects ids of keys that expired before a time, oldest first, at most `limit`; revoked ones included.
        async fn enrollment_keys_expired_before(
            &self,
            before: Timestamp,
            limit: u32,
        ) -> Result<Vec<EnrollmentKeyId>, StoreError>;
    }
}
