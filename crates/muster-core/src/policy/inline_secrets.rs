//! Secrets that people write into the configuration of a policy: passwords, tokens and private keys. They are taken out
//! before the policy is stored, and replaced by references to secrets of the policy (EA §4.8).
//!
//! Secrets are recognized by the names of their fields, as in [`crate::yaml`], or as URLs with a password, and only in the
//! sections in which references work (EA97).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use zeroize::Zeroizing;

use crate::hex;
use crate::secret_refs::{OPEN, OTEL_COMPONENTS, inline_names, join};
use crate::yaml;

/// Prefix of the names of these secrets.
const PREFIX: &str = "inline.";
/// Maximum length of a secret's name that is taken from a path as it is, bytes.
const MAX_NAME: usize = 64;

/// Takes the secrets out of a configuration. Returns their values by the name that the references have now.
pub fn take_out(config: &mut Value) -> BTreeMap<String, Zeroizing<String>> {
    let mut found = BTreeMap::new();
    walk(config, "", &mut found);
    found
}

/// Returns those of `names` that an earlier version of the configuration had and this one does not refer to.
pub fn obsolete<'a>(names: impl Iterator<Item = &'a str>, config: &Value) -> Vec<String> {
    let used: BTreeSet<String> = inline_names(config);
    names.filter(|name| name.starts_with(PREFIX) && !used.contains(*name)).map(str::to_owned).collect()
}

fn walk(value: &mut Value, path: &str, found: &mut BTreeMap<String, Zeroizing<String>>) {
    match value {
        Value::Object(fields) => {
            // References by path are no secrets themselves.
            for (name, field) in fields.iter_mut().filter(|(name, _)| *name != "secrets") {
                walk(field, &join(path, name), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                walk(item, &join(path, &index.to_string()), found);
            }
        }
        scalar => {
            if let Some(secret) = secret_of(scalar, path) {
                let name = name_of(path);
                *scalar = format!("{OPEN}{name}}}").into();
                found.insert(name, secret);
            }
        }
    }
}

/// Returns the secret in a field, if it is one.
fn secret_of(value: &Value, path: &str) -> Option<Zeroizing<String>> {
    if !takes_references(path) {
        return None;
    }
    match value {
        Value::String(text) if has_password(text) && !path.starts_with("outputs.") => {
            Some(Zeroizing::new(text.clone()))
        }
        _ if !yaml::is_secret(path) => None,
        Value::String(text) if text.is_empty() || text.contains(OPEN) || is_variable(text) => None,
        Value::String(text) => Some(Zeroizing::new(text.clone())),
        // A password of digits. Other numbers with such names are limits, like `max_tokens`.
        Value::Number(number) if path.ends_with("password") || path.ends_with("passphrase") => {
            Some(Zeroizing::new(number.to_string()))
        }
        _ => None,
    }
}

/// Returns whether a text is a URL with a password: `https://USER:PASSWORD@HOST`. It is taken out as a whole, except in
/// outputs, whose addresses the server itself uses.
fn has_password(text: &str) -> bool {
    let user_info = text.split_once("://").and_then(|(_, rest)| {
        let authority = rest.split(['/', '?', '#']).next()?;
        Some(authority.rsplit_once('@')?.0)
    });
    let password = user_info.and_then(|user_info| user_info.split_once(':'));
    password.is_some_and(|(_, password)| !password.is_empty() && !password.contains("${")) && !text.contains(OPEN)
}

/// Returns whether references work at a path (EA97). Dotted keys are compared as they are: they have the same path.
fn takes_references(path: &str) -> bool {
    let within = |section: &str| path.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'));
    ["outputs", "inputs", "fleet", "agent.download"].into_iter().chain(OTEL_COMPONENTS).any(within)
}

/// Returns whether a text is a variable and nothing else, which stands for the secret on the agent's host.
fn is_variable(text: &str) -> bool {
    let inner = text.trim().strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    inner.is_some_and(|inner| !inner.contains(['$', '{', '}']))
}

/// Returns the name of the secret at a path: always the same one, so that saving a configuration again changes nothing.
fn name_of(path: &str) -> String {
    let is_plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if is_plain && PREFIX.len() + path.len() <= MAX_NAME {
        return format!("{PREFIX}{path}");
    }
    let digest = hex::sha256(path.as_bytes());
    format!("{PREFIX}{}", hex::encode(&digest[..16]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn taken(config: &Value) -> (Value, BTreeMap<String, String>) {
        let mut config = config.clone();
        let found = take_out(&mut config);
        (config, found.into_iter().map(|(name, value)| (name, value.to_string())).collect())
    }

    #[test]
    fn m10_urls_with_passwords_are_replaced_by_references() {
        let config = json!({
            "outputs": {"default": {"hosts": ["https://u:stays@es"]}},
            "inputs": [{"type": "httpjson", "request.url": "https://u:p@s@api.example/x", "hosts": ["redis://:p2@h:6379"]}],
            "agent": {"download": {"sourceURI": "https://u:p3@mirror.example/"}}
        });
        let (after, found) = taken(&config);
        let expected = [
            ("inline.agent.download.sourceURI", "https://u:p3@mirror.example/"),
            ("inline.inputs.0.hosts.0", "redis://:p2@h:6379"),
            ("inline.inputs.0.request.url", "https://u:p@s@api.example/x"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!(after["outputs"], config["outputs"]);
        for plain in ["https://u@h/", "https://h/?a=b:c@d", "https://u:${PW}@h", "a:b@c", "https://h:8220"] {
            assert!(!has_password(plain), "{plain}");
        }
    }

    #[test]
    fn m10_secrets_are_replaced_by_references() {
        let config = json!({
            "outputs": {"default": {
                "hosts": ["https://es"], "service_token": "t1", "ssl.key": "k1", "ssl": {"key_passphrase": "k2", "certificate": "c"},
                "username": "elastic", "password": 4711
            }},
            "outputs.other.password": "dotted",
            "inputs": [{"type": "httpjson", "auth": {"basic": {"password": "p2"}}, "max_tokens": 5, "request.url": "https://u"}],
            "receivers": {"x": {"token": "t2"}},
            "fleet": {"ssl": {"key": "k3"}},
            "agent": {"download": {"auth": {"api_key": "a1"}}, "logging": {"to_secret_place": "not a section with references"}}
        });
        let (after, found) = taken(&config);
        let expected = [
            ("inline.agent.download.auth.api_key", "a1"),
            ("inline.fleet.ssl.key", "k3"),
            ("inline.inputs.0.auth.basic.password", "p2"),
            ("inline.outputs.default.password", "4711"),
            ("inline.outputs.default.service_token", "t1"),
            ("inline.outputs.default.ssl.key", "k1"),
            ("inline.outputs.default.ssl.key_passphrase", "k2"),
            ("inline.outputs.other.password", "dotted"),
            ("inline.receivers.x.token", "t2"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!(
            after["outputs"]["default"]["service_token"],
            "$co.elastic.secret{inline.outputs.default.service_token}"
        );
        assert_eq!(after["outputs"]["default"]["username"], "elastic");
        assert_eq!(after["inputs"][0]["max_tokens"], 5);
        assert_eq!(taken(&after), (after.clone(), BTreeMap::new()), "once");
    }

    #[test]
    fn references_and_variables_are_kept() {
        let config = json!({"outputs": {"o": {
            "password": "$co.elastic.secret{PW}", "api_key": "${env.KEY}", "token": "", "service_token": "${env.A}-${env.B}",
            "secrets": {"ssl": {"key": {"id": "KEY"}}}
        }}});
        let (after, found) = taken(&config);
        assert_eq!(found.keys().collect::<Vec<_>>(), ["inline.outputs.o.service_token"]);
        assert_eq!(after["outputs"]["o"]["api_key"], "${env.KEY}");
        assert_eq!(after["outputs"]["o"]["secrets"], config["outputs"]["o"]["secrets"]);
    }

    #[test]
    fn names_are_valid_and_differ() {
        let long = "x".repeat(80);
        let config = json!({"inputs": [{(long.clone()): {"password": "a"}, "b c": {"password": "b"}, "b/c": {"password": "c"}}]});
        let (_, found) = taken(&config);
        assert_eq!(found.len(), 3);
        let is_valid =
            |name: &String| name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
        assert!(found.keys().all(is_valid), "{found:?}");
    }

    #[test]
    fn secrets_that_nothing_refers_to_any_more_are_obsolete() {
        let config = json!({"outputs": {"o": {"password": "$co.elastic.secret{inline.outputs.o.password}"}}});
        let names = ["OWN", "inline.outputs.o.password", "inline.outputs.gone.password"];
        assert_eq!(obsolete(names.into_iter(), &config), ["inline.outputs.gone.password"]);
    }
}
