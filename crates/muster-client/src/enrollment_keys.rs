//! Enrollment keys.

use muster_protocol::management::enrollment_key::{
    CreateEnrollmentKey, CreatedEnrollmentKey, Deleted, EnrollmentKey, EnrollmentKeys, ListEnrollmentKeys,
};
use muster_protocol::management::{Empty, Item};

use crate::transport::DRY_RUN;
use crate::{Client, Result};

const KEYS: &str = "enrollment_api_keys";

impl Client {
    /// A page of keys, newest first.
    pub async fn enrollment_keys(&self, query: &ListEnrollmentKeys) -> Result<EnrollmentKeys> {
        self.get_with(&[KEYS], query).await
    }

    /// One key, with its token when that is retrievable.
    pub async fn enrollment_key(&self, id: &str) -> Result<EnrollmentKey> {
        Ok(self.get::<Item<_>>(&[KEYS, id]).await?.item)
    }

    /// Makes a key; the answer holds its token.
    pub async fn create_enrollment_key(&self, key: &CreateEnrollmentKey) -> Result<EnrollmentKey> {
        Ok(self.post::<CreatedEnrollmentKey>(&[KEYS], key).await?.item)
    }

    /// Revokes a key: it admits nobody from now on.
    pub async fn revoke_enrollment_key(&self, id: &str) -> Result<()> {
        self.delete::<Deleted>(&[KEYS, id], &()).await.map(drop)
    }

    /// Revokes a key and removes its record.
    pub async fn delete_enrollment_key(&self, id: &str) -> Result<()> {
        self.delete::<Deleted>(&[KEYS, id], &[("forceDelete", "true")]).await.map(drop)
    }

    /// Makes a key of the same properties and revokes this one, in one step.
    pub async fn replace_enrollment_key(&self, id: &str) -> Result<EnrollmentKey> {
        Ok(self.post::<CreatedEnrollmentKey>(&[KEYS, id, "replace"], &Empty {}).await?.item)
    }

    /// Tells whether [`Self::revoke_enrollment_key`] would revoke it; changes nothing.
    pub async fn try_revoke_enrollment_key(&self, id: &str) -> Result<()> {
        self.delete::<Deleted>(&[KEYS, id], &DRY_RUN).await.map(drop)
    }

    /// Tells what key [`Self::replace_enrollment_key`] would make, without a token; changes nothing.
    pub async fn try_replace_enrollment_key(&self, id: &str) -> Result<EnrollmentKey> {
        Ok(self.try_post::<CreatedEnrollmentKey>(&[KEYS, id, "replace"], &Empty {}).await?.item)
    }
}
