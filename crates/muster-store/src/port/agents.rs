//! Agents and their documents.

use std::sync::Arc;

use muster_core::agent::{AgentDetails, AgentDocuments, AgentRecord};
use muster_core::credential::Credential;
use muster_core::host::Host;
use muster_core::id::{AgentId, EnrollmentKeyId, HostId, KeyId, SpaceId};
use muster_core::status::Status;
use muster_core::time::Timestamp;

use super::reads::reads;
use super::{StoreError, Write};
use crate::query::{AgentCursor, AgentFilter, AgentSort, Listed, Page, Readable};

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
    /// A host, unless it is there. `Exists` when its machine has another one in its space. It goes with its last agent.
    PutHost(Host),
    /// A changed record: `after.version` must be `before.version + 1`. `Changed` or `Missing` otherwise. An engine
    /// may compare the two to touch only the indexes concerned. Credentials that `after` has no more end at its
    /// `updated_at`, and those that it has besides are issued; `Exists` for one whose id was ever used.
    Update {
        /// Record that the change is based on.
        before: Arc<AgentRecord>,
        /// Record to store.
        after: Arc<AgentRecord>,
    },
    /// Updates documents of an agent. `None` fields are kept.
    Documents {
        /// The agent.
        id: AgentId,
        /// Changed documents.
        documents: AgentDocuments,
    },
    /// Removes an agent with its documents, its keys and its uploads (M13). Its open targets end as by
    /// [`AgentWrite::EndActions`]; those that it answered keep the outcome without what it reported. `Missing` when not
    /// there.
    Delete {
        /// The agent.
        id: AgentId,
        /// When.
        now: Timestamp,
    },
    /// Ends the open targets of an agent that left, with the error [`UNENROLLED`](muster_core::action::UNENROLLED), so
    /// that its actions come to an end without it.
    EndActions {
        /// The agent.
        id: AgentId,
        /// When.
        now: Timestamp,
    },
    /// Begins a new life of an agent's id: nothing that was given to the id before, answered or not, is delivered to
    /// it again, and it can't answer it (EA42, D14). What is open ends as by [`AgentWrite::EndActions`].
    /// [`AgentWrite::Insert`] does this by itself.
    BeginLife {
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
        /// One agent's record.
        async fn agent(&self, id: &AgentId) -> Result<Option<AgentRecord>, StoreError>;
        /// One agent's record, if it is of the space.
        async fn agent_in(&self, space: &SpaceId, id: &AgentId) -> Result<Option<AgentRecord>, StoreError>;
        /// The agent with this live credential. Its record carries all of its live credentials.
        async fn agent_by_credential(&self, key: &KeyId) -> Result<Option<AgentRecord>, StoreError>;
        /// Everything that an agent ever authenticated with, the newest first.
        async fn agent_credentials(&self, id: &AgentId) -> Result<Vec<Credential>, StoreError>;
        /// A host.
        async fn host(&self, id: &HostId) -> Result<Option<Host>, StoreError>;
        /// The host of a machine in a space.
        async fn host_by_machine(&self, space: &SpaceId, machine_id: &str) -> Result<Option<Host>, StoreError>;
        /// The agent that enrolled by this key with this idempotency handle and never checked in. There is one at most: a
        /// second one is refused as [`Precondition::Exists`](super::Precondition::Exists), whichever node commits it.
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
        /// The agents behind `after` in the order of [`Self::agent_list`], at most `limit`; as long as the values that they
        /// are sorted by stay, going on from cursor to cursor shows each once.
        async fn agents_after(
            &self,
            filter: &AgentFilter,
            sort: AgentSort,
            descending: bool,
            after: &AgentCursor,
            limit: u32,
        ) -> Result<Readable<AgentDetails>, StoreError>;
        /// Ids of all agents that match, ordered, after `after`, at most `limit`.
        async fn agent_ids(
            &self,
            filter: &AgentFilter,
            after: Option<&AgentId>,
            limit: u32,
        ) -> Result<Vec<AgentId>, StoreError>;
        /// These agents, in this order and without components; those that are not there are left out. Each is a look-up of
        /// its own: neither sorted nor counted, as a list is.
        async fn agents_named(&self, ids: &[AgentId]) -> Result<Vec<AgentDetails>, StoreError>;
        /// The version of the record of each of these agents that is there, in any order.
        async fn agent_versions(&self, ids: &[AgentId]) -> Result<Vec<(AgentId, i64)>, StoreError>;
        /// Number of agents in each status, among those that match.
        async fn agent_counts(&self, filter: &AgentFilter) -> Result<Vec<(Status, u64)>, StoreError>;
        /// Every tag in use among those that match, sorted ignoring case.
        async fn agent_tags(&self, filter: &AgentFilter) -> Result<Vec<String>, StoreError>;
        /// Agents whose `status_deadline` is at or before `now`, at most `limit`.
        async fn agents_due(&self, now: Timestamp, limit: u32) -> Result<Vec<AgentRecord>, StoreError>;
    }
}
