//! Secrets that people write into the configuration of a policy, or into the fields of an output or a network object: passwords,
//! tokens and private keys. They are taken out before the object is stored, and replaced by references (EA §4.8).
//!
//! Secrets are recognized by the names of their fields, as in [`crate::yaml`], and inside strings as in [`text`].

mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::hex;
use crate::secret_refs::{OPEN, OTEL_COMPONENTS, inline_names, join};
use crate::yaml;

/// Prefix of the names of these secrets.
const PREFIX: &str = "inline.";
/// Maximum length of a secret's name that is taken from a path as it is, bytes.
const MAX_NAME: usize = 64;

/// Takes the secrets out of a policy's configuration, in the sections in which references work. Returns their values by
/// the name that the references have now.
pub fn take_out(config: &mut Value) -> BTreeMap<String, Zeroizing<String>> {
    let mut found = BTreeMap::new();
    let mut reference = |path: &str, kept: &str, secret: &str| -> Result<String, Infallible> {
        // A string can contain several secrets, and references to others.
        let used: BTreeSet<String> = inline_names(&kept.into());
        // Endless, so that a free name is always found.
        let paths = std::iter::once(path.to_owned()).chain((1..).map(|number| join(path, &number.to_string())));
        let is_free = |name: &String| !found.contains_key(name) && !used.contains(name);
        let name = paths.map(|path| name_of(&path)).find(is_free).unwrap_or_default();
        found.insert(name.clone(), Zeroizing::new(secret.to_owned()));
        Ok(name)
    };
    let Ok(_) = Pass { covers: &takes_references, reference: &mut reference }.whole(config);
    found
}

/// Replaces all secrets in a value. `reference` returns the name or id of the secret for a reference, from the path of its
/// field and its value. Returns the changed strings by path.
pub fn replace<E>(
    value: &mut Value,
    reference: &mut dyn FnMut(&str, &str) -> Result<String, E>,
) -> Result<BTreeMap<String, String>, E> {
    Pass { covers: &|_| true, reference: &mut |path, _, secret| reference(path, secret) }.whole(value)
}

/// Returns the paths of the fields that contain plain secrets.
pub fn paths(value: &Value) -> BTreeSet<String> {
    let Ok(changed) = replace(&mut value.clone(), &mut |_, _| Ok::<_, Infallible>(String::new()));
    changed.into_keys().collect()
}

/// Returns the paths of the fields of a policy's configuration that contain plain secrets and take no references.
pub fn paths_without_references(config: &Value) -> BTreeSet<String> {
    paths(config).into_iter().filter(|path| !takes_references(path)).collect()
}

/// Returns those of `names` that an earlier version of the configuration had and this one does not refer to.
pub fn obsolete<'a>(names: impl Iterator<Item = &'a str>, config: &Value) -> Vec<String> {
    let used: BTreeSet<String> = inline_names(config);
    names.filter(|name| name.starts_with(PREFIX) && !used.contains(*name)).map(str::to_owned).collect()
}

struct Pass<'a, E> {
    /// Whether secrets at a path are replaced.
    covers: &'a dyn Fn(&str) -> bool,
    /// Gets the path of the field, what the field contains besides the secret, and the secret.
    reference: &'a mut dyn FnMut(&str, &str, &str) -> Result<String, E>,
}

impl<E> Pass<'_, E> {
    fn whole(mut self, value: &mut Value) -> Result<BTreeMap<String, String>, E> {
        let mut changed = BTreeMap::new();
        self.walk(value, "", false, &mut changed)?;
        Ok(changed)
    }

    /// `is_secret`: whether something beside the field says so.
    fn walk(
        &mut self,
        value: &mut Value,
        path: &str,
        is_secret: bool,
        changed: &mut BTreeMap<String, String>,
    ) -> Result<(), E> {
        match value {
            Value::Object(fields) => {
                let is_header = names_secret(fields);
                // References by path are no secrets themselves.
                for (name, field) in fields.iter_mut().filter(|(name, _)| *name != "secrets") {
                    self.walk(field, &join(path, name), is_header && name == "value", changed)?;
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.walk(item, &join(path, &index.to_string()), false, changed)?;
                }
            }
            scalar => {
                if let Some(text) = self.replaced(scalar, path, is_secret || yaml::is_secret(path))? {
                    *scalar = text.as_str().into();
                    changed.insert(path.to_owned(), text);
                }
            }
        }
        Ok(())
    }

    /// Returns the text that takes the place of a scalar with secrets.
    fn replaced(&mut self, value: &Value, path: &str, is_secret: bool) -> Result<Option<String>, E> {
        if !(self.covers)(path) {
            return Ok(None);
        }
        let whole = match value {
            Value::String(text) if !is_secret && !is_private_key(text) => return self.without_secrets(text, path),
            // A reference, a variable or a template stands for a secret that is stored elsewhere.
            Value::String(text) => {
                (!text.is_empty() && !text.contains(OPEN) && !is_variable(text) && !is_template(text))
                    .then(|| text.clone())
            }
            // A password of digits, or a header. Other numbers with such names are limits, like `max_tokens`.
            Value::Number(number) if is_secret && may_be_digits(path) => Some(number.to_string()),
            _ => None,
        };
        let Some(whole) = whole.map(Zeroizing::new) else { return Ok(None) };
        Ok(Some(format!("{OPEN}{}}}", (self.reference)(path, "", &whole)?)))
    }

    /// Replaces the secrets inside a string.
    fn without_secrets(&mut self, text: &str, path: &str) -> Result<Option<String>, E> {
        let places = text::places(text, path);
        if places.is_empty() {
            return Ok(None);
        }
        let (mut changed, mut end) = (String::new(), 0);
        for place in places {
            changed.push_str(&text[end..place.start]);
            changed.push_str(&format!("{OPEN}{}}}", (self.reference)(path, text, &text[place.clone()])?));
            end = place.end;
        }
        changed.push_str(&text[end..]);
        Ok(Some(changed))
    }
}

/// Returns whether an object says of its `value` that it is a secret: `{key: Authorization, value: …}`,
/// `{name: password, value: …}`, `{target: header.Authorization, value: …}`.
fn names_secret(fields: &Map<String, Value>) -> bool {
    let named = |field: &str| fields.get(field).and_then(Value::as_str);
    let is_target = |target: &str| match target.strip_prefix("header.") {
        Some(header) => yaml::is_secret_header(header),
        None => yaml::is_secret(target),
    };
    named("key").is_some_and(yaml::is_secret_header)
        || named("target").is_some_and(is_target)
        || named("name").is_some_and(yaml::is_secret)
}

fn may_be_digits(path: &str) -> bool {
    path.ends_with("password") || path.ends_with("passphrase") || path.contains("headers.")
}

/// Returns whether references work at a path (EA97). Dotted keys are compared as they are: they have the same path.
fn takes_references(path: &str) -> bool {
    let within = |section: &str| path.strip_prefix(section).is_some_and(|rest| rest.starts_with('.'));
    ["outputs", "inputs", "fleet", "agent.download"].into_iter().chain(OTEL_COMPONENTS).any(within)
}

/// Returns whether a text contains a private key in PEM, such as a certificate with its key.
fn is_private_key(text: &str) -> bool {
    text.contains("PRIVATE KEY-----")
}

/// Returns whether a text is a template of an `httpjson` input, which refers to the secret.
fn is_template(text: &str) -> bool {
    text.contains("[[") && text.contains("]]")
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
    fn m10_private_keys_and_further_names_of_secrets_are_replaced_by_references() {
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nBBBB\n";
        let config = json!({
            "outputs": {"l": {"ssl": {"certificate": pem}}},
            "inputs": [{
                "private_key": "a", "passwd": "b", "pwd": "c", "pass": "d", "community": "e",
                "connection_string": "f", "storage_account_key": "g", "auth.oauth2.google.credentials_json": "h",
                "compass": "plain", "pass_through": "plain", "keystore": "plain"
            }]
        });
        let (after, found) = taken(&config);
        assert_eq!(found["inline.outputs.l.ssl.certificate"], pem);
        assert_eq!(found.len(), 9, "{after}");
    }

    #[test]
    fn m10_passwords_in_urls_are_replaced_by_references() {
        let config = json!({
            "outputs": {"default": {"hosts": ["https://u:p4@es"], "proxy_url": "http://:p5@proxy"}},
            "inputs": [{"type": "httpjson", "request.url": "https://u:p@s@api.example/x", "hosts": ["redis://:p2@h:6379"],
                "script": "a='http://u:p6@h'\nb='http://u:p7@h'"}],
            "agent": {"download": {"sourceURI": "https://u:p3@mirror.example/"}}
        });
        let (after, found) = taken(&config);
        let expected = [
            ("inline.agent.download.sourceURI", "p3"),
            ("inline.inputs.0.hosts.0", "p2"),
            ("inline.inputs.0.request.url", "p@s"),
            ("inline.inputs.0.script", "p6"),
            ("inline.inputs.0.script.1", "p7"),
            ("inline.outputs.default.hosts.0", "p4"),
            ("inline.outputs.default.proxy_url", "p5"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!(
            after["outputs"]["default"]["hosts"],
            json!(["https://u:$co.elastic.secret{inline.outputs.default.hosts.0}@es"])
        );
        assert_eq!(taken(&after), (after.clone(), BTreeMap::new()), "once");
    }

    #[test]
    fn m10_secrets_in_other_strings_and_objects_are_replaced_by_references() {
        let config = json!({
            "inputs": [{
                "request.transforms": [{"set": {"target": "header.Authorization", "value": "Bearer t"}},
                    {"set": {"target": "header.Accept", "value": "text/plain"}},
                    {"set": {"target": "header.Authorization", "value": "Bearer [[.token]]"}}],
                "headers": ["Authorization: Bearer h1", "Accept: a"], "webhook": "https://hooks.example/T/w",
                "config": "inner:\n  password: p1\n", "hosts": ["u:p2@h:9200"], "request.url": "https://api/x?access_token=q",
                "two": "https://u:p3@h https://u:$co.elastic.secret{inline.inputs.0.two}@h"
            }],
            "agent": {"monitoring": {"http": {"password": "p4"}}}
        });
        let (after, found) = taken(&config);
        let expected = [
            ("inline.inputs.0.config", "p1"),
            ("inline.inputs.0.headers.0", "Bearer h1"),
            ("inline.inputs.0.hosts.0", "p2"),
            ("inline.inputs.0.request.transforms.0.set.value", "Bearer t"),
            ("inline.inputs.0.request.url", "q"),
            ("inline.inputs.0.two.1", "p3"),
            ("inline.inputs.0.webhook", "https://hooks.example/T/w"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!(after["inputs"][0]["config"], "inner:\n  password: $co.elastic.secret{inline.inputs.0.config}\n");
        assert_eq!(paths_without_references(&after), ["agent.monitoring.http.password".to_owned()].into());
    }

    #[test]
    fn m10_secrets_in_headers_are_replaced_by_references() {
        let config = json!({"outputs": {"o": {
            "proxy_headers": {"Proxy-Authorization": "h1", "Cookie": "h2", "X-Api-Key": 3, "X-Tenant": "a"},
            "headers": [{"key": "Authorization", "value": "h4"}, {"key": "X-Tenant", "value": "b"}]
        }}});
        let (after, found) = taken(&config);
        let expected = [
            ("inline.outputs.o.headers.0.value", "h4"),
            ("inline.outputs.o.proxy_headers.Cookie", "h2"),
            ("inline.outputs.o.proxy_headers.Proxy-Authorization", "h1"),
            ("inline.outputs.o.proxy_headers.X-Api-Key", "3"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        assert_eq!(after["outputs"]["o"]["proxy_headers"]["X-Tenant"], "a");
        assert_eq!(after["outputs"]["o"]["headers"][1], json!({"key": "X-Tenant", "value": "b"}));
    }

    #[test]
    fn the_paths_of_plain_secrets_are_listed() {
        let value = json!({
            "password": "p1", "bulk_max_size": 50, "ssl.key": "p2", "ssl": {"key": "p3", "certificate": "c", "key_passphrase": "p4"},
            "sasl": {"password": 471}, "headers": {"Authorization": "p5", "X-Team": "t"}, "token_url": "https://u",
            "auth": [{"client_secret": "p6"}, {"api_key": "p7"}], "known": {"password": "$co.elastic.secret{x}"}, "empty": {"password": ""},
            "key": "not a secret", "secret_path": "/p",
        });
        let expected = [
            "auth.0.client_secret",
            "auth.1.api_key",
            "headers.Authorization",
            "password",
            "sasl.password",
            "ssl.key",
            "ssl.key_passphrase",
        ];
        assert_eq!(paths(&value).into_iter().collect::<Vec<_>>(), expected);
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
