//! Apply: a policy file is taken whole; the policy of its name is created or changed.

use std::collections::BTreeMap;

use muster_core::Error;
use muster_core::authorization::{Grant, PoliciesWrite};
use muster_core::policy::diff::{Difference, diff};
use muster_core::policy::file::{self, PolicyFile};
use muster_core::policy::{DEFAULT_INACTIVITY_TIMEOUT, Policy};
use muster_core::yaml::Places;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::draft::{blank, warn_of};
use super::revise::off_thread;
use super::{Expected, Policies, PolicyDraft, SavedPolicy, refuse_hosted};
use crate::force::Force;

/// A policy file and what is given beside it.
#[derive(Default)]
pub struct Application {
    /// The file's text.
    pub text: String,
    /// Secrets by name: a value replaces, `None` removes, an absent one stays.
    pub secrets: BTreeMap<String, Option<Zeroizing<String>>>,
    /// Changes a hosted policy too.
    pub force: Force,
    /// What the caller saw last.
    pub expected: Expected,
}

/// A file as it was applied, or would be.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The policy. Its warnings have their places in the file.
    pub saved: SavedPolicy,
    /// Revision before; `None`: the policy is new.
    pub previous_revision: Option<i64>,
    /// What differs from before, values of secrets aside; empty for a new policy.
    pub changes: Vec<Difference>,
    /// Names of secrets whose values were set, replaced or removed.
    pub secrets: Vec<String>,
}

impl Policies {
    /// Applies a policy file. Problems and warnings carry their places in it.
    pub async fn apply(&self, grant: &Grant<PoliciesWrite>, application: Application) -> Result<Applied, Error> {
        let Application { text, secrets, force, expected } = application;
        let warnings = warn_of(&secrets);
        let (file, places) = off_thread(move || file::read(&text)).await??;
        let mut applied = self
            .apply_file(grant, PolicyDraft { secrets, force, expected, ..drafted(file) })
            .await
            .map_err(|error| located(error, &places))?;
        applied.saved = applied.saved.with_warnings(warnings);
        applied.saved.warnings.locate(&places);
        Ok(applied)
    }

    async fn apply_file(&self, grant: &Grant<PoliciesWrite>, draft: PolicyDraft) -> Result<Applied, Error> {
        let _turn = self.turn().await;
        let name = draft.name.clone().unwrap_or_default();
        let before = self.store.seen_by(grant).policy_by_name(name.trim()).await?;
        draft.expected.check(before.as_ref(), &name)?;
        let Some(before) = before else {
            let (policy, writes) =
                self.drafted(blank(self.new_policy_id(None)?, grant.space().clone(), self.clock.now()), draft).await?;
            let secrets = changed_secrets(&[], &policy.secrets);
            let saved = self.insert_policy(grant, policy, writes).await?;
            return Ok(Applied { saved, previous_revision: None, changes: Vec::new(), secrets });
        };
        refuse_hosted(&before, draft.force)?;
        let mut draft = draft;
        // An empty list of tags and none are the same.
        let has_tags = before.fields.get("tags").and_then(Value::as_array).is_some_and(|tags| !tags.is_empty());
        if !has_tags && draft.fields.get("tags").is_some_and(Value::is_null) {
            draft.fields.remove("tags");
        }
        let (after, writes) = self.drafted(before.clone(), draft).await?;
        let changes = changes(&before, &after);
        let secrets = changed_secrets(&before.secrets, &after.secrets);
        let previous_revision = Some(before.revision);
        let saved = self.save_policy(grant, before, after, writes, "policy.update").await?;
        Ok(Applied { saved, previous_revision, changes, secrets })
    }
}

/// What a file asks for. `null` resets a setting; what the file does not name stays as it is.
fn drafted(file: PolicyFile) -> PolicyDraft {
    let PolicyFile { name, description, namespace, tags, settings: mut fields, config } = file;
    let switch = |value: Option<Value>| value.map(|value| value == Value::Bool(true));
    let (is_managed, is_default) = (switch(fields.remove("is_managed")), switch(fields.remove("is_default")));
    let reset = i64::try_from(DEFAULT_INACTIVITY_TIMEOUT.as_secs()).unwrap_or(i64::MAX);
    let inactivity_timeout = fields.remove("inactivity_timeout").map(|value| value.as_i64().unwrap_or(reset));
    let unenroll_timeout = fields.remove("unenroll_timeout").map(|value| value.as_i64());
    fields.insert("tags".to_owned(), if tags.is_empty() { Value::Null } else { tags.into() });
    PolicyDraft {
        name: Some(name),
        namespace: Some(namespace),
        description: Some(description),
        is_managed,
        is_default,
        inactivity_timeout,
        unenroll_timeout,
        config,
        fields,
        ..PolicyDraft::default()
    }
}

fn located(mut error: Error, places: &Places) -> Error {
    match error.problems.take() {
        Some(mut problems) => {
            problems.locate(places);
            Error { internal: error.internal, ..Error::from(*problems) }
        }
        None => error,
    }
}

fn changes(before: &Policy, after: &Policy) -> Vec<Difference> {
    let is_nothing = |value: &Option<Value>| {
        value.as_ref().is_none_or(|value| value.is_null() || value.as_array().is_some_and(Vec::is_empty))
    };
    let mut found = diff(&described(before), &described(after));
    found.retain(|change| !is_nothing(&change.before) || !is_nothing(&change.after));
    found
}

/// What people decide about a policy, as the API names it.
fn described(policy: &Policy) -> Value {
    let mut fields: Map<String, Value> = policy.fields.as_object().cloned().unwrap_or_default();
    if let Value::Object(more) = json!({
        "name": policy.name,
        "namespace": policy.namespace,
        "description": policy.description,
        "is_managed": policy.is_managed,
        "is_default": policy.is_default,
        "inactivity_timeout": policy.inactivity_timeout,
        "unenroll_timeout": policy.unenroll_timeout,
        "config": policy.config
    }) {
        fields.extend(more);
    }
    Value::Object(fields)
}

fn changed_secrets<T: PartialEq>(before: &[(String, T)], after: &[(String, T)]) -> Vec<String> {
    let differs = |one: &(String, T), others: &[(String, T)]| !others.contains(one);
    let changed = after.iter().filter(|one| differs(one, before));
    let removed = before.iter().filter(|(name, _)| after.iter().all(|(other, _)| other != name));
    changed.chain(removed).map(|(name, _)| name.clone()).collect()
}
