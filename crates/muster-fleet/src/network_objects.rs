//! Fleet Server hosts, proxies and download sources, which policies refer to (MG §2.6–2.8).
//!
//! A change creates a new revision of exactly the policies that compile to something else. Secrets are sealed on arrival and
//! stored as `{"id": …}`.

use std::marker::PhantomData;
use std::sync::Arc;

use muster_core::authorization::{
    DownloadSourcesRead, DownloadSourcesWrite, Grant, OpContext, Privilege, ProxiesRead, ProxiesWrite, ServerHostsRead,
    ServerHostsWrite,
};
use muster_core::change::Change;
use muster_core::entropy::random_uuid;
use muster_core::id::{NetworkObjectId, PolicyId};
use muster_core::network_object::{NetworkObject, NetworkObjectKind, Shared, check_network_object};
use muster_core::time::Timestamp;
use muster_core::{Error, ErrorKind};
use muster_store::{NetworkObjectWrite, Write};
use serde_json::{Map, Value, json};

use super::authority::Authorized;
use super::connection_tests::ConnectionTests;
use super::policies::{Deleted, Turn};
use super::policy_objects::{By, Edit, PolicyObject, PolicyObjects, refuse_moved_proxy};
use super::scope::Scoped;
use super::sealed_fields::SealedFields;

/// A kind of network objects with its privileges.
pub trait NetworkFamily: Send + Sync + 'static {
    /// The kind.
    const KIND: NetworkObjectKind;
    /// Privilege to read them.
    type Read: Privilege;
    /// Privilege to change them.
    type Write: Privilege;
}

macro_rules! families {
    ($($(#[$doc:meta])* $name:ident: $kind:ident, $read:ident, $write:ident;)+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug)]
            // Uninhabited, because it exists as a type parameter only.
            pub enum $name {}

            impl NetworkFamily for $name {
                const KIND: NetworkObjectKind = NetworkObjectKind::$kind;
                type Read = $read;
                type Write = $write;
            }
        )+
    };
}

families! {
    /// Fleet Server hosts.
    ServerHosts: ServerHost, ServerHostsRead, ServerHostsWrite;
    /// Proxies.
    Proxies: Proxy, ProxiesRead, ProxiesWrite;
    /// Download sources.
    DownloadSources: DownloadSource, DownloadSourcesRead, DownloadSourcesWrite;
}

/// A new network object or a change of one. Absent fields stay as they are.
#[derive(Clone, Default)]
pub struct NetworkObjectDraft {
    /// Id of a new object; generated if absent.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Whether policies that name none use this one. Replaces the previous default.
    pub is_default: Option<bool>,
    /// All other fields; `null` removes one. Secrets are plain text, or `{"id": …}` to keep the current value.
    pub fields: Map<String, Value>,
}

/// The service of one kind of network objects.
pub struct NetworkObjects<F> {
    pub(super) objects: PolicyObjects,
    pub(super) tests: Arc<ConnectionTests>,
    family: PhantomData<fn() -> F>,
}

impl<F: NetworkFamily> NetworkObjects<F> {
    pub(crate) const fn new(objects: PolicyObjects, tests: Arc<ConnectionTests>) -> Self {
        Self { objects, tests, family: PhantomData }
    }

    /// Returns all objects of the kind by name; their secrets are `{"id": …}`.
    pub async fn list(&self, grant: &Grant<F::Read>) -> Result<Vec<NetworkObject>, Error> {
        let mut found = self.objects.store.seen_by(grant).network_objects().await?;
        // One read for all kinds: there are few objects, and policies are compiled with all of them.
        found.retain(|object| object.kind == F::KIND);
        Ok(found)
    }

    /// Finds an object in the caller's space; its secrets are `{"id": …}`.
    pub async fn find(&self, context: &OpContext, id: &str) -> Result<Authorized<NetworkObject, F::Read>, Error> {
        self.find_with(context, id).await
    }

    /// Finds an object in the caller's space, to change it.
    pub async fn find_to_change(
        &self,
        context: &OpContext,
        id: &str,
    ) -> Result<Authorized<NetworkObject, F::Write>, Error> {
        self.find_with(context, id).await
    }

    async fn find_with<P: Privilege>(
        &self,
        context: &OpContext,
        id: &str,
    ) -> Result<Authorized<NetworkObject, P>, Error> {
        let grant = context.grant::<P>()?;
        let found = match NetworkObjectId::parse(id) {
            Ok(id) => self.objects.store.seen_by(&grant).network_object(F::KIND, &id).await?,
            Err(_) => None,
        };
        let object = found.ok_or_else(|| Error::not_found(&F::KIND.to_string(), id))?;
        Ok(Authorized::new(object, grant))
    }

    /// Creates an object.
    pub async fn create(&self, grant: &Grant<F::Write>, draft: NetworkObjectDraft) -> Result<NetworkObject, Error> {
        let draft = &draft;
        self.objects
            .policies
            .in_turn(move |turn| async move { self.create_in(&turn, grant, draft.clone()).await })
            .await
    }

    async fn create_in(
        &self,
        turn: &Turn,
        grant: &Grant<F::Write>,
        draft: NetworkObjectDraft,
    ) -> Result<NetworkObject, Error> {
        let now = self.objects.clock.now();
        let id = match draft.id.as_deref() {
            // `propose` is stricter than `parse`, as for outputs.
            Some(id) => NetworkObjectId::propose(id).map_err(|bad| Error::invalid("id", bad.to_string()))?,
            None => NetworkObjectId::trusted(random_uuid(&*self.objects.entropy)),
        };
        if self.objects.store.seen_by(grant).is_network_object_id_taken(F::KIND, &id).await? {
            let message = format!("a {} with the id {id} already exists", F::KIND);
            return Err(Error::conflict(code(Conflict::Exists, F::KIND), message));
        }
        let edit = self.edit(blank::<F>(id, grant, now), draft).await?;
        self.objects.save(By { grant, turn, verb: "create" }, edit).await
    }

    /// Changes an object. A change without a difference writes nothing.
    pub async fn update(
        &self,
        object: &Authorized<NetworkObject, F::Write>,
        draft: NetworkObjectDraft,
    ) -> Result<NetworkObject, Error> {
        let draft = &draft;
        let update = move |turn: Turn| async move {
            let edit = self.edit(self.current(object).await?, draft.clone()).await?;
            // Outputs may send stored secrets through it: a proxy elsewhere would get them.
            if F::KIND == NetworkObjectKind::Proxy {
                let shared = self.objects.store.seen_by(object.grant()).shared().await?;
                refuse_moved_proxy(&edit.before, &edit.after, &shared)?;
            }
            self.objects.save(By { grant: object.grant(), turn: &turn, verb: "update" }, edit).await
        };
        self.objects.policies.in_turn(update).await
    }

    /// Returns the policies that would get a new revision with a change: id and name.
    pub async fn revised_by(
        &self,
        object: &Authorized<NetworkObject, F::Write>,
        draft: NetworkObjectDraft,
    ) -> Result<Vec<(PolicyId, String)>, Error> {
        let edit = self.edit(self.current(object).await?, draft).await?;
        self.objects.revised_by(object.grant(), edit).await
    }

    pub(super) async fn edit(
        &self,
        before: NetworkObject,
        draft: NetworkObjectDraft,
    ) -> Result<Edit<NetworkObject>, Error> {
        let mut after = before.clone();
        after.name = draft.name.map_or(after.name, |name| name.trim().to_owned());
        after.is_default = draft.is_default.unwrap_or(after.is_default);
        let (mut fields, sealed) =
            self.objects.merge(SealedFields::new(F::KIND.secret_fields()), &before.fields, draft.fields).await?;
        match draft.is_default {
            // Shown as it was set: a provider reports a difference if a field appears or disappears (MG §13).
            Some(false) => drop(fields.insert("is_default".into(), false.into())),
            Some(true) => drop(fields.remove("is_default")),
            None => {}
        }
        fields.retain(|_, value| !value.is_null());
        after.fields = Value::Object(fields);
        self.objects.edit(before, after, sealed).await
    }

    /// Deletes an object. Policies that name it use the default instead; whatever uses a proxy goes without it. A default
    /// object cannot be deleted.
    pub async fn delete(&self, object: &Authorized<NetworkObject, F::Write>) -> Result<NetworkObject, Error> {
        self.objects.policies.in_turn(move |turn| async move { self.delete_in(&turn, object).await }).await
    }

    async fn delete_in(
        &self,
        turn: &Turn,
        object: &Authorized<NetworkObject, F::Write>,
    ) -> Result<NetworkObject, Error> {
        let (grant, now) = (object.grant(), self.objects.clock.now());
        let seen = self.objects.store.seen_by(grant);
        let object = self.current(object).await?;
        refuse_default(&object)?;
        let mut shared = seen.shared().await?;
        // The policies below are compiled as if the object was gone.
        shared.network.retain(|other| other.kind != F::KIND || other.id != object.id);
        let (mut revised, users) = match F::KIND {
            // Proxies are named by outputs and other objects too, which are changed in the same commit.
            NetworkObjectKind::Proxy => unset_proxy(&mut shared, &object.id, now),
            NetworkObjectKind::ServerHost | NetworkObjectKind::DownloadSource => Default::default(),
        };
        let field = F::KIND.policy_field();
        let deleted = Deleted { fields: field.as_slice(), id: object.id.as_str() };
        let policies = &self.objects.policies;
        revised.extend(policies.revise_all(grant.origin(), seen, shared, Some(deleted), now).await?);
        let detail = json!({"name": object.name, "used_by": users});
        self.objects.delete(By { grant, turn, verb: "delete" }, object, revised, detail).await
    }

    /// Reads the object again in the change's turn: it may have changed since it was found.
    async fn current<P: Privilege>(&self, object: &Authorized<NetworkObject, P>) -> Result<NetworkObject, Error> {
        let seen: Scoped<'_> = self.objects.store.seen_by(object.grant());
        let found = seen.network_object(F::KIND, &object.id).await?;
        found.ok_or_else(|| Error::not_found(&F::KIND.to_string(), &object.id))
    }
}

/// Returns what a new object starts as.
pub(super) fn blank<F: NetworkFamily>(id: NetworkObjectId, grant: &Grant<F::Write>, now: Timestamp) -> NetworkObject {
    NetworkObject {
        id,
        kind: F::KIND,
        space: grant.space().clone(),
        name: String::new(),
        is_default: false,
        fields: Value::Object(Map::new()),
        created_at: now,
        updated_at: now,
    }
}

impl PolicyObject for NetworkObject {
    fn word(&self) -> &'static str {
        self.kind.word()
    }

    fn id(&self) -> &str {
        self.id.as_str()
    }

    fn fields(&self) -> &Value {
        &self.fields
    }

    fn fields_mut(&mut self) -> &mut Value {
        &mut self.fields
    }

    fn detail(&self) -> Value {
        json!({"name": self.name, "is_default": self.is_default})
    }

    fn stamp(&mut self, now: Timestamp) {
        self.updated_at = now;
    }

    fn check(&self) -> Result<(), Error> {
        Ok(check_network_object(self).into_result()?)
    }

    fn sealed_fields(&self) -> SealedFields {
        SealedFields::new(self.kind.secret_fields())
    }

    fn put(&self) -> [Write; 2] {
        let changed = Write::Changed(Change::NetworkObject(self.kind, self.id.clone()));
        [NetworkObjectWrite::Put(Box::new(self.clone())).into(), changed]
    }

    fn remove(&self) -> [Write; 2] {
        let deleted = Write::Deleted(Change::NetworkObject(self.kind, self.id.clone()), self.space.clone());
        [NetworkObjectWrite::Delete { kind: self.kind, id: self.id.clone() }.into(), deleted]
    }

    fn placed_in(&self, shared: Shared) -> Shared {
        shared.with_network_object(self)
    }

    fn name_taken(&self, name: &str) -> Error {
        Error::conflict(code(Conflict::NameTaken, self.kind), format!("another {} is named {name:?}", self.kind))
    }
}

/// Removes a deleted proxy from whatever uses it. Returns the writes, and who used it.
fn unset_proxy(shared: &mut Shared, proxy: &NetworkObjectId, now: Timestamp) -> (Vec<Write>, Vec<String>) {
    let uses = |fields: &Value| fields.get("proxy_id").and_then(Value::as_str) == Some(proxy.as_str());
    // Only the reference is removed: the output goes on without a proxy.
    let remove = |fields: &mut Value| {
        fields.as_object_mut().map(|fields| fields.remove("proxy_id"));
    };
    let (mut writes, mut users) = (Vec::new(), Vec::new());
    for output in shared.outputs.iter_mut().filter(|output| uses(&output.fields)) {
        remove(&mut output.fields);
        output.updated_at = now;
        users.push(output.subject());
        writes.extend(output.put());
    }
    for object in shared.network.iter_mut().filter(|object| uses(&object.fields)) {
        remove(&mut object.fields);
        object.updated_at = now;
        users.push(object.subject());
        writes.extend(object.put());
    }
    (writes, users)
}

/// Rejects the deletion of a default object, with the statuses of the original (MG104).
fn refuse_default(object: &NetworkObject) -> Result<(), Error> {
    if !object.is_default {
        return Ok(());
    }
    let kind = match object.kind {
        NetworkObjectKind::ServerHost => ErrorKind::Forbidden,
        NetworkObjectKind::Proxy | NetworkObjectKind::DownloadSource => ErrorKind::Invalid,
    };
    let message = format!("{:?} is the default {}", object.name, object.kind);
    Err(Error::new(kind, code(Conflict::IsDefault, object.kind), message).remedy("make another one the default first"))
}

/// Why a change of an object is rejected.
#[derive(Clone, Copy)]
enum Conflict {
    Exists,
    IsDefault,
    NameTaken,
}

fn code(conflict: Conflict, kind: NetworkObjectKind) -> &'static str {
    let [exists, is_default, name_taken] = match kind {
        NetworkObjectKind::ServerHost => ["server_host_exists", "server_host_is_default", "server_host_name_taken"],
        NetworkObjectKind::Proxy => ["proxy_exists", "proxy_is_default", "proxy_name_taken"],
        NetworkObjectKind::DownloadSource => {
            ["download_source_exists", "download_source_is_default", "download_source_name_taken"]
        }
    };
    match conflict {
        Conflict::Exists => exists,
        Conflict::IsDefault => is_default,
        Conflict::NameTaken => name_taken,
    }
}
