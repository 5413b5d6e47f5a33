//! Artifacts of policies (EA §7.1), served to agents whose policy lists them.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use muster_core::hex;
use muster_core::id::PolicyId;
use muster_core::{Error, ErrorKind};
use serde_json::Value;

use super::authority::System;
use super::files::Files;
use super::registry::AgentEntry;

fn forbidden(message: &str) -> Error {
    Error::new(ErrorKind::Forbidden, "forbidden", message)
}

impl Files {
    /// Returns the encoded bytes of an artifact, if the agent's policy lists it with that hash (EA125).
    pub async fn artifact(&self, entry: &AgentEntry, identifier: &str, decoded_sha256: &str) -> Result<Bytes, Error> {
        let record = entry.record().ok_or_else(super::authenticate::unauthorized)?;
        // The assigned policy first: its artifacts are fetched while the agent still reports the old one as running.
        let policy = record.policy_id.as_ref().or(record.running_policy_id.as_ref());
        let policy = policy.ok_or_else(|| forbidden("agent has no policy ID"))?;
        if !self.policy_lists(policy, identifier, decoded_sha256).await? {
            return Err(forbidden("agent not authorized for artifact"));
        }
        let found = self.store.everywhere(&System).artifact(identifier, decoded_sha256).await?;
        let (artifact, body) = found.ok_or_else(|| Error::new(ErrorKind::NotFound, "not_found", "not found"))?;
        if hex::encode(digest(&SHA256, &body).as_ref()) != artifact.encoded_sha256 {
            // The agent would notice as well, but only retry. Here the damage reaches the server's log.
            return Err(Error::internal(format!(
                "the stored bytes of artifact {identifier:?} do not match their hash"
            )));
        }
        Ok(Bytes::from(body))
    }

    async fn policy_lists(&self, policy: &PolicyId, identifier: &str, decoded_sha256: &str) -> Result<bool, Error> {
        // Not from the policy cache, which keeps rendered text only. Artifacts are fetched once for each version.
        let newest = self.store.everywhere(&System).policy_newest_revision(policy).await?;
        Ok(newest.is_some_and(|revision| lists(&revision.compiled, identifier, decoded_sha256)))
    }
}

/// Returns true if an input of the compiled policy lists the artifact with that hash.
fn lists(compiled: &Value, identifier: &str, decoded_sha256: &str) -> bool {
    let inputs = compiled.get("inputs").and_then(Value::as_array);
    inputs.into_iter().flatten().any(|input| {
        let artifacts = input.get("artifact_manifest").and_then(|manifest| manifest.get("artifacts"));
        let hash = artifacts.and_then(|all| all.get(identifier)).and_then(|one| one.get("decoded_sha256"));
        hash.and_then(Value::as_str).is_some_and(|hash| hash.eq_ignore_ascii_case(decoded_sha256))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ea125_artifact_is_served_only_if_an_input_lists_its_hash() {
        let compiled = json!({"inputs": [
            {"id": "plain"},
            {"id": "endpoint", "artifact_manifest": {"artifacts": {"trust": {"decoded_sha256": "AB"}}}},
        ]});
        assert!(lists(&compiled, "trust", "ab"));
        assert!(!lists(&compiled, "trust", "cd") && !lists(&compiled, "other", "ab"));
        assert!(!lists(&json!({}), "trust", "ab") && !lists(&json!({"inputs": "x"}), "trust", "ab"));
    }
}
