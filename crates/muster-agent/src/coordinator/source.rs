//! Where the policy comes from: the servers of a fleet, or a file of this host. Both are asked in the same way, and hold the request
//! until they have something new, so that nothing after them depends on which of them it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use muster_core::hex;
use muster_protocol::elastic::ack::AckItem;
use muster_protocol::elastic::check_in::CheckInRequest;
use serde_json::value::to_raw_value;
use serde_json::{Map, Value, json};

use super::report::{AgentState, FleetStatus};
use crate::fleet::check_in::Reply;
use crate::fleet::{CallError, FleetClient};
use crate::net::Reached;
use crate::standalone::describe;
use crate::standalone::file::PolicyFile;
use crate::state::{Action, Kind, PendingAck};
use crate::upgrade::Request;

/// Why a command of the host does not upgrade the agent (AG21).
const SERVER_DECIDES: &str = "the server of the fleet decides which version this agent runs (muster agent upgrade); \
                              to upgrade it here nevertheless, add --force";

/// A source of policies.
#[derive(Clone)]
pub(super) enum Source {
    /// The servers of the fleet.
    Fleet(Arc<FleetClient>),
    /// The file of a standalone agent.
    File(Arc<LocalPolicy>),
}

/// A policy file as a source.
pub(super) struct LocalPolicy {
    file: PolicyFile,
    /// Whether nothing was read since the start.
    is_new: AtomicBool,
}

impl Source {
    /// The source of an agent: the file, if it is standalone.
    pub(super) fn new(client: &Arc<FleetClient>, file: Option<PolicyFile>) -> Self {
        match file {
            None => Self::Fleet(client.clone()),
            Some(file) => Self::File(Arc::new(LocalPolicy { file, is_new: AtomicBool::new(true) })),
        }
    }

    /// Sends a report and waits for something new. `reached` is marked when a server has received the request.
    pub(super) async fn check_in(
        &self,
        agent_id: &str,
        request: &CheckInRequest<'_>,
        timeout: Duration,
        reached: Reached,
    ) -> Result<Reply, CallError> {
        match self {
            Self::Fleet(client) => client.check_in(agent_id, request, timeout, reached).await,
            Self::File(policy) => Ok(policy.next(request).await),
        }
    }

    /// Delivers acks. Returns one item for each.
    pub(super) async fn acknowledge(&self, agent_id: &str, acks: &[PendingAck]) -> Result<Vec<AckItem>, CallError> {
        match self {
            Self::Fleet(client) => client.acknowledge(agent_id, acks).await,
            // The status shows what became of the policy.
            Self::File(_) => Ok(acks.iter().map(|_| AckItem { status: 200, message: None }).collect()),
        }
    }

    /// Returns whether somebody receives the reports of check-ins.
    pub(super) fn takes_reports(&self) -> bool {
        matches!(self, Self::Fleet(_))
    }

    /// Returns the state of the fleet if it does not depend on check-ins.
    pub(super) fn fleet_status(&self) -> Option<FleetStatus> {
        let Self::File(policy) = self else { return None };
        Some(FleetStatus {
            state: AgentState::Stopped,
            message: describe(policy.file.path()),
            last_check_in: None,
            failures: 0,
            servers: Vec::new(),
            poll_limit_seconds: None,
        })
    }

    /// Returns why a command of the host may not unenroll the agent.
    pub(super) fn refuses_unenrollment(&self) -> Option<String> {
        matches!(self, Self::File(_)).then(|| "the agent is not enrolled".to_owned())
    }

    /// Returns why a command of the host may not upgrade the agent.
    pub(super) fn refuses_upgrade(&self, request: &Request) -> Option<String> {
        (matches!(self, Self::Fleet(_)) && !request.is_forced).then(|| SERVER_DECIDES.to_owned())
    }
}

impl LocalPolicy {
    /// Waits until the file differs from what was taken in last, which the ack token of the request identifies.
    async fn next(&self, request: &CheckInRequest<'_>) -> Reply {
        let known = request.ack_token.as_deref().unwrap_or_default();
        // A policy that was stored by another version of the agent, and is not accepted by this one, was lost at the start.
        let mut is_lost = self.is_new.swap(false, Ordering::Relaxed) && request.agent_policy_id.as_deref() == Some("");
        let revision = request.policy_revision_idx.unwrap_or_default();
        let mut marks = self.file.marks();
        loop {
            // After the metadata: a change in between is noticed by the next look.
            let read = self.file.read();
            let token = token(&read);
            if token != known || std::mem::take(&mut is_lost) {
                return reply(token, read, revision + 1);
            }
            marks = self.file.changed(&marks).await;
        }
    }
}

/// Returns what identifies the content of the file, or its fault.
fn token(read: &Result<Map<String, Value>, String>) -> String {
    let (kind, text) = match read {
        Ok(policy) => ("policy", serde_json::to_string(policy).unwrap_or_default()),
        Err(reason) => ("fault", reason.clone()),
    };
    format!("{kind}:{}", hex::encode(&hex::sha256(text.as_bytes())))
}

/// Returns what a server would send for this policy.
fn reply(token: String, read: Result<Map<String, Value>, String>, revision: i64) -> Reply {
    let unusable = |reason| Reply { ack_token: token.clone(), unusable: Some(reason), ..Reply::default() };
    let mut policy = match read {
        Ok(policy) => policy,
        Err(reason) => return unusable(reason),
    };
    policy.insert("revision".into(), revision.into());
    let id = format!("policy:{}:{revision}", policy.get("id").and_then(Value::as_str).unwrap_or_default());
    match to_raw_value(&json!({ "policy": policy })) {
        Ok(data) => Reply {
            ack_token: token,
            actions: vec![Action::new(id, Kind::PolicyChange, Some(data))],
            ..Reply::default()
        },
        Err(error) => unusable(error.to_string()),
    }
}
