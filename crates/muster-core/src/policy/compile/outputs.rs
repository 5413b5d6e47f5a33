//! Outputs of a policy: those of its configuration, and the output objects that it uses.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::agent::merge;
use super::network::add_proxy;
use super::{Draft, take_object};
use crate::id::OutputId;
use crate::network_object::Shared;
use crate::output::Output;
use crate::policy::bootstrap;
use crate::policy::check::is_elasticsearch;
use crate::policy::expand::expand_object;
use crate::policy::issuers::AGENT_KEYS;
use crate::policy::problem::Problems;
use crate::yaml;

/// Name of the output for inputs without `use_output`.
pub(super) const DEFAULT: &str = "default";

/// Fields of an output object that are not delivered to agents.
const NOT_FOR_AGENTS: [&str; 16] = [
    "allow_edit",
    "auth_type",
    "ca_trusted_fingerprint",
    "config_yaml",
    "connection_type",
    "description",
    "is_internal",
    "is_preconfigured",
    "kibana_api_key",
    "kibana_url",
    "proxy_id",
    "service_token",
    "shipper",
    "sync_integrations",
    "sync_uninstalled_integrations",
    "write_to_logs_streams",
];

/// An output of a compiled policy.
#[derive(Clone, Debug)]
pub(super) struct Resolved {
    /// What agents get.
    pub entry: Map<String, Value>,
    /// Type before it was rewritten for agents.
    pub kind: String,
    /// Output object that it was created from.
    pub record: Option<OutputId>,
    /// All of its fields, if it connects to Elasticsearch: what the server needs to create keys there.
    pub source: Option<Map<String, Value>>,
}

/// Outputs by their names in the compiled policy. Ordered, so that the same policy always compiles to the same text.
pub(super) type Outputs = BTreeMap<String, Resolved>;

impl<'a> Draft<'a> {
    /// Returns the outputs of the configuration and the default output object.
    pub(super) fn outputs(&mut self) -> Outputs {
        let configured = take_object(&mut self.config, "outputs");
        let configured_output = |(name, entry)| match entry {
            Value::Object(entry) => Some((name, Resolved::from_config(entry))),
            _ => None,
        };
        let mut outputs: Outputs = configured.into_iter().filter_map(configured_output).collect();
        // Looked up even if the configuration has a default output, to report an unknown id.
        let default = self.record_for("data_output_id", |output| output.is_default);
        if let Some(record) = default.filter(|_| !outputs.contains_key(DEFAULT)) {
            outputs.insert(DEFAULT.into(), Resolved::from_record(record, self.sources.shared));
        }
        outputs
    }

    /// Returns the output object that a field of the policy refers to, or the marked one if the field is absent.
    pub(super) fn record_for(&mut self, field: &str, is_marked: fn(&Output) -> bool) -> Option<&'a Output> {
        let records = &self.sources.shared.outputs;
        let Some(named) = self.field(field) else { return records.iter().find(|output| is_marked(output)) };
        let named = named.as_str().unwrap_or_default().to_owned();
        let found = records.iter().find(|output| output.id.as_str() == named);
        if found.is_none() {
            let ids: Vec<&str> = records.iter().map(|output| output.id.as_str()).collect();
            self.problems.unknown(field, "output", &named, &ids);
        }
        found
    }

    /// Resolves `wanted` to the name of an output in the compiled policy. It can be the name of a configured output, or
    /// the id or name of an output object, which is then added.
    pub(super) fn use_output(&mut self, outputs: &mut Outputs, wanted: &str, path: &str) -> String {
        // Names in the configuration take precedence over output objects of the same name.
        if outputs.contains_key(wanted) {
            return wanted.to_owned();
        }
        let records = &self.sources.shared.outputs;
        let Some(record) = records.iter().find(|output| output.id.as_str() == wanted || output.name == wanted) else {
            let known: Vec<&str> =
                outputs.keys().map(String::as_str).chain(records.iter().map(|output| output.name.as_str())).collect();
            self.problems.unknown(path, "output", wanted, &known);
            return wanted.to_owned();
        };
        add_record(outputs, record, self.sources.shared)
    }
}

/// Adds an output object unless it is already there, and returns its name in the policy.
pub(super) fn add_record(outputs: &mut Outputs, record: &Output, shared: &Shared) -> String {
    // The default output may be this object under the name `default`.
    if let Some((name, _)) = outputs.iter().find(|(_, output)| output.record.as_ref() == Some(&record.id)) {
        return name.clone();
    }
    outputs.insert(record.id.as_str().to_owned(), Resolved::from_record(record, shared));
    record.id.as_str().to_owned()
}

impl Resolved {
    /// Creates an output from the configuration.
    fn from_config(entry: Map<String, Value>) -> Self {
        let kind = entry.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
        Self::new(entry, kind, None)
    }

    fn from_record(record: &Output, shared: &Shared) -> Self {
        // Validated when the output was saved, so problems are impossible here.
        let mut checked = Problems::default();
        let mut entry = match record.fields.get("config_yaml").and_then(Value::as_str).map(yaml::parse_value) {
            Some(Ok(Value::Object(more))) => expand_object(more, "", &mut checked),
            _ => Map::new(),
        };
        let fields = expand_object(record.fields.as_object().cloned().unwrap_or_default(), "", &mut checked);
        let meant = |value: &Value| !value.is_null() && value.as_str() != Some("");
        let given = fields.iter().filter(|(name, value)| meant(value) && !NOT_FOR_AGENTS.contains(&name.as_str()));
        // The fields of the API take precedence over `config_yaml`.
        merge(&mut entry, given.map(|(name, value)| (name.clone(), value.clone())).collect());
        // A field of its own in the API, but a TLS setting for agents.
        if let Some(fingerprint) = record.fields.get("ca_trusted_fingerprint").filter(|value| meant(value)) {
            let mut ssl = take_object(&mut entry, "ssl");
            ssl.insert("ca_trusted_fingerprint".into(), fingerprint.clone());
            entry.insert("ssl".into(), ssl.into());
        }
        partition_for_agents(&mut entry);
        add_proxy(&mut entry, record.fields.get("proxy_id").and_then(Value::as_str), shared);
        Self::new(entry, record.kind.clone(), Some(record.id.clone()))
    }

    /// Rewrites the type for agents, which do not know `remote_elasticsearch`, and removes credentials that only the
    /// server uses (EA98).
    fn new(mut entry: Map<String, Value>, kind: String, record: Option<OutputId>) -> Self {
        let source = is_elasticsearch(&kind).then(|| entry.clone());
        let seen = if kind == "remote_elasticsearch" { "elasticsearch" } else { &kind };
        entry.insert("type".into(), seen.into());
        entry.remove("service_token");
        entry.remove(bootstrap::SECTION);
        entry.remove(AGENT_KEYS);
        let mut secrets = take_object(&mut entry, "secrets");
        secrets.retain(|name, _| !matches!(name.as_str(), "service_token" | "kibana_api_key" | bootstrap::SECTION));
        if !secrets.is_empty() {
            entry.insert("secrets".into(), secrets.into());
        }
        Self { entry, kind, record, source }
    }
}

/// Nests the settings of a Kafka partitioner below its type. The management API has both side by side.
fn partition_for_agents(entry: &mut Map<String, Value>) {
    let settings: Vec<(&str, Option<Value>)> =
        ["random", "round_robin", "hash"].into_iter().map(|kind| (kind, entry.remove(kind))).collect();
    let Some(chosen) = entry.get("partition").and_then(Value::as_str).map(str::to_owned) else { return };
    if let Some((kind, settings)) = settings.into_iter().find(|(kind, _)| *kind == chosen) {
        let settings = settings.unwrap_or_else(|| Value::Object(Map::new()));
        entry.insert("partition".into(), Value::Object([(kind.to_owned(), settings)].into_iter().collect()));
    }
}
