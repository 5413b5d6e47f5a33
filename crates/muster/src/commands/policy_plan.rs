//! What `muster policy apply` would change.

use muster_core::policy::diff::diff;
use muster_protocol::management::agent_policy::{AgentPolicy, Difference, SaveAgentPolicy};
use serde::Serialize;
use serde_json::Value;

use super::failure::Failed;
use super::listing::print_table;
use super::policy::CHANGES;
use super::text::print_line;

/// What would change.
#[derive(Debug, Serialize)]
pub struct Plan {
    name: String,
    /// The revision that stands; `None`: the policy would be made.
    revision: Option<i64>,
    secrets: Vec<String>,
    changes: Vec<Difference>,
}

impl Plan {
    /// Compares what is there with what is wanted.
    pub fn of(existing: Option<&AgentPolicy>, wanted: &SaveAgentPolicy) -> Result<Self, Failed> {
        Ok(Self {
            name: wanted.name.clone(),
            revision: existing.map(|policy| policy.revision),
            // Whether a value is the one that is stored, only the server knows.
            secrets: wanted.secrets.iter().flatten().map(|(name, _)| name.clone()).collect(),
            changes: existing.map_or_else(|| Ok(Vec::new()), |policy| changes(policy, wanted))?,
        })
    }

    /// Whether the policy is there and as it is wanted, as far as can be told.
    pub fn is_empty(&self) -> bool {
        self.revision.is_some() && self.secrets.is_empty() && self.changes.is_empty()
    }

    /// Tells it.
    pub fn print(&self) -> Result<(), Failed> {
        let name = &self.name;
        let Some(revision) = self.revision else {
            return print_line(format!("would create the policy {name:?}"));
        };
        if self.is_empty() {
            return print_line(format!("the policy {name:?} is as the file says (revision {revision})"));
        }
        for secret in &self.secrets {
            print_line(format!("would store the secret {secret} of the policy {name:?}, if it is another value"))?;
        }
        if self.changes.is_empty() {
            return Ok(());
        }
        print_line(format!("would change the policy {name:?} (now revision {revision}):"))?;
        print_table(&self.changes, false, CHANGES)
    }
}

/// What applying `wanted` would change of `existing`.
fn changes(existing: &AgentPolicy, wanted: &SaveAgentPolicy) -> Result<Vec<Difference>, Failed> {
    let before = comparable(existing)?;
    let mut after = before.clone();
    if let (Value::Object(after), Value::Object(wanted)) = (&mut after, comparable(wanted)?) {
        after.extend(wanted);
    }
    let found = diff(&before, &after).into_iter();
    Ok(found
        .filter(|change| !is_empty(change.before.as_ref()) || !is_empty(change.after.as_ref()))
        .map(|change| Difference { path: change.path, before: change.before, after: change.after })
        .collect())
}

/// Nothing, or an empty list: of a policy's fields that is the same.
fn is_empty(value: Option<&Value>) -> bool {
    value.is_none_or(|value| value.is_null() || value.as_array().is_some_and(Vec::is_empty))
}

/// Fields that are not for comparing: what the server adds, and what is no part of the policy.
const NOT_COMPARED: [&str; 4] = ["id", "secrets", "force", "bumpRevision"];

/// What a policy file can say, of either side.
fn comparable(policy: &impl Serialize) -> Result<Value, Failed> {
    let mut whole = serde_json::to_value(policy).map_err(|error| Failed::new(error.to_string()))?;
    if let Value::Object(fields) = &mut whole {
        fields.retain(|name, _| !NOT_COMPARED.contains(&name.as_str()));
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_the_file_names_is_compared() {
        let existing = AgentPolicy {
            name: "web".into(),
            revision: 3,
            inactivity_timeout: 7,
            config: Some(json!({"inputs": [{"id": "a"}]})),
            ..AgentPolicy::default()
        };
        let mut wanted = SaveAgentPolicy { name: "web".into(), ..SaveAgentPolicy::default() };
        wanted.fields.insert("tags".into(), json!([]));
        assert!(Plan::of(Some(&existing), &wanted).unwrap().is_empty());
        wanted.config = Some(json!({"inputs": [{"id": "b"}]}));
        let plan = Plan::of(Some(&existing), &wanted).unwrap();
        let paths: Vec<&str> = plan.changes.iter().map(|change| change.path.as_str()).collect();
        assert_eq!(paths, ["/config/inputs/a", "/config/inputs/b"]);
        assert!(!plan.is_empty() && !Plan::of(None, &wanted).unwrap().is_empty());
    }
}
