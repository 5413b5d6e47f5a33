//! What was answered is there: as the server says, and as its store says.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use http::Method;
use muster_core::audit::{AuditEvent, ChainCheck};
use muster_core::id::{ActionId, AgentId};
use muster_core::raw_json;
use muster_drones::session::{Answer, Ask, Session};
use muster_drones::wire::{self, Host, Report};
use muster_store::{ActionStore as _, AgentStore as _, AuditStore as _};
use muster_store::{Options, SqlStore};

use crate::load::{Agent, Answered, Fleet, marker};
use crate::server::Server;

/// Targets read at once.
const PAGE: u32 = 1000;

/// Asks the server about everything that a round's server had answered.
pub async fn served(server: &Server, fleet: &Fleet, answered: &Answered) {
    let (mut session, client) = (Session::new(server.shared().await, 1), server.client());
    for agent in &answered.enrollments {
        lives(&mut session, agent).await;
        assert!(client.agent(&agent.id).await.unwrap().active, "{}", agent.id);
    }
    for action in &answered.actions {
        assert_eq!(client.action(action).await.unwrap().nb_agents_actioned, 1, "{action}");
    }
    let mut by_action: HashMap<&str, HashSet<&str>> = HashMap::new();
    for (action, agent) in &answered.acks {
        by_action.entry(action).or_default().insert(agent);
    }
    for (action, agents) in by_action {
        let results = client.action_results(action, -1, PAGE).await.unwrap();
        assert_eq!(results.len(), fleet.agents.len(), "all targets of {action}");
        for result in results.iter().filter(|result| agents.contains(result.agent_id.as_str())) {
            assert_eq!(result.state, "acked", "{action} by {}", result.agent_id);
            let fields = result.fields.as_ref().unwrap();
            let said = raw_json::text(fields.get(), &["action_response", "osquery", "stdout"]);
            assert_eq!(said.as_deref(), Some(marker(action, &result.agent_id).as_str()));
        }
    }
}

/// A first check-in is authenticated and answered at once, with the policy.
pub async fn lives(session: &mut Session, agent: &Agent) {
    let answer = check_in(session, agent).await;
    assert_eq!(answer.status, 200, "{}: {}", agent.id, String::from_utf8_lossy(&answer.body));
}

/// Sends the first check-in of a host.
pub async fn check_in(session: &mut Session, agent: &Agent) -> Answer {
    let host = Host { number: 1, agent_id: &agent.id, version: "9.5.2" };
    let path = format!("/api/fleet/agents/{}/checkin?", agent.id);
    let body = wire::check_in(&host, &Report::default()).into();
    let authorization = &agent.authorization;
    let ask = Ask {
        method: Method::POST,
        path: &path,
        authorization: Some(authorization),
        body,
        packed: false,
        chunk_sha2: None,
    };
    session.ask(&ask).await.unwrap()
}

/// Reads the store of a server that has stopped: every round's answers, and an audit chain that is whole and tells of
/// all of them.
pub async fn stored(directory: &Path, answered: &Answered) {
    let store = SqlStore::open(&directory.join("muster.db"), &Options::default()).unwrap();
    let mut told = HashSet::new();
    for chain in store.audit_chains().await.unwrap() {
        let mut check = ChainCheck::new(&chain);
        for link in store.audit_links(&chain, 0, u32::MAX).await.unwrap() {
            check.next(link.position, &link.event, &link.hash).unwrap();
            let event: AuditEvent = serde_json::from_str(&link.event).unwrap();
            told.insert(format!("{} {}", event.action, event.subject));
        }
    }
    for agent in &answered.enrollments {
        let record = store.agent(&AgentId::trusted(agent.id.as_str())).await.unwrap().expect("an enrolled agent");
        assert!(record.active && !record.credentials.is_empty());
        assert!(told.contains(&format!("agent.enroll agent:{}", agent.id)), "no audit line of {}", agent.id);
    }
    for action in &answered.actions {
        assert!(store.action(&ActionId::trusted(action.as_str())).await.unwrap().is_some(), "{action}");
        assert!(told.contains(&format!("action.create action:{action}")), "no audit line of {action}");
    }
}
