//! Reads of enrollment keys.

use async_trait::async_trait;
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::id::{EnrollmentKeyId, KeyId, PolicyId, SpaceId};
use muster_core::policy::PolicyHead;
use muster_core::time::Timestamp;

use super::SqlStore;
use crate::engine::session::Connection;
use crate::engine::{enrollment_keys, policies};
use crate::port::{EnrollmentKeyStore, StoreError};
use crate::query::{Listed, Page, Readable};

#[async_trait]
impl EnrollmentKeyStore for SqlStore {
    async fn enrollment_key_in(
        &self,
        space: &SpaceId,
        id: &EnrollmentKeyId,
    ) -> Result<Option<EnrollmentKey>, StoreError> {
        let (space, id) = (space.clone(), id.clone());
        self.points.read(move |c| enrollment_keys::by_id_in(c, &space, &id)).await
    }

    async fn enrollment_key(&self, id: &EnrollmentKeyId) -> Result<Option<EnrollmentKey>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| enrollment_keys::by_id(c, &id)).await
    }

    async fn enrollment_key_by_key_id(&self, key: &KeyId) -> Result<Option<EnrollmentKey>, StoreError> {
        let key = key.clone();
        self.points.read(move |c| enrollment_keys::by_key_id(c, &key)).await
    }

    async fn enrollment_key_with_policy(
        &self,
        key: &KeyId,
    ) -> Result<Option<(EnrollmentKey, Option<PolicyHead>)>, StoreError> {
        let key = key.clone();
        // In one job of the reader, because every enrollment needs both.
        let read = move |c: &Connection| {
            let Some(key) = enrollment_keys::by_key_id(c, &key)? else { return Ok(None) };
            let policy = match &key.policy_id {
                Some(id) => policies::head(c, id)?,
                None => policies::default_head(c, &key.space)?,
            };
            Ok(Some((key, policy)))
        };
        self.points.read(read).await
    }

    async fn enrollment_keys(
        &self,
        space: &SpaceId,
        policy: Option<&PolicyId>,
        page: Page,
    ) -> Result<Listed<EnrollmentKey>, StoreError> {
        let (space, policy) = (space.clone(), policy.cloned());
        self.lists.snapshot(move |c| enrollment_keys::page(c, &space, policy.as_ref(), page)).await
    }

    async fn enrollment_keys_after(
        &self,
        space: &SpaceId,
        policy: Option<&PolicyId>,
        (created_at, id): (Timestamp, &EnrollmentKeyId),
        limit: u32,
    ) -> Result<Readable<EnrollmentKey>, StoreError> {
        let (space, policy, id) = (space.clone(), policy.cloned(), id.clone());
        self.lists.read(move |c| enrollment_keys::after(c, &space, policy.as_ref(), (created_at, &id), limit)).await
    }

    async fn one_time_secrets(&self, space: &SpaceId, page: Page) -> Result<Listed<EnrollmentKey>, StoreError> {
        let space = space.clone();
        self.lists.snapshot(move |c| enrollment_keys::one_time(c, &space, page)).await
    }

    async fn enrollment_keys_expired_before(
        &self,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<EnrollmentKeyId>, StoreError> {
        self.lists.read(move |c| enrollment_keys::expired_before(c, before, limit)).await
    }
}
