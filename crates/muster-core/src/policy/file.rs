//! Policy files (`muster policy apply -f FILE`): `name`, `description`, `namespace`, `tags`, `settings`, and `config`
//! in the format of a standalone agent.

use serde_json::{Map, Value};

use super::Policy;
use super::check::{CONFIG_KEYS, kind_of};
use super::problem::{Problem, Problems, shortened};
use crate::yaml::{self, Places};

// Few on purpose: everything else is either a setting of the API or part of the configuration.
/// Top-level keys of a file.
const KEYS: [&str; 6] = ["name", "description", "namespace", "tags", "settings", "config"];

/// Keys under `settings`: optional fields of the management API with the same names.
const SETTINGS: [(&str, Setting); 20] = [
    ("is_managed", Setting::Boolean),
    ("is_default", Setting::Boolean),
    ("is_protected", Setting::Boolean),
    ("inactivity_timeout", Setting::Seconds),
    ("unenroll_timeout", Setting::Seconds),
    ("duplicate_hosts", Setting::Other),
    ("monitoring_enabled", Setting::Other),
    ("keep_monitoring_alive", Setting::Boolean),
    ("monitoring_pprof_enabled", Setting::Boolean),
    ("monitoring_http", Setting::Other),
    ("monitoring_diagnostics", Setting::Other),
    ("data_output_id", Setting::Other),
    ("monitoring_output_id", Setting::Other),
    ("fleet_server_host_id", Setting::Other),
    ("download_source_id", Setting::Other),
    ("agent_features", Setting::Other),
    ("advanced_settings", Setting::Other),
    ("global_data_tags", Setting::Other),
    ("overrides", Setting::Other),
    ("required_versions", Setting::Other),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Setting {
    Boolean,
    Seconds,
    /// Checked with the other fields of the policy.
    Other,
}

/// A policy file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PolicyFile {
    /// Name of the policy to create or change.
    pub name: String,
    /// Description; empty by default.
    pub description: String,
    /// Data namespace; `default` by default.
    pub namespace: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Settings by name. `null` resets a setting; an absent one is not changed.
    pub settings: Map<String, Value>,
    /// Configuration; if absent, it is not changed.
    pub config: Option<Value>,
}

impl PolicyFile {
    /// Adds what the file does not contain, so that applying it resets that: all settings, and the configuration.
    pub fn complete(&mut self) {
        for (name, _) in SETTINGS {
            self.settings.entry(name).or_insert(Value::Null);
        }
        self.config.get_or_insert_with(|| Value::Object(Map::new()));
    }
}

/// Returns the fields of the file of a policy, in the order in which people write them: [`read`] returns the same policy.
pub fn fields_of(policy: &Policy) -> Vec<(&'static str, Value)> {
    let given = |text: &str| Some(Value::from(text)).filter(|_| !text.is_empty());
    let settings = settings_of(policy);
    let tags = policy.fields.get("tags").filter(|tags| tags.as_array().is_some_and(|tags| !tags.is_empty()));
    let fields = [
        ("name", given(&policy.name)),
        ("description", given(&policy.description)),
        ("namespace", given(&policy.namespace)),
        ("tags", tags.cloned()),
        ("settings", Some(Value::Object(settings)).filter(|settings| *settings != Value::Object(Map::new()))),
        ("config", Some(policy.config.clone())),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn settings_of(policy: &Policy) -> Map<String, Value> {
    let value = |name: &str| match name {
        "is_managed" => policy.is_managed.then_some(true.into()),
        "is_default" => policy.is_default.then_some(true.into()),
        "inactivity_timeout" => Some(policy.inactivity_timeout.into()),
        "unenroll_timeout" => policy.unenroll_timeout.map(Value::from),
        other => policy.fields.get(other).filter(|value| !value.is_null()).cloned(),
    };
    SETTINGS.iter().filter_map(|(name, _)| Some(((*name).to_owned(), value(name)?))).collect()
}

/// Returns the names of the settings.
pub fn setting_names() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|(name, _)| *name)
}

/// Parses a policy file, and returns the positions of its fields. All problems of the file itself are reported at once;
/// configuration and settings are checked when the policy is compiled.
pub fn read(text: &str) -> Result<(PolicyFile, Places), Problems> {
    let document = yaml::read(text)?;
    let mut problems = Problems::default();
    let file = match document.value {
        Value::Object(fields) => file(fields, &document.places, &mut problems),
        Value::Null => {
            problems.advise("", "the file is empty", "a policy file has a `name` and a `config`");
            PolicyFile::default()
        }
        other => {
            problems.add("", format!("a policy file must be an object, not {}", kind_of(&other)));
            PolicyFile::default()
        }
    };
    problems.locate(&document.places);
    problems.into_result().map(|()| (file, document.places))
}

fn file(mut fields: Map<String, Value>, places: &Places, problems: &mut Problems) -> PolicyFile {
    // One clear message instead of an unknown key for every section of the agent's file.
    if let Some(problem) = bare_configuration(&fields, places) {
        problems.0.push(problem);
        return PolicyFile::default();
    }
    // Unknown keys are errors: a misspelled `settings` would silently change nothing.
    for unknown in fields.keys().filter(|key| !KEYS.contains(&key.as_str())) {
        match unknown.strip_prefix("settings.") {
            Some(setting) => {
                let remedy = format!("write `settings: {{{}: …}}`", shortened(setting));
                problems.advise(unknown, "dotted keys are allowed only below `config`", remedy);
            }
            // Settings of the management API, where they are next to the name.
            None if SETTINGS.iter().any(|(setting, _)| setting == unknown) => {
                problems.advise(unknown, format!("unknown field `{unknown}`"), "move it below `settings:`");
            }
            None if is_agents(unknown) => {
                problems.advise(unknown, format!("unknown field `{}`", shortened(unknown)), "move it below `config:`");
            }
            None => problems.unknown(unknown, "field", unknown, &KEYS),
        }
    }
    let name = match fields.remove("name") {
        Some(Value::String(name)) if !name.trim().is_empty() => name,
        Some(Value::Null | Value::String(_)) => missing("name", "is empty", problems),
        Some(other) => not_a("string", "name", &other, problems),
        None => missing("name", "is missing", problems),
    };
    // `null` is treated as absent here; only in `settings` it is a value.
    let mut optional = |name: &str| match fields.remove(name) {
        Some(Value::String(text)) => Some(text),
        Some(Value::Null) | None => None,
        Some(other) => Some(not_a("string", name, &other, problems)),
    };
    let description = optional("description").unwrap_or_default();
    let namespace = optional("namespace").unwrap_or_else(|| "default".to_owned());
    PolicyFile {
        name,
        description,
        namespace,
        tags: tags(fields.remove("tags"), problems),
        settings: settings(fields.remove("settings"), problems),
        config: config(fields.remove("config"), problems),
    }
}

/// Whether a top-level key is one of an agent's own configuration.
fn is_agents(key: &str) -> bool {
    let first = key.split('.').next().unwrap_or_default();
    CONFIG_KEYS.contains(&first) || first == "providers"
}

/// Recognizes an agent's own configuration file, whose top-level keys belong under `config` in a policy file.
fn bare_configuration(fields: &Map<String, Value>, places: &Places) -> Option<Problem> {
    if fields.contains_key("config") {
        return None;
    }
    // Keys are sorted by name in the map; report the one that comes first in the file.
    let place = |key: &&String| places.find(key).map_or((u64::MAX, u64::MAX), |place| (place.line, place.column));
    let key = fields.keys().filter(|key| is_agents(key)).min_by_key(place)?;
    let reason = format!("`{}` at the top: this is an agent's configuration, not a policy file", shortened(key));
    let remedy = "start with `name: NAME`, and indent the rest below `config:`";
    let problem = Problem::new(key.as_str(), reason, remedy);
    Some(match places.find(key) {
        Some(place) => problem.at(place),
        None => problem,
    })
}

fn missing(path: &str, reason: &str, problems: &mut Problems) -> String {
    problems.advise(path, reason, "add a name, such as `name: web`");
    String::new()
}

fn not_a(wanted: &str, path: &str, found: &Value, problems: &mut Problems) -> String {
    let remedy = match found {
        Value::Number(_) | Value::Bool(_) => format!("quote it: \"{found}\""),
        _ => String::new(),
    };
    problems.advise(path, format!("must be a {wanted}, not {}", kind_of(found)), remedy);
    String::new()
}

fn tags(value: Option<Value>, problems: &mut Problems) -> Vec<String> {
    match value {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => {
            let tag = |(index, item)| match item {
                Value::String(tag) => tag,
                other => not_a("string", &format!("tags.{index}"), &other, problems),
            };
            items.into_iter().enumerate().map(tag).collect()
        }
        Some(other) => {
            let reason = format!("must be a list of strings, not {}", kind_of(&other));
            problems.advise("tags", reason, "such as `tags: [linux, front]`");
            Vec::new()
        }
    }
}

fn settings(value: Option<Value>, problems: &mut Problems) -> Map<String, Value> {
    let fields = match value {
        None | Some(Value::Null) => return Map::new(),
        Some(Value::Object(fields)) => fields,
        Some(other) => {
            problems.add("settings", format!("must be an object, not {}", kind_of(&other)));
            return Map::new();
        }
    };
    let names = SETTINGS.map(|(name, _)| name);
    for (name, value) in &fields {
        let path = format!("settings.{name}");
        match SETTINGS.iter().find(|(known, _)| known == name) {
            None => problems.unknown(path, "setting", name, &names),
            // `null` is always accepted: it resets the setting to its default.
            Some((_, Setting::Boolean)) if !value.is_boolean() && !value.is_null() => {
                let reason = format!("must be a boolean, not {}", kind_of(value));
                problems.advise(path, reason, "write `true` or `false`, without quotes");
            }
            Some((_, Setting::Seconds)) if !value.is_null() => check_seconds(value, path, problems),
            Some(_) => {}
        }
    }
    fields
}

/// Remedy for a value that is no number of seconds.
const NUMBER_OF_SECONDS: &str = "such as `3600` for an hour";

fn check_seconds(value: &Value, path: String, problems: &mut Problems) {
    match value {
        Value::Number(seconds) if seconds.as_u64().is_some() => {}
        Value::String(text) => {
            let remedy = match (text.trim().parse::<u64>(), seconds_of(text)) {
                (Ok(seconds), _) => format!("write `{seconds}`, without quotes"),
                (_, Some(seconds)) => format!("write `{seconds}`"),
                _ => NUMBER_OF_SECONDS.to_owned(),
            };
            problems.advise(path, format!("must be a number of seconds, not the string `{}`", shortened(text)), remedy);
        }
        Value::Number(number) if number.as_i64().is_some_and(|number| number < 0) => {
            problems.advise(path, format!("must not be negative: {number}"), NUMBER_OF_SECONDS);
        }
        Value::Number(number) => {
            problems.advise(path, format!("must be a whole number of seconds, not {number}"), NUMBER_OF_SECONDS);
        }
        other => {
            problems.advise(path, format!("must be a number of seconds, not {}", kind_of(other)), NUMBER_OF_SECONDS);
        }
    }
}

/// Converts a duration such as `1h` or `1h30m` to seconds, for the remedy.
fn seconds_of(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0)?;
        let (number, after) = rest.split_at(digits);
        let unit = after.trim_start();
        let length = unit.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(unit.len());
        let seconds = match unit[..length].to_ascii_lowercase().as_str() {
            "s" | "sec" | "second" | "seconds" => 1,
            "m" | "min" | "minute" | "minutes" => 60,
            "h" | "hour" | "hours" => 3600,
            "d" | "day" | "days" => 86_400,
            "w" | "week" | "weeks" => 604_800,
            _ => return None,
        };
        // Overflow only means that there is no suggestion.
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(seconds)?)?;
        rest = unit[length..].trim_start();
    }
    (total > 0).then_some(total)
}

fn config(value: Option<Value>, problems: &mut Problems) -> Option<Value> {
    match value {
        // An accidental `config:` without a value must not remove every input.
        Some(Value::Null) => {
            let remedy = "write `config: {}` for an empty configuration, or remove the line to keep the current one";
            problems.advise("config", "is empty", remedy);
            None
        }
        Some(Value::Object(fields)) => Some(Value::Object(fields)),
        Some(other) => {
            problems.add("config", format!("must be an object, not {}", kind_of(&other)));
            None
        }
        None => None,
    }
}

#[cfg(test)]
mod tests;
