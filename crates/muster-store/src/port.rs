//! The store port, implemented by every engine.

use std::sync::Arc;

use async_trait::async_trait;
use muster_core::action::{Action, ActionCounts, ActionResult, DueAction, Target, TargetState};
use muster_core::agent::{AgentDetails, AgentDocuments, AgentRecord};
use muster_core::audit::AuditEvent;
use muster_core::change::Change;
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::file::{Artifact, ChunkInfo, DeliverableFile, FileStatus, Upload};
use muster_core::id::{ActionId, AgentId, EnrollmentKeyId, FileId, KeyId, OutputId, PolicyId, SecretId};
use muster_core::output::Output;
use muster_core::policy::{Policy, PolicyRevision};
use muster_core::status::Status;
use muster_core::time::Timestamp;
use tokio::sync::watch;

use crate::query::{ActionFilter, AgentFilter, AgentSort, Listed, Page};

/// Error of the store, which says whether a write may have been applied.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Not applied, because a precondition did not hold. Retrying the same write is pointless.
    #[error("not applied: {0}")]
    Conflict(Precondition),
    /// Not applied, because the store is unavailable (disk full, read-only, busy, overloaded).
    #[error("not applied: {reason}")]
    Unavailable {
        /// Message of the engine.
        reason: String,
    },
    /// It is unknown whether the write was applied.
    #[error("unknown whether applied: {reason}")]
    Unknown {
        /// Message of the engine.
        reason: String,
    },
    /// Stored data is corrupt.
    #[error("stored data is damaged: {reason}")]
    Corrupt {
        /// What is corrupt, and where.
        reason: String,
    },
}

impl From<StoreError> for muster_core::Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict(precondition) => Self::conflict("conflict", precondition.to_string()),
            StoreError::Unavailable { reason } | StoreError::Unknown { reason } => Self::new(
                muster_core::ErrorKind::Unavailable,
                "store_unavailable",
                "the store can't be written or read now; try again later",
            )
            .for_log(reason),
            StoreError::Corrupt { reason } => Self::internal(reason),
        }
    }
}

/// Failed precondition of a [`Write`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Precondition {
    /// The record has changed since it was read.
    #[error("{0} changed meanwhile")]
    Changed(String),
    /// The record does not exist (any more).
    #[error("{0} does not exist")]
    Missing(String),
    /// The id is taken.
    #[error("{0} exists already")]
    Exists(String),
    /// The name is taken.
    #[error("the name {0:?} is taken")]
    NameTaken(String),
    /// The enrollment key is revoked, expired or used up.
    #[error("the enrollment key is revoked, expired or used up")]
    KeyRefused,
}

/// A change to the stored state. A list of writes is committed together or not at all.
#[derive(Clone, Debug)]
pub enum Write {
    /// Inserts an agent. Fails with `Exists` if the id is taken.
    AgentInsert {
        /// Record; its `version` is stored unchanged.
        record: Box<AgentRecord>,
        /// Documents of the agent.
        documents: AgentDocuments,
    },
    /// A changed record: `after.version` must be `before.version + 1`. `Changed` or `Missing` otherwise. An engine
    /// may compare the two to touch only the indexes concerned.
    AgentUpdate {
        /// Record that the change is based on.
        before: Arc<AgentRecord>,
        /// Record to store.
        after: Arc<AgentRecord>,
    },
    /// Updates documents of an agent. `None` fields are kept.
    AgentDocuments {
        /// The agent.
        id: AgentId,
        /// Changed documents.
        documents: AgentDocuments,
    },
    /// Removes an agent with its documents, its keys and its uploads (M13). Its open targets end as by
    /// [`Write::AgentActionsEnd`]; those that it answered keep the outcome without what it reported. `Missing` when not
    /// there.
    AgentDelete {
        /// The agent.
        id: AgentId,
        /// When.
        now: Timestamp,
    },
    /// Ends the open targets of an agent that left, with the error [`UNENROLLED`](muster_core::action::UNENROLLED), so
    /// that its actions come to an end without it.
    AgentActionsEnd {
        /// The agent.
        id: AgentId,
        /// When.
        now: Timestamp,
    },
    /// Begins a new life of an agent's id: nothing that was given to the id before, answered or not, is delivered to
    /// it again, and it can't answer it (EA42, D14). What is open ends as by [`Write::AgentActionsEnd`].
    /// [`Write::AgentInsert`] does this by itself.
    AgentLifeBegins {
        /// The agent.
        id: AgentId,
        /// When.
        now: Timestamp,
    },
    /// Sets later check-in times of connected agents, without a version change.
    AgentsSeen {
        /// Agents and the times when they were last seen.
        seen: Vec<(AgentId, Timestamp)>,
    },
    /// Inserts an enrollment key. Fails with `NameTaken` if an active key of the same policy has the name.
    EnrollmentKeyInsert(Box<EnrollmentKey>),
    /// Notes a use. `KeyRefused` unless the key admits at `now`, checked inside the commit (one use of a
    /// `max_uses: 1` key wins).
    EnrollmentKeyUse {
        /// The key.
        id: EnrollmentKeyId,
        /// Time of the use.
        now: Timestamp,
        /// Whether it counts. The agent that takes the place of one that this key let in is no further one: the key
        /// must be neither revoked nor expired, but the number of its uses stays and does not matter.
        counts: bool,
    },
    /// Revokes a key; ignored if it is revoked. Fails with `Missing`.
    EnrollmentKeyRevoke {
        /// The key.
        id: EnrollmentKeyId,
        /// Time.
        now: Timestamp,
    },
    /// Deletes a key. Fails with `Missing`.
    EnrollmentKeyDelete {
        /// The key.
        id: EnrollmentKeyId,
    },
    /// Inserts a policy. Fails with `Exists` or `NameTaken`.
    PolicyInsert(Box<Policy>),
    /// A changed policy. `Changed` unless the stored revision is `before_revision` and the stored `updated_at` is
    /// `before_updated_at`; `NameTaken`.
    PolicyUpdate {
        /// Revision that the change is based on.
        before_revision: i64,
        /// `updated_at` that the change is based on.
        before_updated_at: Timestamp,
        /// Policy to store.
        policy: Box<Policy>,
    },
    /// Inserts a revision. Fails with `Exists` if the number is taken.
    PolicyRevisionInsert(Box<PolicyRevision>),
    /// Deletes a policy, its revisions and its enrollment keys. Fails with `Changed` if it has active agents.
    PolicyDelete {
        /// The policy.
        id: PolicyId,
    },
    /// Inserts an action and its targets in order. The store assigns its sequence number.
    ActionInsert {
        /// Action; its `seq` is ignored.
        action: Box<Action>,
        /// Target agents.
        targets: Vec<AgentId>,
    },
    /// One agent's answer. The first one stays; later ones are ignored (EA119, EA120). An agent that the action was
    /// not addressed to gets a target row of its own when the result is an ineligibility (`addressed: false`).
    ActionResult {
        /// The answer.
        result: Box<ActionResult>,
        /// Whether the agent must be one of the targets: `Missing` when it is not.
        addressed: bool,
    },
    /// Marks an action as cancelled, unless it is already. Fails with `Missing`.
    ActionCancel {
        /// The action.
        id: ActionId,
        /// When.
        now: Timestamp,
    },
    /// Notes that an order's effect on the records of its agents is to follow: commits of its own, of which the last
    /// is [`Write::EffectFinished`].
    EffectBegun {
        /// The order.
        id: ActionId,
    },
    /// The order's effect is all committed; one that was not begun is no error.
    EffectFinished {
        /// The order.
        id: ActionId,
    },
    /// Inserts or updates an output. `is_default` clears the flag of others in the same commit. Fails with `NameTaken`.
    OutputPut(Box<Output>),
    /// Deletes an output. Fails with `Missing`.
    OutputDelete {
        /// The output.
        id: OutputId,
    },
    /// Inserts or replaces a sealed secret.
    SecretPut {
        /// Its id.
        id: SecretId,
        /// Ciphertext with nonce and key id.
        sealed: Vec<u8>,
    },
    /// Deletes a secret, if it exists.
    SecretDelete {
        /// Its id.
        id: SecretId,
    },
    /// A new upload. It takes the place of one that failed or was removed; `Exists` when the agent has any other for
    /// that action.
    UploadInsert(Box<Upload>),
    /// Updates the state of an upload. `UploadError` and `Deleted` delete its chunks.
    UploadStatus {
        /// The upload.
        id: FileId,
        /// New state.
        status: FileStatus,
        /// Transit hash, if complete.
        transit_hash: Option<String>,
    },
    /// A chunk of an upload or of a deliverable file. The same number with the same hash again changes nothing
    /// (D6); with another hash: replaced.
    ChunkPut {
        /// The upload or file.
        file: FileId,
        /// Chunk number, from 0.
        number: i64,
        /// SHA-256 of the bytes.
        sha256: [u8; 32],
        /// Bytes of the chunk.
        data: Vec<u8>,
    },
    /// Inserts a file for agents. Its chunks are written separately.
    FileInsert(Box<DeliverableFile>),
    /// Inserts or replaces an artifact.
    ArtifactPut {
        /// Artifact.
        artifact: Box<Artifact>,
        /// Encoded bytes.
        body: Vec<u8>,
    },
    /// Sets a setting: a short string under a name.
    SettingPut {
        /// Its name.
        name: String,
        /// Value, as JSON or a string.
        value: String,
    },
    /// Appends a line to the audit log. The store chains it.
    Audit(AuditEvent),
    /// Appends a row to the change log.
    Changed(Change),
}

/// Result of a commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Sequence numbers of inserted actions, in order.
    pub action_seqs: Vec<i64>,
}

/// A store engine. Every method may return [`StoreError::Unavailable`].
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Commits all `writes` or none. Once it returns `Ok`, they are on disk.
    async fn commit(&self, writes: Vec<Write>) -> Result<Committed, StoreError>;

    /// Returns a receiver of the newest sequence number of the change log.
    fn changes(&self) -> watch::Receiver<i64>;
    /// Changes after `seq`, oldest first, at most `limit`, each with its number. Unknown kinds are `None`.
    async fn changes_since(&self, seq: i64, limit: u32) -> Result<Vec<(i64, Option<Change>)>, StoreError>;
    /// Deletes up to `limit` of the oldest changes, up to and including number `through`, and returns their number.
    /// The newest row is always kept, because it holds the current number.
    async fn changes_prune(&self, through: i64, limit: u32) -> Result<u64, StoreError>;

    /// One agent's record.
    async fn agent(&self, id: &AgentId) -> Result<Option<AgentRecord>, StoreError>;
    /// The agent with this access key.
    async fn agent_by_access_key(&self, key: &KeyId) -> Result<Option<AgentRecord>, StoreError>;
    /// The agent that enrolled by this key with this idempotency handle and never checked in. There is one at most: a
    /// second one is refused as [`Precondition::Exists`], whichever node commits it.
    async fn agent_by_enrollment_id(
        &self,
        enrollment_id: &str,
        key: &EnrollmentKeyId,
    ) -> Result<Option<AgentRecord>, StoreError>;
    /// Selects the documents of an agent.
    async fn agent_documents(&self, id: &AgentId) -> Result<Option<AgentDocuments>, StoreError>;
    /// A page of agents. `descending` turns the order round; ties are broken by id. Components are left out
    /// (`None`) to keep lists small.
    async fn agent_list(
        &self,
        filter: &AgentFilter,
        sort: AgentSort,
        descending: bool,
        page: Page,
    ) -> Result<Listed<AgentDetails>, StoreError>;
    /// Ids of all agents that match, ordered, after `after`, at most `limit`.
    async fn agent_ids(
        &self,
        filter: &AgentFilter,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<AgentId>, StoreError>;
    /// Number of agents in each status, among those that match.
    async fn agent_counts(&self, filter: &AgentFilter) -> Result<Vec<(Status, u64)>, StoreError>;
    /// Every tag in use among those that match, sorted ignoring case.
    async fn agent_tags(&self, filter: &AgentFilter) -> Result<Vec<String>, StoreError>;
    /// Agents whose `status_deadline` is at or before `now`, at most `limit`.
    async fn agents_due(&self, now: Timestamp, limit: u32) -> Result<Vec<AgentRecord>, StoreError>;

    /// One enrollment key.
    async fn enrollment_key(&self, id: &EnrollmentKeyId) -> Result<Option<EnrollmentKey>, StoreError>;
    /// The enrollment key with this public half.
    async fn enrollment_key_by_key_id(&self, key: &KeyId) -> Result<Option<EnrollmentKey>, StoreError>;
    /// Enrollment keys, newest first, of one policy or of all.
    async fn enrollment_keys(&self, policy: Option<&PolicyId>, page: Page)
    -> Result<Listed<EnrollmentKey>, StoreError>;

    /// Selects a policy.
    async fn policy(&self, id: &PolicyId) -> Result<Option<Policy>, StoreError>;
    /// The policy of that name.
    async fn policy_by_name(&self, name: &str) -> Result<Option<Policy>, StoreError>;
    /// Policies by name.
    async fn policies(&self, page: Page) -> Result<Listed<Policy>, StoreError>;
    /// Number of active agents on each policy.
    async fn policy_agent_counts(&self) -> Result<Vec<(PolicyId, u64)>, StoreError>;
    /// The newest revision of a policy.
    async fn policy_newest_revision(&self, id: &PolicyId) -> Result<Option<PolicyRevision>, StoreError>;
    /// A revision of a policy.
    async fn policy_revision(&self, id: &PolicyId, revision: i64) -> Result<Option<PolicyRevision>, StoreError>;
    /// Numbers, times and authors of a policy's revisions, newest first.
    async fn policy_revisions(&self, id: &PolicyId) -> Result<Vec<(i64, Timestamp, String)>, StoreError>;

    /// Selects an action.
    async fn action(&self, id: &ActionId) -> Result<Option<Action>, StoreError>;
    /// Actions after position `after` that are addressed to the agent in its present life, not cancelled and not
    /// expired at `now`, in order, at most `limit` (EA75, EA76). Types that are never delivered are included: the position passes them.
    async fn actions_due(
        &self,
        agent: &AgentId,
        after: i64,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<DueAction>, StoreError>;
    /// An action's targets with their states, in order, after place `after`, at most `limit`.
    async fn action_targets(
        &self,
        id: &ActionId,
        after: i64,
        limit: u32,
    ) -> Result<Vec<(i64, AgentId, TargetState)>, StoreError>;
    /// How one agent stands to an action; `None` when it is not addressed to it.
    async fn action_target(&self, id: &ActionId, agent: &AgentId) -> Result<Option<Target>, StoreError>;
    /// A page of actions with their counts, newest first.
    async fn actions(&self, filter: &ActionFilter, page: Page) -> Result<Listed<(Action, ActionCounts)>, StoreError>;
    /// Results of an action, newest first, failed ones only if `failed_only`, at most `limit`.
    async fn action_results(
        &self,
        id: &ActionId,
        failed_only: bool,
        limit: u32,
    ) -> Result<Vec<ActionResult>, StoreError>;
    /// Removes actions whose expiration is before `before`, with their targets and results, at most `limit`.
    async fn actions_collect(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;
    /// Orders that were begun and not finished, as [`Write::EffectBegun`] says, oldest first.
    async fn unfinished_effects(&self) -> Result<Vec<ActionId>, StoreError>;

    /// Selects an output.
    async fn output(&self, id: &OutputId) -> Result<Option<Output>, StoreError>;
    /// All outputs, by name.
    async fn outputs(&self) -> Result<Vec<Output>, StoreError>;

    /// Sealed secrets of those ids; missing ones are left out.
    async fn secrets(&self, ids: &[SecretId]) -> Result<Vec<(SecretId, Vec<u8>)>, StoreError>;

    /// Selects an upload.
    async fn upload(&self, id: &FileId) -> Result<Option<Upload>, StoreError>;
    /// The upload of an agent for an action.
    async fn upload_for(&self, action: &ActionId, agent: &AgentId) -> Result<Option<Upload>, StoreError>;
    /// Returns the uploads of an agent, newest first.
    async fn uploads(&self, agent: &AgentId) -> Result<Vec<Upload>, StoreError>;
    /// Uploads in that state that began before `before`, oldest first, at most `limit`.
    async fn uploads_begun_before(
        &self,
        status: FileStatus,
        before: Timestamp,
        limit: u32,
    ) -> Result<Vec<Upload>, StoreError>;
    /// Chunks of an upload or file, without their bytes, in order.
    async fn chunks(&self, file: &FileId) -> Result<Vec<ChunkInfo>, StoreError>;
    /// Returns the bytes of a chunk.
    async fn chunk(&self, file: &FileId, number: i64) -> Result<Option<Vec<u8>>, StoreError>;
    /// Returns a file for agents.
    async fn file(&self, id: &FileId) -> Result<Option<DeliverableFile>, StoreError>;
    /// An artifact and its encoded bytes.
    async fn artifact(&self, identifier: &str, decoded_sha256: &str)
    -> Result<Option<(Artifact, Vec<u8>)>, StoreError>;

    /// Returns the value of a setting.
    async fn setting(&self, name: &str) -> Result<Option<String>, StoreError>;
    /// Audit lines after `seq`, oldest first, at most `limit`: number, event JSON as hashed, hash.
    async fn audit_events(&self, seq: i64, limit: u32) -> Result<Vec<(i64, String, [u8; 32])>, StoreError>;
}
