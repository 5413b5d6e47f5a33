//! Secret fields of objects that policies refer to: sealed on arrival, and stored as `{"id": …}` below `secrets`.

use std::collections::BTreeSet;

use muster_core::Error;
use muster_core::id::SecretId;
use muster_core::policy::problem::nearest;
use muster_store::Write;
use serde_json::{Map, Value, json};

use super::secrets::SealedSecrets;

/// The secret fields of a kind of object, by dotted path. Requests may have each one below `secrets` or in its own place.
#[derive(Clone, Copy)]
pub(crate) struct SealedFields {
    paths: &'static [&'static str],
}

/// The result of sealing the secrets of a request.
#[derive(Default)]
pub(crate) struct Sealed {
    /// What stores the new secrets.
    pub(crate) writes: Vec<Write>,
    /// Secrets that the request had in plain text, new or as they are stored.
    pub(crate) given: BTreeSet<SecretId>,
}

/// A secret in its own place in a request.
enum InPlace {
    Absent,
    /// `null`: removes the stored one.
    Null,
    Text(String),
}

impl SealedFields {
    pub(crate) const fn new(paths: &'static [&'static str]) -> Self {
        Self { paths }
    }

    /// Seals the plain secrets in `fields`, where only references remain. `known` are the stored references, which are kept
    /// unless the request replaces or removes them.
    pub(crate) async fn seal(
        self,
        secrets: &SealedSecrets,
        fields: &mut Map<String, Value>,
        known: &Value,
    ) -> Result<Sealed, Error> {
        let given = fields.remove("secrets").unwrap_or_default();
        self.refuse_unknown(&given, "")?;
        let (mut sealed, mut done) = (Value::Object(Map::new()), Sealed::default());
        for path in self.paths {
            let in_place = take(fields, path);
            let kept = at(known, path).filter(|entry| !entry.is_null());
            let entry = match (at(&given, path), in_place) {
                // What is below `secrets` takes precedence over the field in its own place.
                (Some(Value::String(text)), _) => seal_unless_same(secrets, path, text, kept, &mut done).await?,
                (None, InPlace::Text(text)) => seal_unless_same(secrets, path, &text, kept, &mut done).await?,
                (Some(Value::Null), _) | (None, InPlace::Null) => continue,
                // Only the reference that is stored: any other could name a secret of somebody else.
                (Some(entry), _) if Some(entry) == kept => entry.clone(),
                (Some(_), _) => {
                    let reason = "set it in plain text, or omit it to keep the current value";
                    return Err(Error::invalid(format!("secrets.{path}"), reason));
                }
                (None, InPlace::Absent) => match kept {
                    Some(kept) => kept.clone(),
                    None => continue,
                },
            };
            put(&mut sealed, path, entry);
        }
        if sealed.as_object().is_some_and(|sealed| !sealed.is_empty()) {
            fields.insert("secrets".into(), sealed);
        }
        Ok(done)
    }

    /// Returns the ids of the sealed secrets of an object's fields.
    pub(crate) fn ids(self, fields: &Value) -> BTreeSet<SecretId> {
        let ids = self.paths.iter().filter_map(|path| at(&fields["secrets"], path)?.get("id")?.as_str());
        ids.map(SecretId::trusted).collect()
    }

    /// Returns the dotted paths and ids of the secrets that are sent to other hosts. Private keys stay where they are used.
    pub(crate) fn sent(self, fields: &Value) -> impl Iterator<Item = (String, SecretId)> {
        let is_key = |path: &&&str| path.ends_with("key") && !path.ends_with("api_key");
        let found = self.paths.iter().filter(move |path| !is_key(path)).filter_map(|path| {
            let id = at(&fields["secrets"], path)?.get("id")?.as_str()?;
            Some(((*path).to_owned(), SecretId::trusted(id)))
        });
        found.collect::<Vec<_>>().into_iter()
    }

    /// Rejects unknown names below `secrets`. Ignoring a misspelled one would leave the object without its password.
    fn refuse_unknown(self, given: &Value, path: &str) -> Result<(), Error> {
        for (name, entry) in given.as_object().into_iter().flatten() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if self.paths.contains(&path.as_str()) {
                continue;
            }
            if self.paths.iter().any(|known| known.starts_with(&format!("{path}."))) && entry.is_object() {
                self.refuse_unknown(entry, &path)?;
                continue;
            }
            let near = nearest(&path, self.paths).map(|near| format!("did you mean `{near}`?"));
            let remedy = near.unwrap_or_else(|| format!("known: {}", self.paths.join(", ")));
            return Err(Error::invalid(format!("secrets.{path}"), "unknown secret").remedy(remedy));
        }
        Ok(())
    }
}

// Sealing an equal value again would give it a new id, and revise every policy that uses the object.
async fn seal_unless_same(
    secrets: &SealedSecrets,
    path: &str,
    text: &str,
    kept: Option<&Value>,
    done: &mut Sealed,
) -> Result<Value, Error> {
    if let Some(id) = kept.and_then(|kept| kept["id"].as_str()).map(SecretId::trusted) {
        let opened = secrets.open(std::slice::from_ref(&id)).await?;
        if opened.get(&id).is_some_and(|value| value.as_str() == text) {
            let reference = json!({"id": id});
            done.given.insert(id);
            return Ok(reference);
        }
    }
    let (id, write) = secrets.seal(&format!("secrets.{path}"), text)?;
    done.writes.push(write);
    Ok(json!({"id": id}))
}

/// Returns the value at a dotted path.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, step| value.get(step))
}

fn put(value: &mut Value, path: &str, entry: Value) {
    let slot = path.split('.').fold(value, |value, step| {
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        &mut value[step]
    });
    *slot = entry;
}

/// Removes and returns the secret at a dotted path, together with objects that become empty. An empty string is treated as
/// absent, and a value of another type stays for the validation.
fn take(fields: &mut Map<String, Value>, path: &str) -> InPlace {
    let Some((outer, inner)) = path.split_once('.') else {
        let found = match fields.get(path) {
            Some(Value::Null) => InPlace::Null,
            Some(Value::String(text)) if text.is_empty() => InPlace::Absent,
            Some(Value::String(text)) => InPlace::Text(text.clone()),
            _ => return InPlace::Absent,
        };
        fields.remove(path);
        return found;
    };
    let Some(Value::Object(nested)) = fields.get_mut(outer) else { return InPlace::Absent };
    let found = take(nested, inner);
    if nested.is_empty() {
        fields.remove(outer);
    }
    found
}
