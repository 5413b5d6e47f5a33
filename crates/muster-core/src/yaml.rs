//! YAML as people write it: policy files and the `config_yaml` of outputs.
//!
//! Strict and bounded: no aliases, anchors, merge keys, duplicate keys or foreign tags, one document. A plain scalar
//! must mean the same to every reader: what YAML 1.1 and 1.2, or agents and we, would read differently is rejected
//! with its place and the way to write it.

mod places;
mod reader;
mod scalar;
mod secrets;

use serde_json::Value;

use crate::policy::problem::Problems;

pub use places::{Place, Places};
pub use secrets::{plain_secrets, with_references};

/// Maximum length of a file in bytes.
pub const MAX_BYTES: usize = 4 << 20;

/// Maximum nesting of a file.
const MAX_DEPTH: usize = 64;

/// Maximum number of scalars, lists and mappings in a file.
const MAX_NODES: usize = 100_000;

/// A YAML text that was read.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its value; `null` for a text that holds nothing but comments.
    pub value: Value,
    /// Where each field stands.
    pub places: Places,
}

/// Reads a text.
pub fn read(text: &str) -> Result<Document, Problems> {
    reader::read(text)
}

/// Reads a text such as an output's `config_yaml`, of which the places are of no more interest.
pub fn parse_value(text: &str) -> Result<Value, Problems> {
    read(text).map(|document| document.value)
}

#[cfg(test)]
mod tests;
