//! What is wrong with a policy: where, why, and what to do.

use std::fmt;

use crate::error::Error;
use crate::yaml::{Place, Places};

/// One thing that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    /// Dotted path: `config.inputs.0.type`.
    pub path: String,
    /// What is wrong there.
    pub reason: String,
    /// What to do; empty when the reason says it.
    pub remedy: String,
    /// Where it stands in the file that it was read from.
    pub place: Option<Place>,
}

/// Everything that is wrong, in the order of finding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

/// Problems told to the caller at most; the rest is counted.
const MAX_TOLD: usize = 20;

impl Problem {
    /// A problem that has no place in a file, or none yet.
    pub fn new(path: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { path: path.into(), reason: reason.into(), remedy: remedy.into(), place: None }
    }

    /// The problem at a place.
    #[must_use]
    pub fn at(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }
}

impl Problems {
    /// Notes a problem.
    pub fn add(&mut self, path: impl Into<String>, reason: impl Into<String>) {
        self.advise(path, reason, "");
    }

    /// Notes a problem and what to do about it.
    pub fn advise(&mut self, path: impl Into<String>, reason: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Problem::new(path, reason, remedy));
    }

    /// Notes a word that is not one of `known`, with the nearest right one.
    pub fn unknown(&mut self, path: impl Into<String>, what: &str, word: &str, known: &[&str]) {
        let remedy = match nearest(word, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None if known.is_empty() => "none is defined".to_owned(),
            None => format!("known: {}", known.join(", ")),
        };
        self.advise(path, format!("unknown {what} `{}`", shortened(word)), remedy);
    }

    /// Looks up where each field stands in the file, and puts the problems in the order of their places. Fields of the
    /// record stand under `settings` there.
    pub fn locate(&mut self, places: &Places) {
        for problem in self.0.iter_mut().filter(|problem| problem.place.is_none()) {
            let first = problem.path.split('.').next().unwrap_or_default();
            if places.has(&format!("settings.{first}")) && !places.has(first) {
                problem.path.insert_str(0, "settings.");
            }
            problem.place = places.find(&problem.path);
        }
        self.0.sort_by_key(|problem| problem.place.map(|place| (place.line, place.column)));
    }

    /// `Ok` when there is none.
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
        for (index, problem) in self.0.iter().take(MAX_TOLD).enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        match self.0.len().saturating_sub(MAX_TOLD) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl From<Problems> for Error {
    fn from(problems: Problems) -> Self {
        let mut error = Self::new(crate::ErrorKind::Invalid, "policy_invalid", problems.to_string());
        if let Some(first) = problems.0.first() {
            error.field = Some(first.path.clone());
            error.remedy = Some(first.remedy.clone()).filter(|remedy| !remedy.is_empty());
        }
        error.problems = Some(Box::new(problems));
        error
    }
}

/// The candidate that `word` was most likely meant to be.
pub fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let word: String = word.chars().take(64).collect::<String>().to_lowercase();
    let distance = |candidate: &&'a str| strsim::damerau_levenshtein(&word, &candidate.to_lowercase());
    let best = candidates.iter().min_by_key(|candidate| distance(candidate))?;
    (distance(best) <= 1 + word.chars().count() / 4).then_some(*best)
}

/// Text from outside, cut to what a message can bear.
pub fn shortened(text: &str) -> String {
    if text.chars().count() <= 64 { text.to_owned() } else { text.chars().take(63).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_right_name_is_told() {
        let known = ["inputs", "outputs", "agent"];
        assert_eq!(nearest("input", &known), Some("inputs"));
        assert_eq!(nearest("ouptuts", &known), Some("outputs"));
        assert_eq!(nearest("Agent", &known), Some("agent"));
        assert_eq!(nearest("banana", &known), None);
    }

    #[test]
    fn an_error_names_the_first_place_and_tells_all() {
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
