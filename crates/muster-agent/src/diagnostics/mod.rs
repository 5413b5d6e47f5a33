//! The diagnostics bundle, a compressed JSON document without secrets.

mod component_files;
mod redaction;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use muster_core::Timestamp;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::components::{ComponentState, Diagnostics};
use crate::coordinator::report::Snapshot;
use crate::fleet::upload::Upload;
use crate::net::gzip;
use crate::state::State;
use crate::state::enrollment::Secret;
pub use redaction::redacted;
use redaction::secret_paths;

/// A bundle without the diagnostics of components, which take time to collect.
#[derive(Debug)]
pub struct Draft {
    document: Value,
    /// Secrets that components may have been given, whatever the names of their fields are.
    secrets: Vec<Secret>,
}

impl Draft {
    /// Removes further secrets from the diagnostics of components.
    pub fn remove_also(&mut self, secrets: Vec<Secret>) {
        self.secrets.extend(secrets);
    }

    /// Adds the diagnostics of components, and returns the bundle.
    pub fn complete(mut self, components: &[Diagnostics]) -> std::io::Result<Bytes> {
        self.document["component_diagnostics"] = component_files::render(components, &self.secrets);
        gzip::compress(&serde_json::to_vec_pretty(&self.document)?).map(Bytes::from)
    }
}

/// Begins a bundle. `access_key` is removed from the diagnostics of components.
pub fn draft(snapshot: &Snapshot, state: &State, access_key: &Secret, metadata: &RawValue, log: &str) -> Draft {
    // The server's log names the id of the key, so that only its other half is secret.
    let key = STANDARD.decode(access_key.expose()).ok().and_then(|pair| String::from_utf8(pair).ok());
    let half = key.as_deref().and_then(|pair| pair.split_once(':')).map(|(_, half)| Secret::new(half));
    let mut secrets: Vec<Secret> = half.into_iter().chain([access_key.clone()]).collect();
    if let Some(policy) = &state.policy {
        let policy = parse(&policy.policy);
        secrets.extend(secret_paths(&policy).iter().filter_map(|path| text(policy.pointer(path)?)).map(Secret::new));
    }
    let policy = state.policy.as_ref().map(|policy| redacted(parse(&policy.policy)));
    // The data of actions is omitted, because it can contain secrets.
    let inbox: Vec<Value> = state
        .inbox
        .iter()
        .map(|action| json!({"id": action.id, "type": action.kind.as_str(), "start_time": action.start_time}))
        .collect();
    // The payloads of components, and the data of actions in acks, can contain anything.
    let components = snapshot.components.iter().map(ComponentState::without_payloads).collect();
    let status = Snapshot { components, ..snapshot.clone() };
    let acks: Vec<Value> = state
        .outbox
        .iter()
        .map(
            |ack| json!({"action_id": ack.action_id, "type": ack.kind, "timestamp": ack.timestamp, "error": ack.error}),
        )
        .collect();
    let document = json!({
        "version": 1,
        "status": status,
        "host": parse(metadata),
        "policy": policy,
        "rejected_policy": state.rejected,
        "queued": inbox,
        "pending_acks": acks,
        "log": log.lines().collect::<Vec<_>>(),
    });
    Draft { document, secrets }
}

/// Builds the bundle of an agent that is not running, from its files.
pub fn of_files(state: &Result<State, String>, log: &str) -> std::io::Result<Bytes> {
    let policy = state.as_ref().ok().and_then(|state| state.policy.as_ref());
    let document = json!({
        "version": 1,
        "status": Value::Null,
        // A state that cannot be parsed is left out, because it cannot be redacted (AG148).
        "state_error": state.as_ref().err(),
        "policy": policy.map(|policy| redacted(parse(&policy.policy))),
        "rejected_policy": state.as_ref().ok().and_then(|state| state.rejected.as_ref()),
        "upgrade": state.as_ref().ok().and_then(|state| state.upgrade.as_ref()),
        "log": log.lines().collect::<Vec<_>>(),
    });
    gzip::compress(&serde_json::to_vec_pretty(&document)?).map(Bytes::from)
}

/// Creates the upload for a bundle.
pub fn upload(action_id: &str, agent_id: &str, content: Bytes, now: Timestamp) -> Upload {
    let stamp = now.to_rfc3339_seconds().replace(':', "-");
    Upload {
        action_id: action_id.to_owned(),
        agent_id: agent_id.to_owned(),
        name: format!("muster-agent-diagnostics-{stamp}.json.gz"),
        ext: "gz",
        mime_type: "application/gzip",
        content,
    }
}

fn parse(raw: &RawValue) -> Value {
    serde_json::from_str(raw.get()).unwrap_or(Value::Null)
}

/// Returns the text of a scalar value.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
