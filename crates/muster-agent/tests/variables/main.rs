//! Variables of container runtimes and clusters, against servers that stand in for their APIs.

#![allow(clippy::unwrap_used, reason = "tests")]

mod api;
mod docker;
mod kubernetes;

use std::time::Duration;

use muster_agent::model::Document;
use muster_agent::paths::Layout;
use muster_agent::settings::Settings;
use muster_agent::variables::providers::HostVariables;
use muster_agent::variables::used::Used;
use muster_agent::variables::{VariableSets, Variables as _};
use serde_json::{Value, json};

/// The providers of a host, with these settings.
fn providers(directory: &std::path::Path, settings: &str) -> HostVariables {
    providers_of(directory, settings, "agent-1")
}

/// The same, of an agent with this id.
fn providers_of(directory: &std::path::Path, settings: &str, agent_id: &str) -> HostVariables {
    let layout = Layout::new(camino::Utf8Path::from_path(directory).unwrap());
    std::fs::write(layout.settings(), settings).unwrap();
    let settings = Settings::load(&layout.settings(), &[]).unwrap();
    HostVariables::new(&layout, &settings.providers, agent_id)
}

/// The variables of a policy with this text.
fn used(text: &str) -> Used {
    Used::of(&Document { inputs: vec![json!({"id": "a", "type": "log", "x": text})], ..Document::default() })
}

/// Waits until the variables are as expected.
async fn until(variables: &HostVariables, expected: impl Fn(&VariableSets) -> bool) -> VariableSets {
    let wait = async {
        loop {
            let sets = variables.sets();
            if expected(&sets) {
                return sets;
            }
            variables.changed().await;
        }
    };
    let Ok(sets) = tokio::time::timeout(Duration::from_secs(20), wait).await else {
        panic!("{:?} {:?}", variables.sets().dynamic, variables.faults())
    };
    sets
}

/// Waits until the faults are as expected.
async fn until_faults(variables: &HostVariables, expected: impl Fn(&[String]) -> bool) -> Vec<String> {
    until(variables, |_| expected(&variables.faults())).await;
    variables.faults()
}

/// Returns one value of each dynamic set.
fn values(sets: &VariableSets, name: &str) -> Vec<Value> {
    let mut found: Vec<Value> = sets.scopes().filter_map(|scope| scope.get(name).cloned()).collect();
    found.sort_by_key(Value::to_string);
    found.dedup();
    found
}
