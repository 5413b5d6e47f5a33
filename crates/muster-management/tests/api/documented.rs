//! Comparison of responses with the OpenAPI document. Every response that a test of this suite receives is checked.
//!
//! The schemas are those that schemars generates, with few keywords. `cargo xtask schemathesis` checks responses with a complete
//! implementation of JSON Schema.

use std::sync::LazyLock;

use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use muster_management::openapi;
use serde_json::Value;

use crate::support::Answer;

pub static DOCUMENT: LazyLock<Value> = LazyLock::new(openapi::document);

/// Follows a reference to another part of the document.
pub fn resolved(value: &Value) -> &Value {
    let place = value["$ref"].as_str().and_then(|place| place.strip_prefix('#'));
    place.map_or(value, |place| DOCUMENT.pointer(place).unwrap_or_else(|| panic!("there is no {place}")))
}

/// The operation that serves a path: of several that match, the one with the most literal segments.
fn operation(method: &Method, path: &str) -> Option<(&'static str, &'static Value)> {
    let path = path.strip_prefix("/s/").and_then(|rest| rest.find('/').map(|at| &rest[at..])).unwrap_or(path);
    let steps: Vec<&str> = path.split('/').collect();
    let literals = |template: &str| -> Option<usize> {
        let parts: Vec<&str> = template.split('/').collect();
        let fits = |(part, step): (&&str, &&str)| part == step || (part.starts_with('{') && !step.is_empty());
        let is_match = parts.len() == steps.len() && parts.iter().zip(&steps).all(fits);
        is_match.then(|| parts.iter().filter(|part| !part.starts_with('{')).count())
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let (template, item) = paths.iter().max_by_key(|(template, _)| literals(template))?;
    literals(template)?;
    Some((template.as_str(), item.get(method.as_str().to_lowercase())?))
}

/// Fails unless the document has the status of a response, its content type, and a schema that its body matches.
pub fn check(method: &Method, path: &str, answer: &Answer) {
    let Some((template, operation)) = operation(method, path) else { return };
    let status = answer.status.as_u16().to_string();
    let response = resolved(&operation["responses"][&status]);
    assert!(!response.is_null(), "{method} {template}: the status {status} is not documented: {}", answer.body);
    let given = answer.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content = &response["content"][given];
    assert!(!content.is_null(), "{method} {template} {status}: the content type {given:?} is not documented");
    if let Some(fault) = content.get("schema").and_then(|schema| mismatch(schema, &answer.body)) {
        panic!("{method} {template} {status}: {fault}\n{}", answer.body);
    }
}

/// Returns where and why a value does not match a schema.
pub fn mismatch(schema: &Value, value: &Value) -> Option<String> {
    let Some(rules) = schema.as_object() else {
        return (*schema == false).then(|| "there must be no value".to_owned());
    };
    rules.iter().find_map(|(keyword, rule)| broken(keyword, rule, schema, value))
}

fn broken(keyword: &str, rule: &Value, schema: &Value, value: &Value) -> Option<String> {
    let list = || rule.as_array().unwrap().iter();
    let matching = || list().filter(|one| mismatch(one, value).is_none()).count();
    let fails = |is_broken: bool| is_broken.then(|| format!("{value} does not match {keyword}: {rule}"));
    match keyword {
        "$ref" => mismatch(resolved(schema), value),
        "type" if rule.is_array() => fails(!list().any(|kind| is_of(kind, value))),
        "type" => fails(!is_of(rule, value)),
        "enum" => fails(!list().any(|one| one == value)),
        "const" => fails(rule != value),
        "anyOf" => fails(matching() == 0),
        "oneOf" => fails(matching() != 1),
        "allOf" => list().find_map(|one| mismatch(one, value)),
        "minimum" => fails(value.as_f64() < rule.as_f64() && value.is_number()),
        "maximum" => fails(value.as_f64() > rule.as_f64() && value.is_number()),
        "required" => {
            let missing = |name: &&Value| value.is_object() && value.get(name.as_str().unwrap()).is_none();
            list().find(missing).map(|name| format!("{name} is missing"))
        }
        "items" => value.as_array()?.iter().find_map(|item| mismatch(rule, item)),
        "properties" => {
            let present = |(name, rule): (&String, &Value)| Some((name.clone(), mismatch(rule, value.get(name)?)?));
            rule.as_object().unwrap().iter().find_map(present).map(|(name, fault)| format!("{name}: {fault}"))
        }
        "additionalProperties" => {
            let known = |name: &str| schema["properties"].get(name).is_some();
            let others = value.as_object()?.iter().filter(|(name, _)| !known(name));
            others.into_iter().find_map(|(name, one)| mismatch(rule, one).map(|fault| format!("{name}: {fault}")))
        }
        "description" | "title" | "default" | "format" => None,
        // A keyword that is not checked would make every response match it.
        _ => panic!("the keyword {keyword} is not supported"),
    }
}

fn is_of(kind: &Value, value: &Value) -> bool {
    match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        kind => panic!("unknown type {kind}"),
    }
}
