//! Reads of results of host checks.

use async_trait::async_trait;
use muster_core::fleetd::check_history::{CheckChange, CheckDay};
use muster_core::fleetd::checks::CheckResult;
use muster_core::id::{AgentId, HostCheckId, SpaceId};
use muster_core::time::Timestamp;

use super::SqlStore;
use crate::engine::apply::Done;
use crate::engine::error::Failure;
use crate::engine::host_checks;
use crate::engine::session::Connection;
use crate::port::{HostCheckStore, StoreError};
use crate::query::{CheckCounts, CheckedHost, CheckedHosts, Page};

#[async_trait]
impl HostCheckStore for SqlStore {
    async fn check_results(&self, agent: &AgentId) -> Result<Vec<CheckResult>, StoreError> {
        let agent = agent.clone();
        self.points.read(move |c| host_checks::of_agent(c, &agent)).await
    }

    async fn check_changes(&self, agent: &AgentId) -> Result<Vec<CheckChange>, StoreError> {
        let agent = agent.clone();
        self.points.read(move |c| host_checks::changes_of(c, &agent)).await
    }

    async fn check_changes_prune(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let prune = move |c: &Connection| -> Result<Done, Failure> {
            Ok(Done { removed: host_checks::prune_changes(c, before, limit)?, ..Done::default() })
        };
        Ok(self.writer.task(prune).await?.removed)
    }

    async fn check_day_record(&self, day: i64, keep_from: i64) -> Result<u64, StoreError> {
        let record = move |c: &Connection| -> Result<Done, Failure> {
            Ok(Done { removed: host_checks::record_day(c, day, keep_from)?, ..Done::default() })
        };
        Ok(self.writer.task(record).await?.removed)
    }

    async fn check_days(&self, check: &HostCheckId, since: i64) -> Result<Vec<CheckDay>, StoreError> {
        let check = check.clone();
        self.lists.read(move |c| host_checks::days(c, &check, since)).await
    }

    async fn check_counts(&self, checks: &[HostCheckId]) -> Result<Vec<CheckCounts>, StoreError> {
        let checks = checks.to_vec();
        self.lists.read(move |c| host_checks::counts(c, &checks)).await
    }

    async fn failing_checks(
        &self,
        agents: &[AgentId],
        checks: &[HostCheckId],
    ) -> Result<Vec<(AgentId, u64)>, StoreError> {
        let (agents, checks) = (agents.to_vec(), checks.to_vec());
        self.lists.read(move |c| host_checks::failing(c, &agents, &checks)).await
    }

    async fn checked_hosts(
        &self,
        space: &SpaceId,
        check: &HostCheckId,
        which: CheckedHosts,
        page: Page,
    ) -> Result<Vec<CheckedHost>, StoreError> {
        let (space, check) = (space.clone(), check.clone());
        self.lists.read(move |c| host_checks::hosts(c, &space, &check, which, page)).await
    }
}
