//! Bodies of requests, and what is read from responses.
//!
//! Name and metadata of a key are those that Fleet Server writes, so that tools recognize the keys of agents, and one field
//! more, by which an installation finds its own.

use muster_core::id::KeyId;
use muster_core::output_key::Roles;
use muster_core::plural::counted;
use muster_core::reported::shortened_to;
use muster_fleet::output_keys::issuer::{CreatedKey, IssueError, KeyPage, ListPosition, NewKey};
use serde_json::{Value, json};
use zeroize::Zeroizing;

/// Oldest supported version: the first one that updates several keys with one request.
const OLDEST: (u32, u32) = (8, 5);
/// Keys on a page of a list.
const PAGE: usize = 500;
/// Errors of single keys that mean that the key is not valid (any more).
const MISSING: [&str; 2] = ["resource_not_found_exception", "illegal_argument_exception"];

fn unexpected(what: &str) -> IssueError {
    IssueError::Unavailable(format!("not a response of Elasticsearch's security API: {what}"))
}

/// Reads the response of the root path, and returns the version.
pub(crate) fn supported_version(answer: &Value) -> Result<String, IssueError> {
    let text = answer["version"]["number"].as_str().ok_or_else(|| unexpected("no version"))?;
    let mut parts = text.split('.').map(|part| part.parse::<u32>().ok());
    let version = parts.next().flatten().zip(parts.next().flatten()).ok_or_else(|| unexpected("no version"))?;
    if version < OLDEST {
        let text = shortened_to(text, 40);
        let (major, minor) = OLDEST;
        return Err(IssueError::Incompatible(format!(
            "version {text} is not supported: {major}.{minor} or later is required"
        )));
    }
    Ok(text.to_owned())
}

pub(crate) fn create(key: &NewKey) -> Value {
    json!({
        "name": format!("{}:{}", key.agent_id, key.output),
        "role_descriptors": key.roles,
        "metadata": {
            "agent_id": key.agent_id,
            "managed": true,
            "managed_by": "fleet-server",
            "output_name": key.output,
            "type": "output",
            "fleet_id": key.fleet
        }
    })
}

pub(crate) fn created(answer: &Value) -> Result<CreatedKey, IssueError> {
    let id = answer["id"].as_str().and_then(|id| KeyId::parse(id).ok());
    // Agents and exporters split at the colon.
    let secret = answer["api_key"].as_str().filter(|secret| !secret.is_empty() && !secret.contains(':'));
    let (Some(id), Some(secret)) = (id, secret) else { return Err(unexpected("a key without id or secret")) };
    Ok(CreatedKey { id, secret: Zeroizing::new(secret.to_owned()) })
}

fn texts(ids: &[KeyId]) -> Vec<&str> {
    ids.iter().map(KeyId::as_str).collect()
}

pub(crate) fn by_ids(ids: &[KeyId]) -> Value {
    let filter = json!([{"ids": {"values": texts(ids)}}, {"term": {"invalidated": false}}]);
    json!({"query": {"bool": {"filter": filter}}, "size": ids.len()})
}

pub(crate) fn roles(answer: &Value) -> Result<Vec<(KeyId, Roles)>, IssueError> {
    let keys = answer["api_keys"].as_array().ok_or_else(|| unexpected("no list of keys"))?;
    let one = |key: &Value| {
        let id = KeyId::parse(key["id"].as_str()?).ok()?;
        let roles = key["role_descriptors"].as_object()?;
        Some((id, roles.iter().map(|(name, role)| (name.clone(), plain(role))).collect()))
    };
    keys.iter().map(|key| one(key).ok_or_else(|| unexpected("a key without id or permissions"))).collect()
}

/// Returns a role descriptor without the empty fields that Elasticsearch adds. As they are, a role would never equal the
/// one that it was created from.
fn plain(role: &Value) -> Value {
    let is_empty = |value: &Value| match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Null => true,
        _ => false,
    };
    match role {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, value)| {
                *name != "transient_metadata" && !(*name == "allow_restricted_indices" && **value == Value::Bool(false))
            });
            kept.map(|(name, value)| (name.clone(), plain(value))).filter(|(_, value)| !is_empty(value)).collect()
        }
        Value::Array(items) => items.iter().map(plain).collect(),
        other => other.clone(),
    }
}

pub(crate) fn update(ids: &[KeyId], roles: &Roles) -> Value {
    json!({"ids": texts(ids), "role_descriptors": roles})
}

/// Returns the keys that were not updated because they are not valid.
pub(crate) fn missing(answer: &Value) -> Result<Vec<KeyId>, IssueError> {
    if !answer["updated"].is_array() || !answer["noops"].is_array() {
        return Err(unexpected("no list of updated keys"));
    }
    let details = answer["errors"]["details"].as_object().into_iter().flatten();
    let mut missing = Vec::new();
    for (id, error) in details {
        let kind = error["type"].as_str().unwrap_or_default();
        if !MISSING.contains(&kind) {
            return Err(IssueError::Rejected(error["reason"].as_str().unwrap_or(kind).to_owned()));
        }
        missing.extend(KeyId::parse(id));
    }
    Ok(missing)
}

pub(crate) fn invalidate(ids: &[KeyId]) -> Value {
    // Without `owner`, the account would need the privilege to invalidate the keys of everybody.
    json!({"ids": texts(ids), "owner": true})
}

/// Reads the response to an invalidation. Keys that do not exist are what was wanted.
pub(crate) fn invalidated(answer: Result<Value, IssueError>) -> Result<(), IssueError> {
    let answer = match answer {
        Err(IssueError::Rejected(reason)) if reason.contains(": 404: ") => return Ok(()),
        answer => answer?,
    };
    if !answer["invalidated_api_keys"].is_array() {
        return Err(unexpected("no list of invalidated keys"));
    }
    match answer["error_count"].as_u64() {
        Some(0) | None => Ok(()),
        Some(count) => {
            let reason = answer["error_details"][0]["reason"].as_str().unwrap_or("no reason");
            let keys = counted(count, "key");
            Err(IssueError::Unavailable(format!("{keys} could not be invalidated: {reason}")))
        }
    }
}

pub(crate) fn list(fleet: &str, after: Option<&ListPosition>) -> Result<Value, IssueError> {
    let filter = json!([
        {"term": {"invalidated": false}},
        {"term": {"metadata.type": "output"}},
        {"term": {"metadata.fleet_id": fleet}}
    ]);
    let mut body = json!({
        "query": {"bool": {"filter": filter}}, "size": PAGE, "sort": [{"creation": "asc"}, {"name": "asc"}]
    });
    if let Some(ListPosition(after)) = after {
        body["search_after"] = serde_json::from_str(after).map_err(|_| unexpected("a position in a list"))?;
    }
    Ok(body)
}

pub(crate) fn page(answer: &Value) -> Result<KeyPage, IssueError> {
    let keys = answer["api_keys"].as_array().ok_or_else(|| unexpected("no list of keys"))?;
    let id = |key: &Value| key["id"].as_str().and_then(|id| KeyId::parse(id).ok());
    let ids: Option<Vec<KeyId>> = keys.iter().map(id).collect();
    let ids = ids.ok_or_else(|| unexpected("a key without id"))?;
    // A full page can be the last one. The next one is empty then.
    let next = keys.last().filter(|_| keys.len() >= PAGE).map(|last| ListPosition(last["_sort"].to_string()));
    Ok((ids, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_equals_the_one_that_it_was_created_from() {
        let given = json!({"indices": [{"names": ["logs-a-b"], "privileges": ["auto_configure", "create_doc"]}]});
        let told = json!({
            "cluster": [], "applications": [], "run_as": [], "metadata": {}, "transient_metadata": {"enabled": true},
            "indices": [{"names": ["logs-a-b"], "privileges": ["auto_configure", "create_doc"], "allow_restricted_indices": false}]
        });
        assert_eq!(plain(&told), given);
    }

    #[test]
    fn other_responses_are_not_taken_for_success() {
        for answer in
            [json!({}), json!({"id": "a"}), json!({"id": "", "api_key": "b"}), json!({"id": "a", "api_key": "b:c"})]
        {
            assert!(created(&answer).is_err(), "{answer}");
        }
        assert!(roles(&json!({"api_keys": [{"id": "a"}]})).is_err() && roles(&json!({})).is_err());
        assert!(missing(&json!({"updated": []})).is_err());
        assert!(invalidated(Ok(json!({}))).is_err());
        assert!(page(&json!({"api_keys": [{}]})).is_err());
    }

    #[test]
    fn versions_from_8_5_are_supported() {
        let version = |number: &str| supported_version(&json!({"version": {"number": number}}));
        assert_eq!((version("8.5.0"), version("9.2.1-SNAPSHOT")), (Ok("8.5.0".into()), Ok("9.2.1-SNAPSHOT".into())));
        assert!(matches!(version("8.4.3"), Err(IssueError::Incompatible(reason)) if reason.contains("8.4.3")));
        assert!(matches!(version("new"), Err(IssueError::Unavailable(_))));
        assert!(matches!(supported_version(&json!({})), Err(IssueError::Unavailable(_))), "another service");
    }

    #[test]
    fn ea108_keys_that_are_gone_count_as_invalidated_and_errors_do_not() {
        let gone = IssueError::Rejected("https://es:9200: 404: no such key".into());
        assert_eq!(invalidated(Err(gone)), Ok(()));
        assert_eq!(invalidated(Ok(json!({"invalidated_api_keys": [], "error_count": 0}))), Ok(()));
        let failed = json!({"invalidated_api_keys": [], "error_count": 1, "error_details": [{"reason": "shard"}]});
        assert_eq!(invalidated(Ok(failed)).unwrap_err().to_string(), "1 key could not be invalidated: shard");
        let refused = Err(IssueError::Refused("x".into()));
        assert_eq!(invalidated(refused), Err(IssueError::Refused("x".into())));
    }

    #[test]
    fn updates_tell_which_keys_are_gone_and_which_were_rejected() {
        let with = |details: Value| json!({"updated": ["a"], "noops": [], "errors": {"count": 1, "details": details}});
        let gone = with(json!({"b": {"type": "resource_not_found_exception", "reason": "no"}}));
        assert_eq!(missing(&gone).unwrap(), [KeyId::trusted("b")]);
        let bad = with(json!({"b": {"type": "action_request_validation_exception", "reason": "unknown privilege"}}));
        assert_eq!(missing(&bad), Err(IssueError::Rejected("unknown privilege".into())));
        assert_eq!(missing(&json!({"updated": [], "noops": ["a"]})).unwrap(), []);
    }
}
