//! Problems of a configuration, which are reported together, each with its source.

use std::fmt;

/// Source of a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// The built-in default.
    Default,
    /// A line of a file.
    File {
        /// The file.
        path: String,
        /// The line, from 1.
        line: usize,
    },
    /// The environment variable with this name.
    Environment(String),
    /// A flag, as typed.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Environment(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Source of the value.
    pub source: Source,
    /// Key, or empty if the problem concerns the whole file.
    pub key: String,
    /// Reason and remedy.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.reason)
    }
}

/// All problems; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "invalid configuration: {one}"),
            many => {
                write!(f, "invalid configuration, {} problems:", many.len())?;
                many.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
            }
        }
    }
}

impl std::error::Error for Problems {}

/// Returns the most similar of `names`, for "did you mean".
pub fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |name: &str| {
        let tail = |text: &str| text.rsplit('.').next().unwrap_or_default().to_owned();
        // The right name in the wrong section is a more likely mistake than its distance suggests.
        let bonus = if tail(wrong) == tail(name) { 4 } else { 0 };
        strsim::damerau_levenshtein(wrong, name).saturating_sub(bonus)
    };
    let (best, name) = names.map(|name| (distance(name), name)).min_by_key(|(distance, _)| *distance)?;
    (best <= 2 + wrong.len() / 4).then_some(name)
}
