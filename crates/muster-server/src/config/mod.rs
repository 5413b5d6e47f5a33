//! The configuration of `muster serve`: read whole before anything starts, every problem told at once.
//!
//! Four layers, the later one wins: defaults ([`keys`]), the file, variables `MUSTER_…`, flags ([`source`]). A value
//! knows where it came from. [`load`] turns layers into [`Config`], whose values are of their final types.

pub mod document;
pub mod gather;
pub mod keys;
pub mod names;
pub mod problem;
pub mod settings;
pub mod source;
pub mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use self::keys::KEYS;
use self::names::{Key, Setting};
use self::problem::{Problem, Problems, Source, nearest};
pub use self::settings::{Build, Config, ListenConfig, TlsConfig};
use self::source::Entry;
use self::value::Value;

/// Everything that a configuration is made of.
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
    /// Whether root runs us: decides the default data folder.
    pub root: bool,
}

/// Values by key, each with its origin.
#[derive(Clone, Debug)]
pub struct Values(BTreeMap<String, (Value, Source)>);

impl Values {
    fn defaults() -> Self {
        let entry =
            |definition: &keys::Definition| (definition.key.clone(), (definition.default_value(), Source::Default));
        Self(KEYS.iter().map(entry).collect())
    }

    /// The value of a key.
    pub fn read<T: Setting>(&self, key: &Key<T>) -> T {
        let value = self.0.get(key.name()).and_then(|(value, _)| T::of(value));
        value.expect("every key is in the table, with a kind of its type; tests read them all")
    }

    /// Where the value of a key came from.
    pub fn source(&self, key: &str) -> Source {
        self.0.get(key).map_or(Source::Default, |(_, source)| source.clone())
    }

    /// Takes over a layer's entry, or tells what is wrong with it.
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

    /// One line for each key: value and origin.
    pub fn describe(&self) -> String {
        let line = |definition: &keys::Definition| {
            let (value, source) = &self.0[&definition.key];
            let value = without_password(&value.to_string());
            format!("{} = {value}  # {source}\n", definition.key)
        };
        KEYS.iter().map(line).collect()
    }
}

/// A value that may be an address with a password in it, `scheme://USER:PASSWORD@HOST`, without the password.
fn without_password(value: &str) -> String {
    let split = value.split_once("://").and_then(|(scheme, rest)| {
        let (user_info, host) = rest.split_once('@')?;
        let (user, _) = user_info.split_once(':')?;
        Some(format!("{scheme}://{user}:***@{host}"))
    });
    split.unwrap_or_else(|| value.to_owned())
}

fn unknown_key(key: &str) -> String {
    match nearest(key, KEYS.iter().map(|definition| definition.key.as_str())) {
        Some(near) => format!("unknown key; did you mean {near}?"),
        None => "unknown key".into(),
    }
}

/// A configuration that was accepted.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Final types.
    pub config: Config,
    /// The same with origins.
    pub values: Values,
    /// What was ignored, and looks like a mistake: unknown variables.
    pub ignored: Vec<Problem>,
}

impl Loaded {
    /// Logs what was ignored.
    pub fn warn(&self) {
        for Problem { source, reason, .. } in &self.ignored {
            tracing::warn!(variable = %source, reason, "environment variable without effect");
        }
    }
}

/// Reads all layers.
pub fn load(layers: &Layers) -> Result<Loaded, Problems> {
    let (mut problems, mut ignored) = (Vec::new(), Vec::new());
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
    // A misspelt variable may be why a value is missing.
    problems.extend(ignored);
    Err(Problems(problems))
}
