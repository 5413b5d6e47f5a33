//! Enrolment: an agent comes in by an enrollment key (EA §3).
//!
//! Everything that an enrolment changes is one commit: the key's use, the record, its documents, the orders that a new
//! life must not inherit, the audit line. So there is nothing to roll back (EA45). Requests for the same id or the
//! same enrollment id go one after the other (EA46); what another node does meanwhile shows as a conflict in the
//! commit, and the decision is taken anew.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use muster_core::agent::AgentRecord;
use muster_core::assignment::{self, AssignmentRules};
use muster_core::audit::AuditEvent;
use muster_core::change::Change;
use muster_core::check_in::KnownDocuments;
use muster_core::credential::ApiKey;
use muster_core::denial::Denial;
use muster_core::enroll::{Admitted, Applicant, Circumstances, Enrolled, Life, Placement, Request};
use muster_core::enrollment_key::{EnrollmentKey, Refusal};
use muster_core::entropy::random_uuid;
use muster_core::host::Host;
use muster_core::id::{AgentId, EnrollmentKeyId, HostId, SpaceId};
use muster_core::lifecycle::inactivity_timeout;
use muster_core::time::{Clock, Timestamp};
use muster_core::{Entropy, Error, ErrorKind, replace_token};
use muster_store::{AgentWrite, EnrollmentKeyWrite, Precondition, StoreError, Write};
use serde_json::json;
use tokio::sync::{Mutex, MutexGuard, Semaphore};
use zeroize::Zeroizing;

use super::authenticate::unauthorized;
use super::authority::System;
use super::registry::Registry;
use super::watched_store::WatchedStore;

/// How often an enrollment is retried when others changed its ground meanwhile.
const ATTEMPTS: usize = 5;
/// Handles that can be worked on side by side.
const STRIPES: usize = 256;
/// Slow hashes at the same time: one, so that they never hold more than one core.
const SLOW_HASHES: usize = 1;
/// Enrolments that may wait for a slow hash, in all and by one enrollment key; each takes a tenth of a second.
const MOST_WAITING: usize = 64;
const MOST_WAITING_BY_KEY: usize = 16;

/// An enrollment key that admits.
#[derive(Clone, Debug)]
pub struct Admission(EnrollmentKey);

impl Admission {
    /// The key's record.
    pub fn key(&self) -> &EnrollmentKey {
        &self.0
    }
}

/// What an adapter unpacked.
#[derive(Clone, Copy)]
pub struct EnrollInput<'a> {
    /// What the agent asks for.
    pub request: &'a Request<'a>,
    /// Version from the User-Agent, normalised (EA33).
    pub agent_version: &'a str,
    /// Above what this server was tested with.
    pub newer_than_tested: bool,
    /// The agent's address.
    pub address: &'a str,
}

/// An agent that was let in.
pub struct Enrolment {
    /// Its record.
    pub record: AgentRecord,
    /// Host and agent facts as they are stored: JSON text.
    pub metadata: Arc<str>,
    /// Its key, with the secret: told this once.
    pub key: ApiKey,
}

/// What keeps enrolments of the same handle in order, and slow hashes few.
struct Enrolling {
    stripes: Vec<Mutex<()>>,
    hasher: std::hash::RandomState,
    slow: Arc<Semaphore>,
    /// Enrolments that wait for a slow hash or compute one, by enrollment key.
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
    /// Waits until nobody else works on one of these handles. Stripes are taken in order: no two can wait for each
    /// other.
    async fn turn(&self, applicant: &Applicant) -> Vec<MutexGuard<'_, ()>> {
        let id = applicant.id.as_ref().map(|id| ("id", id.as_str()));
        let handle = applicant.enrollment_id.as_deref().map(|handle| ("enrollment_id", handle));
        let stripe = |handle| self.hasher.hash_one(handle) as usize % STRIPES;
        let mut stripes: Vec<usize> = id.into_iter().chain(handle).map(stripe).collect();
        stripes.sort_unstable();
        stripes.dedup();
        let mut turn = Vec::new();
        for stripe in stripes {
            turn.push(self.stripes[stripe].lock().await);
        }
        turn
    }

    /// A place among those that wait for slow hashes. Anybody with a token can ask for one after the other, so the
    /// queue has a bound, and one key never takes all of it.
    fn queue(&self, key: &EnrollmentKeyId) -> Result<Queued<'_>, Error> {
        let mut waiting = self.waiting();
        let (all, own) = (waiting.values().sum::<usize>(), waiting.get(key).copied().unwrap_or_default());
        if all >= MOST_WAITING || own >= MOST_WAITING_BY_KEY {
            let message = "too many concurrent enrollments with a replace_token";
            return Err(Error::new(ErrorKind::TooMany, "TooManyRequests", message));
        }
        waiting.insert(key.clone(), own + 1);
        Ok(Queued { enrolling: self, key: key.clone() })
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<EnrollmentKeyId, usize>> {
        self.waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Runs a slow hash where it holds nobody up.
    async fn slowly<T: Send + 'static>(&self, hash: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let permit = Arc::clone(&self.slow).acquire_owned().await;
        let permit = permit.map_err(|error| Error::internal(error.to_string()))?;
        let work = move || {
            let _permit = permit;
            hash()
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| Error::internal(error.to_string()))
    }
}

/// A place in the queue for slow hashes.
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

/// What is stored of the handles of a request; by enrollment id only an agent of the same key that never checked in.
#[derive(Default)]
struct Stored {
    by_id: Option<AgentRecord>,
    by_enrollment_id: Option<AgentRecord>,
    host: Option<Host>,
}

/// The service of enrolment.
pub struct Enrollment {
    store: Arc<WatchedStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    registry: Arc<Registry>,
    enrolling: Enrolling,
}

impl Enrollment {
    pub(crate) fn new(
        store: Arc<WatchedStore>,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        registry: Arc<Registry>,
    ) -> Self {
        Self { store, clock, entropy, registry, enrolling: Enrolling::default() }
    }

    /// The enrollment key, if it admits now; every other key gives the one refusal (EA28, EA29, D1, D20). One that is
    /// used up is refused at the commit: it still admits an agent that it let in before, whose reply was lost.
    pub async fn authenticate(&self, key: &ApiKey) -> Result<Admission, Error> {
        let stored = self
            .store
            .everywhere(&System)
            .enrollment_key_by_key_id(&key.id)
            .await?
            .filter(|stored| key.matches(&stored.hash));
        let stored = stored.ok_or_else(unauthorized)?;
        match stored.admits(self.clock.now()) {
            Ok(()) | Err(Refusal::UsedUp) => Ok(Admission(stored)),
            Err(refusal) => Err(unauthorized().for_log(format!("enrollment key {}: {refusal:?}", stored.id))),
        }
    }

    /// Enrols an agent.
    pub async fn enroll(&self, admission: &Admission, input: EnrollInput<'_>) -> Result<Enrolment, Error> {
        let applicant = Applicant::read(input.request)?;
        // Outside the turn: it depends on no other enrolment, and turns are shared by all ids of a stripe.
        let placement = self.placement(&applicant, admission, input.address).await?;
        let slow = applicant.replace_token().map(|_| self.enrolling.queue(&admission.key().id)).transpose()?;
        // Computed outside the turn, too: who waits for a slow hash must not hold up others of its stripe.
        let token_hash = self.token_hash(&applicant).await?;
        let _turn = self.enrolling.turn(&applicant).await;
        // The turn orders enrolments of this node alone; another node, or a check-in, may still change the record between
        // the look and the commit. The commit then refuses, and the decision is taken anew.
        for _ in 0..ATTEMPTS {
            let stored = self.stored(&applicant, admission).await?;
            let around = circumstances(admission, &input, &stored);
            let life = self.life(&applicant, &around).await?;
            // A new key for each attempt: none that may have been committed is ever handed out twice.
            let access_key = ApiKey::generate(&*self.entropy);
            let id = applicant.id.clone().unwrap_or_else(|| AgentId::trusted(random_uuid(&*self.entropy)));
            let (placement, token_hash) = (placement.clone(), token_hash.clone());
            let host_id = HostId::trusted(random_uuid(&*self.entropy));
            let admitted = Admitted { life, id, host_id, access_key: &access_key, placement, token_hash };
            let now = self.clock.now();
            let enrolled = applicant.enroll(admitted, &around, now);
            if self.commit_enrolment(&enrolled, stored.by_id, admission, now).await? {
                drop(slow);
                let metadata = enrolled.documents.local_metadata.unwrap_or_else(|| "null".into());
                return Ok(Enrolment { record: enrolled.record, metadata, key: access_key });
            }
        }
        Err(Denial::EnrolmentRace.into())
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
            stored.host = self.host_of_former(applicant, &admission.key().space).await?;
        }
        Ok(stored)
    }

    /// The host that the agent says it was on under another id (AG157): the same host comes again. It is grouped there,
    /// and nothing more: the former agent stays as it is.
    async fn host_of_former(&self, applicant: &Applicant, space: &SpaceId) -> Result<Option<Host>, Error> {
        let Some(former) = &applicant.former_id else { return Ok(None) };
        let Some(agent) = self.store.everywhere(&System).agent_in(space, former).await? else { return Ok(None) };
        let Some(id) = agent.host_id else { return Ok(None) };
        Ok(self.store.everywhere(&System).host(&id).await?.filter(|host| applicant.is_of_host(host, space)))
    }

    /// What the enrolment is to the stored record. The slow comparison of tokens is made beforehand, when it counts.
    async fn life(&self, applicant: &Applicant, around: &Circumstances<'_>) -> Result<Life, Error> {
        let mut asked = None;
        let first = applicant.life(around, &mut |token, hash| {
            // Said to fit, to learn whether it is asked at all: most enrolments never come to compare tokens.
            asked = Some((Zeroizing::new(token.to_owned()), hash.to_owned()));
            true
        })?;
        let Some((token, hash)) = asked else { return Ok(first) };
        let fits = self.enrolling.slowly(move || replace_token::verify(&token, &hash)).await?;
        applicant.life(around, &mut |_, _| fits)
    }

    async fn token_hash(&self, applicant: &Applicant) -> Result<Option<String>, Error> {
        let Some(token) = applicant.replace_token().map(|token| Zeroizing::new(token.to_owned())) else {
            return Ok(None);
        };
        let entropy = Arc::clone(&self.entropy);
        let hash = move || replace_token::hash(&token, replace_token::ITERATIONS, &*entropy);
        self.enrolling.slowly(hash).await.map(Some)
    }

    /// Policy and tags: the key's, else the rules', else the default policy (M11).
    async fn placement(&self, applicant: &Applicant, admission: &Admission, address: &str) -> Result<Placement, Error> {
        let key = admission.key();
        let rules = match key.policy_id {
            Some(_) => AssignmentRules::default(),
            None => self.assignment_rules().await?,
        };
        let mut placement = applicant.placement(key, &rules, address);
        let policy = match &placement.policy_id {
            Some(id) => self.store.everywhere(&System).policy_head(id).await?,
            None => self.store.everywhere(&System).default_policy_head(&key.space).await?,
        };
        // A key without a policy may come to none: the agent stays enrolled and waits for one. A key that names one that
        // is gone promises what nobody can keep.
        if policy.is_none() && key.policy_id.is_some() {
            return Err(Denial::PolicyGone.into());
        }
        placement.inactivity_timeout = inactivity_timeout(policy.as_ref().map(|policy| policy.inactivity_timeout));
        placement.policy_id = policy.map(|policy| policy.id);
        Ok(placement)
    }

    /// Rules that can't be read must not keep agents out.
    async fn assignment_rules(&self) -> Result<AssignmentRules, Error> {
        let setting = self.store.everywhere(&System).setting(assignment::SETTING).await?;
        Ok(AssignmentRules::read(setting.as_deref()).unwrap_or_else(|error| {
            tracing::error!(%error, "assignment rules are not applied");
            AssignmentRules::default()
        }))
    }

    /// Commits; false when the ground changed meanwhile and the decision must be taken anew.
    async fn commit_enrolment(
        &self,
        enrolled: &Enrolled,
        before: Option<AgentRecord>,
        admission: &Admission,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let key = admission.key();
        let counts = !takes_own_place(enrolled, before.as_ref(), key);
        let mut writes = vec![Write::EnrollmentKey(EnrollmentKeyWrite::Use { id: key.id.clone(), now, counts })];
        writes.extend(record_writes(enrolled, before, now));
        writes.push(Write::Audit(audit_line(enrolled, key, now)));
        writes.push(Write::Changed(Change::Agent(enrolled.record.id.clone())));
        match self.store.commit(admission, writes).await {
            Ok(_) => {
                self.know(enrolled);
                Ok(true)
            }
            // Revoked, ended or used up between the look and the commit: the same answer as before the look (D20).
            Err(StoreError::Conflict(Precondition::KeyRefused)) => Err(unauthorized()),
            Err(StoreError::Conflict(reason)) => {
                tracing::debug!(%reason, agent = %enrolled.record.id, "retrying an enrollment");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// This node learns at once: polls held under the old key end, and the new key works.
    fn know(&self, enrolled: &Enrolled) {
        let record = &enrolled.record;
        // Forgotten before the new record is known: a poll held under the old key must find its agent gone, not renewed.
        for id in enrolled.discard.iter().chain([&record.id]) {
            self.registry.forget(id);
        }
        let entry = self.registry.admit(record.clone());
        // A continued life keeps the documents that the store has; they are read when they are first needed.
        if enrolled.life != Life::Continued {
            entry.remember_documents(KnownDocuments::of(&enrolled.documents));
        }
        tracing::info!(agent = %record.id, host = %record.hostname, life = ?enrolled.life, "enrolled");
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
    }
}

/// Whether the agent comes again by the key that let it in: its first reply was lost, or it replaces itself.
fn takes_own_place(enrolled: &Enrolled, before: Option<&AgentRecord>, key: &EnrollmentKey) -> bool {
    let continues = enrolled.life == Life::Continued;
    let came_by_key = before.is_some_and(|before| before.enrollment_key_id.as_ref() == Some(&key.id));
    // What is discarded came by the same key: core looks at no other (EA §3.3).
    enrolled.discard.is_some() || (continues && came_by_key)
}

/// The record in its place, its documents, and the end of what came before.
fn record_writes(enrolled: &Enrolled, before: Option<AgentRecord>, now: Timestamp) -> Vec<Write> {
    let (record, documents) = (&enrolled.record, enrolled.documents.clone());
    let mut writes = Vec::new();
    if let Some(id) = enrolled.discard.clone() {
        writes.extend([Write::Agent(AgentWrite::Delete { id: id.clone(), now }), Write::Changed(Change::Agent(id))]);
    }
    // After what is discarded: a host goes with its last agent.
    writes.extend(enrolled.host.clone().map(|host| AgentWrite::PutHost(host).into()));
    match before {
        None => writes.push(Write::Agent(AgentWrite::Insert { record: Box::new(record.clone()), documents })),
        Some(before) => {
            writes.push(Write::Agent(AgentWrite::Update { before: Arc::new(before), after: Arc::new(record.clone()) }));
            writes.push(Write::Agent(AgentWrite::Documents { id: record.id.clone(), documents }));
        }
    }
    // Orders to the old life are not for the new one, an old UNENROLL least of all, whether answered or not (D14).
    if enrolled.life == Life::Next {
        writes.push(Write::Agent(AgentWrite::BeginLife { id: record.id.clone(), now }));
    }
    writes
}

fn audit_line(enrolled: &Enrolled, key: &EnrollmentKey, now: Timestamp) -> AuditEvent {
    let record = &enrolled.record;
    let action = if enrolled.life == Life::Continued { "agent.replace" } else { "agent.enroll" };
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
        }),
    }
}

#[cfg(test)]
mod tests;
