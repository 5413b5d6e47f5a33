//! Make, change, copy, go back.

use muster_core::Error;
use muster_core::change::Change;
use muster_core::context::{OpContext, Privilege};
use muster_core::credential::ApiKey;
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::entropy::random_uuid;
use muster_core::id::{EnrollmentKeyId, PolicyId};
use muster_core::policy::Policy;
use muster_core::policy::source::{restore, source_of};
use muster_core::seal::Place;
use muster_core::time::Timestamp;
use muster_store::{EnrollmentKeyWrite, PolicyWrite, Write};
use serde_json::{Value, json};

use super::draft::blank;
use super::{PolicyDraft, SavedPolicy, refuse_hosted, refused, version_token};
use crate::Fleet;
use crate::audit::audit_line;

impl Fleet {
    /// Makes a policy, with its first revision and an enrollment key called as the policy is.
    pub async fn create_policy(&self, context: &OpContext, draft: PolicyDraft) -> Result<SavedPolicy, Error> {
        context.require(Privilege::PoliciesWrite)?;
        let _turn = self.revising.lock().await;
        let id = self.new_policy_id(draft.id.as_deref())?;
        let (policy, writes) = self.drafted(blank(id, self.clock.now()), draft).await?;
        self.insert_policy(context, policy, writes).await
    }

    /// Makes a policy of the same content as another one: its keys, agents and revisions stay with the other.
    pub async fn copy_policy(
        &self,
        context: &OpContext,
        id: &str,
        name: &str,
        description: Option<String>,
    ) -> Result<SavedPolicy, Error> {
        context.require(Privilege::PoliciesWrite)?;
        let _turn = self.revising.lock().await;
        let from = self.find_policy(id).await?;
        let (secrets, writes) = self.copied_secrets(&from.secrets).await?;
        let now = self.clock.now();
        let copy = Policy {
            id: self.new_policy_id(None)?,
            name: name.trim().to_owned(),
            description: description.unwrap_or_else(|| from.description.clone()),
            is_managed: false,
            is_default: false,
            secrets,
            created_at: now,
            ..from
        };
        self.insert_policy(context, copy, writes).await
    }

    /// Changes a policy. A change that changes nothing makes no revision.
    pub async fn update_policy(&self, context: &OpContext, id: &str, draft: PolicyDraft) -> Result<SavedPolicy, Error> {
        context.require(Privilege::PoliciesWrite)?;
        let _turn = self.revising.lock().await;
        let before = self.find_policy(id).await?;
        refuse_hosted(&before, draft.force)?;
        if draft.expected_version.as_ref().is_some_and(|expected| *expected != version_token(&before)) {
            let message = format!("the policy {:?} changed meanwhile", before.name);
            return Err(Error::conflict("policy_changed", message).remedy("look at it anew and try again"));
        }
        let (after, writes) = self.drafted(before.clone(), draft).await?;
        self.save_policy(context, before, after, writes, "policy.update").await
    }

    /// Makes a new revision with the content of an older one. The name stays.
    pub async fn rollback_policy(
        &self,
        context: &OpContext,
        id: &str,
        revision: i64,
        force: bool,
    ) -> Result<SavedPolicy, Error> {
        context.require(Privilege::PoliciesWrite)?;
        let _turn = self.revising.lock().await;
        let before = self.find_policy(id).await?;
        refuse_hosted(&before, force)?;
        let old = self.find_revision(&before, revision).await?;
        let mut after = before.clone();
        restore(&mut after, &old.source);
        self.save_policy(context, before, after, Vec::new(), "policy.rollback").await
    }

    pub(super) fn new_policy_id(&self, wanted: Option<&str>) -> Result<PolicyId, Error> {
        let Some(wanted) = wanted else { return Ok(PolicyId::trusted(random_uuid(&*self.entropy))) };
        // It stands between colons in the ids of its actions.
        match PolicyId::parse(wanted) {
            Ok(id) if !wanted.contains(':') => Ok(id),
            Ok(_) => Err(Error::invalid("id", "must not hold a colon")),
            Err(bad) => Err(Error::invalid("id", bad.to_string())),
        }
    }

    /// Commits a new policy; `writes` are its secrets.
    pub(super) async fn insert_policy(
        &self,
        context: &OpContext,
        mut policy: Policy,
        mut writes: Vec<Write>,
    ) -> Result<SavedPolicy, Error> {
        let now = self.clock.now();
        policy.revision = 1;
        policy.updated_at = now;
        policy.updated_by = context.actor.to_string();
        let revision = self.revise(context, &policy, now).await?;
        let key = self.default_key(context, &policy, now)?;
        writes.extend(self.take_default_mark(&policy, now).await?);
        writes.push(Write::Policy(PolicyWrite::Insert(Box::new(policy.clone()))));
        writes.extend(revision.writes);
        writes.push(Write::EnrollmentKey(EnrollmentKeyWrite::Insert(Box::new(key.clone()))));
        writes.push(Write::Changed(Change::EnrollmentKey(key.id.clone())));
        writes.extend(told(context, &policy, now, "policy.create"));
        self.commit_for(context, writes).await.map_err(refused)?;
        let warnings = revision.compiled.warnings;
        Ok(SavedPolicy { policy, warnings, changed: true, enrollment_key: Some(key) })
    }

    /// Commits a changed policy; `writes` are its new secrets.
    async fn save_policy(
        &self,
        context: &OpContext,
        before: Policy,
        mut after: Policy,
        mut writes: Vec<Write>,
        action: &str,
    ) -> Result<SavedPolicy, Error> {
        if after == before {
            return Ok(SavedPolicy { policy: before, warnings: Vec::new(), changed: false, enrollment_key: None });
        }
        let now = self.clock.now();
        let mut warnings = Vec::new();
        if source_of(&before) != source_of(&after) {
            after.revision += 1;
            let revision = self.revise(context, &after, now).await?;
            writes.extend(revision.writes);
            warnings = revision.compiled.warnings;
        }
        after.updated_at = now;
        after.updated_by = context.actor.to_string();
        if !before.is_default {
            writes.extend(self.take_default_mark(&after, now).await?);
        }
        writes.push(Write::Policy(PolicyWrite::Update {
            before_revision: before.revision,
            before_updated_at: before.updated_at,
            policy: Box::new(after.clone()),
        }));
        writes.extend(told(context, &after, now, action));
        self.commit_for(context, writes).await.map_err(refused)?;
        Ok(SavedPolicy { policy: after, warnings, changed: true, enrollment_key: None })
    }

    /// One policy is the default at most: whoever gets the mark takes it from the other.
    async fn take_default_mark(&self, policy: &Policy, now: Timestamp) -> Result<Vec<Write>, Error> {
        if !policy.is_default {
            return Ok(Vec::new());
        }
        let others = self.all_policies().await?.into_iter().filter(|other| other.is_default && other.id != policy.id);
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

    /// A key called as the policy is, whose token can be shown again.
    fn default_key(&self, context: &OpContext, policy: &Policy, now: Timestamp) -> Result<EnrollmentKey, Error> {
        let id = EnrollmentKeyId::trusted(random_uuid(&*self.entropy));
        let key = ApiKey::generate(&*self.entropy);
        let sealed = self.sealer.seal(Place::enrollment_token(&id), key.token().as_bytes(), &*self.entropy);
        Ok(EnrollmentKey {
            id,
            name: policy.name.clone(),
            key_id: key.id.clone(),
            hash: key.hash(),
            sealed_token: Some(sealed.map_err(|error| Error::internal(format!("sealing a token: {error}")))?),
            policy_id: Some(policy.id.clone()),
            tags: Vec::new(),
            namespaces: vec![context.space.clone()],
            created_at: now,
            expires_at: None,
            revoked_at: None,
            max_uses: None,
            uses: 0,
            last_used_at: None,
            hidden: false,
            created_by: context.actor.to_string(),
        })
    }
}

/// What others learn of a change: a row of the change log and a line of the audit log.
fn told(context: &OpContext, policy: &Policy, now: Timestamp, action: &str) -> [Write; 2] {
    let detail: Value = json!({"name": policy.name, "revision": policy.revision});
    let line = audit_line(context, now, action, format_args!("policy:{}", policy.id), detail);
    [Write::Changed(Change::Policy(policy.id.clone())), line]
}
