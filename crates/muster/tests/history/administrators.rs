//! Administrators that enroll, create actions and revoke on any of the servers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use muster_client::Client;
use muster_client::types::action::NewAction;
use muster_client::types::agent_action::Unenroll;
use muster_client::types::bulk::{AgentSelector, BulkActions};
use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};

use crate::agents::Fleet;
use crate::record::History;
use crate::world::{SERVERS, World};

const PATIENCE: Duration = Duration::from_secs(4);
/// Between two changes of one administrator.
const PAUSE: Duration = Duration::from_millis(40);
/// One of so many changes is a revocation, and one is an enrollment.
const SELDOM: u32 = 60;
const NOW_AND_THEN: u32 = 20;
/// Requests at the same time when everything is read at the end.
const READERS: usize = 8;

/// The administrators at work.
pub struct Work {
    ending: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Work {
    pub async fn stop(self) {
        self.ending.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

/// One administrator for each server.
pub fn start(world: &Arc<World>, history: &Arc<History>, fleet: &Arc<Fleet>) -> Work {
    let ending = Arc::<AtomicBool>::default();
    let administrator = |server| {
        let (client, history, fleet) = (world.client(server), Arc::clone(history), Arc::clone(fleet));
        let ending = Arc::clone(&ending);
        tokio::spawn(async move {
            let mut number = server as u32;
            while !ending.load(Ordering::SeqCst) {
                number += 1;
                if number.is_multiple_of(SELDOM) {
                    revoke(&client, &history, &fleet.any()).await;
                    fleet.enroll_one().await;
                } else if number.is_multiple_of(NOW_AND_THEN) {
                    fleet.enroll_one().await;
                } else {
                    create_action(&client, &history, fleet.any()).await;
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
    };
    Work { tasks: (0..SERVERS).map(administrator).collect(), ending }
}

async fn create_action(client: &Client, history: &History, agent: String) {
    let action = NewAction {
        kind: "INPUT_ACTION".into(),
        input_type: Some("osquery".into()),
        data: Some(json!({"id": "q", "query": "select 1"})),
        ..NewAction::default()
    };
    let (agents, include_inactive, batch_size, dry_run) = (AgentSelector::Ids(vec![agent.clone()]), None, None, None);
    let request = BulkActions { agents, include_inactive, batch_size, dry_run, action };
    // An agent that is revoked meanwhile is no target; a server that is gone does not answer.
    if let Ok(Ok(created)) = tokio::time::timeout(PATIENCE, client.bulk(&request)).await {
        history.created(&created.action_id, &agent);
    }
}

async fn revoke(client: &Client, history: &History, agent: &str) {
    history.is_revoking(agent);
    let request = Unenroll { revoke: Some(true), ..Unenroll::default() };
    if let Ok(Ok(_)) = tokio::time::timeout(PATIENCE, client.unenroll(agent, &request)).await {
        history.revoked(agent);
    }
}

/// Whether every server has what the histories say.
pub async fn verify(world: &Arc<World>, history: &History) {
    for server in 0..SERVERS {
        let agents = Arc::new(Mutex::new(history.agents().into_iter()));
        let actions = Arc::new(Mutex::new(history.actions().into_iter()));
        let mut readers = JoinSet::new();
        for _ in 0..READERS {
            let (client, agents, actions) = (world.client(server), Arc::clone(&agents), Arc::clone(&actions));
            readers.spawn(async move {
                while let Some((agent, is_revoked)) = next(&agents) {
                    verify_agent(&client, &agent, is_revoked).await;
                }
                while let Some(((action, agent), is_acknowledged)) = next(&actions) {
                    verify_action(&client, &action, &agent, is_acknowledged).await;
                }
            });
        }
        readers.join_all().await;
    }
    let verdict = world.client(0).verify_audit().await.unwrap();
    assert!(verdict.intact, "{verdict:?}");
    assert_eq!(world.client(0).nodes().await.unwrap().items.len(), SERVERS);
}

fn next<T>(from: &Mutex<impl Iterator<Item = T>>) -> Option<T> {
    from.lock().unwrap().next()
}

async fn verify_agent(client: &Client, agent: &str, is_revoked: Option<bool>) {
    let found = client.agent(agent).await.unwrap();
    if let Some(is_revoked) = is_revoked {
        assert_eq!(found.active, !is_revoked, "{agent}");
    }
    let is_away = matches!(found.status.as_str(), "offline" | "inactive");
    assert!(!is_away, "{agent} is {}, although it never stopped", found.status);
}

async fn verify_action(client: &Client, action: &str, agent: &str, is_acknowledged: bool) {
    let results = client.action_results(action, -1, 10).await.unwrap();
    let result = results.iter().find(|result| result.agent_id == agent);
    let state = result.map(|result| result.state.as_str());
    assert!(state.is_some(), "{action} for {agent}");
    assert!(!is_acknowledged || state == Some("acked"), "{action} for {agent} is {state:?}");
}
