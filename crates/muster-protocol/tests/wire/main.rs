//! Golden samples of the wire types: each sample names every field, and must survive parsing and serialization unchanged.
//!
//! They pin the names of fields, which fields are optional, and how absent values are written. A renamed or dropped field
//! breaks agents and scripts without failing any other test of this crate.

mod elastic;
mod management;

use serde::Serialize;
use serde::de::Deserialize;
use serde_json::Value;

/// Parses a sample and serializes it again; the result must be the sample itself.
fn round_trip<'a, T: Deserialize<'a> + Serialize>(sample: &'a str) {
    let name = std::any::type_name::<T>();
    let again = serde_json::from_str::<T>(sample).and_then(serde_json::to_value);
    let expected: Result<Value, _> = serde_json::from_str(sample);
    match (again, expected) {
        (Ok(again), Ok(expected)) => assert_eq!(again, expected, "{name}"),
        (again, expected) => panic!("{name}: {again:?}, {expected:?}"),
    }
}

/// Whether a type accepts a document.
fn accepts<'a, T: Deserialize<'a>>(sample: &'a str) -> bool {
    serde_json::from_str::<T>(sample).is_ok()
}
