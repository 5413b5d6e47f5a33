//! The schemas of all types, under `components/schemas`.

use std::collections::BTreeSet;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

/// Place of the schemas in the document.
const PLACE: &str = "/components/schemas";

/// Returns the generators for requests and for responses: a field with a default is optional in a request, and always
/// present in a response.
pub(super) fn generators() -> (SchemaGenerator, SchemaGenerator) {
    let settings = || {
        SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = PLACE.into();
            settings.meta_schema = None;
        })
    };
    (settings().for_deserialize().into_generator(), settings().for_serialize().into_generator())
}

/// Merges the schemas of requests into those of responses. A type whose two schemas differ has both: that of the request is
/// renamed to `…Request`, also in `paths`.
pub(super) fn merge(
    mut requests: Map<String, Value>,
    responses: Map<String, Value>,
    paths: &mut Value,
) -> Map<String, Value> {
    let renamed = differing(&requests, &responses);
    let rename = |name: &str| format!("{name}Request");
    let mut all = responses;
    for (name, schema) in &mut requests {
        redirect(schema, &renamed, &rename);
        let name = if renamed.contains(name) { rename(name) } else { name.clone() };
        all.insert(name, schema.take());
    }
    for_each_request(paths, &mut |request| redirect(request, &renamed, &rename));
    all.values_mut().for_each(simplify);
    all
}

/// Names of types whose schemas differ, also by one that they refer to.
fn differing(requests: &Map<String, Value>, responses: &Map<String, Value>) -> BTreeSet<String> {
    let both: Vec<_> = requests.iter().filter_map(|(name, one)| Some((name, one, responses.get(name)?))).collect();
    let is_other = |one: &Value, other: &Value| {
        let (mut one, mut other) = (one.clone(), other.clone());
        simplify(&mut one);
        simplify(&mut other);
        one != other
    };
    let mut found: BTreeSet<String> =
        both.iter().filter(|(_, one, other)| is_other(one, other)).map(|(name, ..)| (*name).clone()).collect();
    loop {
        let refers = |schema: &Value| references(schema).iter().any(|name| found.contains(name));
        let more = both.iter().find(|(name, one, _)| !found.contains(*name) && refers(one));
        let Some((name, ..)) = more else { return found };
        let name = (*name).clone();
        found.insert(name);
    }
}

fn references(schema: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    visit(&mut schema.clone(), &mut |object| {
        let name = object.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
        found.extend(name.map(str::to_owned));
    });
    found
}

fn redirect(schema: &mut Value, renamed: &BTreeSet<String>, rename: &dyn Fn(&str) -> String) {
    visit(schema, &mut |object| {
        if let Some(Value::String(path)) = object.get_mut("$ref")
            && let Some(name) = path.strip_prefix('#').and_then(|path| path.strip_prefix(PLACE))
            && let Some(name) = name.strip_prefix('/').filter(|name| renamed.contains(*name))
        {
            *path = format!("#{PLACE}/{}", rename(name));
        }
    });
}

fn for_each_request(paths: &mut Value, act: &mut dyn FnMut(&mut Value)) {
    let items = paths.as_object_mut().into_iter().flat_map(|paths| paths.values_mut());
    for operation in items.filter_map(Value::as_object_mut).flat_map(|item| item.values_mut()) {
        for part in ["parameters", "requestBody"] {
            if let Some(part) = operation.get_mut(part) {
                act(part);
            }
        }
    }
}

/// Removes what says nothing: formats that OpenAPI does not define, and defaults that are `null`.
pub(super) fn simplify(schema: &mut Value) {
    visit(schema, &mut |object| {
        if object.get("default").is_some_and(|default| default.is_null() || *default == serde_json::json!([])) {
            object.remove("default");
        }
        match object.get("format").and_then(Value::as_str) {
            Some("uint32") => {
                object.remove("format");
                object.insert("maximum".into(), u32::MAX.into());
            }
            Some("uint8" | "uint16" | "uint" | "uint64") => {
                object.remove("format");
            }
            _ => {}
        }
    });
}

fn visit(value: &mut Value, act: &mut dyn FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            act(object);
            object.values_mut().for_each(|value| visit(value, act));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| visit(value, act)),
        _ => {}
    }
}
