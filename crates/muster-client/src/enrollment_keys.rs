//! Enrollment keys.

use muster_protocol::management::enrollment_key::{
    CreateEnrollmentKey, CreatedEnrollmentKey, Deleted, EnrollmentKey, EnrollmentKeys, ListEnrollmentKeys,
};
use muster_protocol::management::{Empty, Item};

use crate::transport::DRY_RUN;
use crate::{Client, Result};

const KEYS: &str = "enrollment_api_keys";

impl Client {
    /// Returns a page of keys, newest first.
    pub async fn enrollment_keys(&self, query: &ListEnrollmentKeys) -> Result<EnrollmentKeys> {
        self.get_with(&[KEYS], query).await
    }

    /// Returns one key, with its token if the token is retrievable.
    pub async fn enrollment_key(&self, id: &str) -> Result<EnrollmentKey> {
        Ok(self.get::<Item<_>>(&[KEYS, id]).await?.item)
    }

    /// Creates a key; the response contains its token.
    pub async fn create_enrollment_key(&self, key: &CreateEnrollmentKey) -> Result<EnrollmentKey> {
        Ok(self.post::<CreatedEnrollmentKey>(&[KEYS], key).await?.item)
    }

    /// Revokes a key. Agents can no longer enroll with it.
    pub async fn revoke_enrollment_key(&self, id: &str) -> Result<()> {
        self.delete::<Deleted>(&[KEYS, id], &()).await.map(drop)
    }

    /// Revokes a key and deletes its record.
    pub async fn delete_enrollment_key(&self, id: &str) -> Result<()> {
        self.delete::<Deleted>(&[KEYS, id], &[("forceDelete", "true")]).await.map(drop)
    }

    /// Revokes a key and creates one with the same settings, in one step.
    pub async fn replace_enrollment_key(&self, id: &str) -> Result<EnrollmentKey> {
        Ok(self.post::<CreatedEnrollmentKey>(&[KEYS, id, "replace"], &Empty {}).await?.item)
    }

    /// Validates [`Self::revoke_enrollment_key`]; changes nothing.
    pub async fn try_revoke_enrollment_key(&self, id: &str) -> Result<()> {
        self.delete::<Deleted>(&[KEYS, id], &DRY_RUN).await.map(drop)
    }

    /// Returns the key that [`Self::replace_enrollment_key`] would create, without a token; changes nothing.
    pub async fn try_replace_enrollment_key(&self, id: &str) -> Result<EnrollmentKey> {
        Ok(self.try_post::<CreatedEnrollmentKey>(&[KEYS, id, "replace"], &Empty {}).await?.item)
    }
}
