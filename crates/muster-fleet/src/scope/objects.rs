//! Outputs, network objects, alert receivers, enrollment keys and uploads within a space and a scope.

use std::collections::BTreeSet;

use muster_core::agent::AgentRecord;
use muster_core::alert::{Progress, Receiver};
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::event::Event;
use muster_core::file::{DeliverableFile, Upload};
use muster_core::fleetd::check_history::{CheckChange, CheckDay};
use muster_core::fleetd::checks::CheckResult;
use muster_core::fleetd::labels::Label;
use muster_core::fleetd::schedule::QueryFailure;
use muster_core::host::Host;
use muster_core::id::{
    AgentId, AlertReceiverId, EnrollmentKeyId, FileId, HostCheckId, HostId, LabelId, NetworkObjectId, OutputId,
    PolicyId, UninstallTokenId, UserId,
};
use muster_core::network_object::{NetworkObject, NetworkObjectKind, Shared};
use muster_core::output::Output;
use muster_core::output_key::{KeyCounts, OutputCluster, OutputKey};
use muster_core::time::Timestamp;
use muster_core::uninstall_token::UninstallToken;
use muster_store::StoreError;
use muster_store::query::{
    CheckCounts, CheckedHost, CheckedHosts, FailureCount, Listed, ListedToken, Page, Readable, TokenSearch,
};

use crate::{fleetd_options, host_checks, packs, saved_queries, space_settings};

use super::Scoped;

/// Keys of one policy that a caller with a limited scope sees.
const MOST_KEYS: u32 = 1_000;

/// Outputs, enrollment keys, uploads.
impl Scoped<'_> {
    /// Returns the saved views of a user, by name: names and parameters.
    pub async fn saved_views(&self, user: &UserId) -> Result<Vec<(String, String)>, StoreError> {
        self.store.views(user, self.space).await
    }

    /// Returns the newest events of the space and of the installation, newest first.
    pub async fn newest_events(&self, limit: u32) -> Result<Vec<Event>, StoreError> {
        Ok(self.store.events_in(self.space, limit).await?.into_iter().map(|(_, event)| event).collect())
    }

    /// Returns an output.
    pub async fn output(&self, id: &OutputId) -> Result<Option<Output>, StoreError> {
        self.store.output_in(self.space, id).await
    }

    /// Returns the clusters of outputs that were found in this space.
    pub async fn output_clusters(&self, outputs: &[String]) -> Result<Vec<OutputCluster>, StoreError> {
        let mut clusters = self.store.output_clusters().await?;
        // Clusters have no space of their own. The caller has found the outputs in this one.
        clusters.retain(|cluster| outputs.contains(&cluster.output));
        Ok(clusters)
    }

    /// Returns the numbers of keys at a cluster, and the reason why one of them was rejected.
    pub async fn output_key_counts(&self, cluster: &OutputCluster) -> Result<(KeyCounts, Option<String>), StoreError> {
        self.store.output_key_counts(&cluster.id).await
    }

    /// Returns an agent's keys at the clusters of outputs.
    pub async fn output_keys(&self, agent: &AgentRecord) -> Result<Vec<OutputKey>, StoreError> {
        if self.holds(&agent.space) { Ok(self.store.output_keys(&agent.id).await?.0) } else { Ok(Vec::new()) }
    }

    /// Returns all outputs by name.
    pub async fn outputs(&self) -> Result<Vec<Output>, StoreError> {
        self.store.outputs(self.space).await
    }

    /// Returns true if an output in any space has the id: a new one needs to know, since ids are unique across spaces.
    pub async fn is_output_id_taken(&self, id: &OutputId) -> Result<bool, StoreError> {
        // This and the one below are the only reads of this view across spaces; it reveals no more than the conflict of the insert would.
        Ok(self.store.output(id).await?.is_some())
    }

    /// Returns a Fleet Server host, a proxy or a download source.
    pub async fn network_object(
        &self,
        kind: NetworkObjectKind,
        id: &NetworkObjectId,
    ) -> Result<Option<NetworkObject>, StoreError> {
        let found = self.store.network_object(kind, id).await?;
        Ok(found.filter(|object| self.holds(&object.space)))
    }

    /// Returns all network objects by kind and name.
    pub async fn network_objects(&self) -> Result<Vec<NetworkObject>, StoreError> {
        self.store.network_objects(self.space).await
    }

    /// Returns the objects that policies may refer to.
    pub async fn shared(&self) -> Result<Shared, StoreError> {
        Ok(Shared { outputs: self.outputs().await?, network: self.network_objects().await? })
    }

    /// Returns a receiver of alerts.
    pub async fn alert_receiver(&self, id: &AlertReceiverId) -> Result<Option<Receiver>, StoreError> {
        self.store.alert_receiver(self.space, id).await
    }

    /// Returns all receivers of alerts by name.
    pub async fn alert_receivers(&self) -> Result<Vec<Receiver>, StoreError> {
        self.store.alert_receivers(self.space).await
    }

    /// Returns how far a receiver of alerts is.
    pub async fn alert_progress(&self, receiver: &Receiver) -> Result<Progress, StoreError> {
        if !self.holds(&receiver.space) {
            return Ok(Progress::default());
        }
        Ok(self.store.alert_progress(&receiver.id).await?.unwrap_or_default())
    }

    /// Returns true if an object of the kind in any space has the id: a new one needs to know.
    pub async fn is_network_object_id_taken(
        &self,
        kind: NetworkObjectKind,
        id: &NetworkObjectId,
    ) -> Result<bool, StoreError> {
        Ok(self.store.network_object(kind, id).await?.is_some())
    }

    /// Returns the stored settings of the space.
    pub async fn space_settings(&self) -> Result<Option<String>, StoreError> {
        self.store.setting(&space_settings::setting_name(self.space)).await
    }

    /// Returns the stored fleetd options of the space.
    pub async fn fleetd_options(&self) -> Result<Option<String>, StoreError> {
        self.store.setting(&fleetd_options::setting_name(self.space)).await
    }

    /// Returns the stored saved queries of the space.
    pub async fn saved_queries(&self) -> Result<Option<String>, StoreError> {
        self.store.setting(&saved_queries::setting_name(self.space)).await
    }

    /// Returns the stored packs of the space.
    pub async fn packs(&self) -> Result<Option<String>, StoreError> {
        self.store.setting(&packs::setting_name(self.space)).await
    }

    /// Returns the stored packs of all spaces.
    pub async fn packs_of_all_spaces(&self) -> Result<Option<String>, StoreError> {
        self.store.setting(&packs::setting_of_all()).await
    }

    /// Returns the stored host checks of the space.
    pub async fn host_checks(&self) -> Result<Option<String>, StoreError> {
        self.store.setting(&host_checks::setting_name(self.space)).await
    }

    /// Returns the latest changes of what an agent's host answered to host checks, by check, the newest first.
    pub async fn check_changes(&self, agent: &AgentRecord) -> Result<Vec<CheckChange>, StoreError> {
        if self.holds(&agent.space) { self.store.check_changes(&agent.id).await } else { Ok(Vec::new()) }
    }

    /// Returns the recorded numbers of one of the space's host checks from a day on.
    pub async fn check_days(&self, check: &HostCheckId, since: i64) -> Result<Vec<CheckDay>, StoreError> {
        self.store.check_days(check, since).await
    }

    /// Counts the hosts of each of the space's host checks by their answer.
    pub async fn check_counts(&self, checks: &[HostCheckId]) -> Result<Vec<CheckCounts>, StoreError> {
        self.store.check_counts(checks).await
    }

    /// Counts the host checks among `checks` that the hosts of agents fail. `agents` are those that a read of this scope returned.
    pub async fn failing_checks(
        &self,
        agents: &[AgentId],
        checks: &[HostCheckId],
    ) -> Result<Vec<(AgentId, u64)>, StoreError> {
        self.store.failing_checks(agents, checks).await
    }

    /// Returns the hosts with an answer to a host check.
    pub async fn checked_hosts(
        &self,
        check: &HostCheckId,
        which: CheckedHosts,
        page: Page,
    ) -> Result<Vec<CheckedHost>, StoreError> {
        self.store.checked_hosts(self.space, check, which, page).await
    }

    /// Returns what an agent's host answered to host checks.
    pub async fn check_results(&self, agent: &AgentRecord) -> Result<Vec<CheckResult>, StoreError> {
        if self.holds(&agent.space) { self.store.check_results(&agent.id).await } else { Ok(Vec::new()) }
    }

    /// Counts the hosts of the space on which scheduled queries do not work; queries that work everywhere are left out.
    pub async fn query_failure_counts(
        &self,
        names: &[String],
        now: Timestamp,
    ) -> Result<Vec<FailureCount>, StoreError> {
        self.store.query_failure_counts(self.space, names, now).await
    }

    /// Returns the scheduled queries that do not work on the hosts of agents, which a read of this scope returned.
    pub async fn query_failures(
        &self,
        agents: &[AgentId],
        now: Timestamp,
    ) -> Result<Vec<(AgentId, QueryFailure)>, StoreError> {
        self.store.query_failures(agents, now).await
    }

    /// Returns the stored labels of the space by name.
    pub async fn labels(&self) -> Result<Vec<Label>, StoreError> {
        self.store.labels(self.space).await
    }

    /// Counts the hosts of each label of the space that has any.
    pub async fn label_counts(&self) -> Result<Vec<(LabelId, u64)>, StoreError> {
        self.store.label_counts(self.space).await
    }

    /// Counts the hosts on which the query of each label of the space fails, with the last error.
    pub async fn label_error_counts(&self) -> Result<Vec<(LabelId, u64, String)>, StoreError> {
        self.store.label_error_counts(self.space).await
    }

    /// Returns those of some hosts that have a label of the space.
    pub async fn hosts_with_label(&self, label: &Label, hosts: &[HostId]) -> Result<Vec<HostId>, StoreError> {
        if self.holds(&label.space) { self.store.hosts_with_label(&label.id, hosts).await } else { Ok(Vec::new()) }
    }

    /// Returns the stored labels of a host.
    pub async fn labels_of_host(&self, host: &Host) -> Result<Vec<LabelId>, StoreError> {
        if self.holds(&host.space) { self.store.labels_of_host(&host.id).await } else { Ok(Vec::new()) }
    }

    /// Returns an uninstall token.
    pub async fn uninstall_token(&self, id: &UninstallTokenId) -> Result<Option<UninstallToken>, StoreError> {
        let found = self.store.uninstall_token(id).await?;
        Ok(found.filter(|token| self.holds(&token.space) && self.scope.has_policy(&token.policy_id)))
    }

    /// Returns the newest uninstall token of each policy that matches, newest first.
    pub async fn uninstall_tokens(&self, search: &TokenSearch) -> Result<Vec<ListedToken>, StoreError> {
        let mut found = self.store.uninstall_tokens(self.space, search).await?;
        found.retain(|token| self.scope.has_policy(&token.policy_id));
        Ok(found)
    }

    /// Returns an enrollment key.
    pub async fn enrollment_key(&self, id: &EnrollmentKeyId) -> Result<Option<EnrollmentKey>, StoreError> {
        let found = self.store.enrollment_key_in(self.space, id).await?;
        Ok(found.filter(|key| self.has_key(key)))
    }

    /// Returns a page of enrollment keys of one policy or of all, newest first.
    pub async fn enrollment_keys(
        &self,
        policy: Option<&PolicyId>,
        page: Page,
    ) -> Result<Listed<EnrollmentKey>, StoreError> {
        // The usual case: the store pages, and nothing is filtered afterwards.
        if self.is_whole() {
            return self.store.enrollment_keys(self.space, policy, page).await;
        }
        let items = self.keys_among(policy).await?;
        let total = items.len() as u64;
        let items = items.into_iter().skip(page.offset as usize).take(page.limit as usize).collect();
        Ok(Listed { items, total, unreadable: 0 })
    }

    /// Returns a page of the one-time secrets, newest first. They have no policy, so a part of a space has none.
    pub async fn one_time_secrets(&self, page: Page) -> Result<Listed<EnrollmentKey>, StoreError> {
        match self.is_whole() {
            true => self.store.one_time_secrets(self.space, page).await,
            false => Ok(Listed { items: Vec::new(), total: 0, unreadable: 0 }),
        }
    }

    /// Returns the enrollment keys after the one with this creation time and id, newest first.
    pub async fn enrollment_keys_after(
        &self,
        policy: Option<&PolicyId>,
        after: (Timestamp, &EnrollmentKeyId),
        limit: u32,
    ) -> Result<Readable<EnrollmentKey>, StoreError> {
        if self.is_whole() {
            return self.store.enrollment_keys_after(self.space, policy, after, limit).await;
        }
        let mut items = self.keys_among(policy).await?;
        items.retain(|key| (key.created_at, &key.id) < after);
        items.truncate(limit as usize);
        Ok(Readable { items, unreadable: 0 })
    }

    /// Returns whether a key that was read in another view belongs to this one, too.
    pub fn has_enrollment_key(&self, key: &EnrollmentKey) -> bool {
        self.holds(&key.space) && self.has_key(key)
    }

    pub(super) fn has_key(&self, key: &EnrollmentKey) -> bool {
        self.is_whole() || key.policy_id.as_ref().is_some_and(|policy| self.scope.has_policy(policy))
    }

    // Keys of the policies of a limited scope, newest first.
    pub(super) async fn keys_among(&self, policy: Option<&PolicyId>) -> Result<Vec<EnrollmentKey>, StoreError> {
        let ids = self.scope.policies().unwrap_or_default();
        let mut found = Vec::new();
        // Sorted and without duplicates: a policy may occur in several parts of the scope.
        for id in ids.iter().filter(|id| policy.is_none_or(|only| only == *id)).collect::<BTreeSet<_>>() {
            let page = Page { offset: 0, limit: MOST_KEYS };
            found.extend(self.store.enrollment_keys(self.space, Some(id), page).await?.items);
        }
        // The order of the store, so that a cursor means the same in both cases.
        found.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
        Ok(found)
    }

    /// Returns the files that an agent may fetch, newest first.
    pub async fn files_of(&self, agent: &AgentRecord) -> Result<Vec<DeliverableFile>, StoreError> {
        if self.holds(&agent.space) { self.store.files_of(&agent.id).await } else { Ok(Vec::new()) }
    }

    /// Returns an upload.
    pub async fn upload(&self, id: &FileId) -> Result<Option<Upload>, StoreError> {
        let Some(upload) = self.store.upload_in(self.space, id).await? else { return Ok(None) };
        // Through the agent: whoever may not see it must not see what it uploaded.
        Ok(self.agent(&upload.agent_id).await?.map(|_| upload))
    }

    /// Returns an agent's uploads, newest first.
    pub async fn uploads(&self, agent: &AgentRecord) -> Result<Vec<Upload>, StoreError> {
        if self.holds(&agent.space) { self.store.uploads(&agent.id).await } else { Ok(Vec::new()) }
    }
}
