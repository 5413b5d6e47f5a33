//! Differences between two versions of a policy, as pages show them.

use std::collections::BTreeSet;

use muster_core::policy::diff::Difference;
use serde_json::Value;

use super::text::{is_invisible, plain};

/// Maximum number of differences on a page.
const SHOWN: usize = 200;
/// Maximum length of a value in a difference, characters.
const LONGEST: usize = 4_000;

/// A difference.
pub struct Change {
    /// JSON pointer to the value.
    pub path: String,
    /// Value before, as YAML.
    pub before: Option<String>,
    /// Value after, as YAML.
    pub after: Option<String>,
}

/// Differences between two versions.
#[derive(Default)]
pub struct Changes {
    /// Those that the page shows.
    pub rows: Vec<Change>,
    /// Number of differences that the page does not show.
    pub more: usize,
    /// Outputs and servers that agents connect to, as far as the differences concern them.
    pub connections: Vec<String>,
}

impl Changes {
    /// Prepares differences for a page.
    pub fn of(found: Vec<Difference>) -> Self {
        let more = found.len().saturating_sub(SHOWN);
        let connections: BTreeSet<String> = found.iter().filter_map(|one| connection(&one.path)).collect();
        let rows = found.into_iter().take(SHOWN).map(change).collect();
        Self { rows, more, connections: connections.into_iter().collect() }
    }
}

fn change(difference: Difference) -> Change {
    let text = |value: Option<Value>| value.map(|value| shown(&value));
    Change { path: difference.path, before: text(difference.before), after: text(difference.after) }
}

fn shown(value: &Value) -> String {
    let text = plain(value);
    // As JSON, so that two values that differ in such a character do not look alike.
    let text = if text.chars().any(is_invisible) { value.to_string() } else { text };
    if text.chars().count() <= LONGEST { text } else { text.chars().take(LONGEST).chain(['…']).collect() }
}

/// Returns what a difference changes about where agents connect to.
fn connection(path: &str) -> Option<String> {
    // A dotted key is one step of the path.
    let dotted = path.trim_start_matches('/').replace('/', ".");
    let steps: Vec<&str> = dotted.split('.').collect();
    match steps[..] {
        ["config", "outputs"] => Some("all outputs".to_owned()),
        ["config", "outputs", name] => Some(format!("the output {name}")),
        ["config", "outputs", name, field, ..] => Some(format!("the output {name}: {field}")),
        ["config", "fleet", ..] | ["fields", "fleet_server_host_id"] | ["fleet_server_host_id"] => {
            Some("the servers that agents check in with".to_owned())
        }
        ["fields", "data_output_id"] | ["data_output_id"] => Some("the output for data".to_owned()),
        ["fields", "monitoring_output_id"] | ["monitoring_output_id"] => Some("the output for monitoring".to_owned()),
        ["fields", "download_source_id"] | ["download_source_id"] => Some("the download source".to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changed_outputs_and_hosts_are_named() {
        let one = |path: &str| Difference { path: path.into(), before: None, after: Some(json!("x")) };
        let found = [
            "/config/outputs/default/hosts/0",
            "/config/outputs/default/hosts/1",
            "/config/outputs.other.hosts",
            "/config/inputs/a",
            "/fleet_server_host_id",
        ];
        let changes = Changes::of(found.map(one).into());
        let expected =
            ["the output default: hosts", "the output other: hosts", "the servers that agents check in with"];
        assert_eq!((changes.connections, changes.rows.len()), (expected.map(String::from).into(), 5));
        let many = Changes::of(vec![one("/x"); 205]);
        assert_eq!((many.rows.len(), many.more), (200, 5));
    }
}
