//! The details of a line of the audit log, as people read them: a line of text, and the JSON document behind it.

use muster_core::reported::shortened_to;
use serde_json::Value;

/// Maximum length of the line, bytes.
const LINE: usize = 200;
/// Maximum length of the document on the page, characters. Commands and the API return all of it.
const DOCUMENT: usize = 4_000;
/// Maximum number of items that the line lists; of longer lists, it tells their number.
const ITEMS: usize = 3;

type Members = serde_json::Map<String, Value>;

/// The details of a line.
#[derive(Default)]
pub struct Details {
    /// What they say, in a line.
    pub line: String,
    /// The document, indented; empty if the line says all of it.
    pub document: String,
}

impl Details {
    /// Reads the details of an event: a JSON object.
    pub fn of(detail: &Value) -> Self {
        let (before, after) = (detail["before"].as_object(), detail["after"].as_object());
        let others = detail.as_object().into_iter().flatten();
        let others = others.filter(|(name, value)| !value.is_object() || !matches!(name.as_str(), "before" | "after"));
        let (mut parts, mut is_whole) = listed(others);
        let (sides, are_whole) = match (before, after) {
            (Some(before), Some(after)) => changes(before, after),
            // What was created or deleted, as far as it is set.
            (Some(only), None) | (None, Some(only)) => listed(only.iter().filter(|(_, value)| !is_unset(value))),
            (None, None) => (Vec::new(), true),
        };
        parts.extend(sides);
        is_whole &= are_whole;
        let all = parts.join(", ");
        let line = shortened_to(&all, LINE);
        is_whole &= line.len() == all.len();
        Self { document: if is_whole { String::new() } else { document(detail) }, line: line.into_owned() }
    }
}

/// Returns what members of an object say, and whether that is everything.
fn listed<'v>(members: impl Iterator<Item = (&'v String, &'v Value)>) -> (Vec<String>, bool) {
    let (mut parts, mut is_whole) = (Vec::new(), true);
    for (name, value) in members.filter(|(_, value)| !value.is_null()) {
        let (text, is_all) = text_of(value);
        parts.push(format!("{}: {text}", words(name)));
        is_whole &= is_all;
    }
    (parts, is_whole)
}

/// Returns what differs between two objects, and whether that is everything.
fn changes(before: &Members, after: &Members) -> (Vec<String>, bool) {
    let (mut parts, mut is_whole) = (Vec::new(), before.keys().all(|name| after.contains_key(name)));
    let is_changed = |(name, value): &(&String, &Value)| match before.get(*name) {
        None => !is_unset(value),
        Some(old) => old != *value && !(is_unset(old) && is_unset(value)),
    };
    for (name, value) in after.iter().filter(is_changed) {
        let ((old, had_all), (new, has_all)) = (text_of(before.get(name).unwrap_or(&Value::Null)), text_of(value));
        parts.push(format!("{}: {old} → {new}", words(name)));
        is_whole &= had_all && has_all;
    }
    (parts, is_whole)
}

/// Whether a value says that nothing is set.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Returns a value in a few words, and whether they say all of it.
fn text_of(value: &Value) -> (String, bool) {
    match value {
        Value::Null => ("none".to_owned(), true),
        Value::Bool(true) => ("yes".to_owned(), true),
        Value::Bool(false) => ("no".to_owned(), true),
        Value::Number(number) => (number.to_string(), true),
        Value::String(text) if text.is_empty() => ("empty".to_owned(), true),
        Value::String(text) => (text.clone(), true),
        Value::Array(items) if items.is_empty() => ("none".to_owned(), true),
        Value::Array(items)
            if items.len() <= ITEMS && items.iter().all(|item| !item.is_array() && !item.is_object()) =>
        {
            let items: Vec<String> = items.iter().map(|item| text_of(item).0).collect();
            (items.join(" and "), true)
        }
        Value::Array(items) => (format!("{} entries", items.len()), false),
        Value::Object(_) => ("…".to_owned(), false),
    }
}

fn words(name: &str) -> String {
    name.replace('_', " ")
}

fn document(detail: &Value) -> String {
    // A value of JSON can always be written.
    let text = serde_json::to_string_pretty(detail).unwrap_or_default();
    match text.char_indices().nth(DOCUMENT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn details_are_a_line_and_the_document_only_if_it_says_more() {
        let of = |detail| Details::of(&detail);
        let short = of(json!({"gone": null, "is_managed": false, "name": "web", "revision": 3}));
        assert_eq!((short.line.as_str(), short.document.as_str()), ("is managed: no, name: web, revision: 3", ""));
        let changed = of(json!({"before": {"tags": [], "a": 1}, "after": {"tags": ["x", "y"], "a": 1}}));
        assert_eq!((changed.line.as_str(), changed.document.as_str()), ("tags: none → x and y", ""));
        let created = of(json!({"after": {"name": "r", "privileges": ["a", "b"]}}));
        assert_eq!((created.line.as_str(), created.document.as_str()), ("name: r, privileges: a and b", ""));
        let new = of(
            json!({"before": {"labels": null}, "after": {"name": "l", "labels": [], "description": "", "on": false}}),
        );
        assert_eq!((new.line.as_str(), new.document.as_str()), ("name: none → l, on: none → no", ""));
        let long = of(json!({"agents": vec!["a"; 100], "query": "SELECT 1"}));
        assert_eq!(long.line, "agents: 100 entries, query: SELECT 1");
        assert!(long.document.contains("\n    \"a\",\n"), "{}", long.document);
        let huge = of(json!({"query": "x".repeat(10_000)}));
        assert!(huge.line.len() <= LINE + 8 && huge.document.chars().count() == DOCUMENT + 1, "{}", huge.line);
        assert!(of(json!({})).line.is_empty());
    }
}
