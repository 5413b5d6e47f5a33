//! Positions of the fields of a YAML document, so that problems that are found after parsing have a line and a column.

use std::collections::HashMap;
use std::fmt;

/// A position in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
}

/// Positions of all fields and items of a document, by dotted path.
#[derive(Clone, Debug, Default)]
pub struct Places(HashMap<String, Place>);

impl Places {
    /// Returns the position of a field, or of the closest enclosing field if the document does not contain it.
    pub fn find(&self, path: &str) -> Option<Place> {
        // A problem with a missing field belongs to the object that should contain it.
        let around = std::iter::successors(Some(path), |path| path.rsplit_once('.').map(|(around, _)| around));
        around.filter_map(|path| self.0.get(path).copied()).next()
    }

    /// Returns whether the document contains this field.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// Adds a field. `key` is the last part of `path` as written. If it is a dotted key, its prefixes get the same
    /// position, unless they have one already.
    pub(super) fn note(&mut self, path: &str, key: &str, place: Place) {
        let outer = path.len().saturating_sub(key.len());
        for (dot, _) in path.match_indices('.').filter(|(dot, _)| *dot > outer) {
            self.0.entry(path[..dot].to_owned()).or_insert(place);
        }
        // The field itself overwrites a position that was only implied by an earlier dotted key.
        self.0.insert(path.to_owned(), place);
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}
