//! Fixture: a fleet with a running change feed, and check-ins without an adapter.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use muster_core::action::ActionType;
use muster_core::agent::{AgentDocuments, AgentRecord};
use muster_core::credential::ApiKey;
use muster_core::id::PolicyId;
use muster_core::status::Status;
use muster_core::testing::bare_agent;
use muster_fleet::FleetSettings;
use muster_fleet::check_in::{Delivery, Poll};
use muster_fleet::registry::AgentEntry;
use muster_fleet::testing::{TestFleet, steady};
use muster_store::{AgentWrite, Write};

pub struct Setting(TestFleet);

impl Deref for Setting {
    type Target = TestFleet;

    fn deref(&self) -> &TestFleet {
        &self.0
    }
}

impl Setting {
    pub fn new() -> Self {
        Self::with(steady())
    }

    pub fn with(settings: FleetSettings) -> Self {
        Self(TestFleet::with(settings).following_changes())
    }

    /// An enrolled agent that has never checked in.
    pub async fn agent(&self, id: &str, policy: Option<&PolicyId>) -> ApiKey {
        let now = self.now();
        let status_deadline = Some(now.plus(Duration::from_secs(300)));
        let record = AgentRecord { policy_id: policy.cloned(), status_deadline, ..bare_agent(id, now) };
        self.add_agent(record, AgentDocuments::default()).await
    }

    /// Makes a record inactive. Retries if a background task changes it at the same time, such as the one that copies a
    /// policy's timeout to its agents.
    pub async fn deactivate(&self, id: &str) {
        for _ in 0..100 {
            let before = self.stored(id).await;
            let (status, version) = (Status::Unenrolled, before.version + 1);
            let after = AgentRecord { active: false, status, version, ..before.clone() };
            let update = Write::Agent(AgentWrite::Update { before: before.into(), after: after.into() });
            if self.fleet.store().commit(vec![update]).await.is_ok() {
                return;
            }
        }
        panic!("the record of {id} keeps changing");
    }

    /// Adds a settings action for one agent.
    pub async fn add_action(&self, id: &str, kind: ActionType, agent: &str) {
        let data = |action: &mut muster_core::action::Action| action.data = Some(r#"{"log_level":"debug"}"#.into());
        self.0.add_action(id, kind, agent, data).await;
    }

    pub async fn entry(&self, id: &str, key: &ApiKey) -> Arc<AgentEntry> {
        self.fleet.authentication().agent(id, key).await.expect("the key is the agent's")
    }

    /// Handles a check-in with this body.
    pub async fn check_in(&self, entry: &Arc<AgentEntry>, body: &str) -> Poll {
        self.check_in_of(entry, body, "9.5.2").await
    }

    /// Handles a check-in of an agent of that version.
    pub async fn check_in_of(&self, entry: &Arc<AgentEntry>, body: &str, agent_version: &str) -> Poll {
        self.0.check_in_of(entry, body, agent_version).await.expect("accepted")
    }
}

/// The delivered policy revision.
pub fn policy_revision(outcome: Poll) -> i64 {
    match outcome {
        Poll::Due(Delivery::Policy(policy)) => policy.revision,
        other => panic!("a policy was due, not {}", name(&other)),
    }
}

/// The held poll.
pub fn parked(outcome: Poll) -> muster_fleet::check_in::HeldPoll {
    match outcome {
        Poll::Held(parked) => parked,
        other @ Poll::Due(_) => panic!("nothing was due, but got {}", name(&other)),
    }
}

/// Ids of the delivered actions, and the token.
pub fn action_ids(delivery: Delivery) -> (Vec<String>, String) {
    match delivery {
        Delivery::Actions { ack_token, actions } => (
            actions.into_iter().map(|delivered| delivered.action.id.to_string()).collect(),
            ack_token.as_str().to_owned(),
        ),
        Delivery::Nothing | Delivery::Superseded => panic!("nothing delivered"),
        Delivery::Policy(_) => panic!("a policy delivered"),
    }
}

fn name(outcome: &Poll) -> &'static str {
    match outcome {
        Poll::Held(_) => "a held poll",
        Poll::Due(Delivery::Nothing | Delivery::Superseded) => "nothing",
        Poll::Due(Delivery::Actions { .. }) => "actions",
        Poll::Due(Delivery::Policy(_)) => "a policy",
    }
}
