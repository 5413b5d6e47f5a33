//! What a change of an object that policies refer to consists of: outputs, Fleet Server hosts, proxies and download sources.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_core::authorization::{Grant, Origin, Privilege};
use muster_core::id::{PolicyId, SecretId};
use muster_core::network_object::{NetworkObject, NetworkObjectKind, Shared};
use muster_core::policy::inline_secrets;
use muster_core::time::{Clock, Timestamp};
use muster_core::{Entropy, Error};
use muster_store::{PolicyWrite, Precondition, SecretWrite, StoreError, Write};
use serde_json::{Map, Value};

use super::audit::{audit_line, with_changes};
use super::connection::connection;
use super::inline_seals::{self, InlineSeals};
use super::output_yaml;
use super::policies::{Policies, Turn};
use super::sealed_fields::{Sealed, SealedFields};
use super::secrets::SealedSecrets;
use super::watched_store::WatchedStore;

/// An object that policies refer to. Its secrets are sealed, and stored as `{"id": …}`.
pub(crate) trait PolicyObject: Clone + PartialEq + Send + Sync {
    /// Its kind, as it begins the names of audit events (`output.create`) and their subjects (`output:ID`).
    fn word(&self) -> &'static str;
    /// Its id.
    fn id(&self) -> &str;
    /// Its settings.
    fn fields(&self) -> &Value;
    /// Its settings, to change them.
    fn fields_mut(&mut self) -> &mut Value;
    /// What an audit line tells of it.
    fn detail(&self) -> Value;
    /// Sets the time of its last change.
    fn stamp(&mut self, now: Timestamp);
    /// Validates it.
    fn check(&self) -> Result<(), Error>;
    /// Its secret fields.
    fn sealed_fields(&self) -> SealedFields;
    /// The writes that store it.
    fn put(&self) -> [Write; 2];
    /// The writes that delete it.
    fn remove(&self) -> [Write; 2];
    /// Returns the objects of the space with this one in its place.
    fn placed_in(&self, shared: Shared) -> Shared;
    /// The refusal of a name that another object of the kind has.
    fn name_taken(&self, name: &str) -> Error;

    /// The secrets that it refers to.
    fn secret_ids(&self) -> BTreeSet<SecretId> {
        self.sealed_fields().ids(self.fields()).into_iter().chain(inline_seals::ids(self.fields())).collect()
    }

    /// Its subject in the audit log.
    fn subject(&self) -> String {
        format!("{}:{}", self.word(), self.id())
    }
}

/// What the services of such objects work with.
pub(crate) struct PolicyObjects {
    pub(crate) store: Arc<WatchedStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) secrets: Arc<SealedSecrets>,
    pub(crate) policies: Arc<Policies>,
}

/// A change of an object: `before` is blank if the object is new, `sealed` stores the new secrets.
pub(crate) struct Edit<T> {
    pub(crate) before: T,
    pub(crate) after: T,
    pub(crate) sealed: Vec<Write>,
}

/// Who changes an object in which turn, and the last part of the audit event's name: `create`, `update`.
pub(crate) struct By<'a, P> {
    pub(crate) grant: &'a Grant<P>,
    pub(crate) turn: &'a Turn,
    pub(crate) verb: &'static str,
}

impl PolicyObjects {
    /// Saves an object together with the new revisions of the policies that compile to something else. A change without a
    /// difference writes nothing.
    pub(crate) async fn save<T: PolicyObject, P: Privilege>(&self, by: By<'_, P>, edit: Edit<T>) -> Result<T, Error> {
        let Edit { before, mut after, sealed: mut writes } = edit;
        let (grant, now) = (by.grant, self.clock.now());
        let seen = self.store.seen_by(grant);
        let shared = seen.shared().await?;
        check_proxy(after.fields(), &shared)?;
        if after == before {
            return Ok(before);
        }
        // After the comparison, or else the time of the change would always be a difference.
        after.stamp(now);
        writes.push(by.turn.write());
        writes.extend(after.put());
        let detail = match by.verb {
            "create" => after.detail(),
            _ => with_changes(after.detail(), &described(&before), &described(&after)),
        };
        writes.push(line(grant.origin(), now, &after, by.verb, detail));
        // The revisions are in the same commit: an object can't change without the policies that use it. If one of them no
        // longer compiles, the whole change is rejected.
        let shared = after.placed_in(shared);
        writes.extend(self.policies.revise_all(grant.origin(), seen, shared, None, now).await?);
        let kept = after.secret_ids();
        writes.extend(deletions(before.secret_ids().into_iter().filter(|id| !kept.contains(id))));
        self.store.commit(grant, writes).await.map_err(|error| refused(&after, error))?;
        Ok(after)
    }

    /// Returns the policies that would get a new revision with a change of an object: id and name. Nothing is written.
    pub(crate) async fn revised_by<T: PolicyObject, P: Privilege>(
        &self,
        grant: &Grant<P>,
        edit: Edit<T>,
    ) -> Result<Vec<(PolicyId, String)>, Error> {
        if edit.after == edit.before {
            return Ok(Vec::new());
        }
        let seen = self.store.seen_by(grant);
        let shared = edit.after.placed_in(seen.shared().await?);
        let writes = self.policies.revise_all(grant.origin(), seen, shared, None, self.clock.now()).await?;
        let revised = writes.into_iter().filter_map(|write| match write {
            Write::Policy(PolicyWrite::Update { policy, .. }) => Some((policy.id, policy.name)),
            _ => None,
        });
        Ok(revised.collect())
    }

    /// Deletes an object, with the writes `revised` of whatever referred to it. `detail` goes to the audit log.
    pub(crate) async fn delete<T: PolicyObject, P: Privilege>(
        &self,
        by: By<'_, P>,
        object: T,
        revised: Vec<Write>,
        detail: Value,
    ) -> Result<T, Error> {
        let mut writes = vec![by.turn.write()];
        writes.extend(object.remove());
        writes.push(line(by.grant.origin(), self.clock.now(), &object, by.verb, detail));
        writes.extend(revised);
        writes.extend(deletions(object.secret_ids()));
        self.store.commit(by.grant, writes).await.map_err(|error| refused(&object, error))?;
        Ok(object)
    }

    /// Merges the fields of a request into the stored ones and seals the secret fields; `null` stays, so that the caller
    /// sees what the request removes. [`Self::edit`] seals the secrets inside the other fields.
    pub(crate) async fn merge(
        &self,
        sealed: SealedFields,
        before: &Value,
        draft: Map<String, Value>,
    ) -> Result<(Map<String, Value>, Sealed), Error> {
        let mut fields = before.as_object().cloned().unwrap_or_default();
        let known = fields.remove("secrets").unwrap_or_default();
        fields.extend(draft);
        let sealed = sealed.seal(&self.secrets, &mut fields, &known).await?;
        Ok((fields, sealed))
    }

    /// Validates a change, and seals the secrets inside the fields of the object.
    pub(crate) async fn edit<T: PolicyObject>(
        &self,
        before: T,
        mut after: T,
        mut sealed: Sealed,
    ) -> Result<Edit<T>, Error> {
        // Before: in place of a secret, the validation would see a reference.
        after.check()?;
        let mut seals = InlineSeals::new(&self.secrets, before.fields(), after.fields()).await?;
        let fields = after.fields_mut();
        // First, because it is YAML, in which the search below would find only the passwords in URLs.
        output_yaml::seal(fields, &mut seals)?;
        inline_secrets::replace(fields, &mut |path, secret| seals.id_of(path, secret))?;
        sealed.writes.extend(seals.sealed.writes);
        sealed.given.extend(seals.sealed.given);
        refuse_moved_secrets(&before, &after, &sealed.given)?;
        Ok(Edit { before, after, sealed: sealed.writes })
    }
}

/// Rejects a change that would send a stored secret to another place: whoever may change an object could read it there.
/// `given` are the secrets that the request has in plain text.
fn refuse_moved_secrets<T: PolicyObject>(before: &T, after: &T, given: &BTreeSet<SecretId>) -> Result<(), Error> {
    let Some(moved) = moved_field(before.fields(), after.fields()) else { return Ok(()) };
    let known = before.secret_ids();
    let in_fields = after.fields().as_object().into_iter().flatten().filter(|(name, _)| *name != "ssl");
    let inline = in_fields.flat_map(|(name, field)| inline_seals::ids(field).into_iter().map(|id| (name.clone(), id)));
    let kept = after
        .sealed_fields()
        .sent(after.fields())
        .chain(inline)
        .find(|(_, id)| known.contains(id) && !given.contains(id));
    match kept {
        Some((field, _)) => {
            let reason =
                format!("is required, because `{moved}` changes: a stored secret is never sent to a new destination");
            Err(Error::invalid(field, reason).remedy("send the secret again"))
        }
        None => Ok(()),
    }
}

/// Rejects a change of a proxy through which outputs or download sources send stored secrets: it would get them.
pub(crate) fn refuse_moved_proxy(before: &NetworkObject, after: &NetworkObject, shared: &Shared) -> Result<(), Error> {
    let Some(moved) = moved_field(&before.fields, &after.fields) else { return Ok(()) };
    let uses = |fields: &Value| fields.get("proxy_id").and_then(Value::as_str) == Some(before.id.as_str());
    let outputs = shared.outputs.iter().filter(|output| uses(&output.fields) && sends_secrets(*output));
    let objects = shared.network.iter().filter(|object| uses(&object.fields) && sends_secrets(*object));
    let users: Vec<String> = outputs.map(PolicyObject::subject).chain(objects.map(PolicyObject::subject)).collect();
    if users.is_empty() {
        return Ok(());
    }
    let reason =
        format!("this proxy transmits stored secrets, which are never sent to a new destination: {}", users.join(", "));
    Err(Error::invalid(moved, reason).remedy("create another proxy, and set it there together with the secrets"))
}

/// Returns whether an object sends a stored secret to where it connects to.
fn sends_secrets<T: PolicyObject>(object: &T) -> bool {
    let in_fields = object.fields().as_object().into_iter().flatten().filter(|(name, _)| *name != "ssl");
    let mut inline = in_fields.flat_map(|(_, field)| inline_seals::ids(field));
    object.sealed_fields().sent(object.fields()).next().is_some() || inline.next().is_some()
}

/// Returns the first field by which two versions of an object differ in where they connect to, or in how they verify it.
fn moved_field(before: &Value, after: &Value) -> Option<String> {
    let (before, after) = (connection(before), connection(after));
    let names = before.keys().chain(after.keys());
    names.into_iter().find(|name| before.get(*name) != after.get(*name)).cloned()
}

/// Rejects the id of a proxy that does not exist.
pub(crate) fn check_proxy(fields: &Value, shared: &Shared) -> Result<(), Error> {
    match fields.get("proxy_id") {
        Some(Value::String(id)) if shared.find(NetworkObjectKind::Proxy, id).is_none() => {
            Err(Error::invalid("proxy_id", format!("there is no proxy with the id {id:?}")))
        }
        _ => Ok(()),
    }
}

/// Everything that an audit line may tell of an object.
fn described<T: PolicyObject>(object: &T) -> Value {
    let mut all = object.detail();
    if let (Some(all), Some(fields)) = (all.as_object_mut(), object.fields().as_object()) {
        all.extend(fields.clone());
    }
    all
}

fn line<T: PolicyObject>(origin: &Origin, now: Timestamp, object: &T, verb: &str, detail: Value) -> Write {
    audit_line(origin, now, &format!("{}.{verb}", object.word()), object.subject(), detail)
}

fn deletions(ids: impl IntoIterator<Item = SecretId>) -> impl Iterator<Item = Write> {
    ids.into_iter().map(|id| Write::Secret(SecretWrite::Delete { id }))
}

fn refused<T: PolicyObject>(object: &T, error: StoreError) -> Error {
    match error {
        StoreError::Conflict(Precondition::NameTaken(name)) => object.name_taken(&name).remedy("choose another name"),
        other => super::policies::refused(other),
    }
}
