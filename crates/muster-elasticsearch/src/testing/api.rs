//! The endpoints of the stub. Whatever Elasticsearch would reject is rejected, and noted as a complaint.

use http::request::Parts;
use serde_json::{Map, Value, json};

use super::{State, StubKey};

type Outcome = (u16, Value);

/// Handles a request.
pub(super) fn handle(state: &mut State, head: &Parts, body: &[u8]) -> Outcome {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !state.credentials.iter().any(|credential| header("authorization") == credential) {
        return error(401, "security_exception", "failed to authenticate");
    }
    if (head.method.as_str(), head.uri.path()) == ("GET", "/") {
        return root(state, body);
    }
    let Ok(Value::Object(body)) = serde_json::from_slice::<Value>(body) else {
        return complain(state, "the body is not an object");
    };
    if header("content-type") != "application/json" {
        return complain(state, "Content-Type must be application/json");
    }
    match (head.method.as_str(), head.uri.path(), head.uri.query()) {
        ("POST", "/_security/api_key", Some("refresh=false") | None) => create(state, &body),
        ("POST", "/_security/_query/api_key", None) => query(state, &body),
        ("POST", "/_security/api_key/_bulk_update", None) => update(state, &body),
        ("DELETE", "/_security/api_key", None) => invalidate(state, &body),
        (method, path, query) => complain(state, &format!("no handler for {method} {path} {query:?}")),
    }
}

fn root(state: &mut State, body: &[u8]) -> Outcome {
    state.calls.version += 1;
    if !body.is_empty() {
        return complain(state, "request [GET /] does not support having a body");
    }
    (
        200,
        json!({"name": "stub", "cluster_uuid": "stub", "version": {"number": state.version}, "tagline": "You Know, for Search"}),
    )
}

fn error(status: u16, kind: &str, reason: &str) -> Outcome {
    (status, json!({"error": {"root_cause": [], "type": kind, "reason": reason}, "status": status}))
}

fn complain(state: &mut State, what: &str) -> Outcome {
    state.complaints.push(what.to_owned());
    error(400, "parsing_exception", what)
}

/// Returns the first field that is not among the known ones.
fn unknown<'a>(body: &'a Map<String, Value>, known: &[&str]) -> Option<&'a str> {
    body.keys().map(String::as_str).find(|name| !known.contains(name))
}

fn create(state: &mut State, body: &Map<String, Value>) -> Outcome {
    state.calls.create += 1;
    if let Some(field) = unknown(body, &["name", "role_descriptors", "metadata", "expiration"]) {
        return complain(state, &format!("unknown field [{field}]"));
    }
    let (Some(name), Some(roles), Some(metadata)) =
        (body["name"].as_str(), body["role_descriptors"].as_object(), body["metadata"].as_object())
    else {
        return complain(state, "name, role_descriptors or metadata is missing");
    };
    if let Some(reason) = bad_roles(state, roles) {
        return reason;
    }
    if metadata.keys().any(|name| name.starts_with('_')) {
        return complain(state, "metadata fields must not begin with _");
    }
    state.made += 1;
    let id = format!("key{}", state.made);
    let key = StubKey {
        id: id.clone(),
        secret: format!("secret-of-{id}"),
        name: name.to_owned(),
        roles: roles.clone(),
        metadata: Value::Object(metadata.clone()),
        is_valid: true,
    };
    let answer = json!({"id": id, "name": name, "api_key": key.secret, "encoded": "unused"});
    state.keys.insert(id, key);
    (200, answer)
}

/// Role descriptors are objects with known fields, and privileges that the cluster has.
fn bad_roles(state: &mut State, roles: &Map<String, Value>) -> Option<Outcome> {
    for (name, role) in roles {
        let Some(role) = role.as_object() else { return Some(complain(state, "a role is no object")) };
        if let Some(field) = unknown(role, &["cluster", "indices", "applications", "run_as", "metadata"]) {
            return Some(complain(state, &format!("role [{name}] has the unknown field [{field}]")));
        }
        for index in role.get("indices").and_then(Value::as_array).into_iter().flatten() {
            let is_complete = index["names"].is_array() && index["privileges"].is_array();
            if !is_complete {
                return Some(complain(state, "indices need names and privileges"));
            }
        }
        let rejected = state.rejected_privilege.as_ref();
        if rejected.is_some_and(|privilege| Value::Object(role.clone()).to_string().contains(privilege.as_str())) {
            return Some(error(400, "illegal_argument_exception", "unknown privilege"));
        }
    }
    None
}

/// Role descriptors as Elasticsearch returns them.
fn complete(roles: &Map<String, Value>) -> Value {
    let role = |role: &Value| {
        let mut full = json!({
            "cluster": [], "indices": [], "applications": [], "run_as": [], "metadata": {},
            "transient_metadata": {"enabled": true}
        });
        for (name, value) in role.as_object().into_iter().flatten() {
            full[name] = value.clone();
        }
        for index in full["indices"].as_array_mut().into_iter().flatten() {
            index["allow_restricted_indices"] = false.into();
        }
        full
    };
    roles.iter().map(|(name, one)| (name.clone(), role(one))).collect()
}

fn query(state: &mut State, body: &Map<String, Value>) -> Outcome {
    if let Some(field) = unknown(body, &["query", "size", "sort", "search_after"]) {
        return complain(state, &format!("unknown field [{field}]"));
    }
    let filters = body["query"]["bool"]["filter"].as_array().cloned().unwrap_or_default();
    let Some(size) = body["size"].as_u64().filter(|size| *size > 0 && *size <= 10_000) else {
        return complain(state, "size must be from 1 to 10000");
    };
    if !filters.contains(&json!({"term": {"invalidated": false}})) {
        return complain(state, "invalidated keys are not asked for");
    }
    // Lists are asked for by installation, single keys by their ids.
    let is_list =
        filters.iter().any(|filter| filter["ids"].is_null() && !filter["term"]["metadata.fleet_id"].is_null());
    if is_list {
        state.calls.list += 1;
    } else {
        state.calls.read += 1;
    }
    let matches = |key: &StubKey| {
        filters.iter().all(|filter| match (&filter["ids"]["values"], filter["term"].as_object()) {
            (Value::Array(ids), _) => ids.contains(&key.id.as_str().into()),
            (_, Some(term)) => term.iter().all(|(field, value)| match field.as_str() {
                "invalidated" => key.is_valid,
                field => field.strip_prefix("metadata.").is_some_and(|field| key.metadata[field] == *value),
            }),
            _ => false,
        })
    };
    let after = body.get("search_after").map(|after| after[1].as_str().unwrap_or_default().to_owned());
    let mut found: Vec<&StubKey> = state.keys.values().filter(|key| matches(key)).collect();
    // All keys have the same creation time.
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found.retain(|key| after.as_ref().is_none_or(|after| key.name > *after));
    let total = found.len();
    let keys: Vec<Value> = found
        .into_iter()
        .take(size as usize)
        .map(|key| {
            json!({
                "id": key.id, "name": key.name, "creation": 1, "invalidated": false, "metadata": key.metadata,
                "role_descriptors": complete(&key.roles), "_sort": [1, key.name]
            })
        })
        .collect();
    (200, json!({"total": total, "count": keys.len(), "api_keys": keys}))
}

fn texts(value: &Value) -> Option<Vec<String>> {
    let items = value.as_array().filter(|items| !items.is_empty())?;
    items.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

fn update(state: &mut State, body: &Map<String, Value>) -> Outcome {
    state.calls.update += 1;
    if let Some(field) = unknown(body, &["ids", "role_descriptors", "metadata"]) {
        return complain(state, &format!("unknown field [{field}]"));
    }
    let (Some(ids), Some(roles)) = (texts(&body["ids"]), body["role_descriptors"].as_object()) else {
        return complain(state, "ids or role_descriptors is missing");
    };
    if let Some(reason) = bad_roles(state, roles) {
        return reason;
    }
    let (mut updated, mut details) = (Vec::new(), Map::new());
    for id in ids {
        match state.keys.get_mut(&id).filter(|key| key.is_valid) {
            Some(key) => {
                key.roles = roles.clone();
                updated.push(id);
            }
            None => {
                let error =
                    json!({"type": "resource_not_found_exception", "reason": "no API key owned by requesting user"});
                details.insert(id, error);
            }
        }
    }
    let mut answer = json!({"updated": updated, "noops": []});
    if !details.is_empty() {
        answer["errors"] = json!({"count": details.len(), "details": details});
    }
    (200, answer)
}

fn invalidate(state: &mut State, body: &Map<String, Value>) -> Outcome {
    state.calls.invalidate += 1;
    if let Some(field) = unknown(body, &["ids", "owner"]) {
        return complain(state, &format!("unknown field [{field}]"));
    }
    // Without it, the account would need the privilege to invalidate everybody's keys.
    let (Some(ids), true) = (texts(&body["ids"]), body.get("owner") == Some(&Value::Bool(true))) else {
        return complain(state, "ids is missing, or owner is not true");
    };
    let (mut now, mut before) = (Vec::new(), Vec::new());
    for id in ids {
        if let Some(key) = state.keys.get_mut(&id) {
            if key.is_valid {
                now.push(id);
            } else {
                before.push(id);
            }
            key.is_valid = false;
        }
    }
    (200, json!({"invalidated_api_keys": now, "previously_invalidated_api_keys": before, "error_count": 0}))
}
