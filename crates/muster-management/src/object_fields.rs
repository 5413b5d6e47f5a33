//! Common fields of objects that are stored as JSON: outputs and network objects.

use muster_core::Error;
use serde_json::{Map, Value};

/// Removes and returns a string.
pub fn text(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Error> {
    match fields.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::invalid(name, "must be a string")),
    }
}

/// Removes and returns a boolean.
pub fn flag(fields: &mut Map<String, Value>, name: &str) -> Result<Option<bool>, Error> {
    match fields.remove(name) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(flag)),
        Some(_) => Err(Error::invalid(name, "must be true or false")),
    }
}

/// Treats an empty string as absent: some clients send one for what is not set (MG §13).
pub fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Replaces an empty string in a reference to another object by `null`, which removes it.
pub fn reference(fields: &mut Map<String, Value>, name: &str) {
    if let Some(value) = fields.get_mut(name).filter(|value| value.as_str() == Some("")) {
        *value = Value::Null;
    }
}
