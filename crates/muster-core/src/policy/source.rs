//! The source of a revision, stored with it for diff and rollback.

use serde_json::{Map, Value, json};

use super::Policy;
use crate::id::SecretId;

/// Returns everything about a policy that belongs to a revision. Secrets are a map from name to the id under which they
/// are sealed.
pub fn source_of(policy: &Policy) -> Value {
    // Not `is_managed`, `is_default` and ids: they belong to the policy and not to a revision, so a rollback keeps
    // them.
    let secrets: Map<String, Value> =
        policy.secrets.iter().map(|(name, id)| (name.clone(), id.as_str().into())).collect();
    json!({
        "name": policy.name,
        "namespace": policy.namespace,
        "description": policy.description,
        "inactivity_timeout": policy.inactivity_timeout,
        "unenroll_timeout": policy.unenroll_timeout,
        "config": policy.config,
        "secrets": secrets,
        "fields": policy.fields
    })
}

/// Restores the source of an older revision. The name is kept, because another policy may have the old one by now.
pub fn restore(policy: &mut Policy, source: &Value) {
    let text = |key: &str, now: &str| source[key].as_str().unwrap_or(now).to_owned();
    policy.namespace = text("namespace", &policy.namespace);
    policy.description = text("description", &policy.description);
    policy.inactivity_timeout = source["inactivity_timeout"].as_i64().unwrap_or(policy.inactivity_timeout);
    // Unlike the fields above, `null` is a value here: never.
    policy.unenroll_timeout = source["unenroll_timeout"].as_i64();
    policy.config = source["config"].clone();
    policy.secrets = secrets_of(source);
    if source["fields"].is_object() {
        policy.fields = source["fields"].clone();
    }
}

/// Returns the names and ids of the secrets of a source.
pub fn secrets_of(source: &Value) -> Vec<(String, SecretId)> {
    let secrets = source["secrets"].as_object().into_iter().flatten();
    secrets.filter_map(|(name, id)| Some((name.clone(), SecretId::trusted(id.as_str()?)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, at};

    #[test]
    fn restoring_a_source_keeps_only_the_name() {
        let before = Policy {
            namespace: "prod".into(),
            description: "text".into(),
            revision: 3,
            is_default: true,
            inactivity_timeout: 60,
            unenroll_timeout: Some(120),
            config: json!({"inputs": []}),
            secrets: vec![("A".into(), SecretId::trusted("s1"))],
            fields: json!({"is_protected": true}),
            ..testing::policy("old", at(1))
        };
        let mut after = Policy {
            name: "new".into(),
            namespace: "other".into(),
            unenroll_timeout: None,
            config: json!({}),
            secrets: vec![],
            fields: json!({}),
            ..before.clone()
        };
        restore(&mut after, &source_of(&before));
        assert_eq!(after, Policy { name: "new".into(), ..before });
    }
}
