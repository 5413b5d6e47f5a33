//! A fleet over a temporary store, with a clock and a generator of the test's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use muster_core::Entropy;
use muster_core::agent::{AccessKey, AgentDocuments, AgentRecord};
use muster_core::change::Change;
use muster_core::credential::ApiKey;
use muster_core::id::{ActionId, AgentId, PolicyId};
use muster_core::policy::{Policy, PolicyRevision};
use muster_core::seal::Sealer;
use muster_core::signing::Signer;
use muster_core::status::Status;
use muster_core::time::{Clock, Timestamp};
use muster_protocol::elastic::check_in::CheckInRequest;
use muster_server::fleet::check_in::{CheckInInput, CheckInOutcome, Delivery};
use muster_server::fleet::registry::AgentEntry;
use muster_server::fleet::{Fleet, FleetParts, FleetSettings};
use muster_store::{SqliteStore, Store, Write};
use serde_json::json;

pub const START: i64 = 1_800_000_000_000_000;

pub struct TestClock(AtomicI64);

impl TestClock {
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_micros() as i64, Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

/// Counts up: every draw differs, every run is the same.
pub struct TestEntropy(AtomicU64);

impl Entropy for TestEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            let next = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst).to_le_bytes();
            chunk.copy_from_slice(&next[..chunk.len()]);
        }
    }
}

pub struct Setting {
    pub fleet: Arc<Fleet>,
    pub clock: Arc<TestClock>,
    pub entropy: Arc<TestEntropy>,
}

impl Setting {
    pub fn new() -> Self {
        Self::with(FleetSettings { poll_jitter: Duration::ZERO, ..FleetSettings::default() })
    }

    pub fn with(settings: FleetSettings) -> Self {
        let store: Arc<dyn Store> = Arc::new(SqliteStore::temporary().expect("a temporary store"));
        let clock = Arc::new(TestClock(AtomicI64::new(START)));
        let entropy = Arc::new(TestEntropy(AtomicU64::new(1)));
        let fleet = Fleet::new(FleetParts {
            store,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            entropy: Arc::clone(&entropy) as Arc<dyn Entropy>,
            sealer: Arc::new(Sealer::new(&[7; 32]).expect("a key of 32 bytes")),
            signer: Arc::new(Signer::generate().expect("a key pair").0),
            settings,
        });
        tokio::spawn(Arc::clone(&fleet).follow_changes());
        Self { fleet, clock, entropy }
    }

    /// A policy at revision 1.
    pub async fn policy(&self, id: &str) -> PolicyId {
        let id = PolicyId::trusted(id);
        let now = self.clock.now();
        let policy = Policy {
            id: id.clone(),
            name: id.as_str().to_owned(),
            namespace: "default".into(),
            description: String::new(),
            revision: 1,
            is_managed: false,
            is_default: false,
            inactivity_timeout: 0,
            unenroll_timeout: None,
            config: json!({}),
            secrets: Vec::new(),
            fields: json!({}),
            updated_by: "test".into(),
            created_at: now,
            updated_at: now,
        };
        self.commit(vec![Write::PolicyInsert(Box::new(policy))]).await;
        self.revision(&id, 1).await;
        id
    }

    /// One more revision of a policy.
    pub async fn revision(&self, id: &PolicyId, revision: i64) {
        let revision = PolicyRevision {
            policy_id: id.clone(),
            revision,
            created_at: self.clock.now(),
            created_by: "test".into(),
            source: json!({}),
            compiled: json!({"id": id.as_str(), "revision": revision, "outputs": {}, "inputs": []}),
        };
        let writes = vec![Write::PolicyRevisionInsert(Box::new(revision)), Write::Changed(Change::Policy(id.clone()))];
        self.commit(writes).await;
    }

    /// An enrolled agent that has never checked in.
    pub async fn agent(&self, id: &str, policy: Option<&PolicyId>) -> ApiKey {
        let key = ApiKey::generate(&*self.entropy);
        let record = AgentRecord {
            access_key: Some(AccessKey { id: key.id.clone(), hash: key.hash() }),
            policy_id: policy.cloned(),
            ..blank(id, self.clock.now())
        };
        let documents = AgentDocuments::default();
        self.commit(vec![Write::AgentInsert { record: Box::new(record), documents }]).await;
        key
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub async fn commit(&self, writes: Vec<Write>) {
        self.fleet.store.commit(writes).await.expect("the writes fit");
    }

    /// Makes a record inactive; again when the fleet's own tasks changed it meanwhile (a policy's timeout reaches its
    /// agents in the background).
    pub async fn deactivate(&self, id: &str) {
        for _ in 0..100 {
            let before = self.stored(id).await;
            let after = AgentRecord { active: false, version: before.version + 1, ..before.clone() };
            let update = Write::AgentUpdate { before: before.into(), after: after.into() };
            if self.fleet.store.commit(vec![update]).await.is_ok() {
                return;
            }
        }
        panic!("the record of {id} keeps changing");
    }

    /// An action for one agent, announced in the change log.
    pub async fn order(&self, id: &str, kind: muster_core::action::ActionType, agent: &str) {
        let id = ActionId::trusted(id);
        let action = muster_core::action::Action {
            seq: 0,
            id: id.clone(),
            kind,
            created_at: self.clock.now(),
            expiration: None,
            start_time: None,
            rollout_seconds: None,
            timeout: None,
            input_type: String::new(),
            data: Some(r#"{"log_level":"debug"}"#.into()),
            signed: None,
            total: 1,
            created_by: "test".into(),
            cancelled_at: None,
        };
        let insert = Write::ActionInsert { action: Box::new(action), targets: vec![AgentId::trusted(agent)] };
        self.commit(vec![insert, Write::Changed(Change::Action(id))]).await;
    }

    pub async fn entry(&self, id: &str, key: &ApiKey) -> Arc<AgentEntry> {
        self.fleet.authenticate_agent(id, key).await.expect("the key is the agent's")
    }

    /// A check-in with this body.
    pub async fn check_in(&self, entry: &Arc<AgentEntry>, body: &str) -> CheckInOutcome {
        let request: CheckInRequest<'_> = serde_json::from_str(body).expect("a request");
        let mut digest = [0; 16];
        digest.copy_from_slice(&muster_core::credential::SecretHash::of(body.as_bytes()).0[..16]);
        let (agent_version, address) = ("9.5.2", "127.0.0.1");
        let input = CheckInInput { request: &request, agent_version, newer_than_tested: false, address, digest };
        self.fleet.check_in(entry, input).await.expect("accepted")
    }

    pub async fn stored(&self, id: &str) -> AgentRecord {
        self.fleet.store.agent(&AgentId::trusted(id)).await.expect("readable").expect("there")
    }
}

pub fn blank(id: &str, now: Timestamp) -> AgentRecord {
    AgentRecord {
        id: AgentId::trusted(id),
        version: 1,
        kind: muster_core::agent::AgentType::Permanent,
        active: true,
        access_key: None,
        enrollment_key_id: None,
        enrollment_id: None,
        replace_token: None,
        enrolled_at: now,
        updated_at: now,
        policy_id: None,
        running_policy_id: None,
        policy_revision: 0,
        action_position: -1,
        action_token: None,
        tags: Vec::new(),
        namespaces: vec!["default".into()],
        agent_version: "9.5.2".into(),
        newer_than_tested: false,
        hostname: String::new(),
        last_checkin: None,
        health: muster_core::agent::ReportedHealth::default(),
        status: Status::Enrolling,
        status_since: now,
        status_deadline: Some(now.plus(Duration::from_secs(300))),
        audit: None,
        unenrollment_started_at: None,
        unenrolled_at: None,
        unenrolled_reason: None,
        upgrade: muster_core::agent::UpgradeState::default(),
        user_metadata: None,
        first_address: String::new(),
        last_address: String::new(),
        inactivity_timeout: None,
    }
}

/// The policy revision that is delivered now.
pub fn policy_revision(outcome: CheckInOutcome) -> i64 {
    match outcome {
        CheckInOutcome::Deliver(Delivery::Policy(policy)) => policy.revision,
        other => panic!("a policy was due, not {}", name(&other)),
    }
}

/// The held poll.
pub fn parked(outcome: CheckInOutcome) -> muster_server::fleet::check_in::ParkedCheckIn {
    match outcome {
        CheckInOutcome::Park(parked) => parked,
        other @ CheckInOutcome::Deliver(_) => panic!("nothing was due, but got {}", name(&other)),
    }
}

/// Ids of the actions that are delivered, and the token.
pub fn action_ids(delivery: Delivery) -> (Vec<String>, String) {
    match delivery {
        Delivery::Actions { ack_token, actions } => {
            (actions.into_iter().map(|action| action.id).collect(), ack_token.as_str().to_owned())
        }
        Delivery::Nothing => panic!("nothing delivered"),
        Delivery::Policy(_) => panic!("a policy delivered"),
    }
}

fn name(outcome: &CheckInOutcome) -> &'static str {
    match outcome {
        CheckInOutcome::Park(_) => "a held poll",
        CheckInOutcome::Deliver(Delivery::Nothing) => "nothing",
        CheckInOutcome::Deliver(Delivery::Actions { .. }) => "actions",
        CheckInOutcome::Deliver(Delivery::Policy(_)) => "a policy",
    }
}
