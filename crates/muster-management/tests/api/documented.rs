//! Comparison of responses with the OpenAPI document. Every response that a test of this suite receives is checked.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use axum::http::Method;
use axum::http::header::CONTENT_TYPE;
use jsonschema::Validator;
use muster_management::openapi;
use serde_json::{Value, json};

use crate::support::Answer;

pub static DOCUMENT: LazyLock<Value> = LazyLock::new(openapi::document);

/// Validators of schemas by their place in the document, because each takes some time to compile.
static VALIDATORS: LazyLock<Mutex<HashMap<String, &'static Validator>>> = LazyLock::new(Mutex::default);

/// Follows a reference to another part of the document.
pub fn resolved(value: &Value) -> &Value {
    let place = value["$ref"].as_str().and_then(|place| place.strip_prefix('#'));
    place.map_or(value, |place| DOCUMENT.pointer(place).unwrap_or_else(|| panic!("there is no {place}")))
}

/// The operation that serves a path: of several that match, the one with the most literal segments.
fn operation(method: &Method, path: &str) -> Option<(String, &'static Value)> {
    let path = path.strip_prefix("/s/").and_then(|rest| rest.find('/').map(|at| &rest[at..])).unwrap_or(path);
    let steps: Vec<&str> = path.split('/').collect();
    let literals = |template: &str| -> Option<usize> {
        let parts: Vec<&str> = template.split('/').collect();
        let fits = |(part, step): (&&str, &&str)| part.starts_with('{') && !step.is_empty() || part == step;
        let is_match = parts.len() == steps.len() && parts.iter().zip(&steps).all(fits);
        is_match.then(|| parts.iter().filter(|part| !part.starts_with('{')).count())
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let (template, item) = paths.iter().max_by_key(|(template, _)| literals(template))?;
    literals(template)?;
    Some((template.clone(), item.get(method.as_str().to_lowercase())?))
}

fn validator(place: String, schema: &Value) -> &'static Validator {
    *VALIDATORS.lock().unwrap().entry(place).or_insert_with(|| {
        let whole = json!({"allOf": [schema], "components": DOCUMENT["components"]});
        Box::leak(Box::new(jsonschema::validator_for(&whole).unwrap()))
    })
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
    if content["schema"].is_null() {
        return;
    }
    let validator = validator(format!("{method} {template} {status}"), &content["schema"]);
    let errors: Vec<String> =
        validator.iter_errors(&answer.body).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{method} {template} {status}: {errors:#?}\n{}", answer.body);
}
