//! A fleet over a temporary store, with a clock and a generator of the tests' own: what tests of this crate's
//! operations and adapters stand on (feature `testing`).

pub mod golden;

use std::sync::Arc;
use std::time::Duration;

use muster_core::Error;
use muster_core::acknowledge::Verdict;
use muster_core::action::{Action, ActionType};
use muster_core::agent::{AgentDocuments, AgentRecord};
use muster_core::change::Change;
use muster_core::credential::{ApiKey, CredentialKind, LiveCredential, LiveCredentials};
use muster_core::documents::bytes_digest;
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::id::{AgentId, EnrollmentKeyId, PolicyId};
use muster_core::policy::{Policy, PolicyRevision};
use muster_core::seal::Sealer;
use muster_core::signing::Signer;
use muster_core::testing::{self, Sequence, TestClock, at, family};
use muster_core::time::{Clock, Timestamp};

use muster_store::{ActionWrite, AgentWrite, EnrollmentKeyWrite, PolicyWrite, Store, StoreError, Write};
use serde_json::Value;

use crate::authority::System;
use crate::check_in::{CheckInInput, Poll};
use crate::enroll::{EnrollInput, Enrolment};
use crate::ground::Ground;
use crate::policy_cache::PolicyCache;
use crate::records::Records;
use crate::registry::{AgentEntry, Registry};
use crate::{Fleet, FleetParts, FleetSettings};

/// What tests look at inside a fleet.
pub struct Inner {
    /// The store itself.
    pub store: Arc<dyn Store>,
    /// Seals what must be read back.
    pub sealer: Arc<Sealer>,
    /// Signs policies and actions.
    pub signer: Arc<Signer>,
    /// Rendered policies.
    pub policy_cache: Arc<PolicyCache>,
    pub(crate) records: Arc<Records>,
}

type Parts = (Arc<dyn Store>, Arc<Sealer>, Arc<Signer>);

impl Inner {
    pub(crate) fn new((store, sealer, signer): Parts, ground: &Ground) -> Self {
        let (policy_cache, records) = (Arc::clone(&ground.policy_cache), Arc::clone(&ground.records));
        Self { store, sealer, signer, policy_cache, records }
    }
}

impl Fleet {
    /// The store, past every service.
    pub fn store(&self) -> &dyn Store {
        &*self.inner.store
    }

    /// Commits as a service does: how it went is noted.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        self.store.commit(&System, writes).await.map(drop)
    }

    /// Notes how the store answered a commit.
    pub fn note(&self, error: Option<&StoreError>) {
        self.store.note(error);
    }

    /// What tests look at besides.
    pub fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Agents known to this node.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// An agent's entry, from memory or from the store.
    pub async fn entry(&self, id: &AgentId) -> Option<Arc<AgentEntry>> {
        self.inner.records.entry(id).await.expect("readable")
    }
}

/// A fleet and what tests hold of it.
pub struct TestFleet {
    /// The operations under test.
    pub fleet: Arc<Fleet>,
    /// Stands at the start of the tests' day until it is moved.
    pub clock: Arc<TestClock>,
    /// The fleet's generator.
    pub entropy: Arc<Sequence>,
}

/// An agent of the test family that enrolled.
#[derive(Debug)]
pub struct Enrolled {
    /// Its id.
    pub id: String,
    /// Its policy; empty: none.
    pub policy_id: String,
    /// When it enrolled.
    pub enrolled_at: Timestamp,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its key.
    pub key: ApiKey,
}

/// Settings under which a held poll's length is known: without jitter.
pub fn steady() -> FleetSettings {
    FleetSettings { poll_jitter: Duration::ZERO, ..FleetSettings::default() }
}

impl Default for TestFleet {
    fn default() -> Self {
        Self::with(steady())
    }
}

impl TestFleet {
    /// A fleet with the [revised policy](Self::revised_policy) `p`.
    pub async fn new() -> Self {
        let test = Self::default();
        test.revised_policy("p", |_| {}).await;
        test
    }

    /// A fleet over an empty temporary store.
    pub fn with(settings: FleetSettings) -> Self {
        Self::over(Arc::new(muster_store::testing::fresh()), settings)
    }

    /// A fleet over `store`.
    pub fn over(store: Arc<dyn Store>, settings: FleetSettings) -> Self {
        let clock = Arc::new(TestClock::new(at(0)));
        let entropy = Arc::new(Sequence::new());
        let fleet = Fleet::new(FleetParts {
            store,
            clock: clock.clone(),
            entropy: entropy.clone(),
            sealer: Arc::new(Sealer::new(&[7; 32]).expect("a key of 32 bytes")),
            signer: Arc::new(Signer::generate().expect("a key pair").0),
            settings,
        });
        Self { fleet, clock, entropy }
    }

    /// Another node over the same store.
    pub fn beside(&self) -> Self {
        let fleet = Fleet::new(FleetParts {
            store: Arc::clone(&self.fleet.inner.store),
            clock: self.clock.clone(),
            sealer: Arc::clone(&self.fleet.inner.sealer),
            signer: Arc::clone(&self.fleet.inner.signer),
            entropy: Arc::clone(&self.fleet.entropy),
            settings: self.fleet.settings.clone(),
        });
        Self { fleet, clock: Arc::clone(&self.clock), entropy: Arc::clone(&self.entropy) }
    }

    /// Wakes polls as a server does, from now on. Needs a runtime.
    #[must_use]
    pub fn following_changes(self) -> Self {
        tokio::spawn(Arc::clone(&self.fleet.feed).follow());
        self
    }

    /// The clock's time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The fleet's store.
    pub fn store(&self) -> &dyn Store {
        self.fleet.store()
    }

    /// Commits what must go through.
    pub async fn commit(&self, writes: Vec<Write>) {
        self.fleet.commit(writes).await.expect("the writes fit");
    }

    /// A policy changed by `change`, without a revision to deliver yet.
    pub async fn add_policy(&self, id: &str, change: impl FnOnce(&mut Policy)) -> PolicyId {
        let mut policy = testing::policy(id, self.now());
        change(&mut policy);
        self.commit(vec![Write::Policy(PolicyWrite::Insert(Box::new(policy)))]).await;
        PolicyId::trusted(id)
    }

    /// A policy at revision 1.
    pub async fn policy(&self, id: &str) -> PolicyId {
        let id = self.add_policy(id, |_| {}).await;
        self.revision(&id, 1).await;
        id
    }

    /// A policy at revision 3 that makes its agents inactive after an hour, changed by `change`.
    pub async fn revised_policy(&self, id: &str, change: impl FnOnce(&mut Policy)) -> PolicyId {
        let change = |policy: &mut Policy| {
            (policy.revision, policy.inactivity_timeout) = (3, 3600);
            change(policy);
        };
        let id = self.add_policy(id, change).await;
        for number in 1..=3 {
            self.revision(&id, number).await;
        }
        id
    }

    /// One more revision of a policy, announced.
    pub async fn revision(&self, id: &PolicyId, revision: i64) {
        self.publish(testing::revision(id.as_str(), revision, self.now())).await;
    }

    /// One more revision of a policy with this compiled document, announced.
    pub async fn revision_with(&self, id: &PolicyId, revision: i64, compiled: Value) {
        self.publish(PolicyRevision { compiled, ..testing::revision(id.as_str(), revision, self.now()) }).await;
    }

    async fn publish(&self, revision: PolicyRevision) {
        let change = Write::Changed(Change::Policy(revision.policy_id.clone()));
        self.commit(vec![Write::Policy(PolicyWrite::InsertRevision(Box::new(revision))), change]).await;
    }

    /// An enrollment key for `policy`, changed by `change`.
    pub async fn add_key(&self, policy: Option<&str>, change: impl FnOnce(&mut EnrollmentKey)) -> ApiKey {
        let api_key = ApiKey::generate(&*self.entropy);
        let mut key = EnrollmentKey {
            id: EnrollmentKeyId::trusted(format!("ek-{}", api_key.id)),
            policy_id: policy.map(PolicyId::trusted),
            ..testing::key_of(api_key.id.as_str(), &api_key, self.now())
        };
        change(&mut key);
        self.commit(vec![Write::EnrollmentKey(EnrollmentKeyWrite::Insert(Box::new(key)))]).await;
        api_key
    }

    /// Enrols an agent of the test family.
    pub async fn enroll(&self, key: &ApiKey, body: &Value) -> Result<Enrolled, Error> {
        let admission = self.fleet.enrollment().authenticate(key).await?;
        let enrol = family::Enrol::read(&body.to_string());
        let request = &enrol.request();
        let input = EnrollInput { request, agent_version: "9.5.2", newer_than_tested: false, address: "192.0.2.9" };
        let Enrolment { record, key, .. } = self.fleet.enrollment().enroll(&admission, input).await?;
        Ok(Enrolled {
            id: record.id.to_string(),
            policy_id: record.policy_id.map(|id| id.to_string()).unwrap_or_default(),
            enrolled_at: record.enrolled_at,
            tags: record.tags,
            key,
        })
    }

    /// Takes a check-in of the test family.
    pub async fn check_in(&self, entry: &Arc<AgentEntry>, body: &str) -> Result<Poll, Error> {
        self.check_in_of(entry, body, "9.5.2").await
    }

    /// Takes a check-in of an agent of that version.
    pub async fn check_in_of(&self, entry: &Arc<AgentEntry>, body: &str, agent_version: &str) -> Result<Poll, Error> {
        let check_in = family::CheckIn::read(body);
        let report = &check_in.report();
        let digest = bytes_digest(&[body.as_bytes()]);
        let address = "127.0.0.1";
        let input = CheckInInput { report, agent_version, newer_than_tested: false, address, digest };
        self.fleet.check_ins().check_in(entry, input).await
    }

    /// Takes acks of the test family; answers verdicts as statuses, which are shorter to read.
    pub async fn ack(&self, entry: &AgentEntry, answers: &Value) -> Result<Vec<u16>, Error> {
        let status = |verdict: Verdict| match verdict {
            Verdict::Taken => 200,
            Verdict::Refused => 400,
            Verdict::Unknown => 404,
        };
        let verdicts = self.fleet.check_ins().acknowledge(entry, &family::acks(&answers.to_string())).await?;
        Ok(verdicts.into_iter().map(status).collect())
    }

    /// Puts a record in the store; the key is the agent's from now on.
    pub async fn add_agent(&self, record: AgentRecord, documents: AgentDocuments) -> ApiKey {
        let (write, key) = self.insertion(record, documents);
        self.commit(vec![write]).await;
        key
    }

    /// The write that puts a record in the store, and the key that it gets.
    pub fn insertion(&self, record: AgentRecord, documents: AgentDocuments) -> (Write, ApiKey) {
        let key = ApiKey::generate(&*self.entropy);
        let credentials = LiveCredentials::one(LiveCredential::of(&key, CredentialKind::AccessKey, record.enrolled_at));
        (Write::Agent(AgentWrite::Insert { record: Box::new(AgentRecord { credentials, ..record }), documents }), key)
    }

    /// The entry of an enrolled agent, by its new key.
    pub async fn entry(&self, enrolled: &Enrolled) -> Result<Arc<AgentEntry>, Error> {
        self.fleet.authentication().agent(&enrolled.id, &enrolled.key).await
    }

    /// An agent's record as it is stored.
    pub async fn stored(&self, id: &str) -> AgentRecord {
        self.fleet.store().agent(&AgentId::trusted(id)).await.expect("readable").expect("there")
    }

    /// An action for one agent, changed by `change` and announced.
    pub async fn order(&self, id: &str, kind: ActionType, agent: &str, change: impl FnOnce(&mut Action)) {
        let mut action = testing::action(id, kind, self.now());
        change(&mut action);
        let change = Write::Changed(Change::Action(action.id.clone()));
        let insert =
            Write::Action(ActionWrite::Insert { action: Box::new(action), targets: vec![AgentId::trusted(agent)] });
        self.commit(vec![insert, change]).await;
    }
}
