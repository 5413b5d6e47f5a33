//! `output_permissions`: privileges of an agent in the Elasticsearch clusters of its outputs.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::outputs::Outputs;
use super::{Draft, ROOT, take_object};
use crate::policy::check::is_elasticsearch;
use crate::policy::render::EXPORTER;

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
        let exported = self.exported(output);
        if !exported.is_empty() {
            roles.insert("_opentelemetry_collector".into(), writes(&exported));
        }
        roles.into()
    }

    /// Returns the data streams that the collector's pipelines write to through this output: those of their signal. The
    /// dataset depends on attributes of the data.
    fn exported(&self, output: &str) -> BTreeSet<String> {
        let exporter = format!("{EXPORTER}{output}");
        let pipelines = self.config.get("service").and_then(|service| service["pipelines"].as_object());
        let uses = |pipeline: &Value| {
            pipeline["exporters"].as_array().into_iter().flatten().any(|name| name.as_str() == Some(&exporter))
        };
        let used = pipelines.into_iter().flatten().filter(|(_, pipeline)| uses(pipeline));
        let patterns = used.flat_map(|(name, _)| match name.split('/').next().unwrap_or_default() {
            "metrics" => vec!["metrics-*"],
            // Events of spans are logs.
            "traces" => vec!["traces-*", "logs-*"],
            "profiles" => vec!["profiling-*"],
            _ => vec!["logs-*"],
        });
        patterns.map(str::to_owned).collect()
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
        Some(streams) => streams.iter().flat_map(|stream| indices(input, &stream["data_stream"])).collect(),
        None => indices(input, &Value::Null).into_iter().collect(),
    }
}

fn indices(input: &Value, stream: &Value) -> Vec<String> {
    let part = |key: &str| stream[key].as_str().or(input["data_stream"][key].as_str());
    let (dataset, namespace) = (part("dataset").unwrap_or("*"), part("namespace").unwrap_or("default"));
    // A pattern that begins with `*` would include indices that are no data streams of agents at all.
    let types = match part("type") {
        Some(one) => vec![one],
        None => implied_types(input["type"].as_str().unwrap_or_default()),
    };
    types.into_iter().map(|one| format!("{one}-{dataset}-{namespace}")).collect()
}

/// Returns the types of data streams that an input of this type writes to if it does not say so.
fn implied_types(input: &str) -> Vec<&'static str> {
    match input {
        _ if input.ends_with("/metrics") => vec!["metrics"],
        _ if input.starts_with("synthetics/") => vec!["synthetics"],
        "filestream" | "journald" | "logfile" | "log" | "syslog" | "tcp" | "udp" | "unix" | "winlog" => vec!["logs"],
        "apm" => vec!["traces", "metrics", "logs"],
        _ => vec!["logs", "metrics"],
    }
}
