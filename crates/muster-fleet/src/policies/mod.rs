//! Policies: make, change, copy, go back, delete, look, compare.
//!
//! Every change of what a policy says is compiled before it is committed, and committed with its revision, its
//! secrets and its line in the audit log. Changes of policies and outputs wait for one another on a node, so that a
//! revision is never compiled from outputs that are about to change.

pub mod apply;
mod delete;
mod draft;
mod first_start;
pub mod output_uses;
mod read;
mod revise;
mod save;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_core::Entropy;
use muster_core::Error;
use muster_core::authorization::{OpContext, Privilege};
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::id::PolicyId;
use muster_core::policy::Policy;
use muster_core::policy::problem::Problems;
use muster_core::signing::Signer;
use muster_core::time::Clock;
use muster_store::query::Page;
use muster_store::{Precondition, StoreError};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use self::output_uses::OutputUses;
use super::authority::{Authorized, System};
use super::force::Force;
use super::scope::Scoped;
use super::secrets::SealedSecrets;
use super::watched_store::WatchedStore;

/// Policies read at once.
const BATCH: u32 = 500;

/// What a caller wants a policy to be. Absent fields stay as they are, or get their defaults.
#[derive(Clone, Default)]
pub struct PolicyDraft {
    /// Its id, for a new one; else one is made.
    pub id: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// The data namespace.
    pub namespace: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Hosted.
    pub is_managed: Option<bool>,
    /// Given to agents that come without a policy; takes the mark from the one that has it.
    pub is_default: Option<bool>,
    /// Seconds without a check-in until inactive; 0: never.
    pub inactivity_timeout: Option<i64>,
    /// Seconds of inactivity until unenrolled; `Some(None)`: never.
    pub unenroll_timeout: Option<Option<i64>>,
    /// An object in the format of a standalone agent's configuration.
    pub config: Option<Value>,
    /// Secrets by name: a value replaces, `None` removes, an absent one stays.
    pub secrets: BTreeMap<String, Option<Zeroizing<String>>>,
    /// Every other field; `null` removes.
    pub fields: Map<String, Value>,
    /// Changes a hosted policy.
    pub force: Force,
    /// What the caller saw last.
    pub expected: Expected,
}

/// What a caller expects to change, so that nobody's change is lost. Empty fields expect nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// The policy's revision; 0: there is no such policy.
    pub revision: Option<i64>,
    /// The policy's [`version_token`].
    pub version: Option<String>,
}

impl Expected {
    /// Refuses the change when `policy` is another one than the caller saw.
    fn check(&self, policy: Option<&Policy>, name: &str) -> Result<(), Error> {
        let revision = policy.map_or(0, |policy| policy.revision);
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

/// A policy as it was saved.
#[derive(Clone, Debug)]
pub struct SavedPolicy {
    /// The policy.
    pub policy: Policy,
    /// What works, but perhaps not as meant.
    pub warnings: Problems,
    /// Whether anything changed.
    pub changed: bool,
    /// The default enrollment key, of a new policy. Its token can be shown again.
    pub enrollment_key: Option<EnrollmentKey>,
}

impl SavedPolicy {
    fn with_warnings(mut self, mut more: Problems) -> Self {
        self.warnings.0.append(&mut more.0);
        self
    }
}

/// The policy's opaque concurrency token.
pub fn version_token(policy: &Policy) -> String {
    format!("{}-{}", policy.revision, policy.updated_at.as_micros())
}

/// The service of policies.
pub struct Policies {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    secrets: Arc<SealedSecrets>,
    signer: Arc<Signer>,
    /// What agents are told as the server's addresses.
    external_urls: Vec<String>,
    /// Held while policies or outputs are changed: a revision is never compiled from what is about to change.
    revising: tokio::sync::Mutex<()>,
    /// Which outputs policies use.
    pub(crate) output_uses: OutputUses,
}

impl Policies {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        secrets: Arc<SealedSecrets>,
        signer: Arc<Signer>,
        external_urls: Vec<String>,
    ) -> Self {
        Self {
            store,
            clock,
            entropy,
            secrets,
            signer,
            external_urls,
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

    /// Finds the policy of a name in the caller's space.
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

    /// Waits until nobody else changes policies or outputs.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.revising.lock().await
    }

    /// The policy as it is now that the caller has the turn: it may have changed since it was found.
    async fn current<P: Privilege>(&self, policy: &Authorized<Policy, P>) -> Result<Policy, Error> {
        let found = self.store.seen_by(policy.grant()).policy(&policy.id).await?;
        found.ok_or_else(|| Error::not_found("agent policy", &policy.id))
    }
}

/// Every policy of a space.
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

/// Every policy of every space, for the server's own work.
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

/// Refuses changes of a hosted policy.
fn refuse_hosted(policy: &Policy, force: Force) -> Result<(), Error> {
    if policy.is_managed && !force.is_yes() {
        let message = format!("the policy {:?} is managed", policy.name);
        return Err(
            Error::conflict("hosted_policy", message).remedy("to change it anyway, repeat the request with force")
        );
    }
    Ok(())
}

/// A store's refusal in the words of policies.
pub(super) fn refused(error: StoreError) -> Error {
    match error {
        StoreError::Conflict(Precondition::NameTaken(name)) => {
            Error::conflict("policy_name_taken", format!("another policy is named {name:?}"))
                .remedy("choose another name")
        }
        StoreError::Conflict(Precondition::Exists(what)) => {
            Error::conflict("policy_exists", format!("{what} already exists"))
        }
        StoreError::Conflict(Precondition::Changed(what) | Precondition::Missing(what)) => {
            Error::conflict("policy_changed", format!("{what} has changed in the meantime"))
                .remedy("read it again and retry")
        }
        other => other.into(),
    }
}
