//! Fields of objects that have an input of their own on the form; all others are in its YAML document.

use std::collections::BTreeMap;

use muster_core::Error;
use serde_json::{Map, Value};

/// What begins the line before a certificate, and the line behind it.
const PEM: (&str, &str) = ("-----BEGIN ", "-----END ");

/// A field with an input.
#[derive(Clone, Copy)]
pub struct Input {
    /// Path of the field in the API: `ssl.certificate_authorities`. Also the name of the input.
    pub name: &'static str,
    /// What people call it.
    pub label: &'static str,
    /// What to enter; may be empty.
    pub hint: &'static str,
    /// How its value is entered.
    pub shape: Shape,
    /// The types of objects that have it; empty if all have.
    pub types: &'static [&'static str],
}

/// How the value of a field is entered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One line.
    Line,
    /// A list of strings, one a line.
    Lines,
    /// A list of certificates, each as PEM or as the path of a file.
    Certificates,
    /// A text of several lines.
    Text,
    /// A secret, which no page shows.
    Secret,
    /// The id of a proxy.
    Proxy,
}

impl Input {
    /// Returns whether objects of a type have the field.
    pub fn is_of(&self, kind: &str) -> bool {
        self.types.is_empty() || self.types.contains(&kind)
    }

    /// Returns what the input shows of a value; `None` if it cannot show it without a loss.
    fn shown(&self, value: &Value) -> Option<String> {
        let text = match (self.shape, value) {
            (Shape::Line | Shape::Text | Shape::Proxy, Value::String(text)) => text.trim().to_owned(),
            (Shape::Lines | Shape::Certificates, Value::Array(items)) => {
                let items: Option<Vec<&str>> = items.iter().map(|item| item.as_str().map(str::trim)).collect();
                items?.join("\n")
            }
            _ => return None,
        };
        let is_whole = match self.shape {
            Shape::Line | Shape::Proxy => !text.contains('\n'),
            // As many lines as items.
            Shape::Lines => value.as_array().map(Vec::len) == Some(text.lines().count()),
            Shape::Certificates | Shape::Text | Shape::Secret => true,
        };
        (is_whole && !text.is_empty()).then_some(text)
    }

    /// Returns the value of what was typed; `None` if nothing was.
    fn value(&self, typed: &str) -> Option<Value> {
        let typed = typed.trim();
        if typed.is_empty() {
            return None;
        }
        Some(match self.shape {
            Shape::Line | Shape::Text | Shape::Secret | Shape::Proxy => typed.into(),
            Shape::Lines => typed.lines().map(str::trim).filter(|line| !line.is_empty()).collect(),
            Shape::Certificates => certificates(typed).into(),
        })
    }
}

/// Splits a text into its certificates: the lines between the marks of PEM belong together.
fn certificates(text: &str) -> Vec<String> {
    let (mut all, mut open) = (Vec::new(), None::<String>);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        match &mut open {
            None if line.starts_with(PEM.0) => open = Some(line.to_owned()),
            None => all.push(line.to_owned()),
            Some(block) => {
                block.push('\n');
                block.push_str(line);
                if line.starts_with(PEM.1) {
                    all.extend(open.take());
                }
            }
        }
    }
    // A block without an end is reported by whoever reads it.
    all.extend(open);
    all
}

/// What was typed into the inputs, by their names.
pub type Typed = BTreeMap<String, String>;

/// Returns what was typed into an input, without spaces around it.
pub fn typed<'t>(all: &'t Typed, prefix: &str, name: &str) -> &'t str {
    all.get(&format!("{prefix}{name}")).map(|text| text.trim()).unwrap_or_default()
}

/// What comes before the name of an input for a secret.
pub const SECRET: &str = "secret.";
/// What comes before the name of a secret that is removed.
pub const REMOVE: &str = "remove.";
/// What comes before the name of a secret that was entered on the page before: no page keeps it.
pub const AGAIN: &str = "again.";

/// Splits the fields of an object of a type into what the inputs show, and the rest.
pub fn split(inputs: &[Input], kind: &str, fields: &Map<String, Value>) -> (Typed, Map<String, Value>) {
    let (mut shown, mut rest) = (Typed::new(), fields.clone());
    for input in inputs.iter().filter(|input| input.is_of(kind)) {
        if input.shape == Shape::Secret {
            take(&mut rest, &format!("secrets.{}", input.name));
        } else if let Some(text) = at(fields, input.name).and_then(|value| input.shown(value)) {
            take(&mut rest, input.name);
            shown.insert(input.name.to_owned(), text);
        }
    }
    (shown, rest)
}

/// Adds what was typed into the inputs to the members of the document. `before` are the stored fields.
///
/// # Errors
/// If a field is in both places, or a secret that was entered before is missing.
pub fn join(
    inputs: &[Input],
    kind: &str,
    all: &Typed,
    mut members: Map<String, Value>,
    before: &Map<String, Value>,
) -> Result<Map<String, Value>, Error> {
    for input in inputs.iter().filter(|input| input.is_of(kind)) {
        let Some(value) = entered(input, all, before)? else { continue };
        let inside = format!("secrets.{}", input.name);
        let is_twice = [input.name, &inside]
            .into_iter()
            .any(|path| members.contains_key(path) || at(&members, path).is_some_and(|value| !value.is_null()));
        if is_twice {
            return Err(Error::invalid(input.name, "is also set under More settings; keep only one of the two"));
        }
        if !put(&mut members, input.name, value) {
            let outer = input.name.split('.').next().unwrap_or_default();
            return Err(Error::invalid("yaml", format!("`{outer}` must be an object")));
        }
    }
    Ok(members)
}

/// Returns the value that an input sets; `null` removes a stored secret.
fn entered(input: &Input, all: &Typed, before: &Map<String, Value>) -> Result<Option<Value>, Error> {
    if input.shape != Shape::Secret {
        let text = typed(all, "", input.name);
        // What was not changed stays as it is stored, with all its spaces.
        let stored = at(before, input.name).filter(|value| input.shown(value).as_deref() == Some(text));
        return Ok(stored.cloned().or_else(|| input.value(text)));
    }
    if let Some(value) = input.value(typed(all, SECRET, input.name)) {
        return Ok(Some(value));
    }
    if !typed(all, REMOVE, input.name).is_empty() {
        return Ok(Some(Value::Null));
    }
    if typed(all, AGAIN, input.name).is_empty() {
        return Ok(None);
    }
    Err(Error::invalid(
        input.name,
        "enter the value again, because pages do not keep secrets; to leave it as it is, open the page anew",
    ))
}

/// Returns whether a value of a secret is stored.
pub fn is_stored(fields: &Map<String, Value>, input: &Input) -> bool {
    input.shape == Shape::Secret && at(fields, &format!("secrets.{}", input.name)).is_some_and(|one| !one.is_null())
}

/// Returns the value at a dotted path.
fn at<'v>(fields: &'v Map<String, Value>, path: &str) -> Option<&'v Value> {
    match path.split_once('.') {
        None => fields.get(path),
        Some((outer, inner)) => at(fields.get(outer)?.as_object()?, inner),
    }
}

/// Removes the value at a dotted path, with the objects that become empty.
fn take(fields: &mut Map<String, Value>, path: &str) {
    let Some((outer, inner)) = path.split_once('.') else {
        fields.remove(path);
        return;
    };
    let Some(Value::Object(nested)) = fields.get_mut(outer) else { return };
    let had_any = !nested.is_empty();
    take(nested, inner);
    if had_any && nested.is_empty() {
        fields.remove(outer);
    }
}

/// Sets the value at a dotted path; returns false if something else than an object is in the way.
fn put(fields: &mut Map<String, Value>, path: &str, value: Value) -> bool {
    let Some((outer, inner)) = path.split_once('.') else {
        fields.insert(path.to_owned(), value);
        return true;
    };
    let nested = fields.entry(outer).or_insert(Value::Null);
    if nested.is_null() {
        *nested = Value::Object(Map::new());
    }
    nested.as_object_mut().is_some_and(|nested| put(nested, inner, value))
}

/// Returns an error about a field of the API as one about the input, or about the document, that contains it: one for each
/// problem. `own` are the fields with an input on every form.
pub fn located(inputs: &[Input], error: &Error, own: &[&str]) -> Vec<Error> {
    let place = |path: &str, reason: &str| {
        let bare = path.strip_prefix("secrets.").unwrap_or(path);
        if own.contains(&path) {
            return (path.to_owned(), reason.to_owned());
        }
        let found = inputs.iter().find_map(|input| Some((input, bare.strip_prefix(input.name)?)));
        match found.map(|(input, rest)| (input.name, rest.strip_prefix('.').unwrap_or(rest), rest)) {
            Some((name, _, "")) => (name.to_owned(), reason.to_owned()),
            Some((name, item, _)) if item.bytes().all(|byte| byte.is_ascii_digit()) => {
                (format!("{name}[{item}]"), reason.to_owned())
            }
            _ => ("yaml".to_owned(), format!("`{path}` {reason}")),
        }
    };
    let as_error = |path: &str, reason: &str, remedy: Option<String>| {
        let (field, reason) = place(path, reason);
        Error { message: format!("{field}: {reason}"), field: Some(field), remedy, problems: None, ..error.clone() }
    };
    match (&error.problems, error.field.as_deref()) {
        (Some(problems), _) => {
            let all = problems.0.iter().map(|problem| {
                let reason = match problem.remedy.as_str() {
                    "" => problem.reason.clone(),
                    remedy => format!("{}; {remedy}", problem.reason),
                };
                as_error(&problem.path, &reason, None)
            });
            all.collect()
        }
        (None, Some("yaml")) | (None, None) => vec![error.clone()],
        (None, Some(field)) => {
            let reason = error.message.strip_prefix(field).and_then(|rest| rest.strip_prefix(": "));
            vec![as_error(field, reason.unwrap_or(&error.message), error.remedy.clone())]
        }
    }
}

#[cfg(test)]
mod tests {
    use muster_core::policy::check::OUTPUT_TYPES;
    use muster_core::policy::problem::Problems;
    use serde_json::json;

    use super::super::{Downloads, Hosts, Kind, Outputs, Proxies};
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { panic!("{value}") };
        object
    }

    fn filled(entries: &[(&str, &str)]) -> Typed {
        entries.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn what_the_form_shows_of_an_object_gives_the_same_object() {
        let pem = "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n";
        for fields in [
            json!({"hosts": ["https://a:9200", "https://b:9200"], "preset": "balanced", "secrets": {"password": {"id": "p"}}}),
            json!({"hosts": ["a b", " c "], "ssl": {"certificate_authorities": [pem, "/etc/ca.pem"], "verification_mode": "full"}}),
            json!({"hosts": "${HOSTS}", "username": 1, "ssl": {}, "proxy_id": "p"}),
            json!({"hosts": ["a\nb"], "ssl": {"certificate_authorities": [format!("{pem}{pem}")]}, "topic": "t"}),
        ] {
            let fields = object(fields);
            let (shown, rest) = split(Outputs::INPUTS, "elasticsearch", &fields);
            let mut joined = join(Outputs::INPUTS, "elasticsearch", &shown, rest, &fields).unwrap();
            // A stored secret is kept unless it is set or removed.
            joined.remove("secrets");
            let expected = fields.into_iter().filter(|(name, _)| name != "secrets").collect::<Map<_, _>>();
            assert_eq!(joined, expected);
        }
        assert_eq!(certificates(&format!("{pem}\n /a \n{pem}")), [pem.trim(), "/a", pem.trim()]);
    }

    #[test]
    fn a_field_in_both_places_is_rejected_and_a_secret_is_kept_replaced_or_removed() {
        let join = |entries: &[(&str, &str)], members: Value| {
            join(Outputs::INPUTS, "elasticsearch", &filled(entries), object(members), &Map::new())
        };
        for members in [json!({"hosts": ["b"]}), json!({"password": "x"}), json!({"secrets": {"password": "x"}})] {
            let error = join(&[("hosts", "https://a"), ("secret.password", "y")], members).unwrap_err();
            assert!(error.message.ends_with("is also set under More settings; keep only one of the two"), "{error}");
        }
        assert_eq!(join(&[("hosts", " ")], json!({"hosts": ["b"]})).unwrap(), object(json!({"hosts": ["b"]})));
        assert_eq!(join(&[("secret.password", "y")], json!({})).unwrap(), object(json!({"password": "y"})));
        assert_eq!(join(&[("remove.password", "1")], json!({})).unwrap(), object(json!({"password": null})));
        let lost = join(&[("again.password", "1")], json!({})).unwrap_err();
        assert_eq!(lost.field.as_deref(), Some("password"));
        let outer = join(&[("ssl.certificate_authorities", "/a")], json!({"ssl": 1})).unwrap_err();
        assert_eq!(outer.message, "yaml: `ssl` must be an object");
        // The browser hides it, or the person has chosen another type since it was typed.
        assert_eq!(join(&[("topic", "t")], json!({})).unwrap(), Map::new());
    }

    #[test]
    fn a_problem_is_shown_at_the_input_or_at_the_document() {
        let mut problems = Problems::default();
        problems.advise("hosts.1", "must be a URL", "such as `https://b`");
        problems.add("preset", "is unknown");
        problems.add("name", "is empty");
        let found = located(Outputs::INPUTS, &Error::from(problems), &["name"]);
        let shown = found.iter().map(|error| (error.field.clone().unwrap(), error.message.clone()));
        let expected = [
            ("hosts[1]", "hosts[1]: must be a URL; such as `https://b`"),
            ("yaml", "yaml: `preset` is unknown"),
            ("name", "name: is empty"),
        ];
        assert_eq!(shown.collect::<Vec<_>>(), expected.map(|(field, text)| (field.to_owned(), text.to_owned())));
        let moved = Error::invalid("secrets.service_token", "is required").remedy("send it");
        let [found] = &located(Outputs::INPUTS, &moved, &[])[..] else { panic!("one error") };
        assert_eq!((found.message.as_str(), found.remedy.as_deref()), ("service_token: is required", Some("send it")));
        let taken = Error::conflict("output_name_taken", "another output is named \"a\"");
        assert_eq!(located(Outputs::INPUTS, &taken, &[]), [taken]);
    }

    #[test]
    fn errors_name_an_input_by_its_label() {
        for input in [Outputs::INPUTS, Hosts::INPUTS, Proxies::INPUTS, Downloads::INPUTS].into_iter().flatten() {
            let error = Error::invalid(input.name, "x");
            assert_eq!(crate::fields::summary(&error), format!("{}: x", input.label));
            assert!(input.types.iter().all(|kind| OUTPUT_TYPES.contains(kind)), "{}", input.name);
        }
    }
}
