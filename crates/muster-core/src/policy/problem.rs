//! Problems of a policy: location, reason and remedy.

use std::fmt;

use crate::error::Error;
use crate::yaml::{Place, Places};

/// A problem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path: `config.inputs.0.type`.
    pub path: String,
    /// What is wrong, and why.
    pub reason: String,
    /// How to fix it; empty if the reason makes it obvious.
    pub remedy: String,
    /// Position in the file, if it came from one.
    pub place: Option<Place>,
}

/// All problems, in the order in which they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

/// Remedy for a reference to a secret that does not exist. Pages, which have neither the option nor the field, replace it.
pub const SET_SECRET: &str = "set its value with `--secret NAME=…` or in the field `secrets`, or correct the name";
/// Maximum number of problems in a message; the rest is counted.
const MAX_SHOWN: usize = 20;

impl Problem {
    /// Creates a problem without a position.
    pub fn new(path: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into(), remedy: remedy.into(), place: None }
    }

    /// Sets the position.
    #[must_use]
    pub fn at(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }
}

impl Problems {
    /// Adds a problem without a remedy.
    pub fn add(&mut self, path: impl Into<String>, reason: impl Into<String>) {
        self.advise(path, reason, "");
    }

    /// Adds a problem with a remedy.
    pub fn advise(&mut self, path: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Problem::new(path, reason, remedy));
    }

    /// Adds a problem for a word that is not one of `known`, and suggests the most similar one.
    pub fn unknown(&mut self, path: impl Into<String>, what: &str, word: &str, known: &[&str]) {
        let remedy = match nearest(word, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "none is defined".to_owned(),
            None => format!("known: {}", known.join(", ")),
        };
        self.advise(path, format!("unknown {what} `{}`", shortened(word)), remedy);
    }

    /// Sets the positions of all problems and sorts by them. Fields of the record that the file has under `settings`
    /// get this prefix.
    pub fn locate(&mut self, places: &Places) {
        for problem in self.0.iter_mut().filter(|problem| problem.place.is_none()) {
            // The record has one flat list of fields; only the file groups some of them under `settings`.
            let first = problem.path.split('.').next().unwrap_or_default();
            if places.has(&format!("settings.{first}")) && !places.has(first) {
                problem.path.insert_str(0, "settings.");
            }
            problem.place = places.find(&problem.path);
        }
        // Problems without a position come first: they concern the file as a whole.
        self.0.sort_by_key(|problem| problem.place.map(|place| (place.line, place.column)));
    }

    /// Returns `Ok` if there are no problems.
    pub fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.reason)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().take(MAX_SHOWN).enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        match self.0.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl From<Problems> for Error {
    fn from(problems: Problems) -> Self {
        // Clients that know only one `field` and `remedy` get those of the first problem.
        let mut error = Self::new(crate::ErrorKind::Invalid, "policy_invalid", problems.to_string());
        if let Some(first) = problems.0.first() {
            error.field = Some(first.path.clone());
            error.remedy = Some(first.remedy.clone()).filter(|remedy| !remedy.is_empty());
        }
        error.problems = Some(Box::new(problems));
        error
    }
}

/// Returns the candidate most similar to `word`, if it is similar enough to be a likely typo.
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    // The edit distance takes quadratic time, and the word comes from outside.
    let word: String = word.chars().take(64).collect::<String>().to_lowercase();
    let distance = |candidate: &&'a str| strsim::damerau_levenshtein(&word, &candidate.to_lowercase());
    let best = candidates.iter().min_by_key(|candidate| distance(candidate))?;
    (distance(best) <= 1 + word.chars().count() / 4).then_some(*best)
}

/// Returns whether a word is so similar to another one that it can hardly be meant otherwise.
pub fn is_typo(word: &str, of: &str) -> bool {
    let word: String = word.chars().take(64).collect::<String>().to_lowercase();
    strsim::damerau_levenshtein(&word, &of.to_lowercase()) <= if of.len() < 8 { 1 } else { 2 }
}

/// Truncates text from outside to 64 characters for a message.
pub fn shortened(text: &str) -> String {
    if text.chars().count() <= 64 { text.to_owned() } else { text.chars().take(63).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_name_is_suggested() {
        let known = ["inputs", "outputs", "agent"];
        assert_eq!(nearest("input", &known), Some("inputs"));
        assert_eq!(nearest("ouptuts", &known), Some("outputs"));
        assert_eq!(nearest("Agent", &known), Some("agent"));
        assert_eq!(nearest("banana", &known), None);
        assert!(is_typo("kueri", "kuery") && is_typo("per_page", "perPage") && is_typo("DRYRUN", "dryRun"));
        assert!(!is_typo("noAgentCount", "withAgentCount") && !is_typo("date", "page"));
    }

    #[test]
    fn an_error_has_the_first_field_and_all_problems() {
        let mut problems = Problems::default();
        problems.unknown("config.input", "key", "input", &["inputs"]);
        problems.add("config.outputs", "must be an object");
        let error = Error::from(problems);
        assert_eq!(error.field.as_deref(), Some("config.input"));
        assert_eq!(error.remedy.as_deref(), Some("did you mean `inputs`?"));
        let expected = "config.input: unknown key `input`; did you mean `inputs`?\nconfig.outputs: must be an object";
        assert_eq!(error.message, expected);
    }
}
