//! The service of policies: create, change, copy, roll back, delete, read, compare.
//!
//! Every change of a policy's content is compiled before it is committed, together with its revision, its secrets and
//! its audit event. Changes of policies, and of the objects that they refer to, are made one after the other in the
//! whole fleet ([`turn`]), so that a revision is never compiled from objects that are about to change.

pub mod apply;
mod delete;
mod draft;
mod first_start;
pub mod output_uses;
mod read;
mod recovery_code;
mod revise;
mod save;
mod staged;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_core::authorization::{Grant, OpContext, PoliciesProtect, Privilege};
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::id::PolicyId;
use muster_core::policy::Policy;
use muster_core::policy::problem::Problems;
use muster_core::time::Clock;
use muster_core::{Entropy, Error, ErrorKind};
use muster_store::query::Page;
use muster_store::{Precondition, StoreError};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use self::output_uses::OutputUses;
pub(crate) use self::revise::Deleted;
pub(crate) use self::turn::Turn;
use super::authority::{Authorized, System};
use super::force::Force;
use super::scope::Scoped;
use super::secrets::SealedSecrets;
use super::signing_keys::SigningKeys;
use super::urls::ServerUrls;
use super::watched_store::WatchedStore;

/// Policies per read.
const BATCH: u32 = 500;

/// A new policy or a change of one. Absent fields stay as they are, or get their defaults.
#[derive(Clone, Default)]
pub struct PolicyDraft {
    /// Id of a new policy; generated if absent.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// The data namespace.
    pub namespace: Option<String>,
    /// Its description.
    pub description: Option<String>,
    /// Whether it is managed: changed only with force.
    pub is_managed: Option<bool>,
    /// Whether agents that enroll without a policy get this one. Replaces the previous default.
    pub is_default: Option<bool>,
    /// Seconds without a check-in until an agent is inactive; 0 means never.
    pub inactivity_timeout: Option<i64>,
    /// Seconds without a check-in until an inactive agent is unenrolled; `Some(None)` means never.
    pub unenroll_timeout: Option<Option<i64>>,
    /// Configuration in the format of a standalone agent: an object.
    pub config: Option<Value>,
    /// Secrets by name: a value replaces, `None` removes, an absent one stays.
    pub secrets: BTreeMap<String, Option<Zeroizing<String>>>,
    /// All other fields; `null` removes one.
    pub fields: Map<String, Value>,
    /// Whether to change a managed policy.
    pub force: Force,
    /// The version that the caller has seen.
    pub expected: Expected,
    /// Proof that the caller may switch the tamper protection, which a change of `is_protected` needs.
    pub protect: Option<Grant<PoliciesProtect>>,
}

/// Precondition of a change, against lost updates. Empty fields are not checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The policy's revision; 0 requires that there is no such policy.
    pub revision: Option<i64>,
    /// The policy's [`version_token`].
    pub version: Option<String>,
}

impl Expected {
    /// Returns a conflict if `policy` is not the version that the caller has seen.
    fn check(&self, policy: Option<&Policy>, name: &str) -> Result<(), Error> {
        let revision = policy.map_or(0, |policy| policy.revision);
        // Both may be given, and both must match.
        let (wanted, found) = match (self.revision, &self.version) {
            (Some(wanted), _) if wanted != revision => (wanted.to_string(), revision.to_string()),
            (_, Some(wanted)) if policy.is_none_or(|policy| version_token(policy) != *wanted) => {
                (wanted.clone(), policy.map_or_else(|| "none".to_owned(), version_token))
            }
            _ => return Ok(()),
        };
        let message = format!("the policy {name:?} has changed: expected {wanted}, found {found}");
        Err(Error::conflict("policy_changed", message).remedy("read it again and retry"))
    }
}

/// A saved policy.
#[derive(Clone, Debug)]
pub struct SavedPolicy {
    /// The policy.
    pub policy: Policy,
    /// Problems that don't prevent the policy from working.
    pub warnings: Problems,
    /// Whether anything changed.
    pub changed: bool,
    /// The default enrollment key of a new policy; its token can be revealed.
    pub enrollment_key: Option<EnrollmentKey>,
}

impl SavedPolicy {
    fn with_warnings(mut self, mut more: Problems) -> Self {
        self.warnings.0.append(&mut more.0);
        self
    }
}

/// Returns the policy's opaque concurrency token. It changes with every update, also with those that create no
/// revision.
pub fn version_token(policy: &Policy) -> String {
    format!("{}-{}", policy.revision, policy.updated_at.as_micros())
}

/// The service of policies.
pub struct Policies {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    secrets: Arc<SealedSecrets>,
    signing: Arc<SigningKeys>,
    /// The fleet's URLs, compiled into policies.
    urls: Arc<ServerUrls>,
    /// Held while policies or outputs are changed on this node. Across nodes, [`turn`] orders the changes.
    revising: tokio::sync::Mutex<()>,
    /// Cache of the outputs that each policy uses.
    pub(crate) output_uses: OutputUses,
}

impl Policies {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        secrets: Arc<SealedSecrets>,
        signing: Arc<SigningKeys>,
        urls: Arc<ServerUrls>,
    ) -> Self {
        Self {
            store,
            clock,
            entropy,
            secrets,
            signing,
            urls,
            revising: tokio::sync::Mutex::default(),
            output_uses: OutputUses::default(),
        }
    }

    /// Finds a policy in the caller's space.
    pub async fn find<P: Privilege>(&self, context: &OpContext, id: &str) -> Result<Authorized<Policy, P>, Error> {
        let grant = context.grant::<P>()?;
        let found = match PolicyId::parse(id) {
            Ok(id) => self.store.seen_by(&grant).policy(&id).await?,
            Err(_) => None,
        };
        let policy = found.ok_or_else(|| Error::not_found("agent policy", id))?;
        Ok(Authorized::new(policy, grant))
    }

    /// Finds a policy by name in the caller's space.
    pub async fn find_by_name<P: Privilege>(
        &self,
        context: &OpContext,
        name: &str,
    ) -> Result<Authorized<Policy, P>, Error> {
        let grant = context.grant::<P>()?;
        let found = self.store.seen_by(&grant).policy_by_name(name).await?;
        let policy = found.ok_or_else(|| Error::not_found("agent policy", name))?;
        Ok(Authorized::new(policy, grant))
    }

    /// Reads the policy again in the change's turn: it may have changed since it was found.
    async fn current<P: Privilege>(&self, policy: &Authorized<Policy, P>) -> Result<Policy, Error> {
        let found = self.store.seen_by(policy.grant()).policy(&policy.id).await?;
        found.ok_or_else(|| Error::not_found("agent policy", &policy.id))
    }
}

/// Returns all policies of a space.
pub(crate) async fn all_in(seen: Scoped<'_>) -> Result<Vec<Policy>, StoreError> {
    let mut policies = Vec::new();
    loop {
        let page = seen.policies(next_batch(&policies)).await?.items;
        let is_last = page.len() < BATCH as usize;
        policies.extend(page);
        if is_last {
            return Ok(policies);
        }
    }
}

/// Returns all policies of all spaces, for the server's own tasks.
pub(crate) async fn all_policies(store: &WatchedStore) -> Result<Vec<Policy>, StoreError> {
    let mut policies = Vec::new();
    loop {
        let page = store.everywhere(&System).policies(None, next_batch(&policies)).await?.items;
        let is_last = page.len() < BATCH as usize;
        policies.extend(page);
        if is_last {
            return Ok(policies);
        }
    }
}

fn next_batch(read: &[Policy]) -> Page {
    Page { offset: u32::try_from(read.len()).unwrap_or(u32::MAX), limit: BATCH }
}

/// Rejects changes of a managed policy without force.
fn refuse_managed(policy: &Policy, force: Force) -> Result<(), Error> {
    if policy.is_managed && !force.is_yes() {
        let message = format!("the policy {:?} is managed", policy.name);
        return Err(Error::new(ErrorKind::Invalid, "managed_policy", message)
            .remedy("to change it anyway, repeat the request with force"));
    }
    Ok(())
}

/// Maps store conflicts to errors about policies.
pub(super) fn refused(error: StoreError) -> Error {
    match error {
        StoreError::Conflict(Precondition::NameTaken(name)) => {
            Error::conflict("policy_name_taken", format!("another policy is named {name:?}"))
                .remedy("choose another name")
        }
        StoreError::Conflict(Precondition::ActiveRollout(policy)) => {
            Error::conflict("active_rollout", format!("the policy {policy} has an active rollout"))
                .remedy("wait until it is completed, or roll it back with `muster rollout rollback`")
        }
        StoreError::Conflict(Precondition::Exists(what)) => {
            Error::conflict("policy_exists", format!("{what} already exists"))
        }
        StoreError::Conflict(Precondition::Changed(what) | Precondition::Missing(what)) => {
            // Another server, again and again: on this one, changes are made one after the other.
            Error::conflict("policy_changed", format!("{what} has changed in the meantime"))
                .remedy("read it again and retry")
        }
        other => other.into(),
    }
}
