//! Agents and their documents.

use std::sync::Arc;

use muster_core::agent::{AgentDetails, AgentDocuments, AgentRecord, Family};
use muster_core::credential::{Credential, SecretHash};
use muster_core::host::Host;
use muster_core::id::{AgentId, EnrollmentKeyId, HostId, KeyId, SpaceId};
use muster_core::status::Status;
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};
use crate::query::{AgentCursor, AgentFilter, AgentSort, HostRows, Listed, Page, Readable, VersionCount};

/// A change of agents and their documents.
#[derive(Clone, Debug)]
pub enum AgentWrite {
    /// Inserts an agent. Fails with `Exists` if the id is taken.
    Insert {
        /// Record; its `version` is stored unchanged.
        record: Box<AgentRecord>,
        /// Documents of the agent.
        documents: AgentDocuments,
    },
    /// Inserts a host, unless it exists. Fails with `Exists` if its machine has another host in the space. A host is
    /// deleted with its last agent.
    PutHost(Host),
    /// Sets the system id of a host ([`muster_core::host::system_id`]). Fails with `Missing`.
    SetSystem {
        /// The host.
        host: HostId,
        /// The id.
        system_id: String,
    },
    /// Updates a record. `after.version` must be `before.version + 1`. Fails with `Changed` or `Missing`. An engine may
    /// compare both records to update only the affected indexes. Credentials that are missing in `after` are revoked at
    /// its `updated_at`, and new ones are issued. Fails with `Exists` if the id of a new one was ever used.
    Update {
        /// Record that the change is based on.
        before: Arc<AgentRecord>,
        /// Record to store.
        after: Arc<AgentRecord>,
    },
    /// A precondition only: the record still has this version, and keeps it until the end of the commit. For changes of
    /// an agent's other rows that were decided on its record. Fails with `Changed` or `Missing`.
    Unchanged {
        /// The agent.
        id: AgentId,
        /// Version of the record that the change is based on.
        version: i64,
    },
    /// A precondition only: the agents are in this space, and stay in it until the end of the commit. For what an
    /// administrator of a space does to agents by their ids. Fails with `LeftSpace`.
    InSpace {
        /// The agents, each once.
        ids: Vec<AgentId>,
        /// The space.
        space: SpaceId,
    },
    /// A precondition only: no live credential of the agent, which need not exist, is bound to another client certificate, until
    /// the end of the commit. All commits with this precondition are serialized: of two programs of a host that enroll at the same
    /// time with different certificates, one is refused. Fails with `Changed`.
    BoundAlike {
        /// The agent.
        id: AgentId,
        /// The certificate; `None` if any binding is another one.
        certificate: Option<SecretHash>,
    },
    /// Updates documents of an agent. `None` fields are kept.
    Documents {
        /// The agent.
        id: AgentId,
        /// Changed documents.
        documents: AgentDocuments,
    },
    /// Deletes an agent with its documents, keys and uploads (M13). Its pending targets end as with
    /// [`AgentWrite::EndActions`]; other targets keep their state without the reported fields. Fails with `Missing`.
    Delete {
        /// The agent.
        id: AgentId,
        /// When.
        now: Timestamp,
    },
    /// Ends the pending targets of an agent that left, with the error [`UNENROLLED`](muster_core::action::UNENROLLED),
    /// so that its actions can complete without it.
    EndActions {
        /// The agent.
        id: AgentId,
        /// When.
        now: Timestamp,
    },
    /// Begins a new enrollment under an existing id: earlier actions are neither delivered again nor acknowledged by it
    /// (EA42, D14). Pending targets end as with [`AgentWrite::EndActions`]. [`AgentWrite::Insert`] includes this.
    BeginLife {
        /// The agent.
        id: AgentId,
        /// When.
        now: Timestamp,
    },
    /// Continues an enrollment in a new installation of the agent: actions that it has acknowledged are not delivered again,
    /// even if it has not returned their ack token. Pending ones are, except for UNENROLL: it would make the agent that has just
    /// come back leave again. Its targets end with the error [`REINSTALLED`](muster_core::action::REINSTALLED).
    Reinstalled {
        /// The agent.
        id: AgentId,
        /// When.
        now: Timestamp,
    },
    /// Sets later check-in times of connected agents, without a version change.
    Seen {
        /// Agents and the times when they were last seen.
        seen: Vec<(AgentId, Timestamp)>,
    },
    /// Sets later times of the last use of credentials, live or not, without a version change.
    CredentialsUsed {
        /// Credentials and the times of the last requests with them.
        used: Vec<(KeyId, Timestamp)>,
    },
}

impl From<AgentWrite> for Write {
    fn from(write: AgentWrite) -> Self {
        Self::Agent(write)
    }
}

reads! {
    /// Reads of agents and their documents.
    pub trait AgentStore {
        /// Selects an agent.
        async fn agent(&self, id: &AgentId) -> Result<Option<AgentRecord>, StoreError>;
        /// Selects an agent of the space.
        async fn agent_in(&self, space: &SpaceId, id: &AgentId) -> Result<Option<AgentRecord>, StoreError>;
        /// Selects the agent with this live credential. Its record contains all of its live credentials.
        async fn agent_by_credential(&self, key: &KeyId) -> Result<Option<AgentRecord>, StoreError>;
        /// Returns whether a credential with this id exists, live or revoked.
        async fn is_credential(&self, key: &KeyId) -> Result<bool, StoreError>;
        /// Selects all credentials of an agent, revoked ones included, newest first.
        async fn agent_credentials(&self, id: &AgentId) -> Result<Vec<Credential>, StoreError>;
        /// Selects a host.
        async fn host(&self, id: &HostId) -> Result<Option<Host>, StoreError>;
        /// Returns hosts that have a matching agent, by name.
        async fn host_list(&self, filter: &AgentFilter, rows: &HostRows) -> Result<Listed<Host>, StoreError>;
        /// Selects the host of a machine in a space.
        async fn host_by_machine(&self, space: &SpaceId, machine_id: &str) -> Result<Option<Host>, StoreError>;
        /// Selects hosts of a space with a system id ([`muster_core::host::system_id`]), by id, at most `limit`.
        async fn hosts_by_system(
            &self,
            space: &SpaceId,
            system_id: &str,
            limit: u32,
        ) -> Result<Vec<Host>, StoreError>;
        /// Selects the agent that enrolled with this key and idempotency handle and has never checked in. There is at
        /// most one: a second one fails with [`Precondition::Exists`](super::Precondition::Exists) on every node.
        async fn agent_by_enrollment_id(
            &self,
            enrollment_id: &str,
            key: &EnrollmentKeyId,
        ) -> Result<Option<AgentRecord>, StoreError>;
        /// Selects the documents of an agent.
        async fn agent_documents(&self, id: &AgentId) -> Result<Option<AgentDocuments>, StoreError>;
        /// Returns a page of agents. Agents with equal values are sorted by id. Components are omitted (`None`) to keep
        /// lists small.
        async fn agent_list(
            &self,
            filter: &AgentFilter,
            sort: AgentSort,
            descending: bool,
            page: Page,
        ) -> Result<Listed<AgentDetails>, StoreError>;
        /// Selects the agents after `after` in the order of [`Self::agent_list`], at most `limit`. Reading from cursor
        /// to cursor returns each agent once, as long as the values by which they are sorted do not change.
        async fn agents_after(
            &self,
            filter: &AgentFilter,
            sort: AgentSort,
            descending: bool,
            after: &AgentCursor,
            limit: u32,
        ) -> Result<Readable<AgentDetails>, StoreError>;
        /// Selects ids of matching agents, in order, after `after`, at most `limit`.
        async fn agent_ids(
            &self,
            filter: &AgentFilter,
            after: Option<&AgentId>,
            limit: u32,
        ) -> Result<Vec<AgentId>, StoreError>;
        /// Selects these agents, in this order and without components; missing ones are omitted. Each is a separate
        /// look-up: unlike in a list, nothing is sorted or counted.
        async fn agents_named(&self, ids: &[AgentId]) -> Result<Vec<AgentDetails>, StoreError>;
        /// Selects the record versions of the existing ones of these agents, in any order.
        async fn agent_versions(&self, ids: &[AgentId]) -> Result<Vec<(AgentId, i64)>, StoreError>;
        /// Counts matching agents by status.
        async fn agent_counts(&self, filter: &AgentFilter) -> Result<Vec<(Status, u64)>, StoreError>;
        /// Counts matching agents by version and upgrade.
        async fn agents_by_version(&self, filter: &AgentFilter) -> Result<Vec<VersionCount>, StoreError>;
        /// Counts matching agents by family and version, the most frequent first.
        async fn agents_by_program(&self, filter: &AgentFilter) -> Result<Vec<(Family, String, u64)>, StoreError>;
        /// Selects all tags of matching agents, sorted ignoring case.
        async fn agent_tags(&self, filter: &AgentFilter) -> Result<Vec<String>, StoreError>;
        /// Tidies the maintained numbers of agents: deletes those that are zero, and merges those of servers that are gone. Returns the
        /// number of changed rows.
        async fn agent_counts_fold(&self) -> Result<u64, StoreError>;
        /// Counts matching agents by their `os`, the most frequent first, at most `limit` groups.
        async fn agents_by_os(&self, filter: &AgentFilter, limit: u32) -> Result<Vec<(String, u64)>, StoreError>;
        /// Records the numbers of agents by status for an hour since the epoch, unless they are recorded, and deletes those
        /// of the hours before `keep_from`. Returns the number of new rows.
        async fn agent_history_record(&self, hour: i64, keep_from: i64) -> Result<u64, StoreError>;
        /// Selects the recorded numbers of agents of a space from an hour on, by hour. Statuses that this version does not
        /// know are omitted.
        async fn agent_history(&self, space: &SpaceId, since: i64) -> Result<Vec<(i64, Status, u64)>, StoreError>;
        /// Selects agents whose `status_deadline` is at or before `now`, at most `limit`.
        async fn agents_due(&self, now: Timestamp, limit: u32) -> Result<Vec<AgentRecord>, StoreError>;
    }
}
