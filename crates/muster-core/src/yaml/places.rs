//! Where each field of a YAML text stands, so that what is found wrong after reading is reported with line and column.

use std::collections::HashMap;
use std::fmt;

/// A position in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: u64,
    /// From 1.
    pub column: u64,
}

/// Places of every field and item of a text, by dotted path.
#[derive(Clone, Debug, Default)]
pub struct Places(HashMap<String, Place>);

impl Places {
    /// Place of the field; of the nearest one around it when the text does not have it.
    pub fn find(&self, path: &str) -> Option<Place> {
        let around = std::iter::successors(Some(path), |path| path.rsplit_once('.').map(|(around, _)| around));
        around.filter_map(|path| self.0.get(path).copied()).next()
    }

    /// Whether the text has this very field.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// Notes a field. `key` is the part of `path` that it is called by: a dotted key also stands for the objects that
    /// it goes through, unless they have places of their own.
    pub(super) fn note(&mut self, path: &str, key: &str, place: Place) {
        let outer = path.len().saturating_sub(key.len());
        for (dot, _) in path.match_indices('.').filter(|(dot, _)| *dot > outer) {
            self.0.entry(path[..dot].to_owned()).or_insert(place);
        }
        self.0.insert(path.to_owned(), place);
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}
