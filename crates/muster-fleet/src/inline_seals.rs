//! Secrets inside the fields of objects that policies refer to: passwords in URLs, headers, and other fields whose names say
//! so. They are sealed on arrival, and stored as references that are part of the strings.

use std::collections::BTreeSet;

use muster_core::Error;
use muster_core::id::SecretId;
use muster_core::secret_refs::{Secrets, inline_names};
use serde_json::Value;

use super::sealed_fields::Sealed;
use super::secrets::SealedSecrets;

/// The sealed secrets inside the fields of one object.
pub(super) struct InlineSeals<'a> {
    secrets: &'a SealedSecrets,
    /// Those of the stored object.
    kept: Secrets,
    /// What stores the new ones, and those that the request has in plain text.
    pub(super) sealed: Sealed,
}

impl<'a> InlineSeals<'a> {
    /// Opens the secrets of the stored object `before`. A reference in `fields` to any other secret is rejected: it would
    /// deliver the secret of another object to this one's agents.
    pub(super) async fn new(secrets: &'a SealedSecrets, before: &Value, fields: &Value) -> Result<Self, Error> {
        let known = ids(before);
        for (name, field) in fields.as_object().into_iter().flatten() {
            if let Some(foreign) = ids(field).into_iter().find(|id| !known.contains(id)) {
                let reason = format!("refers to the secret {foreign}, which is not one of this object's");
                return Err(Error::invalid(name, reason).remedy("write the value itself; it is encrypted"));
            }
        }
        let known: Vec<SecretId> = known.into_iter().collect();
        Ok(Self { secrets, kept: secrets.open(&known).await?, sealed: Sealed::default() })
    }

    /// Returns the id of a secret, which is sealed if it is new. An equal one keeps its id: a new id would revise every
    /// policy that uses the object.
    pub(super) fn id_of(&mut self, field: &str, secret: &str) -> Result<String, Error> {
        if let Some((id, _)) = self.kept.iter().find(|(_, value)| value.as_str() == secret) {
            self.sealed.given.insert(id.clone());
            return Ok(id.to_string());
        }
        let (id, write) = self.secrets.seal(field, secret)?;
        self.sealed.writes.push(write);
        Ok(id.to_string())
    }
}

/// Returns the ids of the secrets inside an object's fields.
pub(super) fn ids(fields: &Value) -> BTreeSet<SecretId> {
    inline_names(fields).iter().filter_map(|id| SecretId::parse(id).ok()).collect()
}
