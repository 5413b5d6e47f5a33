//! Fixture: servers over one database, with one clock, and agents that check in to any of them.

use std::sync::Arc;
use std::time::Duration;

use muster_core::agent::{AgentDocuments, AgentRecord};
use muster_core::authorization::{Actor, AgentsForceUnenroll, OpContext};
use muster_core::credential::ApiKey;
use muster_core::id::AgentId;
use muster_core::testing::bare_agent;
use muster_fleet::check_in::{Delivery, HeldPoll, Poll};
use muster_fleet::force::Force;
use muster_fleet::registry::AgentEntry;
use muster_fleet::selection::Selected;
use muster_fleet::testing::{TestFleet, steady};
use muster_store::testing::Cluster;
use muster_store::{Store, StoreError};

pub const ONLINE: &str = r#"{"status":"online","message":"Running"}"#;

/// Time for what happens by itself.
const PATIENCE: Duration = Duration::from_secs(20);

pub fn root() -> OpContext {
    OpContext::administrator(Actor::Local { uid: 0 })
}

/// The database of some servers.
pub struct Database {
    schema: String,
}

impl Database {
    pub async fn new() -> Self {
        Self { schema: blocking(|| Cluster::shared().schema()).await }
    }

    /// A connection of a further server.
    pub async fn open(&self) -> Arc<dyn Store> {
        let schema = self.schema.clone();
        Arc::new(blocking(move || Cluster::shared().open(&schema)).await)
    }

    /// Two servers with the policy `p` that follow changes.
    pub async fn two(&self) -> (TestFleet, TestFleet) {
        let (a, b) = self.two_that_stand_still().await;
        (a.following_changes(), b.following_changes())
    }

    /// Two servers with the policy `p` that learn nothing of each other's changes.
    pub async fn two_that_stand_still(&self) -> (TestFleet, TestFleet) {
        let a = TestFleet::over(self.open().await, steady());
        let b = a.beside_over(self.open().await, steady());
        a.revised_policy("p", |_| {}).await;
        (a, b)
    }

    pub async fn sql(&self, text: &str) -> String {
        let text = format!("SET search_path TO {}; {text}", self.schema);
        blocking(move || Cluster::shared().psql(&text)).await.expect("valid SQL")
    }

    /// Declares a server's lease ended, as another one does after a long sleep of that server.
    pub async fn expire(&self, server: &TestFleet) {
        let epoch = server.store().this_node().borrow().epoch.as_str().to_owned();
        self.sql(&format!("DELETE FROM nodes WHERE epoch = '{epoch}'")).await;
    }
}

pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

/// Waits for what happens by itself.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("in vain: {what}"));
}

/// An enrolled agent without a policy.
pub struct Agent {
    pub id: AgentId,
    pub key: ApiKey,
}

impl Agent {
    pub async fn new(server: &TestFleet, id: &str) -> Self {
        let now = server.now();
        let status_deadline = Some(now.plus(Duration::from_secs(300)));
        let record = AgentRecord { status_deadline, ..bare_agent(id, now) };
        Self { id: AgentId::trusted(id), key: server.add_agent(record, AgentDocuments::default()).await }
    }

    pub async fn entry(&self, server: &TestFleet) -> Arc<AgentEntry> {
        server.fleet.authentication().agent(self.id.as_str(), &self.key).await.expect("the key is the agent's")
    }

    /// Checks in with this body, which leaves nothing due.
    pub async fn poll(&self, server: &TestFleet, body: &str) -> HeldPoll {
        match server.check_in(&self.entry(server).await, body).await.expect("accepted") {
            Poll::Held(held) => held,
            Poll::Due(_) => panic!("nothing was due"),
        }
    }

    /// Whether the server has the record that the store has.
    pub async fn is_current_on(&self, server: &TestFleet) -> bool {
        let cached = server.fleet.registry().get(&self.id).and_then(|entry| entry.record());
        cached.map(|record| record.version) == Some(server.stored(self.id.as_str()).await.version)
    }

    /// Unenrolls the agent with force, on this server.
    pub async fn revoke(&self, server: &TestFleet) {
        let selected = Selected::Ids(vec![self.id.clone()]);
        let selection = server.fleet.agents().select::<AgentsForceUnenroll>(&root(), &selected).await.expect("there");
        server.fleet.actions().force_unenroll(&selection, Force::No).await.expect("revoked");
    }
}

/// The outcome of a held poll that is expected to end by itself.
pub async fn ended(
    held: tokio::task::JoinHandle<Result<Delivery, muster_core::Error>>,
) -> Result<Delivery, muster_core::Error> {
    tokio::time::timeout(Duration::from_secs(5), held).await.expect("it ends").expect("no panic")
}

pub fn unavailable() -> StoreError {
    StoreError::unavailable("the database does not answer")
}
