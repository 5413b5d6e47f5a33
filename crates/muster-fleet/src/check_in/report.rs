//! The processing of a report: the decision and its commit (EA §4.2).

use std::sync::Arc;

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::audit::AuditEvent;
use muster_core::check_in::{Circumstances, Decision, KnownDocuments, Report, decide};
use muster_core::id::ActionId;
use muster_core::poll::GoDuration;
use muster_core::time::Timestamp;
use muster_store::{AgentWrite, Write};

use super::{CheckInInput, CheckIns};
use crate::authenticate::unauthorized;
use crate::authority::System;
use crate::registry::AgentEntry;
use crate::update::{AgentChange, end_of_upgrade};

/// Maximum attempts to take the report of an agent that moves between servers at the same time.
const MOVES: usize = 3;

/// The updated record, the policy revision that the agent runs, and its requested poll time.
pub(super) type Taken = (Arc<AgentRecord>, i64, Option<GoDuration>);

impl CheckIns {
    /// Decides and commits the changes. Returns the updated record, the policy revision that the agent runs, and its
    /// requested poll time.
    pub(super) async fn take_report(&self, entry: &Arc<AgentEntry>, input: &CheckInInput<'_>) -> Result<Taken, Error> {
        for _ in 0..MOVES {
            if let Some(taken) = self.try_report(entry, input).await? {
                return Ok(taken);
            }
        }
        Err(Error::conflict("agent_busy", "the agent checks in to several servers at once; retry"))
    }

    /// Returns `None` if the agent has checked in to another server in the meantime, because the documents that are cached
    /// here may then differ from the stored ones.
    async fn try_report(&self, entry: &Arc<AgentEntry>, input: &CheckInInput<'_>) -> Result<Option<Taken>, Error> {
        let before = entry.record().ok_or_else(unauthorized)?;
        let mut known = self.known_documents(entry).await?;
        let circumstances = Circumstances {
            agent_version: input.agent_version,
            newer_than_tested: input.newer_than_tested,
            address: input.address,
            polled: entry.is_connected(),
            acknowledged: self.acknowledged(&before, input.report).await?,
            upgrade_action_known: self.upgrade_action_known(input.report).await?,
            newest_revision: self.newest_revision(&before, input.report.running).await?,
        };
        let (mut revision, mut poll, before_known, mut has_moved) = (0, None, known, false);
        // The closure may run several times, after conflicts. Each run starts from the documents known before the
        // first, so that a retry does not take its own attempt for stored.
        let update = self
            .records
            .update(&**entry, entry, |record, now| {
                if !record.active {
                    return Err(unauthorized());
                }
                if record.node != before.node {
                    // Nothing is changed in this run: the report is decided again, from documents that are read anew.
                    has_moved = true;
                    return Ok(AgentChange::default());
                }
                let decision = decide(record, before_known, input.report, &circumstances, now)?;
                (revision, poll) = (decision.policy_revision, decision.poll_timeout);
                let change = to_change(record, &decision, now);
                known = decision.known;
                Ok(AgentChange { record: self.taken_over(record, decision.record, now), ..change })
            })
            .await;
        let after = update?;
        if has_moved {
            return Ok(None);
        }
        entry.remember_documents(known);
        if (after.policy_revision, &after.running_policy_id) != (before.policy_revision, &before.running_policy_id) {
            // A confirmed policy ends the use of former keys and permissions (EA106).
            entry.forget_keys();
        }
        Ok(Some((after, revision, poll)))
    }

    /// Returns the changed record with this server as its node, which also is a change by itself: the agent has moved here.
    /// Other servers learn of it, and trust their cached records of the agent no longer.
    fn taken_over(&self, before: &AgentRecord, after: Option<AgentRecord>, now: Timestamp) -> Option<AgentRecord> {
        let node = Some(&self.records.node);
        match after {
            Some(after) if after.node.as_ref() != node => Some(AgentRecord { node: node.cloned(), ..after }),
            None if !self.records.is_own(before) => {
                let version = before.version + 1;
                Some(AgentRecord { node: node.cloned(), version, updated_at: now, ..before.clone() })
            }
            unchanged => unchanged,
        }
    }

    async fn known_documents(&self, entry: &AgentEntry) -> Result<KnownDocuments, Error> {
        let is_own = entry.record().is_some_and(|record| self.records.is_own(&record));
        if let Some(known) = entry.known_documents().filter(|_| is_own) {
            return Ok(known);
        }
        let documents = self.store.everywhere(entry).agent_documents(entry.id()).await?.unwrap_or_default();
        Ok(KnownDocuments::of(&documents))
    }

    /// Returns the action that the ack token names (EA §4.4); `None` if the token is the stored one, unknown or empty.
    async fn acknowledged(&self, record: &AgentRecord, report: &Report<'_>) -> Result<Option<(ActionId, i64)>, Error> {
        let token = report.confirmed;
        // The usual case: agents repeat their last token in every check-in.
        if token.is_empty() || record.action_token.as_ref().is_some_and(|own| own.as_str() == token) {
            return Ok(None);
        }
        let Ok(id) = ActionId::parse(token) else { return Ok(None) };
        Ok(self.store.everywhere(&System).action(&id).await?.map(|action| (id, action.seq)))
    }

    // Upgrade details of an unknown action are not stored (EA63): agents keep them across a change of servers.
    async fn upgrade_action_known(&self, report: &Report<'_>) -> Result<bool, Error> {
        match report.upgrade.as_ref().map(|upgrade| ActionId::parse(&upgrade.action_id)) {
            Some(Ok(id)) => Ok(self.store.everywhere(&System).action(&id).await?.is_some()),
            _ => Ok(false),
        }
    }

    async fn newest_revision(&self, record: &AgentRecord, running: Option<(&str, i64)>) -> Result<Option<i64>, Error> {
        let Some(id) = &record.policy_id else { return Ok(None) };
        let newest = self.policies.newest_revision(id).await?;
        // The agent may have got a revision from another node before this node's change feed saw it. Without the
        // refresh, the claim would look like a revision that does not exist.
        let claimed = running.filter(|(policy, _)| *policy == id.as_str()).map(|(_, revision)| revision);
        if newest.is_some_and(|newest| claimed.is_some_and(|claimed| claimed > newest)) {
            return Ok(self.policies.refresh(id).await?.map(|policy| policy.revision));
        }
        Ok(newest)
    }
}

fn to_change(record: &AgentRecord, decision: &Decision, now: Timestamp) -> AgentChange {
    let documents = &decision.documents;
    let changed = documents.local_metadata.is_some() || documents.components.is_some();
    let mut writes = Vec::new();
    if changed {
        writes.push(Write::Agent(AgentWrite::Documents { id: record.id.clone(), documents: documents.clone() }));
    }
    // The audit event is in the same commit, so that the record is never marked without one.
    if decision.has_duplicate {
        writes.push(Write::Audit(duplicate_line(record, decision, now)));
    }
    writes.extend(decision.upgrade.as_ref().map(|ended| end_of_upgrade(&record.id, ended, now)));
    AgentChange { record: None, writes }
}

fn duplicate_line(record: &AgentRecord, decision: &Decision, now: Timestamp) -> AuditEvent {
    let hosts = decision.record.as_ref().and_then(|record| record.duplicate_hosts.as_deref()).map(|known| &known.hosts);
    tracing::warn!(
        agent = %record.id, hostname = %record.hostname, host_id = hosts.and_then(|hosts| hosts.last()),
        hint = "cloned machine? If the policy has `duplicate_hosts: reenroll`, the server reenrolls the copies; otherwise, enroll them again",
        "two hosts use the key of one agent"
    );
    AuditEvent {
        at: now,
        actor: format!("agent:{}", record.id),
        action: "agent.duplicate_hosts".to_owned(),
        subject: format!("agent:{}", record.id),
        detail: serde_json::json!({"hosts": hosts, "hostname": record.hostname}),
        address: None,
        reason: None,
        space: Some(record.space.clone()),
    }
}
