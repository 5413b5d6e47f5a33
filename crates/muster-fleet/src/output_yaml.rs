//! Secrets in an output's `config_yaml`: sealed like those in its fields and replaced by references.

use std::collections::{BTreeMap, BTreeSet};

use muster_core::Error;
use muster_core::id::SecretId;
use muster_core::secret_refs::{OPEN, inline_ids};
use muster_core::yaml;
use muster_store::Write;
use serde_json::{Map, Value};

use super::outputs::Outputs;

const FIELD: &str = "config_yaml";

/// Returns the ids of the secrets that the YAML refers to.
pub(super) fn secret_ids(fields: &Value) -> BTreeSet<SecretId> {
    fields.get(FIELD).and_then(Value::as_str).map(|text| inline_ids(text).collect()).unwrap_or_default()
}

impl Outputs {
    /// Seals the plain secrets in `config_yaml`. Malformed YAML is left as it is; the validation reports it.
    pub(super) async fn seal_output_yaml(
        &self,
        fields: &mut Map<String, Value>,
        before: &Value,
    ) -> Result<Vec<Write>, Error> {
        let Some(text) = fields.get(FIELD).and_then(Value::as_str) else { return Ok(Vec::new()) };
        let known = secret_ids(before);
        // A reference to the secret of another output would deliver its value to this output's agents.
        if let Some(foreign) = inline_ids(text).find(|id| !known.contains(id)) {
            let reason = format!("refers to the secret {foreign}, which is not one of this output's");
            return Err(Error::invalid(FIELD, reason).remedy("write the value itself; it is sealed"));
        }
        let Ok(value) = yaml::parse_value(text) else { return Ok(Vec::new()) };
        let plain = yaml::plain_secrets(&value);
        if plain.is_empty() {
            return Ok(Vec::new());
        }
        let kept = self.kept_secrets(before).await?;
        let (mut references, mut writes) = (BTreeMap::new(), Vec::new());
        for (path, secret) in plain {
            let id = match kept.get(&path) {
                // An unchanged value keeps its id: a new id would revise every policy that uses the output.
                Some((id, value)) if *value == secret => id.clone(),
                _ => {
                    let (id, write) = self.objects.secrets.seal(&format!("{FIELD}.{path}"), &secret)?;
                    writes.push(write);
                    id
                }
            };
            references.insert(path, format!("{OPEN}{id}}}"));
        }
        let sealed = yaml::with_references(text, &references);
        let sealed = sealed.map_err(|error| Error::invalid(FIELD, error.to_string()))?;
        fields.insert(FIELD.into(), sealed.into());
        Ok(writes)
    }

    /// Returns the secrets of the stored YAML by path, with their ids and values.
    async fn kept_secrets(&self, before: &Value) -> Result<BTreeMap<String, (SecretId, String)>, Error> {
        let ids: Vec<SecretId> = secret_ids(before).into_iter().collect();
        let text = before.get(FIELD).and_then(Value::as_str).unwrap_or_default();
        let (false, Ok(mut value)) = (ids.is_empty(), yaml::parse_value(text)) else { return Ok(BTreeMap::new()) };
        let opened = self.objects.secrets.open(&ids).await?;
        let mut referred = BTreeMap::new();
        resolve_references(&mut value, &mut |id| opened.get(id).map(|value| value.to_string()), &mut referred);
        let plain = yaml::plain_secrets(&value);
        Ok(plain
            .into_iter()
            .filter_map(|(path, secret)| Some((path, (referred.get(&secret)?.clone(), secret))))
            .collect())
    }
}

/// Replaces strings that are exactly one reference with the secret, and records the id of each secret.
fn resolve_references(
    value: &mut Value,
    open: &mut dyn FnMut(&SecretId) -> Option<String>,
    referred: &mut BTreeMap<String, SecretId>,
) {
    match value {
        Value::String(text) => {
            let id =
                text.strip_prefix(OPEN).and_then(|rest| rest.strip_suffix('}')).and_then(|id| SecretId::parse(id).ok());
            if let Some((id, secret)) = id.and_then(|id| Some((id.clone(), open(&id)?))) {
                *text = secret.clone();
                referred.insert(secret, id);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| resolve_references(item, open, referred)),
        Value::Object(fields) => fields.values_mut().for_each(|field| resolve_references(field, open, referred)),
        _ => {}
    }
}
