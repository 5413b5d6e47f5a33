//! References to secrets inside policies (EA §4.8).
//!
//! *Inline*: any string can contain `$co.elastic.secret{ID}`, even several times. *By path*: a `secrets` object next to
//! the fields mirrors the path of a field and ends in `{"id": "ID"}`. Both work only in some sections of a policy:
//! outputs, inputs, `agent.download`, `fleet` and the OTel components (EA97).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::id::SecretId;
use crate::policy::issuers::SECTION as ISSUERS;

// Defined by the protocol: agents and tools know this syntax.
/// Prefix of an inline reference, which ends with `}`.
pub const OPEN: &str = "$co.elastic.secret{";

/// Sections with OTel components.
pub const OTEL_COMPONENTS: [&str; 5] = ["receivers", "processors", "exporters", "extensions", "connectors"];

/// Decrypted secrets by id; wiped on drop.
pub type Secrets = BTreeMap<SecretId, Zeroizing<String>>;

/// Outcome of [`resolve`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Dotted paths of values that contain a secret.
    pub paths: BTreeSet<String>,
    /// Unknown ids. Their inline references were kept; their references by path became empty strings.
    pub missing: BTreeSet<SecretId>,
}

/// Part of an inline string.
enum Part<'a> {
    Text(&'a str),
    Reference(&'a str),
}

/// Splits a string at its references. An unclosed reference is plain text.
fn parts(mut rest: &str) -> Vec<Part<'_>> {
    // There is no escape for the prefix.
    let mut parts = Vec::new();
    while let Some((before, (id, after))) =
        rest.split_once(OPEN).and_then(|(before, opened)| Some((before, opened.split_once('}')?)))
    {
        parts.extend([Part::Text(before), Part::Reference(id)]);
        rest = after;
    }
    parts.push(Part::Text(rest));
    parts
}

/// Returns whether a string contains an unclosed reference.
pub fn is_unclosed(text: &str) -> bool {
    parts(text).last().is_some_and(|part| matches!(part, Part::Text(rest) if rest.contains(OPEN)))
}

/// Returns the sections of a policy in which references work, with their paths.
pub fn scopes(policy: &mut Map<String, Value>) -> Vec<(String, &mut Value)> {
    let mut found = Vec::new();
    for (name, section) in policy {
        match (name.as_str(), section) {
            ("inputs" | "fleet", section) => found.push((name.clone(), section)),
            // Only `download`: agents get the rest of their settings without secrets.
            ("agent", Value::Object(agent)) => {
                found.extend(agent.get_mut("download").map(|download| ("agent.download".to_owned(), download)));
            }
            (name, Value::Object(named)) if is_named(name) => {
                found.extend(named.iter_mut().map(|(key, value)| (join(name, key), value)));
            }
            _ => {}
        }
    }
    found
}

/// Returns whether a section maps names to components in which references work.
fn is_named(section: &str) -> bool {
    matches!(section, "outputs" | ISSUERS) || OTEL_COMPONENTS.contains(&section)
}

/// Appends a step to a path.
pub fn join(path: &str, step: &str) -> String {
    if path.is_empty() { step.to_owned() } else { format!("{path}.{step}") }
}

/// Calls `visit` with the path and the id of every reference in `policy`. It may replace the id.
pub fn for_each(policy: &mut Map<String, Value>, visit: &mut dyn FnMut(&str, &mut String)) {
    for (path, scope) in scopes(policy) {
        visit_value(scope, &path, visit);
    }
}

/// Returns the ids of all secrets that `policy` refers to.
pub fn ids(policy: &Value) -> BTreeSet<SecretId> {
    let mut found = BTreeSet::new();
    // A copy, because the visitor takes ids by mutable reference.
    if let Value::Object(mut copy) = policy.clone() {
        for_each(&mut copy, &mut |_, id| {
            found.insert(SecretId::trusted(id.as_str()));
        });
    }
    found
}

fn visit_value(value: &mut Value, path: &str, visit: &mut dyn FnMut(&str, &mut String)) {
    match value {
        Value::String(text) if text.contains(OPEN) => visit_text(text, path, visit),
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                visit_value(item, &join(path, &index.to_string()), visit);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::Object(mirror) if name == "secrets" => visit_mirror(mirror, path, visit),
                    field => visit_value(field, &join(path, name), visit),
                }
            }
        }
        _ => {}
    }
}

fn visit_text(text: &mut String, path: &str, visit: &mut dyn FnMut(&str, &mut String)) {
    *text = rewritten(text, &mut |id| {
        let mut id = id.to_owned();
        visit(path, &mut id);
        Some([OPEN, &id, "}"].concat())
    });
}

/// Replaces each reference by the result of `replacement`, or keeps it if that is `None`. In one pass, so that a secret
/// that looks like a reference is not resolved again.
fn rewritten(text: &str, replacement: &mut dyn FnMut(&str) -> Option<String>) -> String {
    let mut changed = String::with_capacity(text.len());
    for part in parts(text) {
        match part {
            Part::Text(plain) => changed.push_str(plain),
            Part::Reference(id) => match replacement(id) {
                Some(value) => changed.push_str(&value),
                None => changed.extend([OPEN, id, "}"]),
            },
        }
    }
    changed
}

/// Returns the ids of the inline references in a text, such as the data of an action.
pub fn inline_ids(text: &str) -> impl Iterator<Item = SecretId> {
    parts(text).into_iter().filter_map(|part| match part {
        Part::Reference(id) => SecretId::parse(id).ok(),
        Part::Text(_) => None,
    })
}

/// Returns the names in all inline references of a value.
pub fn inline_names(value: &Value) -> BTreeSet<String> {
    match value {
        Value::String(text) => {
            let names = parts(text).into_iter().filter_map(|part| match part {
                Part::Reference(name) => Some(name.to_owned()),
                Part::Text(_) => None,
            });
            names.collect()
        }
        Value::Array(items) => items.iter().flat_map(inline_names).collect(),
        Value::Object(fields) => fields.values().flat_map(inline_names).collect(),
        _ => BTreeSet::new(),
    }
}

/// Inserts secrets into all strings of a value other than a policy, where inline references work everywhere (EA84, D3).
/// Unknown references are kept.
pub fn substitute(value: &mut Value, secret: &dyn Fn(&SecretId) -> Option<String>) {
    match value {
        Value::String(text) if text.contains(OPEN) => {
            *text = rewritten(text, &mut |id| secret(&SecretId::parse(id).ok()?));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| substitute(item, secret)),
        Value::Object(fields) => fields.values_mut().for_each(|field| substitute(field, secret)),
        _ => {}
    }
}

fn visit_mirror(mirror: &mut Map<String, Value>, path: &str, visit: &mut dyn FnMut(&str, &mut String)) {
    for (name, entry) in mirror.iter_mut().filter(|(name, _)| *name != "secrets") {
        let path = join(path, name);
        match entry {
            Value::Object(fields) if is_leaf(fields) => {
                if let Some(Value::String(id)) = fields.get_mut("id") {
                    visit(&path, id);
                }
            }
            Value::Object(deeper) => visit_mirror(deeper, &path, visit),
            _ => {}
        }
    }
}

/// Returns whether an entry of a `secrets` object is a reference: `{"id": "…"}` and nothing else. Anything else is a
/// deeper path, whose field may be called `id`.
pub fn is_leaf(entry: &Map<String, Value>) -> bool {
    entry.len() == 1 && entry.get("id").is_some_and(Value::is_string)
}

/// Inserts the secrets and removes every `secrets` object (EA97, EA98).
pub fn resolve(policy: &mut Map<String, Value>, secrets: &Secrets) -> Resolved {
    // By path and inline in one pass over the policy, so that no inserted secret is scanned for references.
    let mut pass = Pass { secrets, resolved: Resolved::default() };
    for (path, scope) in scopes(policy) {
        pass.value(scope, &path);
    }
    pass.resolved
}

struct Pass<'a> {
    secrets: &'a Secrets,
    resolved: Resolved,
}

impl Pass<'_> {
    fn value(&mut self, value: &mut Value, path: &str) {
        match value {
            Value::String(text) if text.contains(OPEN) => self.text(text, path),
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.value(item, &join(path, &index.to_string()));
                }
            }
            Value::Object(fields) => self.object(fields, path),
            _ => {}
        }
    }

    fn object(&mut self, fields: &mut Map<String, Value>, path: &str) {
        // Removed even if malformed: no `secrets` object may reach agents (EA98).
        let mirror = fields.remove("secrets");
        for (name, field) in fields.iter_mut() {
            self.value(field, &join(path, name));
        }
        // After the other fields, since a reference by path overrides a plain value of the same field.
        if let Some(Value::Object(mirror)) = mirror {
            self.mirror(&mirror, fields, path);
        }
    }

    /// Sets the fields of `mirror` in `fields`, except fields called `secrets` (EA98).
    fn mirror(&mut self, mirror: &Map<String, Value>, fields: &mut Map<String, Value>, path: &str) {
        for (name, entry) in mirror.iter().filter(|(name, _)| *name != "secrets") {
            let Value::Object(entry) = entry else { continue };
            let path = join(path, name);
            if let Some(Value::String(id)) = entry.get("id").filter(|_| is_leaf(entry)) {
                // Empty if unknown (EA97); the caller decides from `missing` whether to deliver it.
                let value = self.look_up(id, &path).unwrap_or_default();
                fields.insert(name.clone(), Value::String(value));
            } else {
                // A reference can point into objects that do not exist yet.
                let slot = fields.entry(name.clone()).or_insert(Value::Null);
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(deeper) = slot {
                    self.mirror(entry, deeper, &path);
                }
            }
        }
    }

    fn text(&mut self, text: &mut String, path: &str) {
        *text = rewritten(text, &mut |id| self.look_up(id, path));
    }

    fn look_up(&mut self, id: &str, path: &str) -> Option<String> {
        if let Some(value) = self.secrets.get(id) {
            // Delivered to agents as `secret_paths` (EA97).
            self.resolved.paths.insert(path.to_owned());
            return Some(value.as_str().to_owned());
        }
        self.resolved.missing.insert(SecretId::trusted(id));
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn secrets(pairs: &[(&str, &str)]) -> Secrets {
        pairs.iter().map(|(id, value)| (SecretId::trusted(*id), Zeroizing::new((*value).to_owned()))).collect()
    }

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn ea97_inline_and_path_secrets_are_inserted_with_their_paths() {
        let mut policy = object(json!({
            "inputs": [{"streams": [{"url": "http://$co.elastic.secret{u}:$co.elastic.secret{p}@h/", "n": 1}]}],
            "outputs": {"default": {"ssl": {"enabled": true}, "secrets": {"ssl": {"key": {"id": "k"}}}}},
            "agent": {"download": {"secrets": {"auth": {"api_key": {"id": "k"}}}}, "x": "$co.elastic.secret{u}"},
            "fleet": {"ssl": {"key": "$co.elastic.secret{k}"}},
            "receivers": {"http/1": {"password": "$co.elastic.secret{p}"}},
            "service": {"x": "$co.elastic.secret{p}"}
        }));
        let resolved = resolve(&mut policy, &secrets(&[("u", "me"), ("p", "pw"), ("k", "KEY")]));
        let expected = json!({
            "inputs": [{"streams": [{"url": "http://me:pw@h/", "n": 1}]}],
            "outputs": {"default": {"ssl": {"enabled": true, "key": "KEY"}}},
            "agent": {"download": {"auth": {"api_key": "KEY"}}, "x": "$co.elastic.secret{u}"},
            "fleet": {"ssl": {"key": "KEY"}},
            "receivers": {"http/1": {"password": "pw"}},
            "service": {"x": "$co.elastic.secret{p}"}
        });
        assert_eq!(Value::Object(policy), expected);
        let paths: Vec<&str> = resolved.paths.iter().map(String::as_str).collect();
        let expected_paths = [
            "agent.download.auth.api_key",
            "fleet.ssl.key",
            "inputs.0.streams.0.url",
            "outputs.default.ssl.key",
            "receivers.http/1.password",
        ];
        assert_eq!(paths, expected_paths);
        assert!(resolved.missing.is_empty());
    }

    #[test]
    fn ea97_unknown_ids_are_kept_inline_and_empty_by_path() {
        let mut policy = object(json!({
            "inputs": [{"a": "x$co.elastic.secret{no}y", "b": "$co.elastic.secret{open"}],
            "outputs": {"o": {"secrets": {"password": {"id": "no"}}}}
        }));
        let resolved = resolve(&mut policy, &Secrets::new());
        assert_eq!(policy["inputs"][0]["a"], "x$co.elastic.secret{no}y");
        assert_eq!(policy["inputs"][0]["b"], "$co.elastic.secret{open");
        assert_eq!(policy["outputs"]["o"], json!({"password": ""}));
        assert_eq!(resolved.missing, BTreeSet::from([SecretId::trusted("no")]));
        assert!(resolved.paths.is_empty());
    }

    #[test]
    fn ea98_secrets_objects_are_removed_but_an_output_can_have_this_name() {
        let mut policy = object(json!({
            "outputs": {"secrets": {"type": "kafka", "secrets": {"password": {"id": "p"}}}},
            "inputs": [{"secrets": ["odd"], "streams": [{"secrets": "odd"}]}]
        }));
        resolve(&mut policy, &secrets(&[("p", "pw")]));
        assert_eq!(policy["outputs"], json!({"secrets": {"type": "kafka", "password": "pw"}}));
        assert_eq!(policy["inputs"], json!([{"streams": [{}]}]));
    }

    #[test]
    fn references_are_visited_and_replaced() {
        let mut policy = object(json!({
            "inputs": [{"a": "$co.elastic.secret{N1} $co.elastic.secret{N2}"}],
            "outputs": {"o": {"secrets": {"ssl": {"key": {"id": "N1"}}}}}
        }));
        let mut seen = Vec::new();
        for_each(&mut policy, &mut |path, id| {
            seen.push((path.to_owned(), id.clone()));
            *id = format!("id-{id}");
        });
        let expected = [("inputs.0.a", "N1"), ("inputs.0.a", "N2"), ("outputs.o.ssl.key", "N1")];
        assert_eq!(seen, expected.map(|(path, id)| (path.to_owned(), id.to_owned())));
        assert_eq!(policy["inputs"][0]["a"], "$co.elastic.secret{id-N1} $co.elastic.secret{id-N2}");
        assert_eq!(ids(&Value::Object(policy)), ["id-N1", "id-N2"].map(SecretId::trusted).into());
    }

    #[test]
    fn unclosed_references_are_detected() {
        assert!(is_unclosed("$co.elastic.secret{a} $co.elastic.secret{b"));
        assert!(!is_unclosed("$co.elastic.secret{a}"));
        assert!(!is_unclosed("plain"));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            Just("$co.elastic.secret{a}".to_owned()),
            Just("x$co.elastic.secret{b}$co.elastic.secret{a}".to_owned()),
            Just("$co.elastic.secret{gone}".to_owned()),
            "[a-z{}$]{0,8}"
        ];
        let leaf = prop_oneof![text.prop_map(Value::String), any::<i64>().prop_map(Value::from)];
        leaf.prop_recursive(4, 40, 5, |inner| {
            let key = prop_oneof![Just("secrets".to_owned()), Just("id".to_owned()), "[a-c]{1}"];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map(key, inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn holds_key(value: &Value, key: &str) -> bool {
        match value {
            Value::Array(items) => items.iter().any(|item| holds_key(item, key)),
            Value::Object(map) => map.iter().any(|(name, value)| name == key || holds_key(value, key)),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn ea97_ea98_no_known_reference_and_no_secrets_object_remains(inputs in any_value()) {
            let mut policy = object(json!({"inputs": inputs.clone(), "service": inputs}));
            let before = policy["service"].clone();
            // A secret that looks like a reference must not be resolved again.
            let resolved = resolve(&mut policy, &secrets(&[("a", "VALUE-A"), ("b", "$co.elastic.secret{a}")]));
            let text = policy["inputs"].to_string();
            prop_assert!(!holds_key(&policy["inputs"], "secrets"));
            prop_assert!(!text.contains(["$co.elastic.secret", "{b}"].concat().as_str()), "unresolved");
            prop_assert_eq!(&policy["service"], &before, "out of scope: untouched");
            for path in &resolved.paths {
                prop_assert!(path.starts_with("inputs"));
            }
            if resolved.paths.is_empty() {
                prop_assert!(!text.contains("VALUE-A"));
            }
        }

        #[test]
        fn visiting_references_changes_nothing(inputs in any_value()) {
            let mut policy = object(json!({"inputs": inputs}));
            let before = policy.clone();
            for_each(&mut policy, &mut |_, _| {});
            prop_assert_eq!(policy, before);
        }
    }
}
