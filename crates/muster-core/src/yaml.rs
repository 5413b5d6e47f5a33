//! Parser for YAML that people write: policy files and the `config_yaml` of outputs.
//!
//! It is strict and bounded: one document, without aliases, anchors, merge keys, duplicate keys or custom tags. A plain
//! scalar that YAML 1.1 and 1.2, or agents and this server, interpret differently is rejected with its position and a
//! remedy.

mod places;
mod reader;
mod scalar;
mod secrets;

use serde_json::Value;

use crate::policy::problem::Problems;

pub use places::{Place, Places};
pub use secrets::{is_secret, is_secret_header, with_references};

/// Maximum length of a file in bytes.
pub const MAX_BYTES: usize = 4 << 20;

// The reader and everything that walks its values recurse, so depth costs stack.
/// Maximum nesting of a file.
const MAX_DEPTH: usize = 64;

/// Maximum number of scalars, lists and mappings in a file.
const MAX_NODES: usize = 100_000;

/// A parsed YAML document.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its value; `null` if the text is empty or contains only comments.
    pub value: Value,
    /// Position of each field.
    pub places: Places,
}

/// Parses a document with the positions of its fields.
pub fn read(text: &str) -> Result<Document, Problems> {
    reader::read(text)
}

/// Parses a document without positions, for text that was validated before, such as the `config_yaml` of a stored
/// output.
pub fn parse_value(text: &str) -> Result<Value, Problems> {
    read(text).map(|document| document.value)
}

#[cfg(test)]
mod tests;
