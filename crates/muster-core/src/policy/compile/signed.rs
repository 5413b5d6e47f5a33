//! `signed`: the part of a policy that is protected against changes in transit (EA §10.9).
//!
//! For processes of muster-agent, the command, the arguments and the environment are signed verbatim, so that someone
//! who can modify a policy in transit can't make an agent run other programs. Secrets are inserted after signing, and
//! are therefore allowed in the environment only, where the signed part has `null` for the whole value.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::inputs::forget_revisions;
use crate::policy::check::PROCESS;
use crate::secret_refs::OPEN;
use crate::signing::{Signer, SigningError};

/// Signs the policy and adds `signed`.
pub(super) fn sign(policy: &mut Map<String, Value>, signer: &Signer) -> Result<(), SigningError> {
    let inputs: Vec<Value> = policy.get("inputs").and_then(Value::as_array).into_iter().flatten().map(entry).collect();
    let agent = policy.get("agent").cloned().unwrap_or_default();
    // The fields that the protocol signs (EA §10.9). A signature over the whole policy would break
    // when secrets are inserted.
    let payload = json!({
        "id": policy.get("id"),
        "agent": {"features": agent["features"], "protection": agent["protection"]},
        "inputs": inputs
    });
    let signed = signer.sign(payload.to_string().as_bytes())?;
    policy.insert("signed".into(), json!({"data": signed.data, "signature": signed.signature}));
    Ok(())
}

/// Returns the signed form of an input.
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

/// Returns the environment variables, with `null` for values that contain a secret. The names are signed in any case,
/// so that none can be added, such as `LD_PRELOAD`.
fn environment(input: &Value) -> Map<String, Value> {
    let plain = |value: &Value| value.as_str().filter(|text| !text.contains(OPEN)).into();
    let env = input["env"].as_object().into_iter().flatten().map(|(name, value)| (name.clone(), plain(value)));
    // Secrets by path have no entry in `env` until they are resolved.
    let by_path = input["secrets"]["env"].as_object().into_iter().flatten();
    env.chain(by_path.map(|(name, _)| (name.clone(), Value::Null))).collect()
}

/// Decodes the signed payload, without the revisions of its inputs. Does not verify the signature.
pub(super) fn payload(signed: &Value) -> Option<Value> {
    let mut payload: Value = serde_json::from_slice(&STANDARD.decode(signed["data"].as_str()?).ok()?).ok()?;
    forget_revisions(payload.as_object_mut()?);
    Some(payload)
}
