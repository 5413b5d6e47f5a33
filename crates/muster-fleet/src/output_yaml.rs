//! Secrets in an output's `config_yaml`: sealed like those in its fields and replaced by references.

use muster_core::Error;
use muster_core::policy::inline_secrets;
use muster_core::yaml;
use serde_json::Value;

use super::inline_seals::InlineSeals;

const FIELD: &str = "config_yaml";

/// Seals the plain secrets in `config_yaml`. Malformed YAML is left as it is; the validation reports it.
pub(super) fn seal(fields: &mut Value, seals: &mut InlineSeals<'_>) -> Result<(), Error> {
    let Some(text) = fields.get(FIELD).and_then(Value::as_str) else { return Ok(()) };
    let Ok(mut value) = yaml::parse_value(text) else { return Ok(()) };
    let changed =
        inline_secrets::replace(&mut value, &mut |path, secret| seals.id_of(&format!("{FIELD}.{path}"), secret))?;
    if !changed.is_empty() {
        let sealed = yaml::with_references(text, &changed);
        fields[FIELD] = sealed.map_err(|error| Error::invalid(FIELD, error.to_string()))?.into();
    }
    Ok(())
}
