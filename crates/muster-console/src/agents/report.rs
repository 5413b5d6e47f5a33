//! What an agent reports about itself, in lengths that a page bears: an agent decides how long its messages and names are.

use muster_core::reported::{shortened, shortened_to};
use serde::Deserialize;

/// Maximum number of components, and of units of each, on the page.
const COMPONENTS: usize = 200;
/// Maximum length of a message in its line, bytes.
pub const SHORT: usize = 300;
/// Maximum length of an id, a type or a status, bytes.
const NAME: usize = 120;

/// A message. A long one is shown by its beginning, and unfolds.
#[derive(Default)]
pub struct Long {
    /// The message, or its beginning.
    pub short: String,
    /// The message as far as it is stored; empty if the short one is all of it.
    pub whole: String,
}

impl Long {
    /// Cuts a message.
    pub fn of(text: &str) -> Self {
        let whole = if text.len() <= SHORT { String::new() } else { shortened(text).into_owned() };
        Self { short: shortened_to(text, SHORT).into_owned(), whole }
    }
}

impl<'de> Deserialize<'de> for Long {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self::of(&text))
    }
}

/// A component, as the agent reports it. Everything is optional: an agent of another version may leave members out.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Component {
    /// Id.
    pub id: Name,
    /// Status, such as `HEALTHY`.
    pub status: Name,
    /// Message about the status.
    pub message: Long,
    /// Its inputs and outputs.
    pub units: Vec<Unit>,
}

/// An input or output of a component.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Unit {
    /// Id.
    pub id: Name,
    /// `input` or `output`.
    pub r#type: Name,
    /// Status, such as `HEALTHY`.
    pub status: Name,
    /// Message about the status.
    pub message: Long,
}

/// An id, a type or a status.
#[derive(Default, Deserialize)]
#[serde(from = "String")]
pub struct Name(pub String);

impl From<String> for Name {
    fn from(text: String) -> Self {
        Self(shortened_to(&text, NAME).into_owned())
    }
}

/// Reads the components of a document. A document that has another form shows none.
pub fn components(text: Option<&str>) -> Vec<Component> {
    let mut all: Vec<Component> = text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    all.truncate(COMPONENTS);
    for component in &mut all {
        component.units.truncate(COMPONENTS);
    }
    all
}

#[cfg(test)]
mod tests {
    use muster_core::reported::MESSAGE_BYTES;

    use super::*;

    #[test]
    fn components_of_any_form_are_read() {
        let text =
            r#"[{"id":"log-default","status":"HEALTHY","units":[{"id":"u","type":"input"}],"payload":{"x":[1]}},{}]"#;
        let found = components(Some(text));
        let unit = &found[0].units[0];
        assert_eq!((found.len(), found[0].id.0.as_str(), unit.r#type.0.as_str()), (2, "log-default", "input"));
        for bad in [None, Some("null"), Some("{}"), Some("[1]"), Some("[")] {
            assert!(components(bad).is_empty(), "{bad:?}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "ä".repeat(900_000);
        let long = Long::of(&text);
        assert!(long.short.len() <= SHORT && long.short.ends_with("ä…"), "{}", long.short);
        assert!(long.whole.len() > SHORT && long.whole.len() <= MESSAGE_BYTES);
        assert!(Long::of("short").whole.is_empty() && Long::of(&"x".repeat(SHORT)).whole.is_empty());
        assert!(Name::from(text).0.len() <= NAME);
    }
}
