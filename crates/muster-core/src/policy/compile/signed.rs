//! `signed`: what must not be changed on the way (EA §10.9).
//!
//! Of programs that our own agent runs, the command, the arguments and the environment are signed too, word for word:
//! whoever changes the policy on its way can then make an agent run nothing else. Secrets are put in place after the
//! signing; they may stand in the environment alone, and there the signed part has `null` for the whole value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::inputs::forget_revisions;
use crate::policy::check::PROCESS;
use crate::secret_refs::OPEN;
use crate::signing::{Signer, SigningError};

/// Adds `signed`.
pub(super) fn sign(policy: &mut Map<String, Value>, signer: &Signer) -> Result<(), SigningError> {
    let inputs: Vec<Value> = policy.get("inputs").and_then(Value::as_array).into_iter().flatten().map(entry).collect();
    let agent = policy.get("agent").cloned().unwrap_or_default();
    let payload = json!({
        "id": policy.get("id"),
        "agent": {"features": agent["features"], "protection": agent["protection"]},
        "inputs": inputs
    });
    let signed = signer.sign(payload.to_string().as_bytes())?;
    policy.insert("signed".into(), json!({"data": signed.data, "signature": signed.signature}));
    Ok(())
}

/// An input as it is signed.
fn entry(input: &Value) -> Value {
    let mut entry =
        json!({"id": input["id"], "name": input["name"], "revision": input["revision"], "type": input["type"]});
    if input["type"] == PROCESS {
        entry["command"] = input["command"].clone();
        entry["args"] = input["args"].clone();
        entry["env"] = environment(input).into();
    }
    entry
}

/// The names of the environment with their values; `null` for one that holds a secret.
fn environment(input: &Value) -> Map<String, Value> {
    let plain = |value: &Value| value.as_str().filter(|text| !text.contains(OPEN)).into();
    let env = input["env"].as_object().into_iter().flatten().map(|(name, value)| (name.clone(), plain(value)));
    let by_path = input["secrets"]["env"].as_object().into_iter().flatten();
    env.chain(by_path.map(|(name, _)| (name.clone(), Value::Null))).collect()
}

/// What was signed, without the revisions of its inputs; whoever signed it.
pub(super) fn payload(signed: &Value) -> Option<Value> {
    let mut payload: Value = serde_json::from_slice(&STANDARD.decode(signed["data"].as_str()?).ok()?).ok()?;
    forget_revisions(payload.as_object_mut()?);
    Some(payload)
}
