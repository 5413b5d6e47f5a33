//! Reenrollment of a second host that uses the key of an agent, if the agent's policy requests it.
//!
//! The key can't be revoked, since both hosts present it. Instead, a check-in of the second host gets a `MIGRATE` to
//! this server with an enrollment token of its own (EA §10.8). The rules are in `muster-core/reenroll.rs`.

use std::sync::Arc;

use muster_core::Error;
use muster_core::action::ActionType;
use muster_core::action_request::ActionRequest;
use muster_core::agent::{AgentRecord, Family};
use muster_core::change::Change;
use muster_core::credential::ApiKey;
use muster_core::documents::metadata::host_id;
use muster_core::duplicate_hosts::{HostMark, ReenrollmentState};
use muster_core::eligibility::{Candidate, Operation};
use muster_core::enrollment_key::{EnrollmentKey, KeyFamily};
use muster_core::entropy::random_uuid;
use muster_core::error_chain::chain;
use muster_core::id::{ActionId, EnrollmentKeyId};
use muster_core::policy::Policy;
use muster_core::reenroll::{OnDuplicateHosts, TOKEN_LIFE, action_data};
use muster_core::time::Timestamp;
use muster_store::{ActionWrite, EnrollmentKeyWrite, Write};
use serde_json::{Value, json};

use super::audit::audit_line;
use super::authority::System;
use super::check_in::CheckIns;
use super::registry::AgentEntry;
use super::update::AgentChange;

/// A host that shares a key.
struct Sharer<'a> {
    id: &'a str,
    mark: &'a HostMark,
    /// Metadata in this check-in.
    metadata: &'a str,
}

/// Writes of a reenrollment other than the agent's record.
struct Reenrolling {
    action: ActionId,
    key: EnrollmentKeyId,
    writes: Vec<Write>,
}

impl CheckIns {
    /// Returns the host that checks in, if the agent's key is known to be shared. Starts its reenrollment if necessary;
    /// a failure of that does not fail the check-in.
    pub(super) async fn sharer(
        &self,
        entry: &AgentEntry,
        record: &AgentRecord,
        metadata: Option<&str>,
    ) -> Option<HostMark> {
        let known = record.duplicate_hosts.as_ref()?;
        // Without metadata in this check-in, nothing tells which of the hosts it is.
        let metadata = metadata?;
        let id = host_id(metadata)?;
        let mark = HostMark::of(&id);
        if known.calls_for_reenrollment(&mark, self.clock.now()) {
            let sharer = Sharer { id: &id, mark: &mark, metadata };
            if let Err(error) = self.reenroll(entry, record, &sharer).await {
                tracing::warn!(agent = %record.id, host_id = &*id, error = %chain(&error), "failed to reenroll another host that uses the key of an agent");
            }
        }
        Some(mark)
    }

    async fn reenroll(&self, entry: &AgentEntry, record: &AgentRecord, host: &Sharer<'_>) -> Result<(), Error> {
        let Some(policy_id) = &record.policy_id else { return Ok(()) };
        let Some(policy) = self.store.everywhere(&System).policy(policy_id).await? else { return Ok(()) };
        // Read from the store for each case, since duplicate hosts are rare and the setting may have changed.
        if OnDuplicateHosts::of(&policy.fields) != OnDuplicateHosts::Reenroll {
            return Ok(());
        }
        if let Err(reason) = self.can_follow(record, &policy, host) {
            return self.leave_to_people(entry, host, &reason).await;
        }
        let deletable = self.stored_keys(record).await?;
        self.records.update(entry, entry, |before, now| self.told(before, host, &deletable, now)).await?;
        // The poll of this very check-in finds the action at once.
        entry.wake();
        Ok(())
    }

    /// Checks whether the host's agent can carry out a `MIGRATE`; the error is the reason.
    fn can_follow(&self, record: &AgentRecord, policy: &Policy, host: &Sharer<'_>) -> Result<(), String> {
        if self.own_url().is_none() {
            return Err("the server has no `external_url`".to_owned());
        }
        if record.family == Family::Muster {
            return Err("muster-agent cannot be reenrolled by the server".to_owned());
        }
        let candidate = Candidate {
            record,
            metadata: host.metadata,
            managed: policy.is_managed,
            protected: policy.fields["is_protected"] == true,
            fleet_server: policy.fields["has_fleet_server"] == true,
            needs_root: false,
        };
        Operation::Migrate.check(&candidate, self.clock.now()).map_err(|reason| reason.to_string())
    }

    /// Returns the keys of earlier reenrollments that still exist. Deleting one that does not would fail the commit.
    async fn stored_keys(&self, record: &AgentRecord) -> Result<Vec<EnrollmentKeyId>, Error> {
        let mut stored = Vec::new();
        for one in record.duplicate_hosts.iter().flat_map(|known| &known.reenrollments) {
            if let ReenrollmentState::Pending { key, .. } | ReenrollmentState::Answered { key } = &one.state
                && self.store.everywhere(&System).enrollment_key(key).await?.is_some()
            {
                // Deleted with the next reenrollment, because a key for one use is worthless after it.
                stored.push(key.clone());
            }
        }
        Ok(stored)
    }

    fn told(
        &self,
        before: &Arc<AgentRecord>,
        host: &Sharer<'_>,
        deletable: &[EnrollmentKeyId],
        now: Timestamp,
    ) -> Result<AgentChange, Error> {
        let mut next = (**before).clone();
        // Checked again on the record that is committed: another node may have told the host in the meantime.
        let known = next.duplicate_hosts.as_mut().filter(|known| known.calls_for_reenrollment(host.mark, now));
        let Some(known) = known else { return Ok(AgentChange::default()) };
        let Reenrolling { action, key, mut writes } = self.reenrolling(before, host, now)?;
        let state = ReenrollmentState::Pending { action: action.clone(), key: key.clone() };
        for spent in known.begin_reenrollment(host.mark.clone(), state, now) {
            if deletable.contains(&spent) {
                let deleted = Write::Deleted(Change::EnrollmentKey(spent.clone()), before.space.clone());
                writes.extend([Write::EnrollmentKey(EnrollmentKeyWrite::Delete { id: spent }), deleted]);
            }
        }
        let detail = json!({"host": host.id, "action": action, "enrollment_key": key});
        writes.push(audit_line(&System::in_space(&before.space), now, "agent.reenroll", subject(before), detail));
        tracing::warn!(agent = %before.id, host_id = host.id, %action, "reenrolling another host that uses the key of this agent");
        Ok(AgentChange { record: Some(raised(next, now)), writes })
    }

    /// Creates the action and the enrollment key of a reenrollment.
    fn reenrolling(&self, agent: &AgentRecord, host: &Sharer<'_>, now: Timestamp) -> Result<Reenrolling, Error> {
        let token = ApiKey::generate(&*self.entropy);
        let key = self.token_key(agent, &token, now);
        // The token is a secret of the action, so that it is stored sealed and inserted at delivery (EA84).
        let (secret, sealed) = self.secrets.seal("enrollment_token", &token.token())?;
        // A reference in place of the token: the data of actions is shown to people.
        let migration = json!({
            "target_uri": self.own_url(),
            "enrollment_token": format!("$co.elastic.secret{{{secret}}}"),
            "settings": self.own_settings(),
        });
        let action = ActionId::trusted(random_uuid(&*self.entropy));
        let request = ActionRequest {
            expiration: Some(now.plus(TOKEN_LIFE)),
            ..ActionRequest::new(ActionType::Reenroll, action_data(migration, host.mark))
        };
        let stored = request.into_action(action.clone(), agent.space.clone(), 1, &System::ACTOR.to_string(), now)?;
        let writes = vec![
            sealed,
            Write::EnrollmentKey(EnrollmentKeyWrite::Insert(Box::new(key.clone()))),
            Write::Action(ActionWrite::Insert { action: Box::new(stored), targets: vec![agent.id.clone()] }),
            Write::Changed(Change::EnrollmentKey(key.id.clone())),
            Write::Changed(Change::Action(action.clone())),
            audit_line(
                &System::in_space(&agent.space),
                now,
                "enrollment_key.create",
                format!("enrollment_key:{}", key.id),
                json!({
                    "name": key.name, "policy_id": key.policy_id,
                }),
            ),
        ];
        Ok(Reenrolling { action, key: key.id, writes })
    }

    /// Creates a key for one use within [`TOKEN_LIFE`], with the agent's policy and tags.
    fn token_key(&self, agent: &AgentRecord, token: &ApiKey, now: Timestamp) -> EnrollmentKey {
        let id = EnrollmentKeyId::trusted(random_uuid(&*self.entropy));
        EnrollmentKey {
            name: format!("reenrollment {id}"),
            id,
            family: KeyFamily::Elastic,
            key_id: token.id.clone(),
            hash: token.hash(),
            sealed_token: None,
            policy_id: agent.policy_id.clone(),
            tags: agent.tags.clone(),
            space: agent.space.clone(),
            created_at: now,
            expires_at: Some(now.plus(TOKEN_LIFE)),
            revoked_at: None,
            max_uses: Some(1),
            one_time: None,
            uses: 0,
            last_used_at: None,
            // So that it does not appear among the keys of administrators.
            hidden: true,
            created_by: System::ACTOR.to_string(),
        }
    }

    /// Returns the TLS settings with which agents trust this server, because a migrating agent does not inherit its CA
    /// (EA §15).
    fn own_settings(&self) -> Value {
        let plain = self.own_url().is_some_and(|url| url.starts_with("http:"));
        // Without TLS there is no certificate to trust.
        match self.own_ca.get() {
            _ if plain => json!({"insecure": true}),
            Some(pem) => json!({"ca": [pem]}),
            None => json!({}),
        }
    }

    async fn leave_to_people(&self, entry: &AgentEntry, host: &Sharer<'_>, reason: &str) -> Result<(), Error> {
        let update = self.records.update(entry, entry, |before, now| {
            let mut next = (**before).clone();
            let known = next.duplicate_hosts.as_mut().filter(|known| known.calls_for_reenrollment(host.mark, now));
            let Some(known) = known else { return Ok(AgentChange::default()) };
            known.begin_reenrollment(host.mark.clone(), ReenrollmentState::ByHand, now);
            tracing::warn!(
                agent = %before.id, host_id = host.id, reason,
                hint = "on that host, run the enroll command again with a new enrollment token",
                "cannot reenroll another host that uses the key of this agent"
            );
            let detail = json!({"host": host.id, "reason": reason});
            let line =
                audit_line(&System::in_space(&before.space), now, "agent.reenroll_by_hand", subject(before), detail);
            Ok(AgentChange { record: Some(raised(next, now)), writes: vec![line] })
        });
        update.await.map(drop)
    }
}

fn raised(next: AgentRecord, now: Timestamp) -> AgentRecord {
    AgentRecord { version: next.version + 1, updated_at: now, ..next }
}

fn subject(agent: &AgentRecord) -> String {
    format!("agent:{}", agent.id)
}
