//! Interprets policies: verifies signatures, and extracts components and servers.

pub mod connection;
pub mod verify;

use std::sync::Arc;

use muster_core::error_chain::SharedError;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::model::Document;
use crate::model::inputs::Invalid;
use crate::net::Server;
use crate::state::enrollment::Overrides;
use crate::state::{Action, Fault, StoredPolicy};
use connection::BadConnection;
use muster_core::hex;
use verify::Unverified;

/// A policy that was accepted and can be applied.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The part that is stored.
    pub stored: StoredPolicy,
    /// The part that the components depend on.
    pub document: Document,
    /// The signing key to pin from now on, if any.
    pub signing_key: Option<String>,
    /// `fleet.hosts`; empty if none can be parsed.
    pub servers: Vec<Server>,
    /// The rest of `fleet`: how to reach the servers.
    pub overrides: Result<Overrides, BadConnection>,
    /// `agent.logging.level`.
    pub log_level: Option<String>,
}

impl Rejection {
    /// Returns what kind of fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unverified(_) => Fault::Untrusted,
            Self::Unreadable(_) | Self::Invalid(_) => Fault::Invalid,
        }
    }
}

/// Why a policy is rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// `data.policy` is missing or malformed.
    #[error("malformed policy: {0}")]
    Unreadable(#[source] SharedError),
    /// The signature or the signed part is invalid.
    #[error(transparent)]
    Unverified(#[from] Unverified),
    /// It has no model.
    #[error("invalid policy: {0}")]
    Invalid(#[from] Invalid),
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
    inputs: Option<Vec<Value>>,
    #[serde(default)]
    outputs: Option<Map<String, Value>>,
    #[serde(default)]
    signed: Option<Arc<Value>>,
}

#[derive(Default, Deserialize)]
struct ProtectionPart {
    #[serde(default)]
    enabled: bool,
}

#[derive(Default, Deserialize)]
struct AgentPart {
    #[serde(default)]
    protection: Option<ProtectionPart>,
    #[serde(default)]
    features: Value,
    #[serde(default)]
    limits: Value,
    #[serde(default)]
    headers: Value,
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
    // Read later: an unusable setting must not make the policy unreadable.
    #[serde(flatten)]
    connection: Map<String, Value>,
}

/// Returns the bytes of `data.policy`.
pub fn raw(action: &Action) -> Result<Box<RawValue>, Rejection> {
    let data = action.data.as_deref().map_or("null", RawValue::get);
    let data: Option<Data> = serde_json::from_str(data).map_err(|error| Rejection::Unreadable(error.into()))?;
    // An action without a policy is malformed. It must not be treated as an empty policy, which would stop all programs.
    data.and_then(|data| data.policy).ok_or_else(|| Rejection::Unreadable("it is empty".into()))
}

/// Returns the SHA-256 of a policy's bytes, in hex.
pub fn digest(policy: &RawValue) -> String {
    hex::encode(&hex::sha256(policy.get().as_bytes()))
}

/// Accepts or rejects the policy of an action. `pinned` is the key that must have signed it.
pub fn accept(action: &Action, pinned: Option<&str>) -> Result<Accepted, Rejection> {
    // The exact bytes are kept, because parsing and serializing them again could invalidate the signature.
    let policy = raw(action)?;
    let signing_key = verify::policy(&policy, pinned)?;
    let mut accepted = read(&policy)?;
    accepted.stored.action_id.clone_from(&action.id);
    accepted.signing_key = signing_key;
    Ok(accepted)
}

/// Accepts or rejects a stored policy at the start of the agent, so that somebody who can write the state file cannot
/// make the agent run programs. `previous` is the key that was pinned before `pinned`, and that signed the policy that
/// introduced `pinned`.
pub fn restore(policy: &RawValue, pinned: Option<&str>, previous: Option<&str>) -> Result<Accepted, Rejection> {
    let by_previous = || match verify::policy(policy, Some(previous?)) {
        Ok(next) if next.as_deref() == pinned => Some(next),
        _ => None,
    };
    // The stored policy may have introduced the pinned key. It is then signed with the previous key.
    let signing_key = match verify::policy(policy, pinned) {
        Ok(key) => key,
        Err(error) => by_previous().ok_or(error)?,
    };
    Ok(Accepted { signing_key, ..read(policy)? })
}

/// Parses a policy.
fn read(policy: &RawValue) -> Result<Accepted, Rejection> {
    let head: Head = serde_json::from_str(policy.get()).map_err(|error| Rejection::Unreadable(error.into()))?;
    let fleet = head.fleet.unwrap_or_default();
    let agent = head.agent.unwrap_or_default();
    let document = Document {
        inputs: head.inputs.unwrap_or_default(),
        outputs: head.outputs.unwrap_or_default(),
        revision: head.revision,
        features: agent.features,
        limits: agent.limits,
        headers: agent.headers,
        is_protected: agent.protection.unwrap_or_default().enabled,
        signed: head.signed,
    };
    Ok(Accepted {
        document,
        signing_key: None,
        // A single invalid URL must not make the policy unusable.
        servers: fleet.hosts.iter().filter_map(|host| Server::parse(host).ok()).collect(),
        overrides: connection::read(&fleet.connection),
        log_level: agent.logging.and_then(|logging| logging.level),
        stored: StoredPolicy {
            action_id: String::new(),
            id: head.id,
            revision: head.revision,
            policy: policy.to_owned(),
        },
    })
}
