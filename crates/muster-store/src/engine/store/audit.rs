//! Reads of the audit log.

use async_trait::async_trait;
use muster_core::audit::ChainHead;

use super::SqlStore;
use crate::engine::audit;
use crate::port::{AuditLink, AuditStore, StoreError};

#[async_trait]
impl AuditStore for SqlStore {
    async fn audit_events(&self, seq: i64, limit: u32) -> Result<Vec<(i64, String, [u8; 32])>, StoreError> {
        self.lists.read(move |c| audit::after(c, seq, limit)).await
    }

    async fn audit_events_before(&self, seq: i64, limit: u32) -> Result<Vec<(i64, String, [u8; 32])>, StoreError> {
        self.lists.read(move |c| audit::before(c, seq, limit)).await
    }

    async fn audit_events_of(
        &self,
        subject: &str,
        seq: i64,
        limit: u32,
    ) -> Result<Vec<(i64, String, [u8; 32])>, StoreError> {
        let subject = subject.to_owned();
        self.lists.read(move |c| audit::of_subject(c, &subject, seq, limit)).await
    }

    async fn audit_heads(&self) -> Result<Vec<ChainHead>, StoreError> {
        self.lists.read(audit::heads).await
    }

    async fn audit_chains(&self) -> Result<Vec<String>, StoreError> {
        Ok(self.audit_heads().await?.into_iter().map(|head| head.chain).collect())
    }

    async fn audit_links(&self, chain: &str, after: i64, limit: u32) -> Result<Vec<AuditLink>, StoreError> {
        let chain = chain.to_owned();
        self.lists.read(move |c| audit::links(c, &chain, after, limit)).await
    }

    async fn audit_hash(&self, chain: &str, position: i64) -> Result<Option<[u8; 32]>, StoreError> {
        let chain = chain.to_owned();
        self.lists.read(move |c| audit::hash(c, &chain, position)).await
    }
}
