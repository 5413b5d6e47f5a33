//! The places of a policy where each agent has its own key.

use serde_json::{Map, Value};

use crate::output_key::KeyNeed;

/// Field with the key, of outputs and of exporters.
const API_KEY: &str = "api_key";
/// Type of the OpenTelemetry exporters that get a key: `elasticsearch/OUTPUT` (EA103).
pub(crate) const EXPORTER: &str = "elasticsearch/";

/// How a key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyForm {
    /// `id:secret` (EA102).
    Plain,
    /// Base64 of it (EA103).
    Encoded,
}

/// A place for the key of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hole {
    /// Name of the output.
    pub output: String,
    /// How the key is written.
    pub form: KeyForm,
    /// JSON before the key: the name of the field, and a comma if other fields precede it.
    pub before: &'static str,
    /// JSON after the key: a comma if other fields follow.
    pub after: &'static str,
}

/// Part of a serialized policy.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Segment {
    /// The same for all agents.
    Text(String),
    /// The key of the agent.
    Hole(Hole),
}

/// Serializes a policy with `write`, and splits the result at the places of keys.
pub(super) fn split(
    mut policy: Map<String, Value>,
    needs: &[KeyNeed],
    write: impl Fn(&Map<String, Value>) -> String,
) -> Vec<Segment> {
    if needs.is_empty() {
        return vec![Segment::Text(write(&policy))];
    }
    // Marks are put into the policy itself, so that the serializer, not this code, decides how JSON is written.
    let mark = free_mark(&write(&policy));
    let mut holes = Vec::new();
    for need in needs {
        let exporter = format!("{EXPORTER}{}", need.output);
        for (section, name, form) in
            [("outputs", &need.output, KeyForm::Plain), ("exporters", &exporter, KeyForm::Encoded)]
        {
            if mark_field(&mut policy, section, name, format!("{mark}{}", holes.len())) {
                holes.push((need.output.clone(), form));
            }
        }
    }
    cut(&write(&policy), &mark, &holes)
}

/// Returns a string that does not occur in the text.
fn free_mark(text: &str) -> String {
    let mut number = 0;
    loop {
        let mark = format!("key-of-an-agent-{number}-");
        if !text.contains(&mark) {
            return mark;
        }
        number += 1;
    }
}

// No such component: the output was removed from the sections that are delivered.
/// Sets the field of a component to a mark. Returns false if there is no such component.
fn mark_field(policy: &mut Map<String, Value>, section: &str, name: &str, mark: String) -> bool {
    let component = policy.get_mut(section).and_then(|section| section.get_mut(name));
    let Some(component) = component else { return false };
    // An exporter without settings can be `null`.
    if component.is_null() {
        *component = Value::Object(Map::new());
    }
    let Value::Object(fields) = component else { return false };
    fields.insert(API_KEY.to_owned(), mark.into());
    true
}

/// Splits the text at the marked fields.
fn cut(text: &str, mark: &str, holes: &[(String, KeyForm)]) -> Vec<Segment> {
    // Only as the value of the field: a mark elsewhere in the text, in a name for example, is left alone.
    let opening = format!("\"{API_KEY}\":\"{mark}");
    let mut segments = Vec::new();
    let mut rest = text;
    while let Some((before, (number, after))) =
        rest.split_once(&opening).and_then(|(before, marked)| Some((before, marked.split_once('"')?)))
    {
        let hole = number.parse::<usize>().ok().and_then(|number| holes.get(number));
        let Some((output, form)) = hole else { break };
        // The member and one comma are left out together, so that the object is valid without the key, too.
        // A comma behind the member is preferred, because the piece before it then ends in the same way with and
        // without the key.
        let (before, after, wrap) = match (after.strip_prefix(','), before.strip_suffix(',')) {
            (Some(after), _) => (before, after, ("\"api_key\":", ",")),
            (None, Some(before)) => (before, after, (",\"api_key\":", "")),
            (None, None) => (before, after, ("\"api_key\":", "")),
        };
        segments.push(Segment::Text(before.to_owned()));
        segments.push(Segment::Hole(Hole { output: output.clone(), form: *form, before: wrap.0, after: wrap.1 }));
        rest = after;
    }
    segments.push(Segment::Text(rest.to_owned()));
    segments
}
