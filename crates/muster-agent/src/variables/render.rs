//! Renders inputs and outputs: replaces variables, and drops what a condition excludes (AG §4.2).

use serde_json::{Map, Value};

use super::Scope;
use super::condition;
use super::evaluate::is_true;
use super::template::{Missing, Template};

/// Field with a condition, in any object.
const CONDITION: &str = "condition";

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unrendered {
    /// A condition is false.
    #[error("excluded by its condition")]
    Excluded,
    /// A variable has no value.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// A variable or a condition is malformed.
    #[error("{path}: {reason}")]
    Malformed {
        /// Dotted path of the field.
        path: String,
        /// The reason.
        reason: String,
    },
}

/// Renders a value.
pub fn render(value: &Value, scope: Scope<'_>) -> Result<Value, Unrendered> {
    tree(value, scope, "")
}

fn tree(value: &Value, scope: Scope<'_>, path: &str) -> Result<Value, Unrendered> {
    match value {
        Value::String(text) if text.contains("${") => {
            let template = Template::parse(text).map_err(|reason| malformed(path, reason))?;
            Ok(template.render(scope)?)
        }
        Value::Array(items) => list(items, scope, path),
        Value::Object(fields) => object(fields, scope, path),
        scalar => Ok(scalar.clone()),
    }
}

fn list(items: &[Value], scope: Scope<'_>, path: &str) -> Result<Value, Unrendered> {
    let mut rendered = Vec::with_capacity(items.len());
    for (place, item) in items.iter().enumerate() {
        match tree(item, scope, &join(path, &place.to_string())) {
            Ok(item) => rendered.push(item),
            // Only this item is left out.
            Err(Unrendered::Excluded) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(Value::Array(rendered))
}

fn object(fields: &Map<String, Value>, scope: Scope<'_>, path: &str) -> Result<Value, Unrendered> {
    if let Some(condition) = fields.get(CONDITION)
        && !holds(condition, scope, &join(path, CONDITION))?
    {
        return Err(Unrendered::Excluded);
    }
    let mut rendered = Map::new();
    for (name, field) in fields.iter().filter(|(name, _)| *name != CONDITION) {
        match tree(field, scope, &join(path, name)) {
            Ok(field) => drop(rendered.insert(name.clone(), field)),
            // Only this field is left out.
            Err(Unrendered::Excluded) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(Value::Object(rendered))
}

fn holds(condition: &Value, scope: Scope<'_>, path: &str) -> Result<bool, Unrendered> {
    match condition {
        Value::Bool(value) => Ok(*value),
        Value::String(text) => {
            let parsed = condition::parse(text).map_err(|reason| malformed(path, reason))?;
            is_true(&parsed, scope).map_err(|reason| malformed(path, reason))
        }
        _ => Err(malformed(path, "a condition must be a string".into())),
    }
}

fn malformed(path: &str, reason: String) -> Unrendered {
    Unrendered::Malformed { path: path.to_owned(), reason }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::variables::VariableSets;

    fn rendered(value: &Value) -> Result<Value, String> {
        let context = json!({"env": {"A": "x"}, "host": {"platform": "linux"}}).as_object().unwrap().clone();
        let sets = VariableSets { context, dynamic: Vec::new() };
        render(value, sets.context()).map_err(|error| error.to_string())
    }

    #[test]
    fn streams_with_a_false_condition_are_dropped() {
        let input = json!({"paths": ["${env.A}/log", 5], "streams": [
            {"id": "a", "condition": "${host.platform} == 'windows'"},
            {"id": "b", "condition": "${host.platform} == 'linux'", "${env.A}": "key"}]});
        let expected = json!({"paths": ["x/log", 5], "streams": [{"id": "b", "${env.A}": "key"}]});
        assert_eq!(rendered(&input), Ok(expected));
        assert_eq!(
            rendered(&json!({"condition": "false", "id": "${none.x}"})),
            Err("excluded by its condition".into())
        );
    }

    #[test]
    fn faults_name_their_field() {
        let fault = |value: Value| rendered(&value).unwrap_err();
        assert!(fault(json!({"streams": [{"x": "${open"}]})).starts_with("streams.0.x: "));
        assert!(fault(json!({"streams": [{"condition": "a = b"}]})).starts_with("streams.0.condition: "));
        assert_eq!(fault(json!({"condition": 5})), "condition: a condition must be a string");
        assert_eq!(fault(json!({"a": "${none.x}"})), "no value for ${none.x}");
    }
}
