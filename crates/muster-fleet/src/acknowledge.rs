//! Acks: an agent's results for its actions (EA §5).

use std::sync::Arc;

use muster_core::Error;
use muster_core::acknowledge::{AckedAction, Acknowledged, Acks, LookedUp, Verdict, Wanted, decide};
use muster_core::agent::AgentRecord;
use muster_core::audit::AuditEvent;
use muster_core::change::Change;
use muster_core::id::PolicyId;
use muster_core::time::Timestamp;
use muster_store::{ActionWrite, Write};
use serde_json::json;

use super::authenticate::unauthorized;
use super::authority::System;
use super::check_in::CheckIns;
use super::registry::AgentEntry;
use super::update::AgentChange;

/// Maximum acks in one request; agents send a few. Each of them costs up to two reads.
const MAX_ACKS: usize = 1000;

impl CheckIns {
    /// Handles an agent's acks and returns one verdict for each, in the same order. All changes are one commit.
    pub async fn acknowledge(&self, entry: &AgentEntry, acks: &Acks<'_>) -> Result<Vec<Verdict>, Error> {
        if acks.0.len() > MAX_ACKS {
            return Err(Error::invalid("acks", format!("{} acks; at most {MAX_ACKS}", acks.0.len())));
        }
        if acks.0.is_empty() {
            return Ok(Vec::new());
        }
        let record = entry.record().ok_or_else(unauthorized)?;
        // The actions are read once, outside the retry loop: what changes between two attempts is the record, and a new
        // enrollment ends the acks. An action that is cancelled meanwhile loses nothing by a late result.
        let looked_up = self.look_up(&record, acks.wanted(&record)).await?;
        let mut outcome = None;
        let update = self.records.update(entry, entry, |before, now| {
            // Revoked since the request was authenticated, or enrolled again: its actions have ended without this agent.
            if !before.active || !before.credentials.iter().any(|kept| record.credentials.iter().any(|one| one == kept))
            {
                return Err(unauthorized());
            }
            let acknowledged = decide(before, acks, &looked_up, entry.last_seen(now).max(Some(now)), now);
            let change = to_change(before, &acknowledged, now);
            outcome = Some(acknowledged);
            Ok(change)
        });
        update.await?;
        let Some(acknowledged) = outcome else { return Ok(Vec::new()) };
        self.note_policy_acks(entry, &record, acks);
        if acknowledged.deactivated {
            // An acked UNENROLL has revoked the agent's keys; a poll held under one of them must end now and not at its
            // deadline (EA122).
            entry.wake();
            tracing::info!(agent = %entry.id(), "agent unenrolled after its ack");
        }
        if acknowledged.awaits_report {
            // An agent that has given up acks without an error, too, and would report that only after the held poll.
            entry.dismiss_polls();
        }
        Ok(acknowledged.verdicts)
    }

    /// Makes the held poll check the output keys: an acked policy ends the use of former keys and permissions (EA106).
    fn note_policy_acks(&self, entry: &AgentEntry, record: &AgentRecord, acks: &Acks<'_>) {
        let acked = acks.acked_revisions(record).max();
        if let Some(revision) = acked.filter(|_| self.keys.are_known()) {
            entry.remember_policy_ack(revision);
            entry.wake_for_policy();
        }
    }

    async fn look_up(&self, record: &AgentRecord, wanted: Wanted) -> Result<LookedUp, Error> {
        let mut found = LookedUp::default();
        for id in wanted.actions {
            if let Some(action) = self.store.everywhere(&System).action(&id).await? {
                let target = self.store.everywhere(&System).action_target(&id, &record.id).await?;
                // Agents keep acks that were not answered and send them later. An UNENROLL ack that belongs to an
                // earlier enrollment of the same id must not unenroll this one.
                let target = target.filter(|target| !target.is_former).map(|target| target.state);
                let is_cancelled = action.cancelled_at.is_some();
                found.actions.insert(id, AckedAction { kind: action.kind, is_cancelled, target });
            }
        }
        if let Some(policy) = &record.policy_id {
            for revision in wanted.revisions {
                if self.is_revision(policy, revision).await? {
                    found.revisions.insert((policy.clone(), revision));
                }
            }
        }
        Ok(found)
    }

    /// Returns true if the policy has that revision (D16). Revisions are numbered without gaps, so the cached newest
    /// number usually decides. Another node may have created a newer one, so those are looked up in the store.
    async fn is_revision(&self, policy: &PolicyId, revision: i64) -> Result<bool, Error> {
        let newest = self.policies.newest_revision(policy).await?.unwrap_or(0);
        Ok(revision <= newest || self.store.everywhere(&System).policy_revision(policy, revision).await?.is_some())
    }
}

fn to_change(before: &Arc<AgentRecord>, acknowledged: &Acknowledged, now: Timestamp) -> AgentChange {
    let results = acknowledged.results.iter().cloned();
    // The agent was a target of each of these actions (checked in `look_up`), hence `addressed`.
    let mut writes: Vec<Write> = results
        .map(|result| Write::Action(ActionWrite::Result { result: Box::new(result), addressed: true }))
        .collect();
    if acknowledged.deactivated {
        // Other nodes may hold polls of the agent, too; the change wakes them.
        writes.push(Write::Audit(audit_line(before, acknowledged, now)));
        writes.push(Write::Changed(Change::Agent(before.id.clone())));
    }
    AgentChange { record: acknowledged.record.clone(), writes }
}

fn audit_line(agent: &AgentRecord, acknowledged: &Acknowledged, now: Timestamp) -> AuditEvent {
    let reason = acknowledged.record.as_ref().and_then(|record| record.unenrolled_reason.as_deref());
    AuditEvent {
        at: now,
        actor: format!("agent:{}", agent.id),
        action: "agent.unenroll".to_owned(),
        subject: format!("agent:{}", agent.id),
        detail: json!({"reason": reason}),
        address: None,
        reason: None,
        space: Some(agent.space.clone()),
    }
}

#[cfg(test)]
mod tests;
