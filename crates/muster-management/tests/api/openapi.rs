//! The OpenAPI document.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::Request;
use muster_management::endpoints::{self, Needs};
use serde_json::{Value, json};

use crate::documented::{DOCUMENT, mismatch, resolved};
use crate::support::Api;

fn references(value: &Value) -> Vec<&Value> {
    match value {
        Value::Object(fields) if fields.contains_key("$ref") => vec![value],
        Value::Object(fields) => fields.values().flat_map(references).collect(),
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}

/// The document is committed, so that a change of the API is visible in a review.
#[test]
fn the_committed_document_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/openapi.json");
    let text = serde_json::to_string_pretty(&*DOCUMENT).unwrap() + "\n";
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == text, "docs/openapi.json is out of date: UPDATE_DOCS=1 rewrites it");
}

#[test]
fn the_document_describes_every_endpoint_with_its_privileges() {
    let mut ids = BTreeSet::new();
    for endpoint in endpoints::all() {
        let (method, url) = (endpoint.method.as_str().to_lowercase(), endpoint.url());
        let operation = &DOCUMENT["paths"][&url][&method];
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{method} {url}: no `about`");
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{method} {url}: {}", operation["operationId"]);
        let stated = match endpoint.needs {
            Needs::Privileges(names) => names.iter().map(|name| Value::from(name.as_str())).collect(),
            Needs::Everywhere(name) => json!([name.as_str()]),
            _ => Value::Null,
        };
        assert_eq!(operation["x-privileges"], stated, "{method} {url}");
        assert_eq!(operation["security"] == json!([]), endpoint.needs == Needs::Nothing, "{method} {url}");
        let named: BTreeSet<&str> = operation["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|one| one["in"] == "path")
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        let in_path = url.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(named, in_path, "{method} {url}");
    }
}

#[test]
fn references_lead_somewhere_and_types_have_distinct_names() {
    for reference in references(&DOCUMENT) {
        resolved(reference);
    }
    // The generator numbers the second of two types with the same name.
    let schemas = DOCUMENT["components"]["schemas"].as_object().unwrap();
    let numbered: Vec<_> = schemas.keys().filter(|name| name.ends_with(|last: char| last.is_ascii_digit())).collect();
    assert!(numbered.is_empty(), "rename one of the types: {numbered:?}");
}

#[test]
fn requests_and_responses_have_schemas_of_their_own() {
    let schemas = &DOCUMENT["components"]["schemas"];
    // In a request, a wave needs none of its fields; in a response, `soak_seconds` is always present.
    let required = |name: &str| schemas[name]["required"].as_array().cloned().unwrap_or_default();
    assert!(required("RolloutWave").contains(&json!("soak_seconds")), "{}", schemas["RolloutWave"]);
    assert!(!required("RolloutWaveRequest").contains(&json!("soak_seconds")), "{}", schemas["RolloutWaveRequest"]);
    // `policy_id` may be null, but not absent.
    assert_eq!(required("Reassign"), [json!("policy_id")]);
    assert_eq!(schemas["Reassign"]["properties"]["policy_id"]["type"], json!(["string", "null"]));
}

#[test]
fn a_response_that_does_not_match_its_schema_is_noticed() {
    let schema = json!({"$ref": "#/components/schemas/ErrorBody"});
    let body = json!({"statusCode": 404, "error": "Not Found", "message": "m", "code": "c"});
    assert_eq!(mismatch(&schema, &body), None);
    for (field, value) in [("statusCode", json!("404")), ("message", Value::Null), ("problems", json!([{"path": 1}]))] {
        let mut wrong = body.clone();
        wrong[field] = value;
        assert!(mismatch(&schema, &wrong).unwrap().contains(field), "{wrong}");
    }
    let mut incomplete = body;
    incomplete.as_object_mut().unwrap().remove("code");
    assert_eq!(mismatch(&schema, &incomplete).unwrap(), "\"code\" is missing");
}

#[tokio::test]
async fn the_document_is_served_without_credentials() {
    let api = Api::new();
    let request = Request::builder().uri("/api/v1/openapi.json").body(Body::empty()).unwrap();
    assert_eq!(api.send(request).await.ok(), *DOCUMENT);
}
