//! Creating, changing, copying and rolling back policies.

use muster_core::authorization::{Grant, Origin, PoliciesCreate, PoliciesProtect, PoliciesUpdate, Privilege, Scope};
use muster_core::change::Change;
use muster_core::credential::ApiKey;
use muster_core::enrollment_key::{EnrollmentKey, KeyFamily};
use muster_core::entropy::random_uuid;
use muster_core::id::{EnrollmentKeyId, PolicyId};
use muster_core::policy::Policy;
use muster_core::policy::problem::Problems;
use muster_core::policy::source::{restore, source_of};
use muster_core::rollout::Rollout;
use muster_core::time::Timestamp;
use muster_core::{Error, ErrorKind};
use muster_store::{EnrollmentKeyWrite, PolicyWrite, RolloutWrite, Write};
use serde_json::{Value, json};

use super::draft::{blank, check_protection, secret_warnings};
use super::read::find_revision;
use super::{Expected, Policies, PolicyDraft, SavedPolicy, Turn, all_in, refuse_managed, refused};
use crate::audit::{audit_line, with_changes};
use crate::authority::Authorized;
use crate::force::Force;
use crate::scope::Scoped;
use crate::space_settings;

impl Policies {
    /// Creates a policy with its first revision and an enrollment key of the same name.
    pub async fn create(&self, grant: &Grant<PoliciesCreate>, draft: PolicyDraft) -> Result<SavedPolicy, Error> {
        let warnings = secret_warnings(&draft.secrets);
        let draft = &draft;
        self.in_turn(move |turn| async move {
            let id = self.new_policy_id(draft.id.as_deref())?;
            let blank = blank(id, grant.space().clone(), self.clock.now());
            let (policy, writes) = self.apply_draft(blank, draft.clone()).await?;
            check_protection(draft.protect.as_ref(), None, &policy)?;
            self.insert_policy(grant, &turn, policy, writes).await
        })
        .await
        .map(|saved| saved.with_warnings(warnings))
    }

    /// Creates a policy with the content of another one, but without its keys, agents and revisions. The copy of a protected
    /// policy needs `protect`.
    pub async fn copy(
        &self,
        from: &Authorized<Policy, PoliciesCreate>,
        name: &str,
        description: Option<String>,
        protect: Option<&Grant<PoliciesProtect>>,
    ) -> Result<SavedPolicy, Error> {
        let description = &description;
        self.in_turn(move |turn| async move {
            let source = self.current(from).await?;
            let (secrets, writes) = self.copy_secrets(&source.secrets).await?;
            let copy = Policy {
                id: self.new_policy_id(None)?,
                name: name.trim().to_owned(),
                description: description.clone().unwrap_or_else(|| source.description.clone()),
                // Not copied: a managed copy could not be edited, and there is only one default policy.
                is_managed: false,
                is_default: false,
                // A code is for the agents of one policy, like its uninstall token.
                recovery_code_hash: None,
                secrets,
                created_at: self.clock.now(),
                ..source
            };
            check_protection(protect, None, &copy)?;
            self.insert_policy(from.grant(), &turn, copy, writes).await
        })
        .await
    }

    /// Changes a policy. A change without a difference creates no revision.
    pub async fn update(
        &self,
        policy: &Authorized<Policy, PoliciesUpdate>,
        draft: PolicyDraft,
    ) -> Result<SavedPolicy, Error> {
        let warnings = secret_warnings(&draft.secrets);
        let draft = &draft;
        self.in_turn(move |turn| async move {
            let before = self.current(policy).await?;
            draft.expected.check(Some(&before), &before.name)?;
            let (after, mut writes) = self.apply_draft(before.clone(), draft.clone()).await?;
            check_protection(draft.protect.as_ref(), Some(&before), &after)?;
            // The data namespace is not part of what the owner of a managed policy manages (MG95).
            if (Policy { namespace: before.namespace.clone(), ..after.clone() }) != before {
                refuse_managed(&before, draft.force)?;
            }
            writes.push(self.none_active(self.store.seen_by(policy.grant()), &before).await?);
            self.save_policy(policy.grant(), &turn, before, after, writes, "policy.update").await
        })
        .await
        .map(|saved| saved.with_warnings(warnings))
    }

    /// Creates a new revision with the content of an older one. The name stays. If the older one differs in `is_protected`,
    /// it needs `protect`.
    pub async fn roll_back(
        &self,
        policy: &Authorized<Policy, PoliciesUpdate>,
        revision: i64,
        force: Force,
        expected: &Expected,
        protect: Option<&Grant<PoliciesProtect>>,
    ) -> Result<SavedPolicy, Error> {
        self.in_turn(move |turn| async move {
            let before = self.current(policy).await?;
            expected.check(Some(&before), &before.name)?;
            refuse_managed(&before, force)?;
            let old = find_revision(self.store.seen_by(policy.grant()), &before, revision).await?;
            let mut after = before.clone();
            // A new revision and not a smaller number: agents only follow ascending numbers, and the history stays
            // complete.
            restore(&mut after, &old.source);
            check_protection(protect, Some(&before), &after)?;
            let writes = vec![self.none_active(self.store.seen_by(policy.grant()), &before).await?];
            self.save_policy(policy.grant(), &turn, before, after, writes, "policy.rollback").await
        })
        .await
    }

    /// Rejects a change or the deletion of a policy that is being rolled out. Returns the write that checks again in the commit, which a dry
    /// run does not reach.
    pub(super) async fn none_active(&self, seen: Scoped<'_>, policy: &Policy) -> Result<Write, Error> {
        if let Some(Rollout { id, .. }) = seen.active_rollout_of(&policy.id).await? {
            let message = format!("the policy {:?} has an active rollout, {id}", policy.name);
            let remedy = format!("wait until it is completed, or roll it back with `muster rollout rollback {id}`");
            return Err(Error::conflict("active_rollout", message).remedy(remedy));
        }
        Ok(RolloutWrite::NoneActive(policy.id.clone()).into())
    }

    pub(super) fn new_policy_id(&self, wanted: Option<&str>) -> Result<PolicyId, Error> {
        let Some(wanted) = wanted else { return Ok(PolicyId::trusted(random_uuid(&*self.entropy))) };
        // Policy changes are addressed as `<policy>:<revision>` in the list of actions.
        match PolicyId::propose(wanted) {
            Ok(id) if !wanted.contains(':') => Ok(id),
            Ok(_) => Err(Error::invalid("id", "must not contain a colon")),
            Err(bad) => Err(Error::invalid("id", bad.to_string())),
        }
    }

    /// Commits a new policy; `writes` are those of its secrets.
    pub(super) async fn insert_policy(
        &self,
        grant: &Grant<PoliciesCreate>,
        turn: &Turn,
        mut policy: Policy,
        mut writes: Vec<Write>,
    ) -> Result<SavedPolicy, Error> {
        let (now, seen) = (self.clock.now(), self.store.seen_by(grant));
        space_settings::of(seen).await?.check_namespace(&policy.namespace)?;
        policy.revision = 1;
        policy.updated_at = now;
        policy.updated_by = grant.actor().to_string();
        let revision = self.revise(grant.origin(), seen, &policy, now).await?;
        // Created with the policy, so that its agents can be enrolled without another step.
        let key = self.default_key(grant, &policy, now)?;
        writes.extend(clear_other_default(seen, &policy, now).await?);
        writes.push(Write::Policy(PolicyWrite::Insert(Box::new(policy.clone()))));
        writes.extend(revision.writes);
        writes.push(Write::EnrollmentKey(EnrollmentKeyWrite::Insert(Box::new(key.clone()))));
        writes.push(Write::Changed(Change::EnrollmentKey(key.id.clone())));
        writes.extend(change_records(grant.origin(), None, &policy, now, "policy.create"));
        writes.push(turn.write());
        self.store.commit(grant, writes).await.map_err(refused)?;
        let warnings = revision.compiled.warnings;
        if !grant.is_dry_run() {
            log_warnings(&policy, &warnings);
        }
        Ok(SavedPolicy { policy, warnings, changed: true, enrollment_key: Some(key) })
    }

    /// Commits a changed policy; `writes` are those of its new secrets and of its rollout. A change of `is_managed` or
    /// `is_default` alone creates no revision. The warnings are about the policy as it is, whether or not it has changed.
    pub(super) async fn save_policy<P: Privilege>(
        &self,
        grant: &Grant<P>,
        turn: &Turn,
        before: Policy,
        mut after: Policy,
        mut writes: Vec<Write>,
        action: &str,
    ) -> Result<SavedPolicy, Error> {
        if after.is_default != before.is_default && *grant.scope() != Scope::Whole {
            // Another policy would lose the mark, or all would be without one.
            return Err(Error::new(
                ErrorKind::Forbidden,
                "forbidden",
                "is_default: your role applies to some policies only",
            ));
        }
        let (now, seen) = (self.clock.now(), self.store.seen_by(grant));
        if after.namespace != before.namespace {
            space_settings::of(seen).await?.check_namespace(&after.namespace)?;
        }
        // Secrets are compared by id, and changed values have new ids.
        let is_revised = source_of(&before) != source_of(&after);
        after.revision += i64::from(is_revised);
        let warnings = match self.revise(grant.origin(), seen, &after, now).await {
            Ok(revision) if is_revised => {
                writes.extend(revision.writes);
                revision.compiled.warnings
            }
            Ok(same) => same.compiled.warnings,
            // What no longer compiles, because an output has changed, can still be renamed or protected.
            Err(error) if is_revised => return Err(error),
            Err(mut error) => *error.problems.take().ok_or(error)?,
        };
        if after == before {
            return Ok(SavedPolicy { policy: before, warnings, changed: false, enrollment_key: None });
        }
        after.updated_at = now;
        after.updated_by = grant.actor().to_string();
        if !before.is_default {
            // An existing default has no other to clear.
            writes.extend(clear_other_default(seen, &after, now).await?);
        }
        writes.push(Write::Policy(PolicyWrite::Update {
            before_revision: before.revision,
            before_updated_at: before.updated_at,
            policy: Box::new(after.clone()),
        }));
        writes.extend(change_records(grant.origin(), Some(&before), &after, now, action));
        writes.push(turn.write());
        self.store.commit(grant, writes).await.map_err(refused)?;
        if is_revised && !grant.is_dry_run() {
            log_warnings(&after, &warnings);
        }
        Ok(SavedPolicy { policy: after, warnings, changed: true, enrollment_key: None })
    }

    /// Builds a retrievable enrollment key with the policy's name.
    fn default_key(
        &self,
        grant: &Grant<PoliciesCreate>,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<EnrollmentKey, Error> {
        let id = EnrollmentKeyId::trusted(random_uuid(&*self.entropy));
        let key = ApiKey::generate(&*self.entropy);
        let sealed = self.secrets.seal_token(&id, &key.token())?;
        Ok(EnrollmentKey {
            id,
            family: KeyFamily::Elastic,
            name: policy.name.clone(),
            key_id: key.id.clone(),
            hash: key.hash(),
            sealed_token: Some(sealed),
            policy_id: Some(policy.id.clone()),
            tags: Vec::new(),
            space: policy.space.clone(),
            created_at: now,
            expires_at: None,
            revoked_at: None,
            max_uses: None,
            one_time: None,
            uses: 0,
            last_used_at: None,
            hidden: false,
            created_by: grant.actor().to_string(),
        })
    }
}

/// Returns the writes that clear `is_default` of other policies if `policy` becomes the default: there is at most one
/// in each space.
async fn clear_other_default(seen: Scoped<'_>, policy: &Policy, now: Timestamp) -> Result<Vec<Write>, Error> {
    if !policy.is_default {
        return Ok(Vec::new());
    }
    let others = all_in(seen).await?.into_iter().filter(|other| other.is_default && other.id != policy.id);
    let unmark = |other: Policy| {
        let changed = Write::Changed(Change::Policy(other.id.clone()));
        let update = Write::Policy(PolicyWrite::Update {
            before_revision: other.revision,
            before_updated_at: other.updated_at,
            policy: Box::new(Policy { is_default: false, updated_at: now, ..other }),
        });
        [update, changed]
    };
    Ok(others.flat_map(unmark).collect())
}

/// Logs the warnings of a committed revision.
pub(super) fn log_warnings(policy: &Policy, warnings: &Problems) {
    for warning in &warnings.0 {
        let Policy { id, name, revision, .. } = policy;
        tracing::warn!(policy = %id, name, revision, field = warning.path, reason = warning.reason, "policy warning");
    }
}

/// Returns the change and the audit event of a saved policy.
fn change_records(
    origin: &Origin,
    before: Option<&Policy>,
    policy: &Policy,
    now: Timestamp,
    action: &str,
) -> [Write; 2] {
    let mut detail: Value = json!({"name": policy.name, "revision": policy.revision});
    if let Some(before) = before {
        detail = with_changes(detail, &told(before), &told(policy));
    }
    let line = audit_line(origin, now, action, format_args!("policy:{}", policy.id), detail);
    [Write::Changed(Change::Policy(policy.id.clone())), line]
}

/// What audit events show of a policy: settings that decide about its agents. The revisions have all of it.
fn told(policy: &Policy) -> Value {
    json!({
        "revision": policy.revision,
        "name": policy.name,
        "namespace": policy.namespace,
        "is_managed": policy.is_managed,
        "is_default": policy.is_default,
        "is_protected": policy.fields["is_protected"] == true,
        "required_versions": policy.fields.get("required_versions"),
        "inactivity_timeout": policy.inactivity_timeout,
        "unenroll_timeout": policy.unenroll_timeout,
    })
}
