//! `issuers` of a compiled policy: connections of the server to the clusters at which it creates a key for each agent.
//!
//! The section is not delivered to agents. Like everything in a compiled policy, it has references in place of secrets.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::id::{ClusterId, OutputId, PolicyId};
use crate::output_key::{KeyNeed, cluster_id, compared_host, permissions_hash};
use crate::policy::bootstrap;
use crate::secret_refs::{self, Secrets};

/// Name of the section.
pub const SECTION: &str = "issuers";
/// Field of an output that says whether its agents get keys of their own. Without it, they do if there is a [`TOKEN`].
pub const AGENT_KEYS: &str = "agent_keys";
/// Token of a service account, with which keys are created.
pub const TOKEN: &str = "service_token";
/// User with whose name and password keys are created, if there is no token. An API key cannot take their place:
/// Elasticsearch does not let it create keys that have privileges.
const USER: [&str; 2] = ["username", "password"];
/// Internal field of a compiled policy: agents may have keys of an earlier revision.
const HAD_ISSUERS: &str = "had_issuers";
/// Fields of an output that say how to reach its cluster.
const CONNECTION: [&str; 9] =
    ["hosts", "protocol", "path", "headers", "ssl", "proxy_url", "proxy_headers", "proxy_disable", bootstrap::SECTION];

/// A cluster at which the server creates keys.
#[derive(Clone)]
pub struct Issuer {
    /// Its id.
    pub cluster: ClusterId,
    /// Output object by its id, or output of a policy as `POLICY:NAME`.
    pub output: String,
    /// Connection settings: JSON with the fields of an output, with secrets inserted.
    pub connection: Zeroizing<String>,
}

/// Returns whether the agents of an output get keys of their own, as far as its settings say so.
pub fn creates_keys(output: &Map<String, Value>) -> bool {
    output.get(AGENT_KEYS).and_then(Value::as_bool).unwrap_or_else(|| has_token(output))
}

/// Returns the connection settings of an output with its secrets in place, as far as the server uses them.
pub fn connection(mut output: Map<String, Value>) -> Map<String, Value> {
    // A field of its own in the API.
    if let Some(fingerprint) = output.remove("ca_trusted_fingerprint").filter(Value::is_string) {
        let ssl = output.entry("ssl").or_insert_with(|| json!({}));
        ssl["ca_trusted_fingerprint"] = fingerprint;
    }
    output.retain(|key, _| CONNECTION.contains(&key.as_str()) || key == TOKEN || USER.contains(&key.as_str()));
    output
}

/// Returns the fields of the credential with which an output creates keys; `None` if it has none.
pub(super) fn credential(output: &Map<String, Value>) -> Option<&'static [&'static str]> {
    // The token comes first: it was made for this purpose, and can be revoked without locking out a person.
    if has_token(output) {
        return Some(&[TOKEN]);
    }
    let is_named = output.get(USER[0]).and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    (is_named && has_secret(output, USER[1])).then_some(&USER)
}

/// Returns whether an output has a token, in its own settings or in those with which it is completed.
fn has_token(output: &Map<String, Value>) -> bool {
    let in_block = || {
        let plain = output.get(bootstrap::SECTION).and_then(Value::as_object).cloned();
        let mut block = plain.unwrap_or_default();
        let mirror = output.get("secrets").and_then(|mirror| mirror.get(bootstrap::SECTION));
        block.extend(mirror.map(|mirror| ("secrets".to_owned(), mirror.clone())));
        has_secret(&block, TOKEN)
    };
    has_secret(output, TOKEN) || in_block()
}

/// Returns whether a field is a reference to a secret. One in plain text would be stored with the revision.
fn has_secret(output: &Map<String, Value>, field: &str) -> bool {
    let is_inline = output.get(field).and_then(Value::as_str).is_some_and(|text| text.contains(secret_refs::OPEN));
    is_inline || output.get("secrets").is_some_and(|mirror| !mirror[field].is_null())
}

/// Builds the entry for an output that creates keys; `None` for any other. `previous` is the policy's last compiled revision.
pub(super) fn entry(
    policy: &PolicyId,
    name: &str,
    record: Option<&OutputId>,
    output: &Map<String, Value>,
    previous: Option<&Value>,
) -> Option<Value> {
    let credential = credential(output).filter(|_| creates_keys(output))?;
    let concerns = |key: &str| CONNECTION.contains(&key) || credential.contains(&key);
    let mut connection = output.clone();
    // Only what is needed to connect: the section is stored with each revision.
    connection.retain(|key, _| concerns(key));
    let mut mirror = output.get("secrets").and_then(Value::as_object).cloned().unwrap_or_default();
    mirror.retain(|key, _| concerns(key));
    if !mirror.is_empty() {
        connection.insert("secrets".into(), mirror.into());
    }
    let source = source(policy, name, record);
    let cluster =
        // The known cluster first, so that the agents' keys are kept while hosts change one after the other.
        known_cluster(&source, &connection, previous).unwrap_or_else(|| cluster_id(&source, hosts(&connection)));
    Some(json!({"cluster": cluster.as_str(), "output": source, "connection": connection}))
}

/// Returns the cluster of the same output in the previous revision, if they have a host in common: a host was added or removed, and the
/// keys of the agents are still there.
fn known_cluster(source: &str, connection: &Map<String, Value>, previous: Option<&Value>) -> Option<ClusterId> {
    let known = previous?[SECTION].as_object()?.values().find(|issuer| issuer["output"] == source)?;
    let former: BTreeSet<String> = hosts(known["connection"].as_object()?).map(compared_host).collect();
    // One common host is enough. Without any, it may be another cluster, where the keys are unknown.
    let is_kept = hosts(connection).any(|host| former.contains(&compared_host(host)));
    known["cluster"].as_str().filter(|_| is_kept).map(ClusterId::trusted)
}

/// Returns how an output is named outside of its policy: an output object by its id, any other as `POLICY:NAME`.
pub fn source(policy: &PolicyId, name: &str, record: Option<&OutputId>) -> String {
    record.map_or_else(|| format!("{policy}:{name}"), ToString::to_string)
}

/// Marks a policy whose agents may have keys, now or from an earlier revision.
pub(super) fn mark(policy: &mut Map<String, Value>, previous: Option<&Value>) {
    let is_needed = policy.get(SECTION).is_some() || previous.is_some_and(has_issued);
    if is_needed {
        policy.insert(HAD_ISSUERS.into(), true.into());
    }
}

/// Returns the hosts of an output.
pub fn hosts(connection: &Map<String, Value>) -> impl Iterator<Item = &str> {
    let hosts = connection.get("hosts");
    let one = hosts.and_then(Value::as_str);
    one.into_iter().chain(hosts.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str))
}

/// Returns whether agents may have keys because of this policy.
pub fn has_issued(compiled: &Value) -> bool {
    compiled[HAD_ISSUERS] == Value::Bool(true)
}

/// Returns the keys that each agent of a compiled policy needs (EA101).
pub fn needs(compiled: &Value) -> Vec<KeyNeed> {
    let issuers = compiled[SECTION].as_object().into_iter().flatten();
    let need = |(name, issuer): (&String, &Value)| {
        Some(KeyNeed {
            output: name.clone(),
            cluster: ClusterId::trusted(issuer["cluster"].as_str()?),
            permissions_hash: permissions_hash(&compiled["output_permissions"][name]),
        })
    };
    issuers.filter_map(need).collect()
}

/// Returns the clusters of a compiled policy, with secrets in place.
pub fn issuers(compiled: &Value, secrets: &Secrets) -> Vec<Issuer> {
    let Some(section) = compiled[SECTION].as_object() else { return Vec::new() };
    let mut connections: Map<String, Value> = Map::new();
    for (name, issuer) in section {
        connections.insert(name.clone(), issuer["connection"].clone());
    }
    let mut scope: Map<String, Value> = [(SECTION.to_owned(), Value::Object(connections))].into_iter().collect();
    // A secret that is missing leaves its reference in place; the policy itself is then not rendered at all.
    secret_refs::resolve(&mut scope, secrets);
    let one = |(name, issuer): (&String, &Value)| {
        Some(Issuer {
            cluster: ClusterId::trusted(issuer["cluster"].as_str()?),
            output: issuer["output"].as_str()?.to_owned(),
            connection: Zeroizing::new(scope[SECTION][name].to_string()),
        })
    };
    section.iter().filter_map(one).collect()
}
