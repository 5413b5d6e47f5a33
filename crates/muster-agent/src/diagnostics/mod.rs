//! The diagnostics bundle, a compressed JSON document without secrets.

mod component_files;

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

/// Words in the names of fields whose values are redacted.
const SECRET_WORDS: [&str; 8] =
    ["password", "passphrase", "secret", "token", "api_key", "credential", "private", "authorization"];
const REDACTED: &str = "[redacted]";

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

/// Redacts a policy: the values at `secret_paths`, environments, and fields whose names suggest secrets.
pub fn redacted(mut policy: Value) -> Value {
    for path in secret_paths(&policy) {
        if let Some(value) = policy.pointer_mut(&path) {
            *value = REDACTED.into();
        }
    }
    // The signed copy contains the same policy, in base64, with the hash of the uninstall token.
    if let Some(signed) = policy.get_mut("signed").filter(|signed| !signed.is_null()) {
        *signed = REDACTED.into();
    }
    hide(&mut policy);
    policy
}

/// Returns the paths at which the server inserted secrets, as JSON pointers.
fn secret_paths(policy: &Value) -> Vec<String> {
    let paths = policy["secret_paths"].as_array().into_iter().flatten();
    paths.filter_map(|path| path.as_str().map(|path| format!("/{}", path.replace('.', "/")))).collect()
}

/// Returns the text of a scalar value.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Returns whether a field with this name is redacted. The bundle leaves the host, so that redacting too much is better
/// than too little.
fn is_secret(name: &str) -> bool {
    let lower = name.to_lowercase();
    lower == "env" || lower == "key" || SECRET_WORDS.iter().any(|word| lower.contains(word)) && name != "secret_paths"
}

fn hide(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(hide),
        Value::Object(fields) => {
            for (name, value) in fields {
                if is_secret(name) {
                    *value = REDACTED.into();
                } else {
                    hide(value);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ag147_a_bundle_contains_no_secret_of_the_policy() {
        let policy = json!({"secret_paths": ["inputs.0.deep.word"], "outputs": {"default": {"api_key": "s1", "hosts": ["h"]}},
            "signed": {"data": "s5", "signature": "x"}, "inputs": [{"id": "x", "deep": {"word": "s2"}, "env": {"A": "s3"}, "Password": "s4"}]});
        let text = redacted(policy).to_string();
        for secret in ["s1", "s2", "s3", "s4", "s5"] {
            assert!(!text.contains(&format!("{secret:?}")), "{text}");
        }
        assert!(text.contains("\"h\"") && text.contains("\"x\""));
    }
}
