//! `output_permissions`: privileges of an agent in the Elasticsearch clusters of its outputs.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::outputs::Outputs;
use super::{Draft, ROOT, take_object};
use crate::policy::check::is_elasticsearch;

impl Draft<'_> {
    /// Returns the permissions of every Elasticsearch output, and of no other (EA105): those of the configuration, or
    /// those that the inputs need.
    pub(super) fn permissions(
        &mut self,
        outputs: &Outputs,
        inputs: &[Value],
        agent: &Map<String, Value>,
    ) -> Map<String, Value> {
        let mut given = take_object(&mut self.config, "output_permissions");
        let mut permissions = Map::new();
        for (name, _) in outputs.iter().filter(|(_, output)| is_elasticsearch(&output.kind)) {
            let roles = given.remove(name).unwrap_or_else(|| self.needed(name, inputs, agent));
            permissions.insert(name.clone(), roles);
        }
        let known: Vec<&str> = permissions.keys().map(String::as_str).collect();
        // What is left refers to no Elasticsearch output, most likely because of a typo.
        for name in given.keys() {
            self.problems.unknown(format!("{ROOT}.output_permissions.{name}"), "Elasticsearch output", name, &known);
        }
        permissions
    }

    fn needed(&self, output: &str, inputs: &[Value], agent: &Map<String, Value>) -> Value {
        let mut roles = Map::new();
        roles.insert("_elastic_agent_checks".into(), json!({"cluster": ["monitor"]}));
        if let Some(monitoring) = agent.get("monitoring").filter(|monitoring| monitoring["use_output"] == output) {
            roles.extend(monitoring_role(monitoring).map(|role| ("_elastic_agent_monitoring".to_owned(), role)));
        }
        for input in inputs.iter().filter(|input| input["use_output"] == output) {
            let id = input["id"].as_str().unwrap_or_default().to_owned();
            roles.insert(id, writes(&input_indices(input)));
        }
        roles.into()
    }
}

fn writes(names: &BTreeSet<String>) -> Value {
    json!({"indices": [{"names": names, "privileges": ["auto_configure", "create_doc"]}]})
}

/// Returns the role for writing the agent's own logs, metrics and traces; `None` if none is enabled.
fn monitoring_role(monitoring: &Value) -> Option<Value> {
    let namespace = monitoring["namespace"].as_str().unwrap_or("default");
    let on = ["logs", "metrics", "traces"].into_iter().filter(|signal| monitoring[*signal] == Value::Bool(true));
    let names: BTreeSet<String> = on.map(|signal| format!("{signal}-elastic_agent*-{namespace}")).collect();
    (monitoring["enabled"] == Value::Bool(true) && !names.is_empty()).then(|| writes(&names))
}

/// Returns the data streams that an input writes to: those of its streams, or all of its data namespace if it has none.
fn input_indices(input: &Value) -> BTreeSet<String> {
    let streams = input["streams"].as_array().filter(|streams| !streams.is_empty());
    match streams {
        Some(streams) => streams.iter().map(|stream| index(input, &stream["data_stream"])).collect(),
        // Inputs without streams write to data streams that only their program knows, hence the wildcards.
        None => BTreeSet::from([index(input, &Value::Null)]),
    }
}

fn index(input: &Value, stream: &Value) -> String {
    let part = |key: &str| stream[key].as_str().or(input["data_stream"][key].as_str());
    let namespace = part("namespace").unwrap_or("default");
    format!("{}-{}-{namespace}", part("type").unwrap_or("*"), part("dataset").unwrap_or("*"))
}
