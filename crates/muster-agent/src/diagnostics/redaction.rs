//! Redaction of a policy: only values of fields that are known to be harmless are shown (AG147). Integrations name their
//! fields as they like, so that a list of secret names would always lack one.

use serde_json::Value;

/// What stands in place of a value.
pub(super) const REDACTED: &str = "[redacted]";
/// Fields whose values are shown, without the user information of URLs. Numbers and strings of all other fields are not.
const SHOWN: [&str; 64] = [
    "action",
    "allow_older_versions",
    "backoff",
    "bulk_max_size",
    "ca_trusted_fingerprint",
    "cluster",
    "command",
    "compression",
    "compression_level",
    "condition",
    "data_output_id",
    "dataset",
    "exclude_files",
    "format",
    "group",
    "host",
    "hosts",
    "id",
    "indices",
    "init",
    "interval",
    "keepfiles",
    "level",
    "limits",
    "loadbalance",
    "log_level",
    "max",
    "memory",
    "metricsets",
    "mode",
    "monitoring_output_id",
    "name",
    "names",
    "namespace",
    "os",
    "output",
    "path",
    "paths",
    "period",
    "policy_id",
    "port",
    "preset",
    "privileges",
    "processes",
    "proxy_url",
    "queue",
    "restart",
    "revision",
    "schedule",
    "secret_paths",
    "servers",
    "service",
    "signed_at",
    "sourceURI",
    "state",
    "stop_timeout",
    "tags",
    "timeout",
    "type",
    "url",
    "use_output",
    "verification_mode",
    "version",
    "worker",
];
/// Sections whose fields have names that users choose: one could be called `id`. Arguments can contain anything.
const HIDDEN: [&str; 8] = ["args", "auth", "env", "fields", "headers", "proxy_headers", "secrets", "vars"];
/// Words in the names of fields that contain secrets.
const SECRET_WORDS: [&str; 17] = [
    "access_key",
    "api_key",
    "authorization",
    "bearer",
    "community",
    "connection_string",
    "cookie",
    "credential",
    "dsn",
    "header",
    "passphrase",
    "passwd",
    "password",
    "private",
    "pwd",
    "secret",
    "token",
];

/// Redacts a policy.
pub fn redacted(mut policy: Value) -> Value {
    for path in secret_paths(&policy) {
        if let Some(value) = policy.pointer_mut(&path) {
            *value = REDACTED.into();
        }
    }
    // The signed copy contains the same policy, in base64, with the hash of the uninstall token.
    if let Some(signed) = policy.get_mut("signed").filter(|signed| !signed.is_null()) {
        *signed = REDACTED.into();
    }
    hide(&mut policy, "");
    policy
}

/// Returns the paths at which the server inserted secrets, as JSON pointers.
pub(super) fn secret_paths(policy: &Value) -> Vec<String> {
    let paths = policy["secret_paths"].as_array().into_iter().flatten();
    paths.filter_map(|path| path.as_str().map(|path| format!("/{}", path.replace('.', "/")))).collect()
}

/// Returns whether a field with this name contains a secret.
pub(super) fn is_secret(name: &str) -> bool {
    let lower = name.to_lowercase();
    let is_one = ["env", "key", "pass"].contains(&lower.as_str());
    is_one || SECRET_WORDS.iter().any(|word| lower.contains(word)) && name != "secret_paths"
}

/// Redacts the value of a field. Items of a list belong to the field of the list.
fn hide(value: &mut Value, name: &str) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, name)),
        Value::Object(fields) => {
            for (name, value) in fields {
                if HIDDEN.contains(&name.as_str()) || is_secret(name) {
                    *value = REDACTED.into();
                } else {
                    hide(value, name);
                }
            }
        }
        Value::String(text) if SHOWN.contains(&name) => *text = without_user(text),
        Value::Number(_) if SHOWN.contains(&name) => {}
        Value::String(_) | Value::Number(_) => *value = REDACTED.into(),
    }
}

/// Removes the user information and the query of a URL, and of what databases use in its place.
fn without_user(text: &str) -> String {
    let (address, query) = match text.split_once('?').filter(|_| text.contains("://")) {
        Some((address, _)) => (address, format!("?{REDACTED}")),
        None => (text, String::new()),
    };
    let start = address.find("://").map_or(0, |place| place + 3);
    match address[start..].rfind('@') {
        Some(at) => format!("{}{REDACTED}{}{query}", &address[..start], &address[start + at..]),
        None => format!("{address}{query}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ag147_a_bundle_contains_no_secret_of_the_policy() {
        let policy = json!({"secret_paths": ["inputs.0.deep.word"], "outputs": {"default": {"api_key": "s1", "hosts": ["h"]}},
            "signed": {"data": "s5", "signature": "x"}, "inputs": [{"id": "x", "deep": {"word": "s2"}, "env": {"A": "s3"}, "Password": "s4"}]});
        let text = redacted(policy).to_string();
        for secret in ["s1", "s2", "s3", "s4", "s5"] {
            assert!(!text.contains(&format!("{secret:?}")), "{text}");
        }
        assert!(text.contains("\"h\"") && text.contains("\"x\""));
    }

    #[test]
    fn ag147_secrets_of_fields_with_any_name_are_redacted() {
        let policy = json!({
            "outputs": {"default": {"type": "elasticsearch", "hosts": ["https://u:CANARY@es:9200"],
                "proxy_url": "http://user:CANARY@p:3128", "headers": {"Cookie": "CANARY", "X-Auth-Foo": "CANARY", "id": "CANARY"},
                "proxy_headers": {"X-Foo": "CANARY"}}},
            "inputs": [{"id": "sql", "type": "sql/metrics", "passwd": "CANARY", "pwd": "CANARY", "number": 31415,
                "auth": {"basic": {"pass": "CANARY"}}, "dsn": "root:CANARY@tcp(db)/", "connection_string": "CANARY",
                "bearer": "CANARY", "cookie": "CANARY", "community": "CANARY", "access_key_id": "CANARY", "whatever": "CANARY",
                "hosts": ["postgres://user:CANARY@db/x", "root:CANARY@tcp(db)/", "https://db/x?password=CANARY"],
                "streams": [{"data_stream": {"dataset": "sql.x"}, "period": "10s", "list": ["CANARY"]}]},
                {"id": "p", "type": "process", "command": "/bin/x", "args": ["--password=CANARY"], "enabled": true}]});
        let shown = redacted(policy);
        let text = shown.to_string();
        assert!(!text.contains("CANARY") && !text.contains("31415"), "{text}");
        assert_eq!(shown["outputs"]["default"]["hosts"][0], "https://[redacted]@es:9200");
        let hosts = json!(["postgres://[redacted]@db/x", "[redacted]@tcp(db)/", "https://db/x?[redacted]"]);
        assert_eq!(shown["inputs"][0]["hosts"], hosts);
        let known = json!([{"data_stream": {"dataset": "sql.x"}, "period": "10s", "list": [REDACTED]}]);
        assert_eq!(shown["inputs"][0]["streams"], known);
        assert_eq!((&shown["inputs"][1]["command"], &shown["inputs"][1]["enabled"]), (&json!("/bin/x"), &json!(true)));
    }
}
