//! The layers of a configuration: the text of a file, the environment, and flags. This module reads nothing from the
//! system: the caller passes the layers, so that tests can pass any.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::keys::{self, KEYS};
use super::problem::{Problem, Source, nearest};
use super::value::Raw;

/// One value of one layer.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key, as written.
    pub key: String,
    /// The value, as written.
    pub raw: Raw,
    /// Where the value was set.
    pub source: Source,
}

/// Variables that the other commands and muster-agent read.
const OTHER_VARIABLES: [&str; 8] = [
    "MUSTER_CONFIG",
    "MUSTER_URL",
    "MUSTER_TOKEN",
    "MUSTER_CA",
    "MUSTER_CONTEXT",
    "MUSTER_ENROLLMENT_TOKEN",
    "MUSTER_REPLACE_TOKEN",
    "MUSTER_AGENT_BASE_PATH",
];

/// Prefixes of variables that our tests set, and that muster-agent sets for the programs it runs.
const OTHER_PREFIXES: [&str; 3] = ["MUSTER_KILL_", "MUSTER_TEST_", "MUSTER_COMPONENT_"];

/// Parses the text of a file. Syntax errors are added to the problems; the rest of the file is still parsed.
pub fn file(path: &str, text: &str, problems: &mut Vec<Problem>) -> Vec<Entry> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let source = |offset: usize| Source::File { path: path.to_owned(), line: line(text, offset) };
    problems.extend(errors.iter().map(|error| Problem {
        source: source(error.span().map_or(0, |span| span.start)),
        key: String::new(),
        reason: error.message().to_owned(),
    }));
    let mut found = Found { entries: Vec::new(), problems };
    flatten("", table.get_ref(), &source, &mut found);
    found.entries
}

fn line(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

struct Found<'a> {
    entries: Vec<Entry>,
    problems: &'a mut Vec<Problem>,
}

fn flatten(prefix: &str, table: &DeTable<'_>, source: &dyn Fn(usize) -> Source, found: &mut Found<'_>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
        match value.get_ref() {
            // Unknown keys are reported one by one. An empty section has no keys, so that a misspelled one must be
            // reported itself.
            DeValue::Table(inner) if inner.is_empty() && !is_section(&key) => {
                found.problems.push(unknown_section(key, source(name.span().start)));
            }
            DeValue::Table(inner) => flatten(&key, inner, source, found),
            value => found.entries.push(Entry { key, raw: raw(value), source: source(name.span().start) }),
        }
    }
}

fn sections() -> impl Iterator<Item = &'static str> {
    let around = |key: &'static str| std::iter::successors(key.rsplit_once('.'), |(outer, _)| outer.rsplit_once('.'));
    KEYS.iter().flat_map(move |definition| around(&definition.key).map(|(section, _)| section))
}

fn is_section(name: &str) -> bool {
    sections().any(|section| section == name)
}

fn unknown_section(key: String, source: Source) -> Problem {
    let reason = match nearest(&key, sections()) {
        Some(near) => format!("unknown section; did you mean [{near}]?"),
        None => "unknown section".into(),
    };
    Problem { source, key, reason }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) => integer(number),
        DeValue::Boolean(flag) => Raw::Flag(*flag),
        DeValue::Array(items) => list(items.iter().map(toml::Spanned::get_ref)),
        DeValue::Float(_) => Raw::Other("a number with a fraction"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

fn integer(number: &toml::de::DeInteger<'_>) -> Raw {
    // TOML integers can be hexadecimal, octal or binary.
    match i64::from_str_radix(number.as_str(), number.radix()) {
        Ok(number) => Raw::Integer(number),
        Err(_) => Raw::Other("a number too large"),
    }
}

fn list<'a>(items: impl Iterator<Item = &'a DeValue<'a>>) -> Raw {
    let texts: Option<Vec<String>> = items
        .map(|item| match item {
            DeValue::String(text) => Some(text.to_string()),
            _ => None,
        })
        .collect();
    texts.map_or(Raw::Other("a list of something other than strings"), Raw::List)
}

/// Returns the values of variables `MUSTER_…`. Unknown variables are added to `ignored` and are not errors, unlike
/// unknown keys in the file: the environment is shared with scripts and orchestrators, whose variables must not prevent
/// the server from starting.
pub fn environment(variables: &BTreeMap<String, String>, ignored: &mut Vec<Problem>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for definition in KEYS.iter() {
        let name = definition.variable();
        if let Some(text) = variables.get(&name) {
            let raw = Raw::Text(text.clone());
            entries.push(Entry { key: definition.key.clone(), raw, source: Source::Environment(name) });
        }
    }
    let strays = variables.iter().filter(|(name, value)| is_stray(name, value));
    ignored.extend(strays.map(|(name, _)| unknown_variable(name)));
    entries
}

/// Returns whether a variable looks like one of ours but is not read by any program. Orchestrators set variables for a
/// service named `muster` in every container; these are not reported.
fn is_stray(name: &str, value: &str) -> bool {
    name.starts_with("MUSTER_")
        && !OTHER_VARIABLES.contains(&name)
        && !OTHER_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        && !KEYS.iter().any(|definition| definition.variable() == name)
        && !is_for_a_service(name, value)
}

/// Returns whether an orchestrator sets this variable for a service: `MUSTER_SERVICE_HOST`, `MUSTER_PORT=tcp://…`,
/// `MUSTER_PORT_8220_TCP_ADDR` …
fn is_for_a_service(name: &str, value: &str) -> bool {
    let protocol = |text: &str| ["TCP", "UDP", "SCTP"].contains(&text.split('_').next().unwrap_or_default());
    let port = name.split_once("_PORT_").and_then(|(_, rest)| rest.split_once('_'));
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.ends_with("_PORT") && value.contains("://")
        || port.is_some_and(|(number, rest)| number.parse::<u16>().is_ok() && protocol(rest))
}

fn unknown_variable(name: &str) -> Problem {
    let known: Vec<String> = KEYS.iter().map(keys::Definition::variable).collect();
    let hint = nearest(name, known.iter().map(String::as_str)).map(|near| format!("; did you mean {near}?"));
    let reason = format!("unknown variable, ignored{}", hint.unwrap_or_default());
    Problem { source: Source::Environment(name.to_owned()), key: String::new(), reason }
}

/// Parses the values of `--set KEY=VALUE`.
pub fn assignments(list: &[String], problems: &mut Vec<Problem>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    for text in list {
        // The value is not part of the source, because it can be a secret.
        let source = Source::Flag(format!("--set {}", text.split('=').next().unwrap_or_default()));
        match text.split_once('=') {
            Some((key, value)) => {
                let raw = Raw::Text(value.to_owned());
                entries.push(Entry { key: key.trim().to_owned(), raw, source });
            }
            None => problems.push(Problem { source, key: String::new(), reason: "expected --set KEY=VALUE".into() }),
        }
    }
    entries
}
