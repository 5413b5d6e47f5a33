//! Enrollment of agents with an enrollment key (EA §3).
//!
//! Everything that an enrollment changes is one commit: the use of the key, the record, its documents, the actions
//! that a re-enrolled agent must not inherit, and the audit event. So there is nothing to roll back (EA45). On one
//! node, requests with the same agent id or enrollment id are handled one after the other (EA46). A concurrent change
//! by another node shows up as a conflict in the commit, and the decision is made again.

mod machine_rules;
mod repeats;

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use muster_core::agent::AgentRecord;
use muster_core::assignment::{self, AssignmentRules};
use muster_core::audit::AuditEvent;
use muster_core::change::Change;
use muster_core::check_in::KnownDocuments;
use muster_core::credential::{ApiKey, CredentialKind};
use muster_core::denial::Denial;
use muster_core::duplicate_hosts::after_enrollment;
use muster_core::enroll::{Admitted, Applicant, Circumstances, Enrolled, Life, Placement, Request};
use muster_core::enrollment_key::{EnrollmentKey, KeyFamily, Unusable};
use muster_core::entropy::time_ordered_uuid;
use muster_core::error_chain::{SharedError, chain};
use muster_core::host::Host;
use muster_core::id::{AgentId, EnrollmentKeyId, HostId, SpaceId};
use muster_core::lifecycle::inactivity_timeout;
use muster_core::one_time::normalized;
use muster_core::policy::PolicyHead;
use muster_core::status::offline_after;
use muster_core::time::{Clock, Timestamp};
use muster_core::{Entropy, Error, ErrorKind, replace_token};
use muster_store::{AgentWrite, EnrollmentKeyWrite, Precondition, StoreError, Write};
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard, Semaphore};
use zeroize::Zeroizing;

use self::machine_rules::{Rejections, same_certificate};
use self::repeats::Repeats;
use super::authenticate::unauthorized;
use super::authority::System;
use super::registry::Registry;
use super::watched_store::WatchedStore;

/// Maximum attempts of an enrollment when commits conflict.
const ATTEMPTS: usize = 5;
/// Number of locks that handles (agent ids and enrollment ids) are hashed to. A lock for each handle would be a map
/// that clients can make grow.
const STRIPES: usize = 256;
/// Concurrent slow hashes: one, so that they never take more than one core.
const SLOW_HASHES: usize = 1;
/// Maximum number of hosts with the same machine id that are looked at.
const CLONES: u32 = 64;
/// Maximum enrollments that wait for a slow hash, in total and for each enrollment key. Each hash takes 0.1 s.
const MAX_WAITING: usize = 64;
const MAX_WAITING_PER_KEY: usize = 16;

/// A verified enrollment key, with the head of its policy, or of the default policy if it names none.
#[derive(Clone, Debug)]
pub struct Admission {
    key: EnrollmentKey,
    policy: Option<PolicyHead>,
}

impl Admission {
    /// The key's record.
    pub fn key(&self) -> &EnrollmentKey {
        &self.key
    }
}

/// A decoded enrollment request.
#[derive(Clone, Copy)]
pub struct EnrollInput<'a> {
    /// The request.
    pub request: &'a Request<'a>,
    /// Version from the User-Agent, normalized (EA33).
    pub agent_version: &'a str,
    /// Whether the version is above the highest one that this server was tested with.
    pub newer_than_tested: bool,
    /// The agent's address.
    pub address: &'a str,
}

/// An enrolled agent.
pub struct EnrolledAgent {
    /// Its record.
    pub record: AgentRecord,
    /// Host and agent metadata as stored: JSON text.
    pub metadata: Arc<str>,
    /// Its access key with the secret, which is not stored and can't be returned again.
    pub key: ApiKey,
}

/// Locks for handles, and the queue for slow hashes.
struct Enrolling {
    stripes: Vec<Mutex<()>>,
    hasher: std::hash::RandomState,
    slow: Arc<Semaphore>,
    /// Number of enrollments that wait for a slow hash or compute one, by enrollment key.
    waiting: std::sync::Mutex<HashMap<EnrollmentKeyId, usize>>,
}

impl Default for Enrolling {
    fn default() -> Self {
        Self {
            stripes: (0..STRIPES).map(|_| Mutex::new(())).collect(),
            hasher: std::hash::RandomState::new(),
            slow: Arc::new(Semaphore::new(SLOW_HASHES)),
            waiting: std::sync::Mutex::default(),
        }
    }
}

impl Enrolling {
    /// Locks the handles of a request. The locks are taken in ascending order, so that two requests can't deadlock.
    async fn lock_handles(&self, applicant: &Applicant) -> Vec<MutexGuard<'_, ()>> {
        let id = applicant.id.as_ref().map(|id| ("id", id.as_str()));
        let handle = applicant.enrollment_id.as_deref().map(|handle| ("enrollment_id", handle));
        let stripe = |handle| self.hasher.hash_one(handle) as usize % STRIPES;
        let mut stripes: Vec<usize> = id.into_iter().chain(handle).map(stripe).collect();
        stripes.sort_unstable();
        // Two handles may share a stripe; locking it twice would wait forever.
        stripes.dedup();
        let mut guards = Vec::new();
        for stripe in stripes {
            guards.push(self.stripes[stripe].lock().await);
        }
        guards
    }

    /// Reserves a place in the queue for slow hashes. Anyone with an enrollment token can request many, so the queue is
    /// bounded, and a single key can't fill it.
    fn queue(&self, key: &EnrollmentKeyId) -> Result<Queued<'_>, Error> {
        let mut waiting = self.waiting();
        let (all, own) = (waiting.values().sum::<usize>(), waiting.get(key).copied().unwrap_or_default());
        if all >= MAX_WAITING || own >= MAX_WAITING_PER_KEY {
            let message = "too many concurrent enrollments with a replace_token";
            return Err(Error::new(ErrorKind::TooMany, "TooManyRequests", message));
        }
        waiting.insert(key.clone(), own + 1);
        Ok(Queued { enrolling: self, key: key.clone() })
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<EnrollmentKeyId, usize>> {
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Runs a slow hash on a blocking thread.
    async fn run_slow_hash<T: Send + 'static>(&self, hash: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let permit = Arc::clone(&self.slow).acquire_owned().await;
        let permit = permit.map_err(Error::internal)?;
        let work = move || {
            // Held by the blocking task: if the client disconnects, the hash still runs to its end and counts.
            let _permit = permit;
            hash()
        };
        tokio::task::spawn_blocking(work).await.map_err(Error::internal)
    }
}

/// A place in the queue for slow hashes; freed on drop, also when the client disconnects.
struct Queued<'a> {
    enrolling: &'a Enrolling,
    key: EnrollmentKeyId,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let mut waiting = self.enrolling.waiting();
        if let Some(count) = waiting.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.key);
            }
        }
    }
}

/// Result of the comparison of a replace token with the stored hash, made before the lock.
struct ReplaceProof {
    hash: String,
    fits: bool,
}

/// Stored records that a request refers to. `by_enrollment_id` is only set for an agent of the same enrollment key that
/// has never checked in.
#[derive(Default)]
struct Stored {
    by_id: Option<AgentRecord>,
    by_enrollment_id: Option<AgentRecord>,
    host: Option<Host>,
    twin: Option<AgentRecord>,
}

/// The enrollment service.
pub struct Enrollment {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    registry: Arc<Registry>,
    enrolling: Enrolling,
    repeats: Repeats,
    rejections: Rejections,
    cooldown: Duration,
}

impl Enrollment {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        registry: Arc<Registry>,
        cooldown: Duration,
    ) -> Self {
        let (enrolling, repeats, rejections) = (Enrolling::default(), Repeats::default(), Rejections::default());
        Self { store, clock, entropy, registry, enrolling, repeats, rejections, cooldown }
    }

    /// Verifies an enrollment key. All invalid keys give the same error (EA28, EA29, D1, D20). A used-up key is
    /// accepted here and rejected by the commit, because an agent that enrolled with it may come again if its response
    /// was lost.
    pub async fn authenticate(&self, key: &ApiKey) -> Result<Admission, Error> {
        self.admission(key, KeyFamily::Elastic).await
    }

    /// Verifies an enroll secret of fleetd, as [`Self::authenticate`] does a key.
    pub async fn authenticate_secret(&self, secret: &str) -> Result<Admission, Error> {
        self.admission(&ApiKey::opaque(secret), KeyFamily::Fleetd).await
    }

    async fn admission(&self, key: &ApiKey, family: KeyFamily) -> Result<Admission, Error> {
        let stored = self.store.everywhere(&System).enrollment_key_with_policy(&key.id).await?;
        // A key of another family, an unknown id and a wrong secret are the same error: nothing tells a guesser which
        // part was right.
        let is_this = |stored: &EnrollmentKey| stored.family == family && key.matches(&stored.hash);
        let (stored, policy) = stored.filter(|(stored, _)| is_this(stored)).ok_or_else(unauthorized)?;
        match stored.admits(self.clock.now()) {
            Ok(()) | Err(Unusable::UsedUp) => Ok(Admission { key: stored, policy }),
            Err(refusal) => {
                Err(unauthorized().caused_by(SharedError::during(format!("enrollment key {}", stored.id), refusal)))
            }
        }
    }

    /// Enrolls an agent.
    pub async fn enroll(&self, admission: &Admission, input: EnrollInput<'_>) -> Result<EnrolledAgent, Error> {
        let mut applicant = Applicant::read(input.request)?;
        // Before the lock, which other handles may share: it does not depend on other enrollments.
        let placement = self.placement(&applicant, admission, input.address).await?;
        let slow = applicant.replace_token().map(|_| self.enrolling.queue(&admission.key().id)).transpose()?;
        // Also before the lock: waiting for a slow hash must not block other agents of the same stripe.
        let token_hash = self.token_hash(&applicant).await?;
        let proof = self.replace_proof(&applicant).await?;
        let _lock = self.enrolling.lock_handles(&applicant).await;
        // The lock covers enrollments on this node only. Another node or a check-in may change the record between the
        // read and the commit, which then conflicts, and the decision is made again.
        let now = self.clock.now();
        for _ in 0..ATTEMPTS {
            let stored = self.stored(&applicant, admission).await?;
            self.check_machine(&applicant, admission, &input, &stored, now).await?;
            self.keep_facts(&mut applicant, admission, &stored).await?;
            let around = circumstances(admission, &input, &stored);
            let life = match self.life(&applicant, &around, proof.as_ref()).await {
                // Whoever has the secret, but not the certificate, may want to take the host over.
                Err(error) if error.denial == Some(Denial::OtherCertificate) => {
                    self.reject(admission, &input, error.code, now).await;
                    return Err(error);
                }
                other => other?,
            };
            // A new key for each attempt, so that no key that may have been stored is ever sent a second time.
            let access_key = match applicant.family.credential() {
                CredentialKind::AccessKey => ApiKey::time_ordered(now, &*self.entropy),
                CredentialKind::NodeKey | CredentialKind::DeviceToken => ApiKey::generate_opaque(&*self.entropy),
            };
            let new_id = || time_ordered_uuid(now, &*self.entropy);
            let id = applicant.id.clone().unwrap_or_else(|| AgentId::trusted(new_id()));
            let (placement, token_hash) = (placement.clone(), token_hash.clone());
            // Used only if the machine has no host yet.
            let host_id = HostId::trusted(new_id());
            let admitted = Admitted { life, id, host_id, access_key: &access_key, placement, token_hash };
            let mut enrolled = applicant.enroll(admitted, &around, now);
            let condition = same_certificate(&applicant);
            if self.commit_enrollment(&mut enrolled, stored.by_id, condition, admission, &input, now).await? {
                drop(slow);
                let metadata = enrolled.documents.local_metadata.unwrap_or_else(|| "null".into());
                return Ok(EnrolledAgent { record: enrolled.record, metadata, key: access_key });
            }
        }
        Err(Denial::EnrollmentRace.into())
    }

    async fn stored(&self, applicant: &Applicant, admission: &Admission) -> Result<Stored, Error> {
        let mut stored = Stored::default();
        if let Some(id) = &applicant.id {
            stored.by_id = self.store.everywhere(&System).agent(id).await?;
        }
        if let Some(handle) = &applicant.enrollment_id {
            stored.by_enrollment_id =
                self.store.everywhere(admission).agent_by_enrollment_id(handle, &admission.key().id).await?;
        }
        if let Some(machine) = &applicant.machine_id {
            stored.host = self.store.everywhere(admission).host_by_machine(&admission.key().space, machine).await?;
        }
        if stored.host.is_none() {
            stored.host = self.host_of_system(applicant, admission).await?;
        }
        if stored.host.is_none() {
            stored.host = self.host_of_former(applicant, &admission.key().space).await?;
        }
        // After the host, which is inserted with the first of the two: where there is a host, its agent is seen.
        if let Some(id) = applicant.twin() {
            stored.twin = self.store.everywhere(&System).agent(&id).await?;
        }
        Ok(stored)
    }

    /// Returns the host of an osqueryd that has reported the machine id of the request, if it is the only one with this name: clones
    /// share their machine ids.
    async fn host_of_system(&self, applicant: &Applicant, admission: &Admission) -> Result<Option<Host>, Error> {
        let Some(system_id) = applicant.system_id() else { return Ok(None) };
        let hostname = applicant.hostname();
        let found =
            self.store.everywhere(admission).hosts_by_system(&admission.key().space, &system_id, CLONES).await?;
        // Among too many clones, another one of the name might not be seen.
        let is_complete = found.len() < CLONES as usize;
        let mut alike = found.into_iter().filter(|host| host.is_namesake_of(&hostname));
        Ok(alike.next().filter(|_| is_complete && alike.next().is_none()))
    }

    /// Returns the host of the former agent id that the request reports (AG157). The new agent joins that host, but the
    /// former agent is left alone: the id is not authenticated.
    async fn host_of_former(&self, applicant: &Applicant, space: &SpaceId) -> Result<Option<Host>, Error> {
        let Some(former) = &applicant.former_id else { return Ok(None) };
        let Some(agent) = self.store.everywhere(&System).agent_in(space, former).await? else { return Ok(None) };
        let Some(id) = agent.host_id else { return Ok(None) };
        Ok(self.store.everywhere(&System).host(&id).await?.filter(|host| applicant.is_of_host(host, space)))
    }

    /// Decides how the enrollment relates to the stored record. Core's decision is synchronous, so it runs twice if it
    /// needs the slow comparison of replace tokens.
    async fn life(
        &self,
        applicant: &Applicant,
        around: &Circumstances<'_>,
        proof: Option<&ReplaceProof>,
    ) -> Result<Life, Error> {
        let mut asked = None;
        let first = applicant.life(around, &mut |token, hash| {
            // Returns true only to find out whether a comparison is needed; for most enrollments it is not.
            asked = Some((Zeroizing::new(token.to_owned()), hash.to_owned()));
            true
        })?;
        let Some((token, hash)) = asked else { return Ok(first) };
        let fits = match proof.filter(|proof| proof.hash == hash) {
            Some(proof) => proof.fits,
            // The token was changed between the two reads.
            None => self.enrolling.run_slow_hash(move || replace_token::verify(&token, &hash)).await?,
        };
        applicant.life(around, &mut |_, _| fits)
    }

    /// Compares the replace token of a request with that of the agent that it would replace.
    async fn replace_proof(&self, applicant: &Applicant) -> Result<Option<ReplaceProof>, Error> {
        let (Some(id), Some(token)) = (&applicant.id, applicant.replace_token()) else { return Ok(None) };
        let stored = self.store.everywhere(&System).agent(id).await?;
        let Some(hash) = stored.and_then(|stored| stored.replace_token) else { return Ok(None) };
        let (token, known) = (Zeroizing::new(token.to_owned()), hash.clone());
        let fits = self.enrolling.run_slow_hash(move || replace_token::verify(&token, &known)).await?;
        Ok(Some(ReplaceProof { hash, fits }))
    }

    async fn token_hash(&self, applicant: &Applicant) -> Result<Option<String>, Error> {
        let Some(token) = applicant.replace_token().map(|token| Zeroizing::new(token.to_owned())) else {
            return Ok(None);
        };
        let entropy = Arc::clone(&self.entropy);
        let hash = move || replace_token::hash(&token, replace_token::ITERATIONS, &*entropy);
        self.enrolling.run_slow_hash(hash).await.map(Some)
    }

    /// Returns the policy and tags: the key's, else those of the assignment rules, else the default policy (M11).
    async fn placement(&self, applicant: &Applicant, admission: &Admission, address: &str) -> Result<Placement, Error> {
        let key = admission.key();
        // Rules cost a read of the store, so only where they can decide.
        let rules = match key.policy_id {
            Some(_) => AssignmentRules::default(),
            None if applicant.family.runs_policies() => self.assignment_rules().await?,
            None => AssignmentRules::default(),
        };
        let mut placement = applicant.placement(key, &rules, address);
        let policy = match &placement.policy_id {
            None if !applicant.family.runs_policies() => None,
            // A rule has chosen another policy than the one that was read with the key.
            Some(id) if key.policy_id.as_ref() != Some(id) => self.store.everywhere(&System).policy_head(id).await?,
            _ => admission.policy.clone(),
        };
        // Without a policy, the agent enrolls and waits for an assignment. But if the key names a policy that was
        // deleted, an agent on no policy, or on the default one, is not what its creator wanted.
        if policy.is_none() && key.policy_id.is_some() {
            return Err(Denial::PolicyGone.into());
        }
        placement.inactivity_timeout = inactivity_timeout(policy.as_ref().map(|policy| policy.inactivity_timeout));
        placement.policy_id = policy.map(|policy| policy.id);
        Ok(placement)
    }

    /// Returns the assignment rules. Malformed rules are logged and ignored: they must not stop all enrollments.
    async fn assignment_rules(&self) -> Result<AssignmentRules, Error> {
        let setting = self.store.everywhere(&System).setting(assignment::SETTING).await?;
        Ok(AssignmentRules::read(setting.as_deref()).unwrap_or_else(|error| {
            tracing::error!(error = %chain(&error), "malformed assignment rules ignored");
            AssignmentRules::default()
        }))
    }

    /// Commits the enrollment. Returns false on a conflict, after which the decision must be made again.
    async fn commit_enrollment(
        &self,
        enrolled: &mut Enrolled,
        before: Option<AgentRecord>,
        condition: Option<AgentWrite>,
        admission: &Admission,
        input: &EnrollInput<'_>,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let key = admission.key();
        let left = before.as_ref().filter(|before| before.space != key.space);
        // This space must not learn the name and address of a host of another one. They are in the event of that space.
        let former = before.as_ref().filter(|_| left.is_none());
        let duplicate = former.and_then(|before| self.duplicate(enrolled, before, now));
        if let Some(before) = former.filter(|before| before.family.is_one_per_machine()) {
            let hosts = after_enrollment(before, &enrolled.record, duplicate.is_some(), now);
            enrolled.record.duplicate_hosts = hosts;
        }
        let enrolled = &*enrolled;
        let counts = !takes_own_place(enrolled, before.as_ref(), key);
        // The use of the key is part of the commit: of many agents that enroll at the same time, a key for one admits
        // one.
        let id = key.id.clone();
        let used = match &key.one_time {
            None => EnrollmentKeyWrite::Use { id, now, counts },
            Some(one_time) => {
                // A host without one of them has proved itself by the other one.
                let hardware = input.request.hardware;
                let uuid = normalized(hardware.uuid).or_else(|| one_time.uuid.clone()).unwrap_or_default();
                let serial = normalized(hardware.serial).or_else(|| one_time.serial.clone()).unwrap_or_default();
                EnrollmentKeyWrite::UseOneTime { id, family: enrolled.record.family, uuid, serial, now }
            }
        };
        let mut writes = vec![Write::EnrollmentKey(used)];
        writes.extend(condition.map(Write::Agent));
        let lines = left.map(|before| left_space(enrolled, before, key, now)).into_iter().flatten();
        writes.extend(lines);
        writes.extend(record_writes(enrolled, before, now));
        writes.push(Write::Audit(audit_line(enrolled, key, duplicate.as_ref(), now)));
        writes.push(Write::Changed(Change::Agent(enrolled.record.id.clone())));
        match self.store.commit(admission, writes).await {
            Ok(_) => {
                self.cache_enrolled(enrolled);
                Ok(true)
            }
            // Revoked, expired or used up since it was verified: the same error as at the verification (D20).
            Err(StoreError::Conflict(Precondition::KeyRefused)) if key.one_time.is_some() => {
                Err(Denial::OneTimeSecretSpent.into())
            }
            Err(StoreError::Conflict(Precondition::KeyRefused)) => Err(unauthorized()),
            Err(StoreError::Conflict(reason)) => {
                tracing::debug!(%reason, agent = %enrolled.record.id, "retrying an enrollment");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the former host of an agent whose id follows from its machine, if it seems to be another one: two machines with
    /// the same id replace each other's keys without end (FL §2.4, FL52).
    fn duplicate(&self, enrolled: &Enrolled, before: &AgentRecord, now: Timestamp) -> Option<Value> {
        let record = &enrolled.record;
        if !record.family.is_one_per_machine() || !before.active {
            return None;
        }
        let seen = self.registry.last_seen(&before.id, now).max(before.last_checkin);
        let is_alive = seen.is_some_and(|seen| now.since(seen) < offline_after(before));
        let is_renamed = !before.hostname.is_empty() && before.hostname != record.hostname;
        let has_moved = before.last_address != record.last_address;
        // Counted in any case, and of clones with equal names and addresses the only sign.
        let is_repeated = self.repeats.are_suspicious(&record.id, now);
        (is_renamed || is_repeated || (is_alive && has_moved)).then(|| {
            let (agent, hostname, address) = (&record.id, &record.hostname, &record.last_address);
            let (former_hostname, former_address) = (&before.hostname, &before.last_address);
            tracing::warn!(
                %agent, hostname, address, former_hostname, former_address,
                hint = "two machines may have the same hardware UUID, such as cloned virtual machines: package fleetd with --host-identifier=instance",
                "duplicate identifier: an enrollment has replaced the key of a host"
            );
            json!({"hostname": before.hostname, "address": before.last_address})
        })
    }

    /// Caches the new record: polls that are held under the old key end, and the new key works immediately.
    fn cache_enrolled(&self, enrolled: &Enrolled) {
        let record = &enrolled.record;
        // Removed before the new record is cached: a poll that was authenticated by the old key must find its entry
        // gone. Updating the entry would let it go on, and receive what is meant for the new agent.
        for id in enrolled.discard.iter().chain([&record.id]) {
            self.registry.forget(id);
        }
        let entry = self.registry.admit(record.clone());
        // An agent that replaces itself keeps its stored documents, which are read when they are first needed.
        if enrolled.life != Life::Continued {
            entry.remember_documents(KnownDocuments::of(&enrolled.documents));
        }
        let former_id = record.former_id.as_ref().map(tracing::field::display);
        tracing::info!(agent = %record.id, hostname = %record.hostname, record = %enrolled.life, former_id, "enrolled");
    }
}

fn circumstances<'a>(admission: &'a Admission, input: &EnrollInput<'a>, stored: &'a Stored) -> Circumstances<'a> {
    Circumstances {
        key: admission.key(),
        agent_version: input.agent_version,
        newer_than_tested: input.newer_than_tested,
        address: input.address,
        by_id: stored.by_id.as_ref(),
        by_enrollment_id: stored.by_enrollment_id.as_ref(),
        host: stored.host.as_ref(),
        twin: stored.twin.as_ref(),
    }
}

/// Returns true if the agent enrolls again with the key of its first enrollment: its response was lost, or it replaces
/// itself. This does not count as another use of the key.
fn takes_own_place(enrolled: &Enrolled, before: Option<&AgentRecord>, key: &EnrollmentKey) -> bool {
    let continues = enrolled.life == Life::Continued;
    let came_by_key = before.is_some_and(|before| before.enrollment_key_id.as_ref() == Some(&key.id));
    // A discarded agent always enrolled with the same key: core considers no other (EA §3.3).
    enrolled.discard.is_some() || (continues && came_by_key)
}

/// Returns the writes of the record and its documents, and the removal of what they replace.
fn record_writes(enrolled: &Enrolled, before: Option<AgentRecord>, now: Timestamp) -> Vec<Write> {
    let (record, documents) = (&enrolled.record, enrolled.documents.clone());
    let mut writes = Vec::new();
    if let Some(id) = enrolled.discard.clone() {
        writes.extend([
            Write::Agent(AgentWrite::Delete { id: id.clone(), now }),
            Write::Deleted(Change::Agent(id), record.space.clone()),
        ]);
    }
    // After the deletion, which deletes a host with its last agent.
    writes.extend(enrolled.host.clone().map(|host| AgentWrite::PutHost(host).into()));
    match before {
        None => writes.push(Write::Agent(AgentWrite::Insert { record: Box::new(record.clone()), documents })),
        Some(before) => {
            writes.push(Write::Agent(AgentWrite::Update { before: Arc::new(before), after: Arc::new(record.clone()) }));
            writes.push(Write::Agent(AgentWrite::Documents { id: record.id.clone(), documents }));
        }
    }
    // Actions for a former enrollment must not reach the new one, whether acked or not. An old UNENROLL would unenroll the agent
    // that has just come back, also if it only was reinstalled (D14).
    let id = record.id.clone();
    match enrolled.life {
        Life::First => {}
        Life::Next => writes.push(AgentWrite::BeginLife { id, now }.into()),
        Life::Continued => writes.push(AgentWrite::Reinstalled { id, now }.into()),
    }
    writes
}

/// Returns what the former space of an agent learns when it enrolls in another one. Whoever has an enroll secret can enroll any
/// machine whose hardware UUID it knows, so this can be an attempt to take a host away.
fn left_space(enrolled: &Enrolled, before: &AgentRecord, key: &EnrollmentKey, now: Timestamp) -> [Write; 2] {
    let record = &enrolled.record;
    let detail = json!({
        "to": key.space,
        "enrollment_key": key.id,
        "hostname": record.hostname,
        "address": record.last_address,
        "former": {"hostname": before.hostname, "address": before.last_address, "host": before.host_id},
    });
    let line = AuditEvent {
        at: now,
        actor: format!("enrollment_key:{}", key.id),
        action: "agent.leave_space".to_owned(),
        subject: format!("agent:{}", record.id),
        detail,
        address: Some(record.last_address.clone()).filter(|address| !address.is_empty()),
        reason: None,
        space: Some(before.space.clone()),
    };
    // For readers of the former space, the agent is gone.
    [Write::Audit(line), Write::Deleted(Change::Agent(record.id.clone()), before.space.clone())]
}

fn audit_line(enrolled: &Enrolled, key: &EnrollmentKey, duplicate: Option<&Value>, now: Timestamp) -> AuditEvent {
    let record = &enrolled.record;
    let action = match enrolled.life {
        _ if duplicate.is_some() => "agent.duplicate_identifier",
        Life::Continued => "agent.replace",
        Life::First | Life::Next => "agent.enroll",
    };
    AuditEvent {
        at: now,
        actor: format!("enrollment_key:{}", key.id),
        action: action.to_owned(),
        subject: format!("agent:{}", record.id),
        detail: json!({
            "policy_id": record.policy_id,
            "hostname": record.hostname,
            "address": record.last_address,
            "agent_version": record.agent_version,
            "discarded": enrolled.discard,
            "former": duplicate,
        }),
        address: None,
        reason: None,
        space: Some(record.space.clone()),
    }
}

#[cfg(test)]
mod tests;
