//! YAML files of the host.

use muster_core::error_chain::SharedError;
use serde::de::DeserializeOwned;

/// Parses a file.
// By way of JSON values: the parser's code exists once, instead of once for each type.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, SharedError> {
    let value: serde_json::Value = serde_saphyr::from_str(text)?;
    Ok(serde_json::from_value(value)?)
}
