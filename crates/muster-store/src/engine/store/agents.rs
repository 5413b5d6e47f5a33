//! Reads of agents and their documents.

use async_trait::async_trait;
use muster_core::agent::{AgentDetails, AgentDocuments, AgentRecord, Family};
use muster_core::credential::Credential;
use muster_core::host::Host;
use muster_core::id::{AgentId, EnrollmentKeyId, HostId, KeyId, SpaceId};
use muster_core::status::Status;
use muster_core::time::Timestamp;

use super::SqlStore;
use crate::engine::apply::Done;
use crate::engine::error::Failure;
use crate::engine::session::Connection;
use crate::engine::{agent_counts, agents};
use crate::port::{AgentStore, StoreError};
use crate::query::{AgentCursor, AgentFilter, AgentSort, HostRows, Listed, Page, Readable, VersionCount};

#[async_trait]
impl AgentStore for SqlStore {
    async fn agent_in(&self, space: &SpaceId, id: &AgentId) -> Result<Option<AgentRecord>, StoreError> {
        let (space, id) = (space.clone(), id.clone());
        self.points.read(move |c| agents::by_id_in(c, &space, &id)).await
    }

    async fn agent(&self, id: &AgentId) -> Result<Option<AgentRecord>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| agents::by_id(c, &id)).await
    }

    async fn agent_by_credential(&self, key: &KeyId) -> Result<Option<AgentRecord>, StoreError> {
        let key = key.clone();
        self.points.read(move |c| agents::by_credential(c, &key)).await
    }

    async fn is_credential(&self, key: &KeyId) -> Result<bool, StoreError> {
        let key = key.clone();
        self.points.read(move |c| agents::is_credential(c, &key)).await
    }

    async fn agent_credentials(&self, id: &AgentId) -> Result<Vec<Credential>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| agents::credentials(c, &id)).await
    }

    async fn host(&self, id: &HostId) -> Result<Option<Host>, StoreError> {
        let id = id.clone();
        self.points.read(move |c| agents::host(c, &id)).await
    }

    async fn host_list(&self, filter: &AgentFilter, rows: &HostRows) -> Result<Listed<Host>, StoreError> {
        let (filter, rows) = (filter.clone(), rows.clone());
        self.lists.snapshot(move |c| agents::hosts(c, &filter, &rows)).await
    }

    async fn host_by_machine(&self, space: &SpaceId, machine_id: &str) -> Result<Option<Host>, StoreError> {
        let (space, machine_id) = (space.clone(), machine_id.to_owned());
        self.points.read(move |c| agents::host_by_machine(c, &space, &machine_id)).await
    }

    async fn hosts_by_system(&self, space: &SpaceId, system_id: &str, limit: u32) -> Result<Vec<Host>, StoreError> {
        let (space, system_id) = (space.clone(), system_id.to_owned());
        self.points.read(move |c| agents::hosts_by_system(c, &space, &system_id, limit)).await
    }

    async fn agent_by_enrollment_id(
        &self,
        enrollment_id: &str,
        key: &EnrollmentKeyId,
    ) -> Result<Option<AgentRecord>, StoreError> {
        let (enrollment_id, key) = (enrollment_id.to_owned(), key.clone());
        self.points.read(move |c| agents::by_enrollment_id(c, &enrollment_id, &key)).await
    }

    async fn agent_documents(&self, id: &AgentId) -> Result<Option<AgentDocuments>, StoreError> {
        // Without a lock: readers must not wait for the writer. Repeats are rare, since an agent's entry changes
        // seldom.
        loop {
            let before = self.on_the_way.of(id);
            let key = id.clone();
            let stored = self.points.read(move |c| agents::documents(c, &key)).await?;
            // Between the two reads components may have moved to their table, or the agent may have been deleted.
            if self.on_the_way.of(id) == before {
                let components = before.and_then(|place| place.components);
                return Ok(
                    stored.map(|stored| AgentDocuments { components: components.or(stored.components), ..stored })
                );
            }
        }
    }

    async fn agent_list(
        &self,
        filter: &AgentFilter,
        sort: AgentSort,
        descending: bool,
        page: Page,
    ) -> Result<Listed<AgentDetails>, StoreError> {
        let filter = filter.clone();
        // A snapshot, so that the rows and their total are of the same state.
        self.lists.snapshot(move |c| agents::page(c, &filter, sort, descending, page)).await
    }

    async fn agents_after(
        &self,
        filter: &AgentFilter,
        sort: AgentSort,
        descending: bool,
        after: &AgentCursor,
        limit: u32,
    ) -> Result<Readable<AgentDetails>, StoreError> {
        let (filter, after) = (filter.clone(), after.clone());
        self.lists.snapshot(move |c| agents::after(c, &filter, sort, descending, &after, limit)).await
    }

    async fn agent_ids(
        &self,
        filter: &AgentFilter,
        after: Option<&AgentId>,
        limit: u32,
    ) -> Result<Vec<AgentId>, StoreError> {
        let (filter, after) = (filter.clone(), after.cloned());
        self.lists.read(move |c| agents::ids(c, &filter, after.as_ref(), limit)).await
    }

    async fn agents_named(&self, ids: &[AgentId]) -> Result<Vec<AgentDetails>, StoreError> {
        let ids = ids.to_vec();
        self.lists.snapshot(move |c| agents::named(c, &ids)).await
    }

    async fn agent_versions(&self, ids: &[AgentId]) -> Result<Vec<(AgentId, i64)>, StoreError> {
        // A list can have a plan that scans the table, and waits for other lists; requests wait for the version of one agent.
        if let [id] = ids {
            let id = id.clone();
            let version = self.points.read(move |c| Ok(agents::version(c, &id)?.map(|version| (id, version)))).await?;
            return Ok(version.into_iter().collect());
        }
        let ids = ids.to_vec();
        self.lists.read(move |c| agents::versions(c, &ids)).await
    }

    async fn agent_counts(&self, filter: &AgentFilter) -> Result<Vec<(Status, u64)>, StoreError> {
        let filter = filter.clone();
        self.lists.snapshot(move |c| agents::counts(c, &filter)).await
    }

    async fn agents_by_version(&self, filter: &AgentFilter) -> Result<Vec<VersionCount>, StoreError> {
        let filter = filter.clone();
        self.lists.read(move |c| agents::by_version(c, &filter)).await
    }

    async fn agents_by_program(&self, filter: &AgentFilter) -> Result<Vec<(Family, String, u64)>, StoreError> {
        let filter = filter.clone();
        self.lists.read(move |c| agents::by_program(c, &filter)).await
    }

    async fn agents_by_os(&self, filter: &AgentFilter, limit: u32) -> Result<Vec<(String, u64)>, StoreError> {
        let filter = filter.clone();
        self.lists.read(move |c| agents::by_os(c, &filter, limit)).await
    }

    async fn agent_counts_fold(&self) -> Result<u64, StoreError> {
        let fold = |c: &Connection| -> Result<Done, Failure> {
            Ok(Done { removed: agent_counts::fold(c)?, ..Done::default() })
        };
        Ok(self.writer.task(fold).await?.removed)
    }

    async fn agent_history_record(&self, hour: i64, keep_from: i64) -> Result<u64, StoreError> {
        let record = move |c: &Connection| -> Result<Done, Failure> {
            Ok(Done { removed: agent_counts::record(c, hour, keep_from)?, ..Done::default() })
        };
        Ok(self.writer.task(record).await?.removed)
    }

    async fn agent_history(&self, space: &SpaceId, since: i64) -> Result<Vec<(i64, Status, u64)>, StoreError> {
        let space = space.clone();
        self.lists.read(move |c| agent_counts::history(c, &space, since)).await
    }

    async fn agent_tags(&self, filter: &AgentFilter) -> Result<Vec<String>, StoreError> {
        let filter = filter.clone();
        self.lists.read(move |c| agents::tags(c, &filter)).await
    }

    async fn agents_due(&self, now: Timestamp, limit: u32) -> Result<Vec<AgentRecord>, StoreError> {
        self.lists.read(move |c| agents::due(c, now, limit)).await
    }
}
