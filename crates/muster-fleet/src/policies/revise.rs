//! Compilation of new revisions from a policy, the outputs, and the server's URL and signing key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_core::Error;
use muster_core::authorization::Actor;
use muster_core::change::Change;
use muster_core::entropy::random_bytes;
use muster_core::error_chain::{SharedError, chain};
use muster_core::id::{OutputId, PolicyId, SecretId, SpaceId};
use muster_core::output::Output;
use muster_core::policy::compile::{CompileError, Compiled, Sources, compile, is_same};
use muster_core::policy::source::source_of;
use muster_core::policy::{Policy, PolicyRevision};
use muster_core::signing::Signer;
use muster_core::time::Timestamp;
use muster_store::{PolicyWrite, Write};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::save::log_warnings;
use super::{Policies, Turn, all_in, all_policies, refused};
use crate::audit::audit_line;
use crate::authority::System;
use crate::scope::Scoped;

/// A compiled revision that is not committed yet.
pub(super) struct Revision {
    /// The compiled policy.
    pub compiled: Compiled,
    /// Writes of the revision and, if it is new, of the uninstall token.
    pub writes: Vec<Write>,
}

/// Everything needed to compile one policy on a blocking thread.
struct Job {
    policy: Policy,
    outputs: Arc<Vec<Output>>,
    external_urls: Vec<String>,
    uninstall_token_hash: String,
    previous: Option<Value>,
    signer: Arc<Signer>,
}

impl Job {
    fn run(&self) -> Result<Compiled, CompileError> {
        compile(&Sources {
            policy: &self.policy,
            outputs: &self.outputs,
            external_urls: &self.external_urls,
            uninstall_token_hash: &self.uninstall_token_hash,
            previous: self.previous.as_ref(),
            signer: &self.signer,
        })
    }
}

impl Policies {
    /// Compiles `policy` as the revision `policy.revision`.
    pub(super) async fn revise(
        &self,
        actor: &Actor,
        seen: Scoped<'_>,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Revision, Error> {
        let outputs = Arc::new(seen.outputs().await?);
        let (job, mut writes) = self.job(seen, policy.clone(), outputs).await?;
        let compiled = off_thread(move || job.run()).await??;
        writes.push(revision_write(actor, policy, compiled.policy.clone(), now));
        Ok(Revision { compiled, writes })
    }

    async fn job(
        &self,
        seen: Scoped<'_>,
        policy: Policy,
        outputs: Arc<Vec<Output>>,
    ) -> Result<(Job, Vec<Write>), Error> {
        let previous = seen.newest_revision(&policy).await?.map(|newest| newest.compiled);
        let (uninstall_token_hash, write) = self.uninstall_token_hash(&policy.id).await?;
        let job = Job {
            policy,
            outputs,
            external_urls: self.urls.read().await?,
            uninstall_token_hash,
            previous,
            signer: Arc::clone(&self.signer),
        };
        Ok((job, write.into_iter().collect()))
    }

    /// Returns the writes of a new revision for each policy that compiles to something else with `outputs`. Fails if
    /// one of them no longer compiles.
    pub(crate) async fn revise_all(
        &self,
        actor: &Actor,
        seen: Scoped<'_>,
        outputs: Vec<Output>,
        now: Timestamp,
    ) -> Result<Vec<Write>, Error> {
        let outputs = Arc::new(outputs);
        let mut writes = Vec::new();
        // Every policy is compiled to see whether it changes: which outputs a policy uses depends on its configuration
        // and on the defaults. Changes of outputs are rare.
        for before in all_in(seen).await? {
            writes.extend(self.revise_if_changed(actor, seen, &before, &outputs, now).await?);
        }
        Ok(writes)
    }

    /// Returns the writes of a new revision if the policy now compiles to something else; else no revision writes.
    async fn revise_if_changed(
        &self,
        actor: &Actor,
        seen: Scoped<'_>,
        before: &Policy,
        outputs: &Arc<Vec<Output>>,
        now: Timestamp,
    ) -> Result<Vec<Write>, Error> {
        // `writes` may hold a new uninstall token even if the policy compiles to the same.
        let (job, mut writes) = self.job(seen, before.clone(), Arc::clone(outputs)).await?;
        let compiled = off_thread(move || changed(job)).await?.map_err(|error| of_policy(before, error))?;
        if let Some(compiled) = compiled {
            log_warnings(before, &compiled.warnings);
            writes.extend(next_revision(actor, before, compiled.policy, now));
        }
        Ok(writes)
    }

    /// Revises policies after a change of the server's URLs or signing key. To be called at startup; returns the number
    /// of new revisions.
    ///
    /// Each policy is committed separately. One that no longer compiles is logged and keeps its revision.
    pub async fn revise_outdated(&self) -> Result<usize, Error> {
        let mut revised = 0;
        for space in self.spaces().await? {
            let seen = self.store.within(&System, &space);
            for policy in all_in(seen).await? {
                let id = &policy.id;
                match self.in_turn(move |turn| async move { self.revise_one(&turn, seen, id).await }).await {
                    Ok(is_new) => revised += usize::from(is_new),
                    Err(error) => tracing::error!(policy = %policy.id, error = %chain(&error),
                        "failed to update a policy with the server's URL and signing key"),
                }
            }
        }
        Ok(revised)
    }

    /// Commits a new revision of the policy if it now compiles to something else.
    async fn revise_one(&self, turn: &Turn, seen: Scoped<'_>, id: &PolicyId) -> Result<bool, Error> {
        let (outputs, now) = (Arc::new(seen.outputs().await?), self.clock.now());
        // Another server may have deleted it, or brought it up to date.
        let Some(before) = seen.policy(id).await? else { return Ok(false) };
        let mut writes = self.revise_if_changed(&System::ACTOR, seen, &before, &outputs, now).await?;
        if writes.is_empty() {
            return Ok(false);
        }
        writes.push(turn.write());
        self.store.commit(&System, writes).await.map_err(refused)?;
        Ok(true)
    }

    /// Returns the spaces that have policies.
    async fn spaces(&self) -> Result<BTreeSet<SpaceId>, Error> {
        let policies = all_policies(&self.store).await?;
        Ok(policies.into_iter().map(|policy| policy.space).collect())
    }

    /// Returns the policies that use each output object, according to their newest revisions.
    pub(crate) async fn output_users(&self, seen: Scoped<'_>) -> Result<BTreeMap<OutputId, Vec<Policy>>, Error> {
        let outputs = Arc::new(seen.outputs().await?);
        let mut users: BTreeMap<OutputId, Vec<Policy>> = BTreeMap::new();
        let policies = all_in(seen).await?;
        // Before the loop, while the list is at hand: otherwise deleted policies would stay in the cache forever.
        self.output_uses.retain(&policies);
        for policy in policies {
            for output in self.outputs_of(seen, &policy, &outputs).await? {
                users.entry(output).or_default().push(policy.clone());
            }
        }
        Ok(users)
    }

    /// Returns the output objects that a policy uses; compiles each revision once to find out.
    async fn outputs_of(
        &self,
        seen: Scoped<'_>,
        policy: &Policy,
        outputs: &Arc<Vec<Output>>,
    ) -> Result<Vec<OutputId>, Error> {
        if let Some(known) = self.output_uses.get(policy, outputs) {
            return Ok(known);
        }
        let (job, _) = self.job(seen, policy.clone(), Arc::clone(outputs)).await?;
        // A policy that does not compile uses nothing. The next attempt to save it reports why.
        let used = off_thread(move || job.run()).await?.map(|compiled| compiled.outputs).unwrap_or_default();
        self.output_uses.insert(policy, outputs, used.clone());
        Ok(used)
    }

    /// Returns the hash of the policy's uninstall token. If there is none yet, generates one and returns its write,
    /// too.
    async fn uninstall_token_hash(&self, policy: &PolicyId) -> Result<(String, Option<Write>), Error> {
        let id = uninstall_token_id(policy);
        if let Some(token) = self.secrets.open(std::slice::from_ref(&id)).await?.get(&id) {
            return Ok((token_hash(token), None));
        }
        // Only the hash is in the policy that agents get. The token itself stays sealed until an administrator asks
        // for it.
        let bytes = Zeroizing::new(random_bytes::<16>(&*self.entropy));
        let token: Zeroizing<String> = Zeroizing::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
        let write = self.secrets.seal_as(&id, &token)?;
        Ok((token_hash(&token), Some(write)))
    }
}

/// Id of the secret that holds a policy's uninstall token. It is not deleted with the policy, because protected agents
/// may still need it.
fn uninstall_token_id(policy: &PolicyId) -> SecretId {
    SecretId::trusted(format!("uninstall-token.{policy}"))
}

fn token_hash(token: &str) -> String {
    STANDARD.encode(digest(&SHA256, token.as_bytes()))
}

/// Compiles the policy's next revision; `None` if it does not differ from what agents have.
fn changed(mut job: Job) -> Result<Option<Compiled>, CompileError> {
    job.policy.revision += 1;
    let compiled = job.run()?;
    // `is_same` ignores the revision's number and its signature, which differ in every compilation.
    let is_new = job.previous.as_ref().is_none_or(|previous| !is_same(previous, &compiled.policy));
    Ok(is_new.then_some(compiled))
}

fn next_revision(actor: &Actor, before: &Policy, compiled: Value, now: Timestamp) -> [Write; 4] {
    let after =
        Policy { revision: before.revision + 1, updated_at: now, updated_by: actor.to_string(), ..before.clone() };
    let detail = json!({"revision": after.revision, "because": "an output or a server setting that the policy uses has changed"});
    [
        revision_write(actor, &after, compiled, now),
        Write::Changed(Change::Policy(after.id.clone())),
        audit_line(actor, now, "policy.revise", format_args!("policy:{}", after.id), detail),
        Write::Policy(PolicyWrite::Update {
            before_revision: before.revision,
            before_updated_at: before.updated_at,
            policy: Box::new(after),
        }),
    ]
}

fn of_policy(policy: &Policy, error: CompileError) -> Error {
    let mut error = Error::from(error);
    error.message = format!("the policy {:?} would no longer compile: {}", policy.name, error.message);
    error
}

fn revision_write(actor: &Actor, policy: &Policy, compiled: Value, now: Timestamp) -> Write {
    Write::Policy(PolicyWrite::InsertRevision(Box::new(PolicyRevision {
        policy_id: policy.id.clone(),
        revision: policy.revision,
        created_at: now,
        created_by: actor.to_string(),
        source: source_of(policy),
        compiled,
    })))
}

pub(super) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::internal(SharedError::during("compiling", error)))
}
