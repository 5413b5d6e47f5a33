//! The configuration of `muster serve`. It is read completely before anything starts, and all problems are reported
//! together.
//!
//! There are four layers, in ascending order of precedence: defaults ([`keys`]), the file, variables `MUSTER_…`, and
//! flags ([`source`]). Each value keeps its source. [`load`] turns the layers into a [`Config`], whose values have
//! their final types.

pub mod document;
pub mod gather;
pub mod keys;
pub mod names;
pub mod network;
pub mod problem;
pub mod settings;
pub mod source;
pub mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use self::keys::KEYS;
use self::names::{Key, Setting};
use self::problem::{Problem, Problems, Source, nearest};
pub use self::settings::{Build, Config, ListenConfig, TlsConfig};
use self::source::Entry;
use self::value::Value;

/// The sources of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// The file: its path and its text.
    pub file: Option<(String, String)>,
    /// The environment.
    pub environment: BTreeMap<String, String>,
    /// Flags with a key of their own.
    pub flags: Vec<Entry>,
    /// `--set KEY=VALUE`, as typed.
    pub assignments: Vec<String>,
    /// Whether this process runs as root, which determines the default data directory.
    pub root: bool,
}

/// Values by key, each with its source.
#[derive(Clone, Debug)]
pub struct Values(BTreeMap<String, (Value, Source)>);

impl Values {
    fn defaults() -> Self {
        let entry =
            |definition: &keys::Definition| (definition.key.clone(), (definition.default_value(), Source::Default));
        Self(KEYS.iter().map(entry).collect())
    }

    /// Returns the value of a key.
    pub fn read<T: Setting>(&self, key: &Key<T>) -> T {
        let value = self.0.get(key.name()).and_then(|(value, _)| T::of(value));
        value.expect("every key is in the table, with a kind of its type; tests read them all")
    }

    /// Returns the source of the value of a key.
    pub fn source(&self, key: &str) -> Source {
        self.0.get(key).map_or(Source::Default, |(_, source)| source.clone())
    }

    /// Sets a value from an entry of a layer, or returns what is wrong with the entry.
    fn apply(&mut self, entry: Entry) -> Result<(), Problem> {
        let Entry { key, raw, source } = entry;
        let Some(definition) = keys::find(&key) else {
            return Err(Problem { reason: unknown_key(&key), source, key });
        };
        match definition.kind.parse(&raw) {
            Ok(value) => {
                self.0.insert(key, (value, source));
                Ok(())
            }
            Err(reason) => Err(Problem { source, key, reason }),
        }
    }

    /// Formats the values, one key per line, with their sources.
    pub fn describe(&self) -> String {
        let line = |definition: &keys::Definition| {
            let (value, source) = &self.0[&definition.key];
            let value = without_password(&value.to_string());
            format!("{} = {value}  # {source}\n", definition.key)
        };
        KEYS.iter().map(line).collect()
    }
}

/// Returns whether a parameter of a URL is the password, also if its name is percent-encoded.
fn is_password(name: &str) -> bool {
    percent_decode_str(name).decode_utf8_lossy().eq_ignore_ascii_case("password")
}

/// Masks the password in a value of the form `scheme://USER:PASSWORD@HOST` or `scheme://…?password=PASSWORD`.
fn without_password(value: &str) -> String {
    let Some((scheme, rest)) = value.split_once("://") else { return value.to_owned() };
    // The value is printed as TOML, in quotes.
    let (rest, quote) = rest.strip_suffix('"').map_or((rest, ""), |rest| (rest, "\""));
    let (address, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
    // The last `@` ends the user info: a password can contain others.
    let user_and_host = address.rsplit_once('@').and_then(|(user_info, host)| {
        let (user, _) = user_info.split_once(':')?;
        Some(format!("{user}:***@{host}"))
    });
    let masked = |parameter: &str| match parameter.split_once('=') {
        Some((name, _)) if is_password(name) => format!("{name}=***"),
        _ => parameter.to_owned(),
    };
    let parameters: Vec<String> = query
        .split_inclusive(['?', '&'])
        .flat_map(|part| {
            let end = part.trim_end_matches(['?', '&']);
            [masked(end), part[end.len()..].to_owned()]
        })
        .collect();
    format!("{scheme}://{}{}{quote}", user_and_host.unwrap_or_else(|| address.to_owned()), parameters.concat())
}

fn unknown_key(key: &str) -> String {
    match nearest(key, KEYS.iter().map(|definition| definition.key.as_str())) {
        Some(near) => format!("unknown key; did you mean {near}?"),
        None => "unknown key".into(),
    }
}

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Values in their final types.
    pub config: Config,
    /// The same values with their sources.
    pub values: Values,
    /// Unknown variables that were ignored but look like mistakes.
    pub ignored: Vec<Problem>,
}

impl Loaded {
    /// Logs a warning for each ignored variable.
    pub fn warn(&self) {
        for Problem { source, reason, .. } in &self.ignored {
            tracing::warn!(variable = %source, reason, "unknown environment variable ignored");
        }
    }
}

/// Reads all layers.
pub fn load(layers: &Layers) -> Result<Loaded, Problems> {
    let (mut problems, mut ignored) = (Vec::new(), Vec::new());
    // In ascending order of precedence: a later entry for the same key replaces an earlier one.
    let mut entries = match &layers.file {
        Some((path, text)) => source::file(path, text, &mut problems),
        None => Vec::new(),
    };
    entries.extend(source::environment(&layers.environment, &mut ignored));
    entries.extend(source::assignments(&layers.assignments, &mut problems));
    entries.extend(layers.flags.iter().cloned());

    let mut values = Values::defaults();
    problems.extend(entries.into_iter().filter_map(|entry| values.apply(entry).err()));
    let config = settings::build(&values, layers, &mut problems);
    if problems.is_empty() {
        return Ok(Loaded { config, values, ignored });
    }
    // A misspelled variable may be the reason that a value is missing.
    problems.extend(ignored);
    Err(Problems(problems))
}
