//! Output objects: destinations of the data of policies that define no outputs of their own.
//!
//! A changed output creates a new revision of exactly the policies that compile to something else. An output's secrets
//! are sealed on arrival and stored as `{"id": …}`.

use std::sync::Arc;

use muster_core::authorization::{Grant, OpContext, OutputsRead, OutputsWrite, Privilege};
use muster_core::change::Change;
use muster_core::entropy::random_uuid;
use muster_core::id::{OutputId, PolicyId};
use muster_core::network_object::Shared;
use muster_core::output::Output;
use muster_core::policy::check::check_record;
use muster_core::policy::{Policy, bootstrap, issuers};
use muster_core::time::Timestamp;
use muster_core::{Error, ErrorKind};
use muster_store::{OutputWrite, Write};
use serde_json::{Map, Value, json};

use super::authority::Authorized;
use super::output_keys::issuer::KeyIssuer;
use super::policies::{Deleted, Turn};
use super::policy_objects::{By, Edit, PolicyObject, PolicyObjects};
use super::scope::Scoped;
use super::sealed_fields::SealedFields;

/// An output's secrets.
const SECRETS: SealedFields = SealedFields::new(&[
    "bootstrap.service_token",
    "bootstrap.ssl.key",
    "kibana_api_key",
    "password",
    "service_token",
    "ssl.key",
]);
/// Fields by which policies refer to an output.
const POLICY_FIELDS: &[&str] = &["data_output_id", "monitoring_output_id"];

/// A new output or a change of one. Absent fields stay as they are.
#[derive(Clone, Default)]
pub struct OutputDraft {
    /// Id of a new output; generated if absent.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// `elasticsearch`, `remote_elasticsearch`, `logstash` or `kafka`.
    pub kind: Option<String>,
    /// Whether policies without an output use this one. Replaces the previous default.
    pub is_default: Option<bool>,
    /// Whether it is the default for monitoring data. Replaces the previous default.
    pub is_default_monitoring: Option<bool>,
    /// All other fields; `null` removes one. Secrets are plain text, or `{"id": …}` to keep the current value.
    pub fields: Map<String, Value>,
}

/// The service of outputs.
pub struct Outputs {
    pub(super) objects: PolicyObjects,
    pub(super) issuer: Arc<dyn KeyIssuer>,
}

impl Outputs {
    pub(crate) fn new(objects: PolicyObjects, issuer: Arc<dyn KeyIssuer>) -> Self {
        Self { objects, issuer }
    }

    /// Returns what will not work although the output is valid: agents may reach a host that this server must not connect to,
    /// but get no keys for it.
    pub fn warnings(&self, output: &Output) -> Vec<String> {
        let Some(fields) = output.fields.as_object().filter(|fields| issuers::creates_keys(fields)) else {
            return Vec::new();
        };
        let block = fields.get(bootstrap::SECTION).and_then(Value::as_object);
        let hosts = issuers::hosts(fields).chain(block.into_iter().flat_map(issuers::hosts));
        let refused = hosts.filter_map(|host| self.issuer.refuses(host));
        refused.map(|reason| format!("hosts: the server cannot create keys of agents there: {reason}")).collect()
    }

    /// Finds an output in the caller's space; its secrets are `{"id": …}`.
    pub async fn find<P: Privilege>(&self, context: &OpContext, id: &str) -> Result<Authorized<Output, P>, Error> {
        let grant = context.grant::<P>()?;
        let found = match OutputId::parse(id) {
            Ok(id) => self.objects.store.seen_by(&grant).output(&id).await?,
            Err(_) => None,
        };
        let output = found.ok_or_else(|| Error::not_found("output", id))?;
        Ok(Authorized::new(output, grant))
    }

    /// Creates an output.
    pub async fn create(&self, grant: &Grant<OutputsWrite>, draft: OutputDraft) -> Result<Output, Error> {
        let draft = &draft;
        self.objects
            .policies
            .in_turn(move |turn| async move { self.create_in(&turn, grant, draft.clone()).await })
            .await
    }

    async fn create_in(&self, turn: &Turn, grant: &Grant<OutputsWrite>, draft: OutputDraft) -> Result<Output, Error> {
        let now = self.objects.clock.now();
        let id = match draft.id.as_deref() {
            // `propose` is stricter than `parse`: it also rejects ids that routes or command lines would misread.
            Some(id) => OutputId::propose(id).map_err(|bad| Error::invalid("id", bad.to_string()))?,
            None => OutputId::trusted(random_uuid(&*self.objects.entropy)),
        };
        // A look at all spaces: ids are unique across them.
        if self.objects.store.seen_by(grant).is_output_id_taken(&id).await? {
            return Err(Error::conflict("output_exists", format!("an output with the id {id} already exists")));
        }
        let blank = Output {
            id,
            space: grant.space().clone(),
            name: String::new(),
            kind: String::new(),
            is_default: false,
            is_default_monitoring: false,
            fields: Value::Object(Map::new()),
            created_at: now,
            updated_at: now,
        };
        let edit = self.edit(blank, draft).await?;
        self.objects.save(By { grant, turn, verb: "create" }, edit).await
    }

    /// Changes an output. A change without a difference writes nothing.
    pub async fn update(&self, output: &Authorized<Output, OutputsWrite>, draft: OutputDraft) -> Result<Output, Error> {
        let draft = &draft;
        let update = move |turn: Turn| async move {
            // Read again inside the turn, so that the change starts from what is stored now.
            let edit = self.edit(self.current(output).await?, draft.clone()).await?;
            self.objects.save(By { grant: output.grant(), turn: &turn, verb: "update" }, edit).await
        };
        self.objects.policies.in_turn(update).await
    }

    /// Returns the policies that would get a new revision with a change: id and name.
    pub async fn revised_by(
        &self,
        output: &Authorized<Output, OutputsWrite>,
        draft: OutputDraft,
    ) -> Result<Vec<(PolicyId, String)>, Error> {
        let edit = self.edit(self.current(output).await?, draft).await?;
        self.objects.revised_by(output.grant(), edit).await
    }

    /// Deletes an output. Policies that name it in `data_output_id` or `monitoring_output_id` use the default instead; a
    /// conflict if a policy uses it in its `config`, or needs it. A default output cannot be deleted.
    pub async fn delete(&self, output: &Authorized<Output, OutputsWrite>) -> Result<Output, Error> {
        self.objects.policies.in_turn(move |turn| async move { self.delete_in(&turn, output).await }).await
    }

    async fn delete_in(&self, turn: &Turn, output: &Authorized<Output, OutputsWrite>) -> Result<Output, Error> {
        let (grant, now) = (output.grant(), self.objects.clock.now());
        let seen = self.objects.store.seen_by(grant);
        let output = self.current(output).await?;
        if output.is_default || output.is_default_monitoring {
            let message = format!("{:?} is the default output", output.name);
            return Err(Error::new(ErrorKind::Invalid, "output_is_default", message)
                .remedy("make another output the default first"));
        }
        // In the same turn, so that no policy starts to use the output between this check and the commit.
        let revised = self.without(grant, seen, &output, now).await?;
        let detail = json!({"name": output.name});
        self.objects.delete(By { grant, turn, verb: "delete" }, output, revised, detail).await
    }

    /// Returns the writes of the revisions of policies without an output.
    async fn without(
        &self,
        grant: &Grant<OutputsWrite>,
        seen: Scoped<'_>,
        output: &Output,
        now: Timestamp,
    ) -> Result<Vec<Write>, Error> {
        let deleted = Deleted { fields: POLICY_FIELDS, id: output.id.as_str() };
        let in_use = |reason: String| {
            let message = format!("the output {:?} is used by {reason}", output.name);
            Error::conflict("output_in_use", message).remedy("assign another output to them first")
        };
        let users = self.objects.policies.users_despite(seen, &output.id, deleted).await?;
        if !users.is_empty() {
            return Err(in_use(listed(&users)));
        }
        // The policies are compiled as if the output was gone, in one commit with its deletion.
        let mut shared = seen.shared().await?;
        shared.outputs.retain(|other| other.id != output.id);
        let revised = self.objects.policies.revise_all(grant.origin(), seen, shared, Some(deleted), now).await;
        revised.map_err(|error| match error.kind {
            // A policy that has no default output to fall back to.
            ErrorKind::Invalid => in_use(format!("a policy that needs it: {}", error.message)).caused_by(error),
            _ => error,
        })
    }

    /// Returns all outputs by name; their secrets are `{"id": …}`.
    pub async fn list(&self, grant: &Grant<OutputsRead>) -> Result<Vec<Output>, Error> {
        Ok(self.objects.store.seen_by(grant).outputs().await?)
    }

    /// Reads the output again in the change's turn: it may have changed since it was found.
    async fn current<P: Privilege>(&self, output: &Authorized<Output, P>) -> Result<Output, Error> {
        let found = self.objects.store.seen_by(output.grant()).output(&output.id).await?;
        found.ok_or_else(|| Error::not_found("output", &output.id))
    }

    async fn edit(&self, before: Output, draft: OutputDraft) -> Result<Edit<Output>, Error> {
        let mut after = before.clone();
        after.name = draft.name.map_or(after.name, |name| name.trim().to_owned());
        after.kind = draft.kind.unwrap_or(after.kind);
        after.is_default = draft.is_default.unwrap_or(after.is_default);
        after.is_default_monitoring = draft.is_default_monitoring.unwrap_or(after.is_default_monitoring);
        let (mut fields, sealed) = self.objects.merge(SECRETS, &before.fields, draft.fields).await?;
        // `null` in a draft removes the field.
        fields.retain(|_, value| !value.is_null());
        after.fields = Value::Object(fields);
        self.objects.edit(before, after, sealed).await
    }
}

impl PolicyObject for Output {
    fn word(&self) -> &'static str {
        "output"
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
        json!({"name": self.name, "type": self.kind})
    }

    fn stamp(&mut self, now: Timestamp) {
        self.updated_at = now;
    }

    fn check(&self) -> Result<(), Error> {
        Ok(check_record(self).into_result()?)
    }

    fn sealed_fields(&self) -> SealedFields {
        SECRETS
    }

    fn put(&self) -> [Write; 2] {
        [OutputWrite::Put(Box::new(self.clone())).into(), Write::Changed(Change::Output(self.id.clone()))]
    }

    fn remove(&self) -> [Write; 2] {
        [
            OutputWrite::Delete { id: self.id.clone() }.into(),
            Write::Deleted(Change::Output(self.id.clone()), self.space.clone()),
        ]
    }

    fn placed_in(&self, shared: Shared) -> Shared {
        shared.with_output(self)
    }

    fn name_taken(&self, name: &str) -> Error {
        Error::conflict("output_name_taken", format!("another output is named {name:?}"))
    }
}

fn listed(users: &[Policy]) -> String {
    let names: Vec<String> = users.iter().take(10).map(|policy| format!("{:?}", policy.name)).collect();
    let more = users.len() - names.len();
    if more > 0 { format!("{} and {more} more", names.join(", ")) } else { names.join(", ") }
}
