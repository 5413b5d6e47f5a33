//! JSON documents that the API passes on without interpreting them.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// A JSON document as text. Agents determine its content, and decoded it can take a hundred times as much memory.
#[derive(Clone, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// Validates a JSON text; `None` if it is malformed.
    pub fn parse(text: impl Into<String>) -> Option<Self> {
        // Validated once here, so that serialization can copy the text.
        RawValue::from_string(text.into()).ok().map(Self)
    }

    /// Returns the text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// Returns whether it is `null`.
    pub fn is_null(&self) -> bool {
        // Raw values have no white space around them.
        self.get() == "null"
    }
}

impl Default for Json {
    /// `null`.
    fn default() -> Self {
        Self(RawValue::NULL.to_owned())
    }
}

impl JsonSchema for Json {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Json".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // Any value.
        true.into()
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        // A value always serializes to valid JSON, so the fallback is not reached.
        Self::parse(value.to_string()).unwrap_or_default()
    }
}

impl PartialEq for Json {
    /// Compares the texts: the same document with other whitespace or another order of keys is not equal.
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

// The derived one would escape the text once more.
impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_passed_on_unchanged() {
        let text = r#"[{"b": 1,  "a":1.50}]"#;
        let read: Vec<Json> = serde_json::from_str(text).unwrap();
        assert_eq!(read[0].get(), r#"{"b": 1,  "a":1.50}"#);
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!(Json::parse("{"), None);
        assert!(Json::default().is_null());
    }
}
