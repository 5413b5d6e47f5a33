//! What a page offers to copy for Terraform, with the provider `elastic/elasticstack` (MG172).

use muster_core::id::SpaceId;
use muster_core::policy::Policy;
use serde_json::{Map, Value, json};

use crate::visitor::Visitor;

/// Names and values of attributes; `null`, empty texts and empty lists are left out.
pub type Attributes = Vec<(&'static str, Value)>;

/// Returns a resource whose label is made from its name.
pub fn resource(visitor: &Visitor, kind: &str, name: &str, attributes: Attributes) -> String {
    let named = [vec![("name", json!(name))], attributes].concat();
    block(visitor, &format!("resource \"{kind}\" \"{}\"", label(name)), &named)
}

/// Returns the resource of an agent policy.
pub fn policy(visitor: &Visitor, policy: &Policy) -> String {
    let monitored = |signal: &str| match policy.fields["monitoring_enabled"].as_array() {
        None => Value::Null,
        Some(signals) => signals.iter().any(|one| one == signal).into(),
    };
    let mut attributes = vec![
        ("namespace", json!(policy.namespace)),
        ("description", json!(policy.description)),
        ("monitor_logs", monitored("logs")),
        ("monitor_metrics", monitored("metrics")),
    ];
    let references = ["data_output_id", "monitoring_output_id", "fleet_server_host_id", "download_source_id"];
    attributes.extend(references.map(|name| (name, policy.fields[name].clone())));
    let text = resource(visitor, "elasticstack_fleet_agent_policy", &policy.name, attributes);
    format!("# The provider has no attribute for `config`: `muster policy apply` changes it.\n{text}")
}

/// Returns the data source of the enrollment keys of a policy.
pub fn enrollment_keys(visitor: &Visitor, policy: &str) -> String {
    block(visitor, "data \"elasticstack_fleet_enrollment_tokens\" \"this\"", &[("policy_id", json!(policy))])
}

fn block(visitor: &Visitor, head: &str, attributes: &[(&str, Value)]) -> String {
    let shown: Vec<_> = attributes.iter().filter(|(_, value)| !is_empty(value)).collect();
    let width = shown.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let lines: String = shown.iter().map(|(name, value)| format!("  {name:width$} = {}\n", written(value))).collect();
    let space = match visitor.context.space() {
        space if *space == SpaceId::default() => String::new(),
        space => format!("# The endpoint of the provider is $MUSTER_URL/s/{space}.\n"),
    };
    format!("{space}{head} {{\n{lines}}}\n")
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

fn written(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(items) => format!("[{}]", items.iter().map(written).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => written_map(members),
        other => other.to_string(),
    }
}

fn written_map(members: &Map<String, Value>) -> String {
    let pairs = members.iter().map(|(name, value)| format!("{} = {}", quoted(name), written(value)));
    format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
}

/// Quotes a string. Its escapes are those of JSON, except for two; `${` and `%{` would begin a template.
fn quoted(text: &str) -> String {
    let json = Value::from(text.replace("${", "$${").replace("%{", "%%{")).to_string();
    json.replace("\\b", "\\u0008").replace("\\f", "\\u000c")
}

/// Returns a label with the letters and digits of a name.
fn label(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    let label: String = name.chars().map(plain).collect();
    let label = label.trim_matches('_');
    match label.chars().next() {
        Some(first) if first.is_ascii_alphabetic() => label.to_owned(),
        Some(_) => format!("_{label}"),
        None => "this".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_not_templates() {
        assert_eq!(quoted("a\"b\\c\n"), r#""a\"b\\c\n""#);
        assert_eq!(quoted("${env.X} %{ if } $x"), r#""$${env.X} %%{ if } $x""#);
        assert_eq!(written(&json!({"X-A": ["b", true, 7]})), r#"{ "X-A" = ["b", true, 7] }"#);
    }

    #[test]
    fn labels_are_identifiers() {
        for (name, expected) in
            [("Web servers (EU)", "web_servers__eu"), ("7up", "_7up"), ("日本", "this"), ("", "this")]
        {
            assert_eq!(label(name), expected);
        }
    }
}
