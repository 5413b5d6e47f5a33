//! Documents that this API passes on without looking into them.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// A JSON document as text. Agents decide what it holds, and a decoded one may take a hundred times as much memory.
#[derive(Clone, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    /// The document of that text; `None` when the text is no JSON.
    pub fn parse(text: impl Into<String>) -> Option<Self> {
        RawValue::from_string(text.into()).ok().map(Self)
    }

    /// Its text.
    pub fn get(&self) -> &str {
        self.0.get()
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        self.get() == "null"
    }
}

impl Default for Json {
    /// `null`.
    fn default() -> Self {
        Self(RawValue::NULL.to_owned())
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self::parse(value.to_string()).unwrap_or_default()
    }
}

impl PartialEq for Json {
    /// By text: the same document written otherwise is another one.
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

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
    fn documents_are_passed_on_as_they_are_written() {
        let text = r#"[{"b": 1,  "a":1.50}]"#;
        let read: Vec<Json> = serde_json::from_str(text).unwrap();
        assert_eq!(read[0].get(), r#"{"b": 1,  "a":1.50}"#);
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!(Json::parse("{"), None);
        assert!(Json::default().is_null());
    }
}
