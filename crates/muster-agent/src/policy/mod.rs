//! Policies as this agent reads them: who signed them, what runs, where the server is.

pub mod inputs;
pub mod verify;

use muster_protocol::elastic::check_in::WireAction;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::components::spec::Wanted;
use crate::hex;
use crate::net::Server;
use crate::state::StoredPolicy;
use verify::Unverified;

/// A policy that may be applied.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// What is stored.
    pub stored: StoredPolicy,
    /// What it makes run.
    pub wanted: Vec<Wanted>,
    /// The key to pin from now on, if it names one.
    pub signing_key: Option<String>,
    /// `fleet.hosts`; empty when it names none, or none that can be read.
    pub servers: Vec<Server>,
    /// `agent.logging.level`.
    pub log_level: Option<String>,
}

/// Why a policy is not applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// `data.policy` is missing or of the wrong shape.
    #[error("the policy can't be read: {0}")]
    Unreadable(String),
    /// Signature or ids.
    #[error(transparent)]
    Unverified(#[from] Unverified),
}

#[derive(Deserialize)]
struct Data {
    policy: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
struct Head {
    #[serde(default)]
    id: String,
    #[serde(default)]
    revision: i64,
    #[serde(default)]
    agent: Option<AgentPart>,
    #[serde(default)]
    fleet: Option<FleetPart>,
    #[serde(default)]
    inputs: Option<Vec<serde_json::Value>>,
}

#[derive(Default, Deserialize)]
struct AgentPart {
    #[serde(default)]
    logging: Option<LoggingPart>,
}

#[derive(Default, Deserialize)]
struct LoggingPart {
    #[serde(default)]
    level: Option<String>,
}

#[derive(Default, Deserialize)]
struct FleetPart {
    #[serde(default)]
    hosts: Vec<String>,
}

/// The bytes of `data.policy`.
pub fn raw(action: &WireAction) -> Result<Box<RawValue>, Rejection> {
    let data = action.data.as_deref().map_or("null", RawValue::get);
    let data: Option<Data> = serde_json::from_str(data).map_err(|error| Rejection::Unreadable(error.to_string()))?;
    data.and_then(|data| data.policy).ok_or_else(|| Rejection::Unreadable("it has no policy".into()))
}

/// SHA-256 of a policy's bytes, hex.
pub fn digest(policy: &RawValue) -> String {
    hex::encode(&hex::sha256(policy.get().as_bytes()))
}

/// Decides over the policy that an action brings. `pinned` is the key that must have signed it.
pub fn accept(action: &WireAction, pinned: Option<&str>) -> Result<Accepted, Rejection> {
    let policy = raw(action)?;
    let signing_key = verify::policy(&policy, pinned)?;
    let mut accepted = read(&policy)?;
    accepted.stored.action_id.clone_from(&action.id);
    accepted.signing_key = signing_key;
    Ok(accepted)
}

/// Reads a policy that was accepted before.
pub fn read(policy: &RawValue) -> Result<Accepted, Rejection> {
    let head: Head = serde_json::from_str(policy.get()).map_err(|error| Rejection::Unreadable(error.to_string()))?;
    let hosts = head.fleet.unwrap_or_default().hosts;
    Ok(Accepted {
        wanted: inputs::wanted(&head.inputs.unwrap_or_default()),
        signing_key: None,
        servers: hosts.iter().filter_map(|host| Server::parse(host).ok()).collect(),
        log_level: head.agent.and_then(|agent| agent.logging).and_then(|logging| logging.level),
        stored: StoredPolicy {
            action_id: String::new(),
            id: head.id,
            revision: head.revision,
            policy: policy.to_owned(),
        },
    })
}
