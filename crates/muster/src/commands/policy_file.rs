//! Policies as people write them: a YAML file, and the secrets given beside it.

use std::collections::BTreeMap;
use std::io::Read as _;

use camino::Utf8Path;
use muster_core::policy::diff::diff;
use muster_core::yaml::{PolicyFile, parse_policy_file};
use muster_protocol::management::agent_policy::{AgentPolicy, Difference, SaveAgentPolicy};
use serde_json::Value;

use super::failure::Failed;

/// Longest policy file, bytes.
const MAX_BYTES: u64 = 8 << 20;

/// Reads the file (`-`: standard input) and the `NAME=VALUE` secrets.
pub fn read(file: &Utf8Path, secrets: &[String]) -> Result<SaveAgentPolicy, Failed> {
    let text = read_text(file)?;
    let PolicyFile { name, description, namespace, tags, settings, config } = parse_policy_file(&text)
        .map_err(|error| Failed::usage(format!("{file}:{error}")).remedy("see docs/policies.md for the format"))?;
    let (is_managed, is_default) = (settings.is_managed, settings.is_default);
    let (inactivity_timeout, unenroll_timeout) = (settings.inactivity_timeout, settings.unenroll_timeout);
    let mut fields = settings.into_fields();
    fields.insert("tags".to_owned(), Value::from(tags));
    Ok(SaveAgentPolicy {
        name,
        description,
        is_managed,
        is_default,
        inactivity_timeout,
        unenroll_timeout: unenroll_timeout.map(Some),
        namespace: Some(namespace.unwrap_or_else(|| "default".to_owned())),
        config,
        secrets: read_secrets(secrets)?,
        fields,
        ..SaveAgentPolicy::default()
    })
}

fn read_text(file: &Utf8Path) -> Result<String, Failed> {
    let mut text = String::new();
    let read = if file == "-" {
        std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
    };
    read.map_err(|error| Failed::usage(format!("can't read {file}: {error}")))?;
    Ok(text)
}

/// `NAME=VALUE`, or `NAME=@FILE` to keep the value out of the process list.
fn read_secrets(given: &[String]) -> Result<Option<BTreeMap<String, Option<String>>>, Failed> {
    let mut secrets = BTreeMap::new();
    for pair in given {
        let (name, value) = pair.split_once('=').ok_or_else(|| Failed::usage("--secret takes NAME=VALUE"))?;
        let value = match value.strip_prefix('@') {
            Some(path) => read_text(Utf8Path::new(path))?.trim_end_matches(['\r', '\n']).to_owned(),
            None => value.to_owned(),
        };
        secrets.insert(name.to_owned(), Some(value));
    }
    Ok((!secrets.is_empty()).then_some(secrets))
}

/// What applying `wanted` would change of `existing`.
pub fn changes(existing: &AgentPolicy, wanted: &SaveAgentPolicy) -> Result<Vec<Difference>, Failed> {
    let before = comparable(existing)?;
    let mut after = before.clone();
    let wanted = comparable(wanted)?;
    if let (Value::Object(after), Value::Object(wanted)) = (&mut after, wanted) {
        after.extend(wanted);
    }
    Ok(diff(&before, &after)
        .into_iter()
        .map(|change| Difference { path: change.path, before: change.before, after: change.after })
        .collect())
}

/// Fields that are not for comparing: what the server adds, and what is no part of the policy.
const NOT_COMPARED: [&str; 4] = ["id", "secrets", "force", "bumpRevision"];

/// What a policy file can say, of either side.
fn comparable(policy: &impl serde::Serialize) -> Result<Value, Failed> {
    let mut whole = serde_json::to_value(policy).map_err(|error| Failed::new(error.to_string()))?;
    if let Value::Object(fields) = &mut whole {
        fields.retain(|name, _| !NOT_COMPARED.contains(&name.as_str()));
    }
    Ok(whole)
}
