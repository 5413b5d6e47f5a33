//! Additional credentials of an agent besides the key of its enrollment: a node key for another program of its host, or
//! a token that it renews. All of them authenticate the same agent and are revoked with it.

use std::sync::Arc;

use muster_core::Error;
use muster_core::agent::AgentRecord;
use muster_core::audit::AuditEvent;
use muster_core::change::Change;
use muster_core::credential::{ApiKey, CredentialKind, LiveCredential};
use muster_core::fleetd::device_token::announce;
use muster_core::id::KeyId;
use muster_core::lifecycle::{issue_credential, revoke_credential};
use muster_core::time::Timestamp;
use muster_store::Write;
use serde_json::json;

use super::records::Records;
use super::registry::AgentEntry;
use super::update::AgentChange;

/// The service of additional credentials.
pub struct Credentials {
    records: Arc<Records>,
}

impl Credentials {
    pub(crate) fn new(records: Arc<Records>) -> Self {
        Self { records }
    }

    /// Issues another credential to an authenticated agent; `too_many_credentials` if it has the maximum number.
    pub async fn issue(&self, entry: &AgentEntry, kind: CredentialKind, key: &ApiKey) -> Result<(), Error> {
        let update = self.records.update(entry, entry, |record, now| {
            let credential = LiveCredential::of(key, kind, now);
            // Inside the closure: the limit must be checked against the record that is committed.
            let after = issue_credential(record, credential, entry.last_seen(now), now)?;
            let detail = json!({"key": key.id, "kind": kind});
            Ok(AgentChange { record: after, writes: writes(record, "agent.credential_issue", detail, now) })
        });
        update.await.map(drop)
    }

    /// Announces a token of Fleet Desktop, which replaces the one before the previous one. Fails with
    /// `device_token_taken` if another host has it (FL58). Announcing a known token does nothing.
    pub async fn announce_device_token(&self, entry: &AgentEntry, token: &ApiKey) -> Result<(), Error> {
        let update = self.records.update(entry, entry, |record, now| {
            Ok(AgentChange { record: announce(record, token, entry.last_seen(now), now), writes: Vec::new() })
        });
        match update.await {
            Ok(_) => Ok(()),
            Err(error) if error.code == "conflict" => {
                Err(Error::conflict("device_token_taken", "this device auth token is in use: generate another one"))
            }
            Err(error) => Err(error),
        }
    }

    /// Revokes one of the agent's credentials, on every node within a second. Does nothing if it is not live.
    pub async fn revoke(&self, entry: &AgentEntry, key: &KeyId) -> Result<(), Error> {
        let update = self.records.update(entry, entry, |record, now| {
            let Some(after) = revoke_credential(record, key, entry.last_seen(now), now) else {
                // No audit event for a repeated call.
                return Ok(AgentChange::default());
            };
            let writes = writes(record, "agent.credential_revoke", json!({"key": key}), now);
            Ok(AgentChange { record: Some(after), writes })
        });
        update.await.map(drop)
    }
}

/// Returns the audit event, and the change that makes other nodes reload the record.
fn writes(agent: &AgentRecord, action: &str, detail: serde_json::Value, now: Timestamp) -> Vec<Write> {
    let subject = format!("agent:{}", agent.id);
    let event = AuditEvent {
        at: now,
        actor: subject.clone(),
        action: action.to_owned(),
        subject,
        detail,
        address: None,
        reason: None,
        space: Some(agent.space.clone()),
    };
    vec![Write::Audit(event), Write::Changed(Change::Agent(agent.id.clone()))]
}
