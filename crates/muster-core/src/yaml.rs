//! YAML as people write it: policy files and the `config_yaml` of outputs.
//!
//! Strict and bounded: no aliases and anchors, no merge keys, no duplicate keys, no unknown fields, one document.
//! Every refusal tells line and column; [`Places`] has them for what is found wrong later.

mod places;
mod secrets;

use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{DuplicateKeyPolicy, Location, MergeKeyPolicy, Options};

use crate::policy::problem::{nearest, shortened};

pub use places::Places;
pub use secrets::{plain_secrets, with_references};

/// Greatest length of a file, bytes.
pub const MAX_BYTES: usize = 4 << 20;

/// Deepest nesting of a file.
const MAX_DEPTH: usize = 64;

/// Why a text is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlError {
    /// From 1; 0 when the whole text is meant.
    pub line: u64,
    /// From 1; 0 when the whole text is meant.
    pub column: u64,
    /// Dotted path of the field concerned, as far as it was read; empty at the top.
    pub path: String,
    /// What is wrong.
    pub reason: String,
}

/// A policy as a file (`muster policy apply -f FILE`).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: Option<String>,
    /// The data namespace.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Words to find it by.
    #[serde(default)]
    pub tags: Vec<String>,
    /// What is not part of an agent's configuration.
    #[serde(default)]
    pub settings: PolicySettings,
    /// An object in the format of a standalone Elastic Agent's configuration.
    #[serde(default)]
    pub config: Option<Value>,
}

/// Settings of a policy beside its configuration: the fields of the management API, under their names.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySettings {
    /// Refuses changes unless forced.
    pub is_managed: Option<bool>,
    /// Given to agents that come without a policy.
    pub is_default: Option<bool>,
    /// Tamper protection.
    pub is_protected: Option<bool>,
    /// Seconds without a check-in until inactive; 0: never.
    pub inactivity_timeout: Option<i64>,
    /// Seconds of inactivity until unenrolled.
    pub unenroll_timeout: Option<i64>,
    /// `logs`, `metrics`, `traces`.
    pub monitoring_enabled: Option<Vec<String>>,
    /// Keeps the monitoring endpoint although nothing is monitored.
    pub keep_monitoring_alive: Option<bool>,
    /// Profiles at the monitoring endpoint.
    pub monitoring_pprof_enabled: Option<bool>,
    /// The monitoring endpoint.
    pub monitoring_http: Option<Map<String, Value>>,
    /// Limits of diagnostics.
    pub monitoring_diagnostics: Option<Map<String, Value>>,
    /// The output object for data.
    pub data_output_id: Option<String>,
    /// The output object for monitoring data.
    pub monitoring_output_id: Option<String>,
    /// Features by name.
    pub agent_features: Option<Vec<Value>>,
    /// Settings of the agent itself.
    pub advanced_settings: Option<Map<String, Value>>,
    /// Fields added to everything.
    pub global_data_tags: Option<Vec<Value>>,
    /// Laid over the compiled policy.
    pub overrides: Option<Map<String, Value>>,
    /// Versions that agents are to be brought to.
    pub required_versions: Option<Vec<Value>>,
}

impl PolicySettings {
    /// Those that have no field of their own in a policy's record, under their names.
    pub fn into_fields(self) -> Map<String, Value> {
        let list = |items: Option<Vec<String>>| items.map(|items| items.into_iter().collect());
        let fields: [(&str, Option<Value>); 13] = [
            ("is_protected", self.is_protected.map(Value::from)),
            ("monitoring_enabled", list(self.monitoring_enabled)),
            ("keep_monitoring_alive", self.keep_monitoring_alive.map(Value::from)),
            ("monitoring_pprof_enabled", self.monitoring_pprof_enabled.map(Value::from)),
            ("monitoring_http", self.monitoring_http.map(Value::from)),
            ("monitoring_diagnostics", self.monitoring_diagnostics.map(Value::from)),
            ("data_output_id", self.data_output_id.map(Value::from)),
            ("monitoring_output_id", self.monitoring_output_id.map(Value::from)),
            ("agent_features", self.agent_features.map(Value::from)),
            ("advanced_settings", self.advanced_settings.map(Value::from)),
            ("global_data_tags", self.global_data_tags.map(Value::from)),
            ("overrides", self.overrides.map(Value::from)),
            ("required_versions", self.required_versions.map(Value::from)),
        ];
        fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// Reads a policy file.
pub fn parse_policy_file(text: &str) -> Result<PolicyFile, YamlError> {
    parse(text)
}

/// Reads any value, such as an output's `config_yaml`.
pub fn parse_value(text: &str) -> Result<Value, YamlError> {
    parse(text)
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    if text.len() > MAX_BYTES {
        let reason = format!("longer than {MAX_BYTES} bytes");
        return Err(YamlError { line: 0, column: 0, path: String::new(), reason });
    }
    let mut path = String::new();
    serde_saphyr::with_deserializer_from_str_with_options(text, options(), |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            path = error.path().to_string().replace('[', ".").replace(']', "");
            error.into_inner()
        })
    })
    .map_err(|error| refusal(&error, &path))
}

fn options() -> Options {
    serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        reject_unsupported_tags: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_aliases: 0,
            max_anchors: 0,
            max_depth: MAX_DEPTH,
            max_documents: 1,
            max_nodes: 100_000,
            max_total_scalar_bytes: MAX_BYTES,
            max_merge_keys: 0,
        },
    }
}

fn refusal(error: &serde_saphyr::Error, path: &str) -> YamlError {
    let location = error.location().unwrap_or(Location::UNKNOWN);
    // The path ends in `?` where a key was being read, and is `.` at the top.
    let path = path.trim_end_matches(['?', '.']).to_owned();
    YamlError { line: location.line(), column: location.column(), path, reason: reason(error) }
}

/// Our own words where the parser's would not help the person who wrote the file.
fn reason(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error as E;
    match error.without_snippet() {
        E::DuplicateMappingKey { key: Some(key), .. } => format!("duplicate key `{}`", shortened(key)),
        E::DuplicateMappingKey { key: None, .. } => "duplicate key".to_owned(),
        E::SerdeUnknownField { field, expected, .. } => unknown_field(field, expected),
        E::Budget { breach: BudgetBreach::Aliases { .. } | BudgetBreach::Anchors { .. }, .. } => {
            "aliases and anchors are not allowed; write the value out".to_owned()
        }
        E::Budget { breach: BudgetBreach::Documents { .. }, .. } => "more than one document".to_owned(),
        E::Budget { .. } => "larger or deeper than a file may be".to_owned(),
        other => {
            let options = serde_saphyr::render_options! { snippets: serde_saphyr::SnippetMode::Off };
            // The position stands in fields of its own.
            other.render_with_options(options).split(" at line ").next().unwrap_or_default().chars().take(300).collect()
        }
    }
}

fn unknown_field(field: &str, expected: &[&str]) -> String {
    let hint = match nearest(field, expected) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known: {}", expected.join(", ")),
    };
    format!("unknown field `{}`; {hint}", shortened(field))
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}, column {}: ", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)
    }
}

impl std::error::Error for YamlError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> YamlError {
        let error = parse_policy_file(text).unwrap_err();
        assert!(error.reason.len() < 500);
        error
    }

    const WHOLE: &str = "\
name: web
description: Servers of the shop
namespace: prod
tags: [shop, web]
settings:
  inactivity_timeout: 3600
  monitoring_enabled: [logs]
config:
  inputs:
    - type: filestream
      streams:
        - paths: ['/var/log/*.log']
          on: yes
";

    #[test]
    fn a_whole_file_is_read() {
        let file = parse_policy_file(WHOLE).unwrap();
        assert_eq!((file.name.as_str(), file.tags.len()), ("web", 2));
        assert_eq!(file.settings.inactivity_timeout, Some(3600));
        assert_eq!(file.settings.into_fields()["monitoring_enabled"], serde_json::json!(["logs"]));
        assert_eq!(file.config.unwrap()["inputs"][0]["streams"][0]["on"], "yes");
    }

    #[test]
    fn aliases_anchors_and_merge_keys_are_refused_with_their_place() {
        let error = refused("name: a\nconfig:\n  x: &anchor 1\n  y: *anchor\n");
        assert_eq!((error.line, error.reason.contains("aliases")), (3, true));
        let error = refused("name: a\nconfig:\n  <<: {a: 1}\n");
        assert_eq!(error.line, 3);
    }

    #[test]
    fn duplicate_keys_are_refused_with_their_place() {
        let error = refused("name: a\nconfig:\n  inputs: []\n  inputs: []\n");
        assert_eq!((error.line, error.column), (4, 3));
        assert_eq!((error.path.as_str(), error.reason.as_str()), ("config", "duplicate key `inputs`"));
        assert_eq!(refused("name: a\nname: b\n").line, 2);
    }

    #[test]
    fn unknown_fields_are_refused_with_their_place() {
        let error = refused("name: a\nsetings: {}\n");
        assert_eq!((error.line, error.column), (2, 1));
        assert_eq!(error.to_string(), "line 2, column 1: setings: unknown field `setings`; did you mean `settings`?");
        let error = refused("name: a\nsettings:\n  inactivity: 5\n");
        assert_eq!((error.line, error.column), (3, 3));
        assert!(error.path.starts_with("settings"));
    }

    #[test]
    fn bad_values_are_refused_with_place_and_path() {
        let error = refused("name: a\nsettings:\n  inactivity_timeout: soon\n");
        assert_eq!((error.line, error.path.as_str()), (3, "settings.inactivity_timeout"));
        assert_eq!(refused("description: x\n").path, "");
        assert!(refused("description: x\n").reason.contains("name"));
        assert_eq!(refused("name: a\nconfig: {a: !odd 1}\n").line, 2);
    }

    #[test]
    fn bombs_and_second_documents_are_refused_at_once() {
        let deep = format!("name: a\nconfig: {}1{}\n", "[".repeat(10_000), "]".repeat(10_000));
        refused(&deep);
        let wide = format!("name: a\nconfig: [{}]\n", "1,".repeat(200_000));
        refused(&wide);
        assert!(refused(&"x".repeat(MAX_BYTES + 1)).reason.contains("longer"));
        refused("name: a\n---\nname: b\n");
        refused("name: [\n");
    }
}
