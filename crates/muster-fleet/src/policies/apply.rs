//! Applying a policy file: creates or changes the policy with the file's name.

use std::collections::BTreeMap;

use muster_core::Error;
use muster_core::authorization::{OpContext, Origin, PoliciesCreate, PoliciesUpdate};
use muster_core::policy::diff::{Difference, diff};
use muster_core::policy::file::{self, PolicyFile};
use muster_core::policy::{DEFAULT_INACTIVITY_TIMEOUT, Policy};
use muster_core::rollout::{Plan, Rollout};
use muster_core::yaml::Places;
use muster_store::{RolloutWrite, Write};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::draft::{blank, check_protection, secret_warnings};
use super::revise::off_thread;
use super::{Expected, Policies, PolicyDraft, SavedPolicy, Turn, refuse_managed};
use crate::audit::audit_line;
use crate::authority::Authorized;
use crate::force::Force;
use crate::rollouts::observe;

/// A policy file and the options of its application.
#[derive(Default)]
pub struct Application {
    /// The file's text.
    pub text: String,
    /// Secrets by name: a value replaces, `None` removes, an absent one stays.
    pub secrets: BTreeMap<String, Option<Zeroizing<String>>>,
    /// Whether to change a managed policy.
    pub force: Force,
    /// The version that the caller has seen.
    pub expected: Expected,
    /// Whether the new revision reaches the agents in waves.
    pub rollout: Option<Plan>,
}

/// Result of an applied file, or of a dry run.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The policy. Its warnings have positions in the file.
    pub saved: SavedPolicy,
    /// Previous revision; `None` for a new policy.
    pub previous_revision: Option<i64>,
    /// Differences from the previous content, without the values of secrets; empty for a new policy.
    pub changes: Vec<Difference>,
    /// Names of secrets that were set, replaced or removed.
    pub secrets: Vec<String>,
    /// The rollout of the new revision.
    pub rollout: Option<Rollout>,
}

impl Policies {
    /// Applies a policy file: changes the policy of that name, or creates it. Problems and warnings have positions in the file.
    pub async fn apply(&self, context: &OpContext, application: Application) -> Result<Applied, Error> {
        self.apply_to(context, None, application).await
    }

    /// Changes a policy to what its file says, whose name may be a new one. What the file does not contain is reset: an
    /// editor shows all of the policy.
    pub async fn rewrite(&self, context: &OpContext, id: &str, application: Application) -> Result<Applied, Error> {
        let policy = self.find::<PoliciesUpdate>(context, id).await?;
        self.apply_to(context, Some(&policy), application).await
    }

    async fn apply_to(
        &self,
        context: &OpContext,
        policy: Option<&Authorized<Policy, PoliciesUpdate>>,
        application: Application,
    ) -> Result<Applied, Error> {
        let Application { text, secrets, force, expected, rollout: plan } = application;
        if let Some(plan) = &plan {
            plan.check()?;
        }
        let warnings = secret_warnings(&secrets);
        // Parsing a large file takes milliseconds, during which this thread's connections would wait.
        let (mut file, places) = off_thread(move || file::read(&text)).await??;
        if policy.is_some() {
            file.complete();
        }
        let protect = context.grant().ok();
        let draft = PolicyDraft { secrets, force, expected, protect, ..draft_from(file) };
        // In one turn from the look-up to the commit: two callers who apply the same new file must not create two
        // policies.
        let applied = self
            .in_turn(|turn| {
                let (draft, plan) = (draft.clone(), plan.clone());
                async move { self.apply_draft_of_file(context, &turn, policy, draft, plan).await }
            })
            .await;
        let mut applied = applied.map_err(|error| located(error, &places))?;
        applied.saved = applied.saved.with_warnings(warnings);
        applied.saved.warnings.locate(&places);
        Ok(applied)
    }

    async fn apply_draft_of_file(
        &self,
        context: &OpContext,
        turn: &Turn,
        policy: Option<&Authorized<Policy, PoliciesUpdate>>,
        mut draft: PolicyDraft,
        plan: Option<Plan>,
    ) -> Result<Applied, Error> {
        let name = draft.name.clone().unwrap_or_default();
        let protect = draft.protect.clone();
        let update = context.grant::<PoliciesUpdate>()?;
        let before = match policy {
            Some(policy) => Some(self.current(policy).await?),
            None => self.store.seen_by(&update).policy_by_name(name.trim()).await?,
        };
        draft.expected.check(before.as_ref(), &name)?;
        let Some(before) = before else {
            if plan.is_some() {
                return Err(Error::invalid("rollout", format!("there is no policy {name:?} with agents to reach"))
                    .remedy("create the policy without a rollout"));
            }
            let create = context.grant::<PoliciesCreate>()?;
            let (policy, writes) = self
                .apply_draft(blank(self.new_policy_id(None)?, create.space().clone(), self.clock.now()), draft)
                .await?;
            check_protection(protect.as_ref(), None, &policy)?;
            let secrets = changed_secrets(&[], &policy.secrets);
            let saved = self.insert_policy(&create, turn, policy, writes).await?;
            return Ok(Applied { saved, previous_revision: None, changes: Vec::new(), secrets, rollout: None });
        };
        refuse_managed(&before, draft.force)?;
        // A file without tags sets `tags` to null. For a policy without tags that is no change, and must not create a
        // revision.
        let has_tags = before.fields.get("tags").and_then(Value::as_array).is_some_and(|tags| !tags.is_empty());
        if !has_tags && draft.fields.get("tags").is_some_and(Value::is_null) {
            draft.fields.remove("tags");
        }
        let (after, mut writes) = self.apply_draft(before.clone(), draft).await?;
        check_protection(protect.as_ref(), Some(&before), &after)?;
        let rollout = plan.map(|plan| self.rollout_of(context, &before, &after, plan)).transpose()?;
        if let Some(rollout) = &rollout {
            observe::check_tags(self.store.seen_by(&update), &observe::on(&before.id), &rollout.plan).await?;
        }
        let none_active = self.none_active(self.store.seen_by(&update), &before).await?;
        match &rollout {
            Some(rollout) => writes.extend(begin(update.origin(), rollout)),
            None => writes.push(none_active),
        }
        let changes = changes(&before, &after);
        let secrets = changed_secrets(&before.secrets, &after.secrets);
        let previous_revision = Some(before.revision);
        let saved = self.save_policy(&update, turn, before, after, writes, "policy.update").await?;
        Ok(Applied { saved, previous_revision, changes, secrets, rollout })
    }
}

/// The writes that begin a rollout of a policy.
fn begin(origin: &Origin, rollout: &Rollout) -> [Write; 2] {
    let (subject, detail) = (format_args!("rollout:{}", rollout.id), json!({"subject": rollout.subject}));
    let line = audit_line(origin, rollout.created_at, "rollout.create", subject, detail);
    [RolloutWrite::Insert { rollout: Box::new(rollout.clone()), agents: Vec::new() }.into(), line]
}

/// Converts a file to a draft. `null` resets a setting; settings that are not in the file stay as they are.
fn draft_from(file: PolicyFile) -> PolicyDraft {
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

/// Adds positions in the file to the error's problems.
fn located(mut error: Error, places: &Places) -> Error {
    match error.problems.take() {
        Some(mut problems) => {
            problems.locate(places);
            Error { source: error.source, ..Error::from(*problems) }
        }
        None => error,
    }
}

fn changes(before: &Policy, after: &Policy) -> Vec<Difference> {
    // Null, an empty list and an absent field mean the same, so a change from one to another is not shown.
    let is_nothing = |value: &Option<Value>| {
        value.as_ref().is_none_or(|value| value.is_null() || value.as_array().is_some_and(Vec::is_empty))
    };
    let mut found = diff(&described(before), &described(after));
    found.retain(|change| !is_nothing(&change.before) || !is_nothing(&change.after));
    found
}

/// The policy's editable fields with the names of the API.
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
