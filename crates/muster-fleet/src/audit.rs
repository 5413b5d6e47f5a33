//! Audit events. Every operation that changes something or reveals a secret commits one.

use std::fmt::Display;

use muster_core::Error;
use muster_core::audit::AuditEvent;
use muster_core::authorization::{Grant, Origin, Privilege};
use muster_core::reported::shortened_to;
use muster_core::time::Timestamp;
use muster_store::Write;
use serde_json::Value;

use super::watched_store::WatchedStore;

/// Returns the write of an audit event: somebody did `action` to `subject`.
pub fn audit_line(origin: &Origin, at: Timestamp, action: &str, subject: impl Display, detail: Value) -> Write {
    Write::Audit(AuditEvent {
        at,
        actor: origin.actor.to_string(),
        action: action.to_owned(),
        subject: subject.to_string(),
        detail,
        address: origin.address.as_deref().map(str::to_owned),
        reason: origin.reason.as_deref().map(str::to_owned),
        space: origin.space.clone(),
    })
}

/// Commits the audit events of a disclosure, one for each secret, and conditions. Called before anything is disclosed: if it fails, nothing
/// may be.
pub(crate) async fn commit_disclosure<P: Privilege>(
    store: &WatchedStore,
    grant: &Grant<P>,
    lines: Vec<Write>,
) -> Result<(), Error> {
    // Nothing is disclosed, for example because no listed key has a stored token.
    if lines.is_empty() {
        return Ok(());
    }
    // A dry run commits nothing, so it would disclose without an audit event.
    if grant.is_dry_run() {
        return Err(Error::invalid("dryRun", "is not supported: what this returns is recorded in the audit log"));
    }
    store.commit(grant, lines).await?;
    Ok(())
}

/// Fields of outputs, proxies and the like that contain or may contain secrets.
const HIDDEN: [&str; 9] = [
    "secrets",
    "ssl",
    "config_yaml",
    "proxy_headers",
    "headers",
    "certificate",
    "certificate_key",
    "auth",
    "service_token",
];

/// Adds to `detail` what has changed between two JSON objects, as `before` and `after`. Of fields that may contain secrets,
/// only that they have changed.
pub fn with_changes(mut detail: Value, before: &Value, after: &Value) -> Value {
    let fields = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let (mut before, mut after) = (fields(before), fields(after));
    let same: Vec<String> =
        before.iter().filter(|(name, value)| after.get(*name) == Some(value)).map(|(name, _)| name.clone()).collect();
    for side in [&mut before, &mut after] {
        side.retain(|name, _| !same.contains(name));
        for (_, value) in side.iter_mut().filter(|(name, _)| HIDDEN.contains(&name.as_str())) {
            *value = "hidden".into();
        }
    }
    (detail["before"], detail["after"]) = (before.into(), after.into());
    detail
}

/// Maximum length of a query in an audit event, bytes.
const KUERY_BYTES: usize = 4096;

/// Adds the query that selected the agents to the detail of an audit event, if there was one.
pub(crate) fn with_kuery(mut detail: Value, kuery: Option<&str>) -> Value {
    if let Some(kuery) = kuery {
        // A query can be a list of thousands of ids.
        detail["kuery"] = shortened_to(kuery, KUERY_BYTES).into();
    }
    detail
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mg163_changes_are_shown_without_secrets() {
        let before = json!({"hosts": ["a"], "same": 1, "gone": true, "proxy_headers": {"x": "hush"}});
        let after = json!({"hosts": ["b"], "same": 1, "new": null, "proxy_headers": {"x": "hushed"}});
        let expected = json!({
            "name": "n",
            "before": {"hosts": ["a"], "gone": true, "proxy_headers": "hidden"},
            "after": {"hosts": ["b"], "new": null, "proxy_headers": "hidden"},
        });
        assert_eq!(with_changes(json!({"name": "n"}), &before, &after), expected);
    }
}
