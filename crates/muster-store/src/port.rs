//! The port: what every engine offers.

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

/// What went wrong in the store, and whether the write may have happened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Certainly not applied, and trying again as it is won't help: a precondition did not hold.
    #[error("not applied: {0}")]
    Conflict(Precondition),
    /// Certainly not applied; the store can't write or read now (disk full, read-only, busy, overloaded).
    #[error("not applied: {reason}")]
    Unavailable {
        /// What the engine said.
        reason: String,
    },
    /// It is not known whether the write was applied.
    #[error("unknown whether applied: {reason}")]
    Unknown {
        /// What the engine said.
        reason: String,
    },
    /// The stored data can't be read as what it should be.
    #[error("stored data is damaged: {reason}")]
    Corrupt {
        /// What and where.
        reason: String,
    },
}

impl StoreError {
    /// Whether more room on the disk would help: in SQLite's words, which name it in two ways.
    pub fn lacks_room(&self) -> bool {
        match self {
            Self::Unavailable { reason } => reason.contains("disk is full") || reason.contains("disk I/O error"),
            Self::Conflict(_) | Self::Unknown { .. } | Self::Corrupt { .. } => false,
        }
    }
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

/// The precondition of a [`Write`] that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Precondition {
    /// The record is newer than the one that the change started from.
    #[error("{0} changed meanwhile")]
    Changed(String),
    /// The record is not there (any more).
    #[error("{0} does not exist")]
    Missing(String),
    /// Another record has this id.
    #[error("{0} exists already")]
    Exists(String),
    /// Another record has this name.
    #[error("the name {0:?} is taken")]
    NameTaken(String),
    /// The enrollment key admits nobody any more.
    #[error("the enrollment key is revoked, expired or used up")]
    KeyRefused,
    /// The agent's uploads would exceed a limit.
    #[error("the agent's uploads would exceed a limit: {0:?}")]
    OverLimit(UploadLimit),
}

/// A limit of an agent's uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UploadLimit {
    /// Of those that are under way.
    Open,
    /// Of all that there is a record of.
    Records,
    /// Of the bytes of all that are kept.
    Bytes,
}

/// What an agent may have beside the upload that it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UploadQuota {
    /// Declared size of the new one, bytes.
    pub bytes: u64,
    /// Uploads begun before this time are over, whether complete or not.
    pub open_since: Timestamp,
    /// Uploads under way at a time.
    pub max_open: u64,
    /// Records of uploads, whatever their state.
    pub max_records: u64,
    /// Bytes of all uploads that are kept, declared sizes.
    pub max_bytes: u64,
}

/// One change of the stored state. A list of them is committed together or not at all.
#[derive(Clone, Debug)]
pub enum Write {
    /// A new agent. `Exists` when the id is taken.
    AgentInsert {
        /// The record; its `version` is stored as it is.
        record: Box<AgentRecord>,
        /// Its documents.
        documents: AgentDocuments,
    },
    /// A changed record: `after.version` must be `before.version + 1`. `Changed` or `Missing` otherwise. An engine
    /// may compare the two to touch only the indexes concerned.
    AgentUpdate {
        /// The record that the change started from.
        before: Arc<AgentRecord>,
        /// The record to store.
        after: Arc<AgentRecord>,
    },
    /// Changed documents of an agent; `None` fields stay as they are.
    AgentDocuments {
        /// The agent.
        id: AgentId,
        /// What changed.
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
    /// Later check-in times of connected agents; never earlier ones, no version change.
    AgentsSeen {
        /// Agents and the times they were seen.
        seen: Vec<(AgentId, Timestamp)>,
    },
    /// A new enrollment key. `NameTaken` when a live key of the same policy has the name.
    EnrollmentKeyInsert(Box<EnrollmentKey>),
    /// Notes a use. `KeyRefused` unless the key admits at `now`, checked inside the commit (one use of a
    /// `max_uses: 1` key wins).
    EnrollmentKeyUse {
        /// The key.
        id: EnrollmentKeyId,
        /// The time of use.
        now: Timestamp,
        /// Whether it counts. The agent that takes the place of one that this key let in is no further one: the key
        /// must be neither revoked nor expired, but the number of its uses stays and does not matter.
        counts: bool,
    },
    /// Revokes a key; does nothing to one that is revoked already. `Missing` when not there.
    EnrollmentKeyRevoke {
        /// The key.
        id: EnrollmentKeyId,
        /// The time.
        now: Timestamp,
    },
    /// Removes a key's record. `Missing` when not there.
    EnrollmentKeyDelete {
        /// The key.
        id: EnrollmentKeyId,
    },
    /// A new policy. `Exists` or `NameTaken`.
    PolicyInsert(Box<Policy>),
    /// A changed policy. `Changed` unless the stored revision is `before_revision` and the stored `updated_at` is
    /// `before_updated_at`; `NameTaken`.
    PolicyUpdate {
        /// The revision that the change started from.
        before_revision: i64,
        /// The change time that the change started from.
        before_updated_at: Timestamp,
        /// What to store.
        policy: Box<Policy>,
    },
    /// A new revision. `Exists` when there is one of that number.
    PolicyRevisionInsert(Box<PolicyRevision>),
    /// Removes a policy, its revisions and its enrollment keys. `Changed` while an active agent is on it.
    PolicyDelete {
        /// The policy.
        id: PolicyId,
    },
    /// A new action and its targets in order; the store assigns its sequence number.
    ActionInsert {
        /// The action; `seq` is ignored.
        action: Box<Action>,
        /// Its targets.
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
    /// Marks an action as cancelled; the first time stays. `Missing` when not there.
    ActionCancel {
        /// The action.
        id: ActionId,
        /// When.
        now: Timestamp,
    },
    /// Notes that an order's effect on the records of its agents is to follow: commits of its own, of which the last
    /// is [`Write::OrderFinished`].
    OrderBegun {
        /// The order.
        id: ActionId,
    },
    /// The order's effect is all committed; one that was not begun is no error.
    OrderFinished {
        /// The order.
        id: ActionId,
    },
    /// A new or changed output. `is_default` clears the flag of the others in the same commit. `NameTaken`.
    OutputPut(Box<Output>),
    /// Removes an output. `Missing` when not there.
    OutputDelete {
        /// The output.
        id: OutputId,
    },
    /// A sealed secret, new or replaced.
    SecretPut {
        /// Its id.
        id: SecretId,
        /// Ciphertext with nonce and key id.
        sealed: Vec<u8>,
    },
    /// Removes a secret; one that is not there is no error.
    SecretDelete {
        /// Its id.
        id: SecretId,
    },
    /// Nothing but a precondition: `OverLimit` unless one more upload of the agent, for this action, is within `quota`.
    UploadFits {
        /// The agent.
        agent: AgentId,
        /// The action; an upload for it does not count.
        action: ActionId,
        /// The limits.
        quota: UploadQuota,
    },
    /// Nothing but a precondition: `Missing` or `Changed` unless the upload waits for bytes.
    UploadIsOpen {
        /// The upload.
        id: FileId,
        /// The chunks that it must have, in order, if that matters.
        chunks: Option<Vec<ChunkInfo>>,
    },
    /// A new upload. It takes the place of one that failed or was removed; `Exists` when the agent has any other for
    /// that action.
    UploadInsert(Box<Upload>),
    /// A changed state of an upload; `UploadError` and `Deleted` remove its chunks.
    UploadStatus {
        /// The upload.
        id: FileId,
        /// Its new state.
        status: FileStatus,
        /// Its transit hash, when complete.
        transit_hash: Option<String>,
    },
    /// A chunk of an upload or of a deliverable file. The same number with the same hash again changes nothing
    /// (D6); with another hash: replaced.
    ChunkPut {
        /// The upload or file.
        file: FileId,
        /// Its number from 0.
        number: i64,
        /// SHA-256 of the bytes.
        sha256: [u8; 32],
        /// The bytes.
        data: Vec<u8>,
    },
    /// A new file for agents; its chunks are written beside it.
    FileInsert(Box<DeliverableFile>),
    /// A new or replaced artifact.
    ArtifactPut {
        /// What it is.
        artifact: Box<Artifact>,
        /// Its encoded bytes.
        body: Vec<u8>,
    },
    /// A setting: small text under a name.
    SettingPut {
        /// Its name.
        name: String,
        /// Its value, JSON or text.
        value: String,
    },
    /// One line for the audit log; the store chains it.
    Audit(AuditEvent),
    /// One row for the change log.
    Changed(Change),
}

/// What a commit answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Sequence numbers of the actions inserted, in order.
    pub action_seqs: Vec<i64>,
}

/// A store engine. Every method may answer [`StoreError::Unavailable`].
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Commits all `writes` or none. When it answers `Ok`, they are on disk.
    async fn commit(&self, writes: Vec<Write>) -> Result<Committed, StoreError>;

    /// What an earlier read or write found to be damaged, if anything: such a store can't be trusted until it is restored.
    fn damage(&self) -> Option<String> {
        None
    }

    /// The change log's newest sequence number; the receiver wakes when it grows.
    fn changes(&self) -> watch::Receiver<i64>;
    /// Changes after `seq`, oldest first, at most `limit`, each with its number. Unknown kinds are `None`.
    async fn changes_since(&self, seq: i64, limit: u32) -> Result<Vec<(i64, Option<Change>)>, StoreError>;
    /// Removes the oldest rows of the change log up to and with number `through`, at most `limit`; answers how many.
    /// The newest row always stays: it holds the place where the numbers go on.
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
    /// One agent's documents.
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

    /// One policy.
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

    /// One action.
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
    /// Orders that were begun and not finished, as [`Write::OrderBegun`] says, oldest first.
    async fn unfinished_orders(&self) -> Result<Vec<ActionId>, StoreError>;

    /// One output.
    async fn output(&self, id: &OutputId) -> Result<Option<Output>, StoreError>;
    /// All outputs, by name.
    async fn outputs(&self) -> Result<Vec<Output>, StoreError>;

    /// Sealed secrets of those ids; missing ones are left out.
    async fn secrets(&self, ids: &[SecretId]) -> Result<Vec<(SecretId, Vec<u8>)>, StoreError>;

    /// One upload.
    async fn upload(&self, id: &FileId) -> Result<Option<Upload>, StoreError>;
    /// The upload of an agent for an action.
    async fn upload_for(&self, action: &ActionId, agent: &AgentId) -> Result<Option<Upload>, StoreError>;
    /// An agent's uploads, newest first.
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
    /// One chunk's bytes.
    async fn chunk(&self, file: &FileId, number: i64) -> Result<Option<Vec<u8>>, StoreError>;
    /// A file for agents.
    async fn file(&self, id: &FileId) -> Result<Option<DeliverableFile>, StoreError>;
    /// An artifact and its encoded bytes.
    async fn artifact(&self, identifier: &str, decoded_sha256: &str)
    -> Result<Option<(Artifact, Vec<u8>)>, StoreError>;

    /// A setting's value.
    async fn setting(&self, name: &str) -> Result<Option<String>, StoreError>;
    /// Audit lines after `seq`, oldest first, at most `limit`: number, event JSON as hashed, hash.
    async fn audit_events(&self, seq: i64, limit: u32) -> Result<Vec<(i64, String, [u8; 32])>, StoreError>;
}
