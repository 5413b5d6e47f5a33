//! Test fixtures (feature `testing`): a fleet over a temporary store, with a clock and a random generator that tests
//! control.

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

use crate::alerts::sender::{AlertSender, NoSender};
use crate::authority::System;
use crate::check_in::{CheckInInput, Poll};
use crate::connection_tests::{NoProber, Prober};
use crate::enroll::{EnrollInput, EnrolledAgent};
use crate::identity::openid::{NoProviders, OpenIdProviders};
use crate::identity::passwords::PasswordCost;
use crate::output_keys::issuer::{KeyIssuer, NoIssuer};
use crate::policy_cache::PolicyCache;
use crate::records::Records;
use crate::registry::{AgentEntry, Registry};
use crate::signing_keys::SigningKeys;
use crate::wiring::Wiring;
use crate::{Fleet, FleetParts, FleetSettings};

/// Internals of a fleet that tests read.
pub struct Inner {
    /// The store itself.
    pub store: Arc<dyn Store>,
    /// Encrypts secrets that must be read back.
    pub sealer: Arc<Sealer>,
    /// Signs policies and actions.
    pub signer: Arc<Signer>,
    /// Rendered policies.
    pub policy_cache: Arc<PolicyCache>,
    /// Reaches the clusters of outputs.
    pub issuer: Arc<dyn KeyIssuer>,
    /// Reaches OpenID providers.
    pub openid: Arc<dyn OpenIdProviders>,
    /// Sends alerts.
    pub alert_sender: Arc<dyn AlertSender>,
    /// Tests connections of agents.
    pub prober: Arc<dyn Prober>,
    /// The keys that sign policies and actions.
    pub signing: Arc<SigningKeys>,
    pub(crate) records: Arc<Records>,
}

/// What a fleet was built from.
pub(crate) struct Parts {
    store: Arc<dyn Store>,
    sealer: Arc<Sealer>,
    signer: Arc<Signer>,
    issuer: Arc<dyn KeyIssuer>,
    openid: Arc<dyn OpenIdProviders>,
    alert_sender: Arc<dyn AlertSender>,
    prober: Arc<dyn Prober>,
}

impl Parts {
    pub(crate) fn of(parts: &FleetParts) -> Self {
        Self {
            store: Arc::clone(&parts.store),
            sealer: Arc::clone(&parts.sealer),
            signer: Arc::clone(&parts.signer),
            issuer: Arc::clone(&parts.issuer),
            openid: Arc::clone(&parts.openid),
            alert_sender: Arc::clone(&parts.alert_sender),
            prober: Arc::clone(&parts.prober),
        }
    }
}

impl Inner {
    pub(crate) fn new(parts: Parts, wiring: &Wiring) -> Self {
        let Parts { store, sealer, signer, issuer, openid, alert_sender, prober } = parts;
        let (policy_cache, records) = (Arc::clone(&wiring.policy_cache), Arc::clone(&wiring.records));
        let signing = Arc::clone(&wiring.signing);
        Self { store, sealer, signer, policy_cache, issuer, openid, alert_sender, prober, signing, records }
    }
}

impl Fleet {
    /// The store without the services.
    pub fn store(&self) -> &dyn Store {
        &*self.inner.store
    }

    /// Commits like a service: the outcome is recorded.
    pub async fn commit(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        self.store.commit(&System, writes).await.map(drop)
    }

    /// Records the outcome of a commit.
    pub fn note(&self, error: Option<&StoreError>) {
        self.store.note(error);
    }

    /// Internals that tests read.
    pub fn inner(&self) -> &Inner {
        &self.inner
    }

    /// Agents cached on this node.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Empties the cache of agents, as after a lost lease.
    pub fn lose_lease(&self) {
        self.registry.detach_all();
    }

    /// An agent's entry, cached or read from the store.
    pub async fn entry(&self, id: &AgentId) -> Option<Arc<AgentEntry>> {
        self.inner.records.entry(id).await.expect("readable")
    }
}

/// What a fleet reaches over the network; nothing, unless a test says otherwise.
struct Ports {
    issuer: Arc<dyn KeyIssuer>,
    openid: Arc<dyn OpenIdProviders>,
    alert_sender: Arc<dyn AlertSender>,
    prober: Arc<dyn Prober>,
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            issuer: Arc::new(NoIssuer),
            openid: Arc::new(NoProviders),
            alert_sender: Arc::new(NoSender),
            prober: Arc::new(NoProber),
        }
    }
}

/// A fleet with its clock and random generator.
pub struct TestFleet {
    /// The fleet under test.
    pub fleet: Arc<Fleet>,
    /// Starts at a fixed time and stands still until it is advanced.
    pub clock: Arc<TestClock>,
    /// The fleet's random generator.
    pub entropy: Arc<Sequence>,
}

/// An enrolled agent of the test family.
#[derive(Debug)]
pub struct Enrolled {
    /// Its id.
    pub id: String,
    /// Its policy; empty if none.
    pub policy_id: String,
    /// When it enrolled.
    pub enrolled_at: Timestamp,
    /// Its tags.
    pub tags: Vec<String>,
    /// Its key.
    pub key: ApiKey,
}

/// Settings without jitter, so that the duration of a held poll is known.
pub fn steady() -> FleetSettings {
    // Hashes that are fast, not safe.
    let password_cost = PasswordCost { memory: 64, passes: 1 };
    FleetSettings { poll_jitter: Duration::ZERO, password_cost, ..FleetSettings::default() }
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
        Self::issuing(store, settings, Arc::new(NoIssuer))
    }

    /// A fleet over `store` that creates output keys with `issuer`.
    pub fn issuing(store: Arc<dyn Store>, settings: FleetSettings, issuer: Arc<dyn KeyIssuer>) -> Self {
        Self::reaching(store, settings, Ports { issuer, ..Ports::default() })
    }

    /// A fleet over a temporary store, where people log in at `openid`.
    pub fn federated(openid: Arc<dyn OpenIdProviders>) -> Self {
        let store = Arc::new(muster_store::testing::fresh());
        Self::reaching(store, steady(), Ports { openid, ..Ports::default() })
    }

    /// A fleet that sends alerts by `sender`.
    pub fn alerting(store: Arc<dyn Store>, sender: Arc<dyn AlertSender>) -> Self {
        Self::reaching(store, steady(), Ports { alert_sender: sender, ..Ports::default() })
    }

    /// A fleet over `store` that tests connections with `prober`.
    pub fn probing(store: Arc<dyn Store>, prober: Arc<dyn Prober>) -> Self {
        Self::reaching(store, steady(), Ports { prober, ..Ports::default() })
    }

    fn reaching(store: Arc<dyn Store>, settings: FleetSettings, ports: Ports) -> Self {
        let clock = Arc::new(TestClock::new(at(0)));
        let entropy = Arc::new(Sequence::new());
        let Ports { issuer, openid, alert_sender, prober } = ports;
        let fleet = Fleet::new(FleetParts {
            store,
            clock: clock.clone(),
            entropy: entropy.clone(),
            sealer: Arc::new(Sealer::new(&[7; 32]).expect("a key of 32 bytes")),
            signer: Arc::new(Signer::generate().expect("a key pair").0),
            issuer,
            openid,
            alert_sender,
            prober,
            settings,
        });
        Self { fleet, clock, entropy }
    }

    /// Another node over the same store.
    pub fn beside(&self) -> Self {
        self.beside_over(Arc::clone(&self.fleet.inner.store), self.fleet.settings.clone())
    }

    /// Another node with the same keys and clock, over `store` and with these settings.
    pub fn beside_over(&self, store: Arc<dyn Store>, settings: FleetSettings) -> Self {
        let fleet = Fleet::new(FleetParts {
            store,
            clock: self.clock.clone(),
            sealer: Arc::clone(&self.fleet.inner.sealer),
            signer: Arc::clone(&self.fleet.inner.signer),
            entropy: Arc::clone(&self.fleet.entropy),
            issuer: Arc::clone(&self.fleet.inner.issuer),
            openid: Arc::clone(&self.fleet.inner.openid),
            alert_sender: Arc::clone(&self.fleet.inner.alert_sender),
            prober: Arc::clone(&self.fleet.inner.prober),
            settings,
        });
        Self { fleet, clock: Arc::clone(&self.clock), entropy: Arc::clone(&self.entropy) }
    }

    /// Starts the change feed, which wakes polls. Needs a runtime.
    #[must_use]
    pub fn following_changes(self) -> Self {
        tokio::spawn(Arc::clone(&self.fleet.feed).follow());
        tokio::spawn(Arc::clone(&self.fleet.hints).run());
        self
    }

    /// The current time of the clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The fleet's store.
    pub fn store(&self) -> &dyn Store {
        self.fleet.store()
    }

    /// Commits; panics on an error.
    pub async fn commit(&self, writes: Vec<Write>) {
        self.fleet.commit(writes).await.expect("the writes fit");
    }

    /// Adds a policy changed by `change`, without a revision.
    pub async fn add_policy(&self, id: &str, change: impl FnOnce(&mut Policy)) -> PolicyId {
        let mut policy = testing::policy(id, self.now());
        change(&mut policy);
        self.commit(vec![Write::Policy(PolicyWrite::Insert(Box::new(policy)))]).await;
        PolicyId::trusted(id)
    }

    /// Adds a policy at revision 1.
    pub async fn policy(&self, id: &str) -> PolicyId {
        let id = self.add_policy(id, |_| {}).await;
        self.revision(&id, 1).await;
        id
    }

    /// Adds a policy at revision 3 with an inactivity timeout of one hour, changed by `change`.
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

    /// Adds a revision of a policy, with its change.
    pub async fn revision(&self, id: &PolicyId, revision: i64) {
        self.publish(testing::revision(id.as_str(), revision, self.now())).await;
    }

    /// Adds a revision of a policy with this compiled document, with its change.
    pub async fn revision_with(&self, id: &PolicyId, revision: i64, compiled: Value) {
        self.publish(PolicyRevision { compiled, ..testing::revision(id.as_str(), revision, self.now()) }).await;
    }

    async fn publish(&self, revision: PolicyRevision) {
        let change = Write::Changed(Change::Policy(revision.policy_id.clone()));
        self.commit(vec![Write::Policy(PolicyWrite::InsertRevision(Box::new(revision))), change]).await;
    }

    /// Adds an enrollment key for `policy`, changed by `change`.
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

    /// Enrolls an agent of the test family.
    pub async fn enroll(&self, key: &ApiKey, body: &Value) -> Result<Enrolled, Error> {
        let admission = self.fleet.enrollment().authenticate(key).await?;
        let enroll = family::Enrollment::read(&body.to_string());
        let request = &enroll.request();
        let input = EnrollInput { request, agent_version: "9.5.2", newer_than_tested: false, address: "192.0.2.9" };
        let EnrolledAgent { record, key, .. } = self.fleet.enrollment().enroll(&admission, input).await?;
        Ok(Enrolled {
            id: record.id.to_string(),
            policy_id: record.policy_id.map(|id| id.to_string()).unwrap_or_default(),
            enrolled_at: record.enrolled_at,
            tags: record.tags,
            key,
        })
    }

    /// Handles a check-in of the test family.
    pub async fn check_in(&self, entry: &Arc<AgentEntry>, body: &str) -> Result<Poll, Error> {
        self.check_in_of(entry, body, "9.5.2").await
    }

    /// Handles a check-in of an agent of that version.
    pub async fn check_in_of(&self, entry: &Arc<AgentEntry>, body: &str, agent_version: &str) -> Result<Poll, Error> {
        let check_in = family::CheckIn::read(body);
        let report = &check_in.report();
        let digest = bytes_digest(&[body.as_bytes()]);
        let address = "127.0.0.1";
        let input = CheckInInput { report, agent_version, newer_than_tested: false, address, digest };
        self.fleet.check_ins().check_in(entry, input).await
    }

    /// Handles acks of the test family; returns the verdicts as HTTP statuses.
    pub async fn ack(&self, entry: &AgentEntry, answers: &Value) -> Result<Vec<u16>, Error> {
        let status = |verdict: Verdict| match verdict {
            Verdict::Taken => 200,
            Verdict::Refused => 400,
            Verdict::Unknown => 404,
        };
        let verdicts = self.fleet.check_ins().acknowledge(entry, &family::acks(&answers.to_string())).await?;
        Ok(verdicts.into_iter().map(status).collect())
    }

    /// Inserts a record; returns its new key.
    pub async fn add_agent(&self, record: AgentRecord, documents: AgentDocuments) -> ApiKey {
        let (write, key) = self.insertion(record, documents);
        self.commit(vec![write]).await;
        key
    }

    /// Returns the write that inserts a record, and its new key.
    pub fn insertion(&self, record: AgentRecord, documents: AgentDocuments) -> (Write, ApiKey) {
        let key = ApiKey::generate(&*self.entropy);
        let credentials = LiveCredentials::one(LiveCredential::of(&key, CredentialKind::AccessKey, record.enrolled_at));
        (Write::Agent(AgentWrite::Insert { record: Box::new(AgentRecord { credentials, ..record }), documents }), key)
    }

    /// Authenticates an enrolled agent with its key.
    pub async fn entry(&self, enrolled: &Enrolled) -> Result<Arc<AgentEntry>, Error> {
        self.fleet.authentication().agent(&enrolled.id, &enrolled.key).await
    }

    /// Reads an agent's record from the store.
    pub async fn stored(&self, id: &str) -> AgentRecord {
        self.fleet.store().agent(&AgentId::trusted(id)).await.expect("readable").expect("there")
    }

    /// Adds an action for one agent, changed by `change`, with its change-log entry.
    pub async fn add_action(&self, id: &str, kind: ActionType, agent: &str, change: impl FnOnce(&mut Action)) {
        self.add_action_for(&[AgentId::trusted(agent)], id, kind, change).await;
    }

    /// Adds an action for several agents, like [`TestFleet::add_action`].
    pub async fn add_action_for(
        &self,
        agents: &[AgentId],
        id: &str,
        kind: ActionType,
        change: impl FnOnce(&mut Action),
    ) {
        let mut action = testing::action(id, kind, self.now());
        change(&mut action);
        let change = Write::Changed(Change::Action(action.id.clone()));
        let insert = Write::Action(ActionWrite::Insert { action: Box::new(action), targets: agents.to_vec() });
        self.commit(vec![insert, change]).await;
    }
}
