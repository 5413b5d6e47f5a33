//! What a revision is compiled from: kept with it, for comparing and for going back.

use serde_json::{Map, Value, json};

use super::Policy;
use crate::id::SecretId;

/// Everything that people decide about a policy and that belongs to a revision. Secrets stand under their names with
/// the ids under which they are sealed.
pub fn source_of(policy: &Policy) -> Value {
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

/// Takes over what an older revision was compiled from; the name stays, since others may bear the old one.
pub fn restore(policy: &mut Policy, source: &Value) {
    let text = |key: &str, now: &str| source[key].as_str().unwrap_or(now).to_owned();
    policy.namespace = text("namespace", &policy.namespace);
    policy.description = text("description", &policy.description);
    policy.inactivity_timeout = source["inactivity_timeout"].as_i64().unwrap_or(policy.inactivity_timeout);
    policy.unenroll_timeout = source["unenroll_timeout"].as_i64();
    policy.config = source["config"].clone();
    policy.secrets = secrets_of(source);
    if source["fields"].is_object() {
        policy.fields = source["fields"].clone();
    }
}

/// Names and ids of the secrets of a source.
pub fn secrets_of(source: &Value) -> Vec<(String, SecretId)> {
    let secrets = source["secrets"].as_object().into_iter().flatten();
    secrets.filter_map(|(name, id)| Some((name.clone(), SecretId::trusted(id.as_str()?)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, at};

    #[test]
    fn a_source_brings_back_everything_but_the_name() {
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
