//! Output objects: destinations of the data of policies that define no outputs of their own.
//!
//! A changed output creates a new revision of exactly the policies that compile to something else. An output's secrets
//! are sealed on arrival and stored as `{"id": …}`.

use std::collections::BTreeSet;
use std::sync::Arc;

use muster_core::authorization::{Grant, OpContext, OutputsRead, OutputsWrite, Privilege};
use muster_core::change::Change;
use muster_core::entropy::random_uuid;
use muster_core::id::{OutputId, SecretId};
use muster_core::output::Output;
use muster_core::policy::Policy;
use muster_core::policy::check::check_record;
use muster_core::policy::problem::nearest;
use muster_core::time::Clock;
use muster_core::{Entropy, Error};
use muster_store::{OutputWrite, Precondition, SecretWrite, StoreError, Write};
use serde_json::{Map, Value, json};

use super::audit::audit_line;
use super::authority::Authorized;
use super::output_yaml;
use super::policies::{Policies, Turn};
use super::secrets::SealedSecrets;
use super::watched_store::WatchedStore;

/// Paths of an output's secrets, both below `secrets` and below the output itself.
const SECRET_FIELDS: [&str; 4] = ["kibana_api_key", "password", "service_token", "ssl.key"];

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
    pub(super) store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    pub(super) secrets: Arc<SealedSecrets>,
    pub(super) policies: Arc<Policies>,
}

impl Outputs {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        secrets: Arc<SealedSecrets>,
        policies: Arc<Policies>,
    ) -> Self {
        Self { store, clock, entropy, secrets, policies }
    }

    /// Finds an output in the caller's space; its secrets are `{"id": …}`.
    pub async fn find<P: Privilege>(&self, context: &OpContext, id: &str) -> Result<Authorized<Output, P>, Error> {
        let grant = context.grant::<P>()?;
        let found = match OutputId::parse(id) {
            Ok(id) => self.store.seen_by(&grant).output(&id).await?,
            Err(_) => None,
        };
        let output = found.ok_or_else(|| Error::not_found("output", id))?;
        Ok(Authorized::new(output, grant))
    }

    /// Creates an output.
    pub async fn create(&self, grant: &Grant<OutputsWrite>, draft: OutputDraft) -> Result<Output, Error> {
        let draft = &draft;
        self.policies.in_turn(move |turn| async move { self.create_in(&turn, grant, draft.clone()).await }).await
    }

    async fn create_in(&self, turn: &Turn, grant: &Grant<OutputsWrite>, draft: OutputDraft) -> Result<Output, Error> {
        let now = self.clock.now();
        let id = match draft.id.as_deref() {
            // `propose` is stricter than `parse`: it also rejects ids that routes or command lines would misread.
            Some(id) => OutputId::propose(id).map_err(|bad| Error::invalid("id", bad.to_string()))?,
            None => OutputId::trusted(random_uuid(&*self.entropy)),
        };
        if self.store.seen_by(grant).is_output_id_taken(&id).await? {
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
        self.save_output(grant, turn, blank, draft, "output.create").await
    }

    /// Changes an output. A change without a difference writes nothing.
    pub async fn update(&self, output: &Authorized<Output, OutputsWrite>, draft: OutputDraft) -> Result<Output, Error> {
        let draft = &draft;
        let update = move |turn: Turn| async move {
            let before = self.current(output).await?;
            self.save_output(output.grant(), &turn, before, draft.clone(), "output.update").await
        };
        self.policies.in_turn(update).await
    }

    /// Deletes an output; a conflict for a default output, and while a policy uses it.
    pub async fn delete(&self, output: &Authorized<Output, OutputsWrite>) -> Result<Output, Error> {
        self.policies.in_turn(move |turn| async move { self.delete_in(&turn, output).await }).await
    }

    async fn delete_in(&self, turn: &Turn, output: &Authorized<Output, OutputsWrite>) -> Result<Output, Error> {
        let grant = output.grant();
        let output = self.current(output).await?;
        if output.is_default || output.is_default_monitoring {
            let message = format!("{:?} is the default output", output.name);
            return Err(Error::conflict("output_is_default", message).remedy("make another output the default first"));
        }
        // In the same turn, so that no policy starts to use the output between this check and the commit.
        let users = self.policies.output_users(self.store.seen_by(grant)).await?;
        if let Some(users) = users.get(&output.id) {
            return Err(
                Error::conflict("output_in_use", in_use(&output, users)).remedy("assign another output to them first")
            );
        }
        let now = self.clock.now();
        let mut writes = vec![
            turn.write(),
            Write::Output(OutputWrite::Delete { id: output.id.clone() }),
            Write::Changed(Change::Output(output.id.clone())),
            audit_line(grant.origin(), now, "output.delete", subject(&output), json!({"name": output.name})),
        ];
        writes.extend(secret_ids(&output.fields).into_iter().map(|id| Write::Secret(SecretWrite::Delete { id })));
        self.store.commit(grant, writes).await.map_err(refused)?;
        Ok(output)
    }

    /// Returns all outputs by name; their secrets are `{"id": …}`.
    pub async fn list(&self, grant: &Grant<OutputsRead>) -> Result<Vec<Output>, Error> {
        Ok(self.store.seen_by(grant).outputs().await?)
    }

    /// Reads the output again in the change's turn: it may have changed since it was found.
    async fn current<P: Privilege>(&self, output: &Authorized<Output, P>) -> Result<Output, Error> {
        let found = self.store.seen_by(output.grant()).output(&output.id).await?;
        found.ok_or_else(|| Error::not_found("output", &output.id))
    }

    async fn save_output(
        &self,
        grant: &Grant<OutputsWrite>,
        turn: &Turn,
        before: Output,
        draft: OutputDraft,
        action: &str,
    ) -> Result<Output, Error> {
        let now = self.clock.now();
        let (mut after, mut writes) = self.apply_output_draft(&before, draft).await?;
        check_record(&after).into_result()?;
        if after == before {
            return Ok(before);
        }
        // After the comparison, or else the time of the change would always be a difference.
        after.updated_at = now;
        writes.push(turn.write());
        writes.push(Write::Output(OutputWrite::Put(Box::new(after.clone()))));
        writes.push(Write::Changed(Change::Output(after.id.clone())));
        writes.push(audit_line(
            grant.origin(),
            now,
            action,
            subject(&after),
            json!({"name": after.name, "type": after.kind}),
        ));
        let seen = self.store.seen_by(grant);
        let outputs = with(seen.outputs().await?, &after);
        // The revisions are in the same commit: an output can't change without the policies that use it. If one of them
        // no longer compiles, the whole change is rejected.
        writes.extend(self.policies.revise_all(grant.origin(), seen, outputs, now).await?);
        let kept = secret_ids(&after.fields);
        let gone = secret_ids(&before.fields).into_iter().filter(|id| !kept.contains(id));
        writes.extend(gone.map(|id| Write::Secret(SecretWrite::Delete { id })));
        self.store.commit(grant, writes).await.map_err(refused)?;
        Ok(after)
    }

    async fn apply_output_draft(&self, before: &Output, draft: OutputDraft) -> Result<(Output, Vec<Write>), Error> {
        let mut after = before.clone();
        after.name = draft.name.map_or(after.name, |name| name.trim().to_owned());
        after.kind = draft.kind.unwrap_or(after.kind);
        after.is_default = draft.is_default.unwrap_or(after.is_default);
        after.is_default_monitoring = draft.is_default_monitoring.unwrap_or(after.is_default_monitoring);
        let mut fields = after.fields.as_object().cloned().unwrap_or_default();
        let known = fields.remove("secrets").unwrap_or_default();
        fields.extend(draft.fields);
        let mut writes = self.seal_output_secrets(&mut fields, &known).await?;
        writes.extend(self.seal_output_yaml(&mut fields, &before.fields).await?);
        fields.retain(|_, value| !value.is_null());
        after.fields = Value::Object(fields);
        Ok((after, writes))
    }

    /// Seals the plain secrets. Requests may have them below `secrets` or in their own fields; they are stored below
    /// `secrets` only.
    async fn seal_output_secrets(&self, fields: &mut Map<String, Value>, known: &Value) -> Result<Vec<Write>, Error> {
        let given = fields.remove("secrets").unwrap_or_default();
        refuse_unknown(&given, "")?;
        let (mut secrets, mut writes) = (Value::Object(Map::new()), Vec::new());
        for path in SECRET_FIELDS {
            let in_place = take_text(fields, path);
            let kept = at(known, path).filter(|entry| !entry.is_null());
            let entry = match (at(&given, path), in_place) {
                (Some(Value::String(text)), _) => self.seal_unless_same(path, text, kept, &mut writes).await?,
                (None, Some(text)) => self.seal_unless_same(path, &text, kept, &mut writes).await?,
                (Some(Value::Null), _) => continue,
                // Only the reference that is stored: any other could name a secret of somebody else.
                (Some(entry), _) if Some(entry) == kept => entry.clone(),
                (Some(_), _) => {
                    let reason = "set it in plain text, or omit it to keep the current value";
                    return Err(Error::invalid(format!("secrets.{path}"), reason));
                }
                (None, None) => match kept {
                    Some(kept) => kept.clone(),
                    None => continue,
                },
            };
            put(&mut secrets, path, entry);
        }
        if secrets.as_object().is_some_and(|secrets| !secrets.is_empty()) {
            fields.insert("secrets".into(), secrets);
        }
        Ok(writes)
    }

    // Sealing an equal value again would give it a new id, and revise every policy that uses the output.
    async fn seal_unless_same(
        &self,
        path: &str,
        text: &str,
        kept: Option<&Value>,
        writes: &mut Vec<Write>,
    ) -> Result<Value, Error> {
        if let Some(id) = kept.and_then(|kept| kept["id"].as_str()).map(SecretId::trusted) {
            let opened = self.secrets.open(std::slice::from_ref(&id)).await?;
            if opened.get(&id).is_some_and(|value| value.as_str() == text) {
                return Ok(json!({"id": id}));
            }
        }
        let (id, write) = self.secrets.seal(&format!("secrets.{path}"), text)?;
        writes.push(write);
        Ok(json!({"id": id}))
    }
}

/// Returns the outputs as they will be after the commit of `changed`. The policies must be compiled against these.
fn with(outputs: Vec<Output>, changed: &Output) -> Vec<Output> {
    let mut outputs: Vec<Output> = outputs.into_iter().filter(|output| output.id != changed.id).collect();
    for output in &mut outputs {
        output.is_default &= !changed.is_default;
        output.is_default_monitoring &= !changed.is_default_monitoring;
    }
    outputs.push(changed.clone());
    outputs
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

/// Removes and returns the string at a dotted path, together with objects that become empty.
fn take_text(fields: &mut Map<String, Value>, path: &str) -> Option<String> {
    let Some((outer, inner)) = path.split_once('.') else {
        let text = fields.get(path)?.as_str()?.to_owned();
        fields.remove(path);
        return Some(text).filter(|text| !text.is_empty());
    };
    let Some(Value::Object(nested)) = fields.get_mut(outer) else { return None };
    let text = take_text(nested, inner);
    if nested.is_empty() {
        fields.remove(outer);
    }
    text
}

/// Rejects unknown names below `secrets`. Ignoring a misspelled one would leave the output without its password.
fn refuse_unknown(given: &Value, path: &str) -> Result<(), Error> {
    for (name, entry) in given.as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if SECRET_FIELDS.contains(&path.as_str()) {
            continue;
        }
        if SECRET_FIELDS.iter().any(|known| known.starts_with(&format!("{path}."))) && entry.is_object() {
            refuse_unknown(entry, &path)?;
            continue;
        }
        let near = nearest(&path, &SECRET_FIELDS).map(|near| format!("did you mean `{near}`?"));
        let remedy = near.unwrap_or_else(|| format!("known: {}", SECRET_FIELDS.join(", ")));
        return Err(Error::invalid(format!("secrets.{path}"), "unknown secret of an output").remedy(remedy));
    }
    Ok(())
}

fn secret_ids(fields: &Value) -> BTreeSet<SecretId> {
    let ids = SECRET_FIELDS.iter().filter_map(|path| at(&fields["secrets"], path)?.get("id")?.as_str());
    ids.map(SecretId::trusted).chain(output_yaml::secret_ids(fields)).collect()
}

fn in_use(output: &Output, users: &[Policy]) -> String {
    let names: Vec<String> = users.iter().take(10).map(|policy| format!("{:?}", policy.name)).collect();
    let more =
        if users.len() > names.len() { format!(" and {} more", users.len() - names.len()) } else { String::new() };
    format!("the output {:?} is used by {}{more}", output.name, names.join(", "))
}

fn subject(output: &Output) -> String {
    format!("output:{}", output.id)
}

fn refused(error: StoreError) -> Error {
    match error {
        StoreError::Conflict(Precondition::NameTaken(name)) => {
            Error::conflict("output_name_taken", format!("another output is named {name:?}"))
                .remedy("choose another name")
        }
        other => super::policies::refused(other),
    }
}
