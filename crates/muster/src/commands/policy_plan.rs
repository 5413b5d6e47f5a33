//! Preview of `muster policy apply`.

use muster_core::policy::diff::diff;
use muster_protocol::management::agent_policy::{AgentPolicy, Difference, SaveAgentPolicy};
use serde::Serialize;
use serde_json::Value;

use super::failure::Failed;
use super::listing::print_table;
use super::policy::CHANGES;
use super::text::print_line;

/// Planned changes.
#[derive(Debug, Serialize)]
pub struct Plan {
    name: String,
    /// Current revision; `None` if the policy would be created.
    revision: Option<i64>,
    secrets: Vec<String>,
    changes: Vec<Difference>,
}

impl Plan {
    /// Compares the existing policy with the file.
    pub fn of(existing: Option<&AgentPolicy>, wanted: &SaveAgentPolicy) -> Result<Self, Failed> {
        Ok(Self {
            name: wanted.name.clone(),
            revision: existing.map(|policy| policy.revision),
            // Only the server can tell whether a value differs.
            secrets: wanted.secrets.iter().flatten().map(|(name, _)| name.clone()).collect(),
            changes: existing.map_or_else(|| Ok(Vec::new()), |policy| changes(policy, wanted))?,
        })
    }

    /// Returns whether nothing would change, as far as the client can tell.
    pub fn is_empty(&self) -> bool {
        self.revision.is_some() && self.secrets.is_empty() && self.changes.is_empty()
    }

    /// Prints the plan.
    pub fn print(&self) -> Result<(), Failed> {
        let name = &self.name;
        let Some(revision) = self.revision else {
            return print_line(format!("would create the policy {name:?}"));
        };
        if self.is_empty() {
            return print_line(format!("the policy {name:?} is up to date (revision {revision})"));
        }
        for secret in &self.secrets {
            print_line(format!("would set the secret {secret} of the policy {name:?}, if its value differs"))?;
        }
        if self.changes.is_empty() {
            return Ok(());
        }
        print_line(format!("would update the policy {name:?} (now revision {revision}):"))?;
        print_table(&self.changes, false, CHANGES)
    }
}

/// Returns the differences between `existing` and `wanted`.
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

/// Returns whether a value is absent or an empty list, which are equivalent in a policy.
fn is_empty(value: Option<&Value>) -> bool {
    value.is_none_or(|value| value.is_null() || value.as_array().is_some_and(Vec::is_empty))
}

/// Fields that are not compared, because they are not part of the policy.
const NOT_COMPARED: [&str; 4] = ["id", "secrets", "force", "bumpRevision"];

/// Returns the fields that a policy file can set.
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
