//! Completion of inputs: each gets an id, a revision, an output and a data namespace.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::outputs::{DEFAULT, Outputs};
use super::{Draft, NO_OUTPUT, ROOT, take_object};
use crate::policy::check::PROCESS;

/// Prefixes of the types of inputs that do not support added processors.
const NO_PROCESSORS: [&str; 7] = ["apm", "fleet-server", "cloudbeat", "cloud-defend", "pf-", "endpoint", PROCESS];

impl Draft<'_> {
    /// Returns the completed inputs of the configuration.
    pub(super) fn inputs(&mut self, outputs: &mut Outputs) -> Vec<Value> {
        let Some(Value::Array(configured)) = self.config.remove("inputs") else { return Vec::new() };
        // Collected first, so that a generated id never equals one that appears later.
        let given = configured.iter().filter_map(|input| Some(input.get("id")?.as_str()?.to_owned()));
        let mut ids: HashSet<String> = given.collect();
        let mut inputs = Vec::with_capacity(configured.len());
        for (index, input) in configured.into_iter().enumerate() {
            let Value::Object(mut input) = input else { continue };
            self.complete(&mut input, index, &mut ids, outputs);
            inputs.push(Value::Object(input));
        }
        inputs
    }

    fn complete(
        &mut self,
        input: &mut Map<String, Value>,
        index: usize,
        ids: &mut HashSet<String>,
        outputs: &mut Outputs,
    ) {
        let kind = input.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        if !input.contains_key("id") {
            // The id depends on the types and the order only, so that compiling again gives the same one.
            input.insert("id".into(), free_id(&kind, ids).into());
        }
        if kind != PROCESS {
            self.complete_collecting(input, index, outputs);
        }
        if !NO_PROCESSORS.iter().any(|other| kind.starts_with(other)) {
            self.add_global_tags(input);
        }
        let revision = self.input_revision(input);
        input.insert("revision".into(), revision);
    }

    /// Sets the output and the data namespace of an input that collects data. Processes have neither.
    fn complete_collecting(&mut self, input: &mut Map<String, Value>, index: usize, outputs: &mut Outputs) {
        let path = format!("{ROOT}.inputs.{index}");
        let wanted = input.get("use_output").and_then(Value::as_str).unwrap_or(DEFAULT).to_owned();
        // Agents skip a disabled input before they look up its output.
        let name = if input.get("enabled") == Some(&Value::Bool(false)) && outputs.is_empty() {
            wanted
        } else if outputs.is_empty() && wanted == DEFAULT {
            self.problems.advise(path, "there is no output for its data", NO_OUTPUT);
            wanted
        } else {
            self.use_output(outputs, &wanted, &format!("{path}.use_output"))
        };
        input.insert("use_output".into(), name.into());
        let mut data_stream = take_object(input, "data_stream");
        data_stream.entry("namespace").or_insert_with(|| self.namespace().into());
        input.insert("data_stream".into(), data_stream.into());
    }

    pub(super) fn namespace(&self) -> &str {
        let namespace = self.sources.policy.namespace.as_str();
        if namespace.is_empty() { "default" } else { namespace }
    }

    /// Adds a processor that sets the fields of `global_data_tags` on all events.
    fn add_global_tags(&self, input: &mut Map<String, Value>) {
        let tags = self.field("global_data_tags").and_then(Value::as_array).into_iter().flatten();
        let fields: Map<String, Value> =
            tags.filter_map(|tag| Some((tag.get("name")?.as_str()?.to_owned(), tag.get("value")?.clone()))).collect();
        if fields.is_empty() {
            return;
        }
        let adder = json!({"add_fields": {"target": "", "fields": fields}});
        match input.entry("processors").or_insert_with(|| json!([])) {
            Value::Array(processors) => processors.push(adder),
            other => *other = json!([other.take(), adder]),
        }
    }

    /// Returns the revision in which the input last changed, so that agents restart only changed inputs.
    fn input_revision(&self, input: &Map<String, Value>) -> Value {
        if let Some(given) = input.get("revision") {
            return given.clone();
        }
        let before = self.sources.previous.and_then(|previous| previous.get("inputs")).and_then(Value::as_array);
        let same = |other: &&Value| {
            let Value::Object(other) = other else { return false };
            // The compiled input of the previous revision has one more key, its `revision`.
            other.len() == input.len() + 1 && input.iter().all(|(key, value)| other.get(key) == Some(value))
        };
        let kept = before.into_iter().flatten().find(same).and_then(|other| other.get("revision"));
        kept.cloned().unwrap_or_else(|| self.sources.policy.revision.into())
    }
}

/// Removes the revisions of inputs, for comparing policies.
pub(super) fn forget_revisions(policy: &mut Map<String, Value>) {
    for input in policy.get_mut("inputs").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Value::Object(input) = input {
            input.remove("revision");
        }
    }
}

/// Generates an unused id: `TYPE-1`, `TYPE-2` …
fn free_id(kind: &str, taken: &mut HashSet<String>) -> String {
    let mut number = 1;
    loop {
        // Some types contain a slash, such as `system/metrics`.
        let id = format!("{}-{number}", kind.replace('/', "-"));
        if taken.insert(id.clone()) {
            return id;
        }
        number += 1;
    }
}
