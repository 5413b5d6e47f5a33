//! A fleet over a store of its own, for the tests of operations.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use muster_core::credential::ApiKey;
use muster_core::enrollment_key::EnrollmentKey;
use muster_core::id::{EnrollmentKeyId, PolicyId};
use muster_core::policy::{Policy, PolicyRevision};
use muster_core::seal::Sealer;
use muster_core::signing::Signer;
use muster_core::time::{Clock, Timestamp};
use muster_protocol::elastic::enroll::{EnrollRequest, EnrolledItem};
use muster_store::sqlite::SqliteStore;
use muster_store::{Store, Write};
use serde_json::{Value, json};

use super::enroll::EnrollInput;
use super::registry::AgentEntry;
use super::{Fleet, FleetParts, FleetSettings};
use crate::system::SystemEntropy;

/// A clock that stands until it is moved.
pub(super) struct TestClock(AtomicI64);

impl TestClock {
    pub(super) fn forward(&self, by: Duration) {
        self.0.fetch_add(by.as_micros() as i64, Ordering::Relaxed);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// A fleet and what tests hold of it.
pub(super) struct TestFleet {
    pub(super) fleet: Arc<Fleet>,
    pub(super) clock: Arc<TestClock>,
}

impl TestFleet {
    /// A fleet with policy `p` of three revisions.
    pub(super) async fn new() -> Self {
        let clock = Arc::new(TestClock(AtomicI64::new(1_767_322_800_000_000)));
        let entropy = Arc::new(SystemEntropy::default());
        let fleet = Fleet::new(FleetParts {
            store: Arc::new(SqliteStore::temporary().unwrap()),
            clock: clock.clone(),
            sealer: Arc::new(Sealer::new(&*Sealer::generate_key(&*entropy)).unwrap()),
            signer: Arc::new(Signer::generate().unwrap().0),
            entropy,
            settings: FleetSettings::default(),
        });
        let test = Self { fleet, clock };
        test.add_policy("p", false).await;
        test
    }

    /// Another node over the same store.
    pub(super) fn beside(&self) -> Self {
        let fleet = Fleet::new(FleetParts {
            store: self.fleet.store.share(),
            clock: self.clock.clone(),
            sealer: Arc::clone(&self.fleet.sealer),
            signer: Arc::clone(&self.fleet.signer),
            entropy: Arc::clone(&self.fleet.entropy),
            settings: FleetSettings::default(),
        });
        Self { fleet, clock: Arc::clone(&self.clock) }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) async fn commit(&self, writes: Vec<Write>) {
        self.fleet.store.commit(writes).await.unwrap();
    }

    pub(super) async fn add_policy(&self, id: &str, is_default: bool) {
        let (id, now) = (PolicyId::trusted(id), self.now());
        let policy = Policy {
            id: id.clone(),
            name: id.as_str().to_owned(),
            namespace: "default".into(),
            description: String::new(),
            revision: 3,
            is_managed: false,
            is_default,
            inactivity_timeout: 3600,
            unenroll_timeout: None,
            config: json!({}),
            secrets: Vec::new(),
            fields: json!({}),
            updated_by: "system".into(),
            created_at: now,
            updated_at: now,
        };
        let revision = |revision| PolicyRevision {
            policy_id: id.clone(),
            revision,
            created_at: now,
            created_by: "system".into(),
            source: json!({}),
            compiled: json!({"id": id.as_str(), "revision": revision}),
        };
        let revisions = (1..=3).map(|number| Write::PolicyRevisionInsert(Box::new(revision(number))));
        self.commit([Write::PolicyInsert(Box::new(policy))].into_iter().chain(revisions).collect()).await;
    }

    /// A key for `policy`, changed by `change`.
    pub(super) async fn add_key(&self, policy: Option<&str>, change: impl FnOnce(&mut EnrollmentKey)) -> ApiKey {
        let api_key = ApiKey::generate(&*self.fleet.entropy);
        let mut key = EnrollmentKey {
            id: EnrollmentKeyId::trusted(format!("ek-{}", api_key.id)),
            name: api_key.id.as_str().to_owned(),
            key_id: api_key.id.clone(),
            hash: api_key.hash(),
            sealed_token: None,
            policy_id: policy.map(PolicyId::trusted),
            tags: Vec::new(),
            namespaces: vec!["default".into()],
            created_at: self.now(),
            expires_at: None,
            revoked_at: None,
            max_uses: None,
            uses: 0,
            last_used_at: None,
            hidden: false,
            created_by: "system".into(),
        };
        change(&mut key);
        self.commit(vec![Write::EnrollmentKeyInsert(Box::new(key))]).await;
        api_key
    }

    /// Enrols as the adapter does.
    pub(super) async fn enroll(&self, key: &ApiKey, body: &Value) -> Result<EnrolledItem, muster_core::Error> {
        let admission = self.fleet.authenticate_enrollment(key).await?;
        let text = body.to_string();
        let request: EnrollRequest<'_> = serde_json::from_str(&text).unwrap();
        let input =
            EnrollInput { request: &request, agent_version: "9.5.2", newer_than_tested: false, address: "192.0.2.9" };
        self.fleet.enroll(&admission, input).await
    }

    /// The entry of an enrolled agent, by its new key.
    pub(super) async fn entry(&self, item: &EnrolledItem) -> Result<Arc<AgentEntry>, muster_core::Error> {
        let key = ApiKey::parse(&item.access_api_key).unwrap();
        self.fleet.authenticate_agent(&item.id, &key).await
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.fleet.store
    }
}
