//! Compilation of new revisions from a policy, the outputs, and the server's URL and signing key.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_core::audit::export::fingerprint;
use muster_core::authorization::{Grant, NodesRead, Origin, SigningRotate, UninstallRotate};
use muster_core::change::Change;
use muster_core::entropy::random_uuid;
use muster_core::error_chain::{SharedError, chain};
use muster_core::id::{OutputId, PolicyId, SpaceId, UninstallTokenId};
use muster_core::network_object::Shared;
use muster_core::policy::compile::{CompileError, Compiled, Sources, compile, is_same};
use muster_core::policy::source::source_of;
use muster_core::policy::{Policy, PolicyRevision};
use muster_core::signing::Signer;
use muster_core::time::Timestamp;
use muster_core::uninstall_token::{self, UninstallToken};
use muster_core::{Error, ErrorKind};
use muster_store::{PolicyWrite, UninstallTokenWrite, Write};
use serde_json::{Value, json};

use super::save::log_warnings;
use super::{Policies, Turn, all_in, all_policies, refused};
use crate::audit::audit_line;
use crate::authority::{Authorized, System};
use crate::scope::Scoped;

/// A compiled revision that is not committed yet.
pub(super) struct Revision {
    /// The compiled policy.
    pub compiled: Compiled,
    /// Writes of the revision and, if it is new, of the uninstall token.
    pub writes: Vec<Write>,
}

/// A deleted object that policies refer to in some of their fields.
#[derive(Clone, Copy)]
pub(crate) struct Deleted<'a> {
    /// The fields.
    pub fields: &'a [&'a str],
    /// Its id.
    pub id: &'a str,
}

impl Deleted<'_> {
    /// Returns the policy without references to the object; `None` if it has none.
    fn removed_from(&self, policy: &Policy) -> Option<Policy> {
        let refers = |field: &&&str| policy.fields.get(**field).and_then(Value::as_str) == Some(self.id);
        let referring: Vec<&str> = self.fields.iter().filter(refers).copied().collect();
        if referring.is_empty() {
            return None;
        }
        let mut edited = policy.clone();
        let fields = edited.fields.as_object_mut()?;
        fields.retain(|name, _| !referring.contains(&name.as_str()));
        Some(edited)
    }
}

/// Everything needed to compile one policy on a blocking thread.
struct Job {
    policy: Policy,
    shared: Arc<Shared>,
    external_urls: Vec<String>,
    uninstall_token_hash: String,
    previous: Option<Value>,
    signer: Arc<Signer>,
}

impl Job {
    fn run(&self) -> Result<Compiled, CompileError> {
        compile(&Sources {
            policy: &self.policy,
            shared: &self.shared,
            external_urls: &self.external_urls,
            uninstall_token_hash: &self.uninstall_token_hash,
            previous: self.previous.as_ref(),
            signer: &self.signer,
        })
    }
}

/// What bringing all policies up to date came to.
struct UpToDate {
    /// The key with which they are signed.
    signer: Arc<Signer>,
    /// Number of new revisions.
    revised: usize,
    /// Number of policies whose newest revision has the server's present URLs and key.
    current: usize,
}

impl Policies {
    /// Compiles `policy` as the revision `policy.revision`.
    pub(super) async fn revise(
        &self,
        origin: &Origin,
        seen: Scoped<'_>,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<Revision, Error> {
        let shared = Arc::new(seen.shared().await?);
        let (job, mut writes) = self.job(seen, policy.clone(), shared).await?;
        let compiled = off_thread(move || job.run()).await??;
        writes.push(revision_write(origin, policy, compiled.policy.clone(), now));
        Ok(Revision { compiled, writes })
    }

    async fn job(&self, seen: Scoped<'_>, policy: Policy, shared: Arc<Shared>) -> Result<(Job, Vec<Write>), Error> {
        // A policy has a token from its creation on (MG79). Only the hash is in the policy that agents get.
        let (hash, write) = match self.store.everywhere(&System).newest_uninstall_token(&policy.id).await? {
            Some(token) => (token.hash, None),
            None => {
                let token = self.new_uninstall_token(&policy, 1, self.clock.now())?;
                (token.hash.clone(), Some(UninstallTokenWrite::Insert(Box::new(token)).into()))
            }
        };
        Ok((self.job_with(seen, policy, shared, hash).await?, write.into_iter().collect()))
    }

    async fn job_with(
        &self,
        seen: Scoped<'_>,
        policy: Policy,
        shared: Arc<Shared>,
        uninstall_token_hash: String,
    ) -> Result<Job, Error> {
        Ok(Job {
            previous: seen.newest_revision(&policy).await?.map(|newest| newest.compiled),
            policy,
            shared,
            external_urls: self.urls.read().await?,
            uninstall_token_hash,
            // Read again, within the turn of the change: a revision must not bring back a key that another server replaced.
            signer: self.signing.refresh().await?,
        })
    }

    /// Replaces the uninstall token of a protected policy: agents that run the new revision accept only the new one. Former
    /// tokens stay readable, because agents that are offline still need them.
    pub async fn rotate_uninstall_token(
        &self,
        policy: &Authorized<Policy, UninstallRotate>,
    ) -> Result<UninstallToken, Error> {
        self.in_turn(move |turn| async move { self.rotate_in(&turn, policy).await }).await
    }

    async fn rotate_in(
        &self,
        turn: &Turn,
        policy: &Authorized<Policy, UninstallRotate>,
    ) -> Result<UninstallToken, Error> {
        let (grant, now) = (policy.grant(), self.clock.now());
        let (seen, origin) = (self.store.seen_by(grant), grant.origin());
        let before = self.current(policy).await?;
        if before.fields["is_protected"] != true {
            let message = format!("the policy {:?} is not protected: agents do not ask for its token", before.name);
            return Err(
                Error::new(ErrorKind::Invalid, "policy_not_protected", message).remedy("set is_protected first")
            );
        }
        let former = self.store.everywhere(&System).newest_uninstall_token(&before.id).await?;
        let token = self.new_uninstall_token(&before, former.map_or(1, |former| former.number + 1), now)?;
        let shared = Arc::new(seen.shared().await?);
        let job = self.job_with(seen, before.clone(), shared, token.hash.clone()).await?;
        let (compiled, _) = off_thread(move || next(job)).await?.map_err(|error| of_policy(&before, error))?;
        let mut writes = vec![turn.write(), UninstallTokenWrite::Insert(Box::new(token.clone())).into()];
        let detail = json!({"policy": before.id.as_str(), "number": token.number});
        let subject = format!("uninstall_token:{}", token.id);
        writes.push(audit_line(origin, now, "uninstall_token.rotate", subject, detail));
        writes.extend(next_revision(origin, &before, before.clone(), compiled.policy, now));
        self.store.commit(grant, writes).await.map_err(refused)?;
        Ok(token)
    }

    fn new_uninstall_token(&self, policy: &Policy, number: i64, now: Timestamp) -> Result<UninstallToken, Error> {
        let id = UninstallTokenId::trusted(random_uuid(&*self.entropy));
        let text = uninstall_token::generate(&*self.entropy);
        Ok(UninstallToken {
            sealed: self.secrets.seal_uninstall_token(&id, &text)?,
            id,
            space: policy.space.clone(),
            policy_id: policy.id.clone(),
            number,
            hash: uninstall_token::hash(&text),
            created_at: now,
        })
    }

    /// Returns the writes of a new revision for each policy that compiles to something else with `shared`, or that refers to
    /// a deleted object. Fails if one of them no longer compiles.
    pub(crate) async fn revise_all(
        &self,
        origin: &Origin,
        seen: Scoped<'_>,
        shared: Shared,
        deleted: Option<Deleted<'_>>,
        now: Timestamp,
    ) -> Result<Vec<Write>, Error> {
        let shared = Arc::new(shared);
        let mut writes = Vec::new();
        // Every policy is compiled to see whether it changes: which objects a policy uses depends on its configuration
        // and on the defaults. Changes of these objects are rare.
        for before in all_in(seen).await? {
            let after = deleted.and_then(|deleted| deleted.removed_from(&before));
            writes.extend(self.revise_if_changed(origin, seen, &before, after, &shared, now).await?);
        }
        Ok(writes)
    }

    /// Returns the writes of a new revision if `after` is given, or if the policy now compiles to something else; else no
    /// revision writes.
    pub(super) async fn revise_if_changed(
        &self,
        origin: &Origin,
        seen: Scoped<'_>,
        before: &Policy,
        after: Option<Policy>,
        shared: &Arc<Shared>,
        now: Timestamp,
    ) -> Result<Vec<Write>, Error> {
        let is_edited = after.is_some();
        let after = after.unwrap_or_else(|| before.clone());
        // `writes` may hold a new uninstall token even if the policy compiles to the same.
        let (job, mut writes) = self.job(seen, after.clone(), Arc::clone(shared)).await?;
        let next = off_thread(move || next(job)).await?;
        let (compiled, is_new) = next.map_err(|error| of_policy(before, error))?;
        if is_new || is_edited {
            log_warnings(before, &compiled.warnings);
            writes.extend(next_revision(origin, before, after, compiled.policy, now));
        }
        Ok(writes)
    }

    /// Returns the fingerprint of the key that signs policies and actions.
    pub async fn signing_fingerprint(&self, _grant: &Grant<NodesRead>) -> Result<String, Error> {
        let current = self.signing.refresh().await?;
        Ok(fingerprint(current.public_key()).unwrap_or_default())
    }

    /// Replaces the key that signs policies and actions, and revises all policies; returns the number of policies whose
    /// newest revision has the key. Agents get it with their next policy.
    pub async fn rotate_signing_key(&self, grant: &Grant<SigningRotate>) -> Result<usize, Error> {
        self.in_turn(move |turn| async move { self.signing.rotate(&turn, grant).await }).await?;
        if grant.is_dry_run() {
            return Ok(0);
        }
        // If this is interrupted, the next start of a server goes on.
        let done = self.bring_up_to_date().await?;
        let current = self.signing.refresh().await?;
        // If another server has replaced the key since, it may have revised some of them again.
        if current.public_key() == done.signer.public_key() {
            Ok(done.current)
        } else {
            self.signed_with_current_key().await
        }
    }

    /// Returns the number of policies whose newest revision is signed with the current key, by reading them.
    async fn signed_with_current_key(&self) -> Result<usize, Error> {
        let current = self.signing.refresh().await?;
        let mut signed = 0;
        for policy in all_policies(&self.store).await? {
            let key = self.signing.of_revision(&policy.id, policy.revision).await?;
            signed += usize::from(key.as_deref() == Some(current.public_key()));
        }
        Ok(signed)
    }

    /// Revises policies after a change of the server's URLs or signing key. To be called at startup; returns the number
    /// of new revisions.
    ///
    /// Each policy is committed separately. One that no longer compiles is logged and keeps its revision.
    pub async fn revise_outdated(&self) -> Result<usize, Error> {
        Ok(self.bring_up_to_date().await?.revised)
    }

    async fn bring_up_to_date(&self) -> Result<UpToDate, Error> {
        // Even if there is no policy: agents may have policies that were deleted.
        let mut done = UpToDate { signer: self.signing.refresh().await?, revised: 0, current: 0 };
        for space in self.spaces().await? {
            let seen = self.store.within(&System, &space);
            for policy in all_in(seen).await? {
                let id = &policy.id;
                match self.in_turn(move |turn| async move { self.revise_one(&turn, seen, id).await }).await {
                    Ok(Some(is_new)) => {
                        done.current += 1;
                        done.revised += usize::from(is_new);
                    }
                    Ok(None) => {}
                    Err(error) => tracing::error!(policy = %policy.id, error = %chain(&error),
                        "failed to update a policy with the server's URL and signing key"),
                }
            }
        }
        Ok(done)
    }

    /// Commits a new revision of the policy if it now compiles to something else. `None` if it was deleted.
    async fn revise_one(&self, turn: &Turn, seen: Scoped<'_>, id: &PolicyId) -> Result<Option<bool>, Error> {
        let (shared, now) = (Arc::new(seen.shared().await?), self.clock.now());
        // Another server may have deleted it, or brought it up to date.
        let Some(before) = seen.policy(id).await? else { return Ok(None) };
        let mut writes =
            self.revise_if_changed(&System::in_space(&before.space), seen, &before, None, &shared, now).await?;
        if writes.is_empty() {
            return Ok(Some(false));
        }
        writes.push(turn.write());
        self.store.commit(&System, writes).await.map_err(refused)?;
        Ok(Some(true))
    }

    /// Returns the spaces that have policies.
    async fn spaces(&self) -> Result<BTreeSet<SpaceId>, Error> {
        let policies = all_policies(&self.store).await?;
        Ok(policies.into_iter().map(|policy| policy.space).collect())
    }

    /// Returns the policies that use each output object, according to their newest revisions.
    pub(crate) async fn output_users(&self, seen: Scoped<'_>) -> Result<BTreeMap<OutputId, Vec<Policy>>, Error> {
        let shared = Arc::new(seen.shared().await?);
        let mut users: BTreeMap<OutputId, Vec<Policy>> = BTreeMap::new();
        let policies = all_in(seen).await?;
        // Before the loop, while the list is at hand: otherwise deleted policies would stay in the cache forever.
        self.output_uses.retain(&policies);
        for policy in policies {
            for output in self.outputs_of(seen, &policy, &shared).await? {
                users.entry(output).or_default().push(policy.clone());
            }
        }
        Ok(users)
    }

    /// Returns the policies that use an output object even if their fields no longer refer to it.
    pub(crate) async fn users_despite(
        &self,
        seen: Scoped<'_>,
        output: &OutputId,
        deleted: Deleted<'_>,
    ) -> Result<Vec<Policy>, Error> {
        let shared = Arc::new(seen.shared().await?);
        let mut users = self.output_users(seen).await?.remove(output).unwrap_or_default();
        let mut kept = Vec::new();
        for policy in users.drain(..) {
            let used = match deleted.removed_from(&policy) {
                Some(edited) => self.compiled_outputs(seen, &edited, &shared).await?,
                None => vec![output.clone()],
            };
            if used.contains(output) {
                kept.push(policy);
            }
        }
        Ok(kept)
    }

    /// Returns the output objects that a policy uses; compiles each revision once to find out.
    async fn outputs_of(
        &self,
        seen: Scoped<'_>,
        policy: &Policy,
        shared: &Arc<Shared>,
    ) -> Result<Vec<OutputId>, Error> {
        if let Some(known) = self.output_uses.get(policy, shared) {
            return Ok(known);
        }
        let used = self.compiled_outputs(seen, policy, shared).await?;
        self.output_uses.insert(policy, shared, used.clone());
        Ok(used)
    }

    /// Compiles a policy to see which output objects it uses. A policy that does not compile uses nothing: the next attempt
    /// to save it reports why.
    async fn compiled_outputs(
        &self,
        seen: Scoped<'_>,
        policy: &Policy,
        shared: &Arc<Shared>,
    ) -> Result<Vec<OutputId>, Error> {
        let (job, _) = self.job(seen, policy.clone(), Arc::clone(shared)).await?;
        Ok(off_thread(move || job.run()).await?.map(|compiled| compiled.outputs).unwrap_or_default())
    }
}

/// Compiles the policy's next revision; returns whether it differs from what agents have.
fn next(mut job: Job) -> Result<(Compiled, bool), CompileError> {
    job.policy.revision += 1;
    let compiled = job.run()?;
    // `is_same` ignores the revision's number and its signature, which differ in every compilation.
    let is_new = job.previous.as_ref().is_none_or(|previous| !is_same(previous, &compiled.policy));
    Ok((compiled, is_new))
}

fn next_revision(origin: &Origin, before: &Policy, after: Policy, compiled: Value, now: Timestamp) -> [Write; 4] {
    let after =
        Policy { revision: before.revision + 1, updated_at: now, updated_by: origin.actor.to_string(), ..after };
    let detail = json!({"revision": after.revision, "because": "an object or a server setting that the policy uses has changed"});
    [
        revision_write(origin, &after, compiled, now),
        Write::Changed(Change::Policy(after.id.clone())),
        audit_line(origin, now, "policy.revise", format_args!("policy:{}", after.id), detail),
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

fn revision_write(origin: &Origin, policy: &Policy, compiled: Value, now: Timestamp) -> Write {
    Write::Policy(PolicyWrite::InsertRevision(Box::new(PolicyRevision {
        policy_id: policy.id.clone(),
        revision: policy.revision,
        created_at: now,
        created_by: origin.actor.to_string(),
        source: source_of(policy),
        compiled,
    })))
}

pub(super) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::internal(SharedError::during("compiling", error)))
}
