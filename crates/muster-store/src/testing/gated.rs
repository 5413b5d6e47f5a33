//! A test double of the port: a store with a gate in front that decides which calls go through.

use std::sync::Arc;

use async_trait::async_trait;
use muster_core::action::{Action, ActionCounts, ActionResult, DueAction, Target, TargetState};
use muster_core::agent::{AgentDetails, AgentDocuments, AgentRecord};
use muster_core::change::Change;
use muster_core::credential::Credential;
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::file::{Artifact, ChunkInfo, DeliverableFile, FileStatus, Upload};
use muster_core::host::Host;
use muster_core::id::{
    ActionId, AgentId, EnrollmentKeyId, FileId, HostId, KeyId, OutputId, PolicyId, SecretId, SpaceId,
};
use muster_core::output::Output;
use muster_core::policy::{Policy, PolicyHead, PolicyRevision};
use muster_core::status::Status;
use muster_core::time::Timestamp;
use tokio::sync::watch;

use crate::port::{
    ActionStore, AgentStore, AuditLink, AuditStore, ChangeStore, Committed, Currency, EnrollmentKeyStore, FencingToken,
    FileStore, LeaseName, LeaseStore, LostNode, NodeRecord, NodeStanding, NodeStore, OutputStore, PolicyStore,
    SecretStore, SettingStore, Store, StoreError, Write,
};
use crate::query::{ActionFilter, AgentCursor, AgentFilter, AgentSort, Listed, Page, Readable};

/// Decides which calls reach the store.
pub trait Gate: Send + Sync + 'static {
    /// Refuses a read, or lets it through.
    fn read(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Says instead of the store until when the end of the change log is known, as if it did not answer since.
    fn confirmed(&self) -> Option<Currency> {
        None
    }

    /// Refuses a commit, or lets it through.
    fn commit(&self, _writes: &[Write]) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A store behind a gate.
pub struct Gated<G> {
    inner: Arc<dyn Store>,
    gate: G,
}

impl<G> Gated<G> {
    /// A gate in front of a store.
    pub fn new(inner: Arc<dyn Store>, gate: G) -> Self {
        Self { inner, gate }
    }

    /// The gate, to open and close it.
    pub fn gate(&self) -> &G {
        &self.gate
    }
}

#[async_trait]
impl<G: Gate> Store for Gated<G> {
    async fn commit(&self, writes: Vec<Write>) -> Result<Committed, StoreError> {
        self.gate.commit(&writes)?;
        self.inner.commit(writes).await
    }

    fn damage(&self) -> Option<String> {
        self.inner.damage()
    }
}

#[async_trait]
impl<G: Gate> AgentStore for Gated<G> {
    async fn agent_in(&self, space: &SpaceId, id: &AgentId) -> Result<Option<AgentRecord>, StoreError> {
        self.gate.read()?;
        self.inner.agent_in(space, id).await
    }

    async fn agent(&self, id: &AgentId) -> Result<Option<AgentRecord>, StoreError> {
        self.gate.read()?;
        self.inner.agent(id).await
    }

    async fn agent_by_credential(&self, key: &KeyId) -> Result<Option<AgentRecord>, StoreError> {
        self.gate.read()?;
        self.inner.agent_by_credential(key).await
    }

    async fn agent_credentials(&self, id: &AgentId) -> Result<Vec<Credential>, StoreError> {
        self.gate.read()?;
        self.inner.agent_credentials(id).await
    }

    async fn host(&self, id: &HostId) -> Result<Option<Host>, StoreError> {
        self.gate.read()?;
        self.inner.host(id).await
    }

    async fn host_by_machine(&self, space: &SpaceId, machine_id: &str) -> Result<Option<Host>, StoreError> {
        self.gate.read()?;
        self.inner.host_by_machine(space, machine_id).await
    }

    async fn agent_by_enrollment_id(
        &self,
        enrollment_id: &str,
        key: &EnrollmentKeyId,
    ) -> Result<Option<AgentRecord>, StoreError> {
        self.gate.read()?;
        self.inner.agent_by_enrollment_id(enrollment_id, key).await
    }

    async fn agent_documents(&self, id: &AgentId) -> Result<Option<AgentDocuments>, StoreError> {
        self.gate.read()?;
        self.inner.agent_documents(id).await
    }

    async fn agent_list(
        &self,
        filter: &AgentFilter,
        sort: AgentSort,
        descending: bool,
        page: Page,
    ) -> Result<Listed<AgentDetails>, StoreError> {
        self.gate.read()?;
        self.inner.agent_list(filter, sort, descending, page).await
    }

    async fn agents_after(
        &self,
        filter: &AgentFilter,
        sort: AgentSort,
        descending: bool,
        after: &AgentCursor,
        limit: u32,
    ) -> Result<Readable<AgentDetails>, StoreError> {
        self.gate.read()?;
        self.inner.agents_after(filter, sort, descending, after, limit).await
    }

    async fn agent_ids(
        &self,
        filter: &AgentFilter,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<AgentId>, StoreError> {
        self.gate.read()?;
        self.inner.agent_ids(filter, after, limit).await
    }

    async fn agents_named(&self, ids: &[AgentId]) -> Result<Vec<AgentDetails>, StoreError> {
        self.gate.read()?;
        self.inner.agents_named(ids).await
    }

    async fn agent_versions(&self, ids: &[AgentId]) -> Result<Vec<(AgentId, i64)>, StoreError> {
        self.gate.read()?;
        self.inner.agent_versions(ids).await
    }

    async fn agent_counts(&self, filter: &AgentFilter) -> Result<Vec<(Status, u64)>, StoreError> {
        self.gate.read()?;
        self.inner.agent_counts(filter).await
    }

    async fn agent_tags(&self, filter: &AgentFilter) -> Result<Vec<String>, StoreError> {
        self.gate.read()?;
        self.inner.agent_tags(filter).await
    }

    async fn agents_due(&self, now: Timestamp, limit: u32) -> Result<Vec<AgentRecord>, StoreError> {
        self.gate.read()?;
        self.inner.agents_due(now, limit).await
    }
}

#[async_trait]
impl<G: Gate> EnrollmentKeyStore for Gated<G> {
    async fn enrollment_key_in(
        &self,
        space: &SpaceId,
        id: &EnrollmentKeyId,
    ) -> Result<Option<EnrollmentKey>, StoreError> {
        self.gate.read()?;
        self.inner.enrollment_key_in(space, id).await
    }

    async fn enrollment_key(&self, id: &EnrollmentKeyId) -> Result<Option<EnrollmentKey>, StoreError> {
        self.gate.read()?;
        self.inner.enrollment_key(id).await
    }

    async fn enrollment_key_by_key_id(&self, key: &KeyId) -> Result<Option<EnrollmentKey>, StoreError> {
        self.gate.read()?;
        self.inner.enrollment_key_by_key_id(key).await
    }

    async fn enrollment_keys(
        &self,
        space: &SpaceId,
        policy: Option<&PolicyId>,
        page: Page,
    ) -> Result<Listed<EnrollmentKey>, StoreError> {
        self.gate.read()?;
        self.inner.enrollment_keys(space, policy, page).await
    }

    async fn enrollment_keys_after(
        &self,
        space: &SpaceId,
        policy: Option<&PolicyId>,
        after: (Timestamp, &EnrollmentKeyId),
        limit: u32,
    ) -> Result<Readable<EnrollmentKey>, StoreError> {
        self.gate.read()?;
        self.inner.enrollment_keys_after(space, policy, after, limit).await
    }
}

#[async_trait]
impl<G: Gate> PolicyStore for Gated<G> {
    async fn policy_in(&self, space: &SpaceId, id: &PolicyId) -> Result<Option<Policy>, StoreError> {
        self.gate.read()?;
        self.inner.policy_in(space, id).await
    }

    async fn policy(&self, id: &PolicyId) -> Result<Option<Policy>, StoreError> {
        self.gate.read()?;
        self.inner.policy(id).await
    }

    async fn policy_head(&self, id: &PolicyId) -> Result<Option<PolicyHead>, StoreError> {
        self.gate.read()?;
        self.inner.policy_head(id).await
    }

    async fn default_policy_head(&self, space: &SpaceId) -> Result<Option<PolicyHead>, StoreError> {
        self.gate.read()?;
        self.inner.default_policy_head(space).await
    }

    async fn policy_by_name(&self, space: &SpaceId, name: &str) -> Result<Option<Policy>, StoreError> {
        self.gate.read()?;
        self.inner.policy_by_name(space, name).await
    }

    async fn policies(&self, space: Option<&SpaceId>, page: Page) -> Result<Listed<Policy>, StoreError> {
        self.gate.read()?;
        self.inner.policies(space, page).await
    }

    async fn policies_after(&self, space: &SpaceId, name: &str, limit: u32) -> Result<Readable<Policy>, StoreError> {
        self.gate.read()?;
        self.inner.policies_after(space, name, limit).await
    }

    async fn policy_agent_counts(&self, space: &SpaceId) -> Result<Vec<(PolicyId, u64)>, StoreError> {
        self.gate.read()?;
        self.inner.policy_agent_counts(space).await
    }

    async fn policy_newest_revision(&self, id: &PolicyId) -> Result<Option<PolicyRevision>, StoreError> {
        self.gate.read()?;
        self.inner.policy_newest_revision(id).await
    }

    async fn policy_revision(&self, id: &PolicyId, revision: i64) -> Result<Option<PolicyRevision>, StoreError> {
        self.gate.read()?;
        self.inner.policy_revision(id, revision).await
    }

    async fn policy_revisions(&self, id: &PolicyId) -> Result<Vec<(i64, Timestamp, String)>, StoreError> {
        self.gate.read()?;
        self.inner.policy_revisions(id).await
    }
}

#[async_trait]
impl<G: Gate> ActionStore for Gated<G> {
    async fn action_in(&self, space: &SpaceId, id: &ActionId) -> Result<Option<Action>, StoreError> {
        self.gate.read()?;
        self.inner.action_in(space, id).await
    }

    async fn action(&self, id: &ActionId) -> Result<Option<Action>, StoreError> {
        self.gate.read()?;
        self.inner.action(id).await
    }

    async fn actions_due(
        &self,
        agent: &AgentId,
        after: i64,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<DueAction>, StoreError> {
        self.gate.read()?;
        self.inner.actions_due(agent, after, now, limit).await
    }

    async fn action_targets(
        &self,
        id: &ActionId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<(i64, AgentId, TargetState)>, StoreError> {
        self.gate.read()?;
        self.inner.action_targets(id, after, limit).await
    }

    async fn action_target(&self, id: &ActionId, agent: &AgentId) -> Result<Option<Target>, StoreError> {
        self.gate.read()?;
        self.inner.action_target(id, agent).await
    }

    async fn actions(&self, filter: &ActionFilter, page: Page) -> Result<Listed<(Action, ActionCounts)>, StoreError> {
        self.gate.read()?;
        self.inner.actions(filter, page).await
    }

    async fn action_results(
        &self,
        id: &ActionId,
        failed_only: bool,
        limit: u32,
    ) -> Result<Vec<ActionResult>, StoreError> {
        self.gate.read()?;
        self.inner.action_results(id, failed_only, limit).await
    }

    async fn actions_collect(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.gate.read()?;
        self.inner.actions_collect(before, limit).await
    }

    async fn unfinished_effects(&self) -> Result<Vec<ActionId>, StoreError> {
        self.gate.read()?;
        self.inner.unfinished_effects().await
    }
}

#[async_trait]
impl<G: Gate> OutputStore for Gated<G> {
    async fn output_in(&self, space: &SpaceId, id: &OutputId) -> Result<Option<Output>, StoreError> {
        self.gate.read()?;
        self.inner.output_in(space, id).await
    }

    async fn output(&self, id: &OutputId) -> Result<Option<Output>, StoreError> {
        self.gate.read()?;
        self.inner.output(id).await
    }

    async fn outputs(&self, space: &SpaceId) -> Result<Vec<Output>, StoreError> {
        self.gate.read()?;
        self.inner.outputs(space).await
    }
}

#[async_trait]
impl<G: Gate> SecretStore for Gated<G> {
    async fn secrets(&self, ids: &[SecretId]) -> Result<Vec<(SecretId, Vec<u8>)>, StoreError> {
        self.gate.read()?;
        self.inner.secrets(ids).await
    }
}

#[async_trait]
impl<G: Gate> FileStore for Gated<G> {
    async fn upload_in(&self, space: &SpaceId, id: &FileId) -> Result<Option<Upload>, StoreError> {
        self.gate.read()?;
        self.inner.upload_in(space, id).await
    }

    async fn upload(&self, id: &FileId) -> Result<Option<Upload>, StoreError> {
        self.gate.read()?;
        self.inner.upload(id).await
    }

    async fn upload_for(&self, action: &ActionId, agent: &AgentId) -> Result<Option<Upload>, StoreError> {
        self.gate.read()?;
        self.inner.upload_for(action, agent).await
    }

    async fn uploads(&self, agent: &AgentId) -> Result<Vec<Upload>, StoreError> {
        self.gate.read()?;
        self.inner.uploads(agent).await
    }

    async fn uploads_begun_before(
        &self,
        status: FileStatus,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<Upload>, StoreError> {
        self.gate.read()?;
        self.inner.uploads_begun_before(status, before, limit).await
    }

    async fn chunks(&self, file: &FileId) -> Result<Vec<ChunkInfo>, StoreError> {
        self.gate.read()?;
        self.inner.chunks(file).await
    }

    async fn chunk(&self, file: &FileId, number: i64) -> Result<Option<Vec<u8>>, StoreError> {
        self.gate.read()?;
        self.inner.chunk(file, number).await
    }

    async fn file(&self, id: &FileId) -> Result<Option<DeliverableFile>, StoreError> {
        self.gate.read()?;
        self.inner.file(id).await
    }

    async fn artifact(
        &self,
        identifier: &str,
        decoded_sha256: &str,
    ) -> Result<Option<(Artifact, Vec<u8>)>, StoreError> {
        self.gate.read()?;
        self.inner.artifact(identifier, decoded_sha256).await
    }
}

#[async_trait]
impl<G: Gate> SettingStore for Gated<G> {
    async fn setting(&self, name: &str) -> Result<Option<String>, StoreError> {
        self.gate.read()?;
        self.inner.setting(name).await
    }
}

#[async_trait]
impl<G: Gate> AuditStore for Gated<G> {
    async fn audit_events(&self, seq: i64, limit: u32) -> Result<Vec<(i64, String, [u8; 32])>, StoreError> {
        self.gate.read()?;
        self.inner.audit_events(seq, limit).await
    }

    async fn audit_events_before(&self, seq: i64, limit: u32) -> Result<Vec<(i64, String, [u8; 32])>, StoreError> {
        self.gate.read()?;
        self.inner.audit_events_before(seq, limit).await
    }

    async fn audit_chains(&self) -> Result<Vec<String>, StoreError> {
        self.gate.read()?;
        self.inner.audit_chains().await
    }

    async fn audit_links(&self, chain: &str, after: i64, limit: u32) -> Result<Vec<AuditLink>, StoreError> {
        self.gate.read()?;
        self.inner.audit_links(chain, after, limit).await
    }

    async fn audit_hash(&self, chain: &str, position: i64) -> Result<Option<[u8; 32]>, StoreError> {
        self.gate.read()?;
        self.inner.audit_hash(chain, position).await
    }
}

#[async_trait]
impl<G: Gate> ChangeStore for Gated<G> {
    fn changes(&self) -> watch::Receiver<i64> {
        self.inner.changes()
    }

    fn confirmed(&self) -> Currency {
        self.gate.confirmed().unwrap_or_else(|| self.inner.confirmed())
    }

    fn changes_handled(&self, seq: i64) {
        self.inner.changes_handled(seq);
    }

    async fn changes_since(&self, seq: i64, limit: u32) -> Result<Vec<(i64, Option<Change>)>, StoreError> {
        self.gate.read()?;
        self.inner.changes_since(seq, limit).await
    }

    async fn changes_prune(&self, through: i64, limit: u32) -> Result<u64, StoreError> {
        self.gate.read()?;
        self.inner.changes_prune(through, limit).await
    }
}

#[async_trait]
impl<G: Gate> NodeStore for Gated<G> {
    async fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError> {
        self.gate.read()?;
        self.inner.nodes().await
    }

    async fn lost_nodes(&self) -> Result<Vec<LostNode>, StoreError> {
        self.gate.read()?;
        self.inner.lost_nodes().await
    }

    fn this_node(&self) -> watch::Receiver<NodeStanding> {
        self.inner.this_node()
    }
}

#[async_trait]
impl<G: Gate> LeaseStore for Gated<G> {
    async fn take_lease(&self, lease: LeaseName) -> Result<Option<FencingToken>, StoreError> {
        self.gate.read()?;
        self.inner.take_lease(lease).await
    }

    async fn release_lease(&self, token: FencingToken) -> Result<(), StoreError> {
        self.inner.release_lease(token).await
    }
}
