//! Enrollments, acks and actions, many at a time, until the server is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use http::{HeaderValue, Method};
use muster_client::Client;
use muster_client::types::action::NewAction;
use muster_client::types::bulk::{AgentSelector, BulkActions};
use muster_client::types::enrollment_key::CreateEnrollmentKey;
use muster_drones::session::{Answer, Ask, Session, Shared};
use muster_drones::wire::Host;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::server::Server;

/// Connections that enroll, and connections that ack: both are in the middle of their work at the same time.
const ENROLLERS: u32 = 2;
const ACKERS: u32 = 14;

/// An agent that was let in: its id and what it authenticates with.
#[derive(Clone)]
pub struct Agent {
    pub id: String,
    pub authorization: HeaderValue,
}

/// What the server said yes to.
#[derive(Default)]
pub struct Answered {
    pub enrollments: Vec<Agent>,
    /// Action and agent; the ack's marker is made of them.
    pub acks: Vec<(String, String)>,
    pub actions: Vec<String>,
}

impl Answered {
    pub fn take(&mut self, other: Self) {
        self.enrollments.extend(other.enrollments);
        self.acks.extend(other.acks);
        self.actions.extend(other.actions);
    }
}

/// What an ack carries, so that it can be told from any other.
pub fn marker(action: &str, agent: &str) -> String {
    format!("{action} by {agent}")
}

fn authorization(token: &str) -> HeaderValue {
    HeaderValue::try_from(format!("ApiKey {token}")).unwrap()
}

/// Asks; `None` when the server is gone. Anything but 200 is a failure of the test.
async fn post(session: &mut Session, path: &str, authorization: &HeaderValue, body: String) -> Option<Value> {
    let ask = Ask {
        method: Method::POST,
        path,
        authorization: Some(authorization),
        body: body.into(),
        packed: false,
        chunk_sha2: None,
    };
    let Answer { status, body, .. } = session.ask(&ask).await.ok()?;
    assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
    Some(serde_json::from_slice(&body).unwrap())
}

/// The agents that ack, and the way in for more.
pub struct Fleet {
    pub agents: Vec<Agent>,
    pub token: HeaderValue,
}

impl Fleet {
    pub async fn enroll(server: &Server, agents: usize) -> Self {
        let client = server.client();
        let policies = client.agent_policies(&Default::default()).await.unwrap();
        let policy_id = Some(policies.items[0].id.clone());
        let key = CreateEnrollmentKey { policy_id, ..CreateEnrollmentKey::default() };
        let key = client.create_enrollment_key(&key).await.unwrap();
        let token = authorization(key.api_key.as_deref().unwrap());
        let (mut session, mut fleet) = (Session::new(server.shared().await, 0), Self { agents: Vec::new(), token });
        for number in 0..agents {
            let agent = fleet.let_in(&mut session, number).await.expect("nothing is killed yet");
            fleet.agents.push(agent);
        }
        fleet
    }

    pub async fn let_in(&self, session: &mut Session, number: usize) -> Option<Agent> {
        let host = Host { number: u32::try_from(number).unwrap(), agent_id: "", version: "9.5.2" };
        let item = post(session, "/api/fleet/agents/enroll?", &self.token, host.enroll(&[]).unwrap()).await?;
        let text = |field: &str| item["item"][field].as_str().unwrap().to_owned();
        Some(Agent { id: text("id"), authorization: authorization(&text("access_api_key")) })
    }
}

async fn create_action(client: &Client, agents: Vec<String>) -> Option<String> {
    let action = NewAction {
        kind: "INPUT_ACTION".into(),
        input_type: Some("osquery".into()),
        data: Some(json!({"id": "q", "query": "select 1"})),
        ..NewAction::default()
    };
    let (agents, include_inactive, batch_size, dry_run) = (AgentSelector::Ids(agents), None, None, None);
    let request = BulkActions { agents, include_inactive, batch_size, dry_run, action };
    match client.bulk(&request).await {
        Ok(created) => Some(created.action_id),
        // The server answered and refused: that is no kill.
        Err(error) if error.body().is_some() => panic!("{error}"),
        Err(_) => None,
    }
}

/// One round's work.
pub struct Load {
    fleet: Arc<Fleet>,
    shared: Arc<Shared>,
    enrollments: usize,
    /// Action and place of the agent, in an action of chance.
    acks: Arc<Vec<(String, usize)>>,
    answers: Arc<AtomicUsize>,
}

impl Load {
    pub async fn prepare(server: &Server, fleet: &Arc<Fleet>, enrollments: usize, acks: usize) -> Self {
        let (client, mut pairs) = (server.client(), Vec::new());
        for _ in 0..acks.div_ceil(fleet.agents.len()) {
            let everyone = fleet.agents.iter().map(|agent| agent.id.clone()).collect();
            let action = create_action(&client, everyone).await.expect("nothing is killed yet");
            pairs.extend((0..fleet.agents.len()).map(|place| (action.clone(), place)));
        }
        pairs.sort_by_cached_key(|_| rand::random::<u64>());
        pairs.truncate(acks);
        let (fleet, shared) = (Arc::clone(fleet), server.shared().await);
        Self { fleet, shared, enrollments, acks: Arc::new(pairs), answers: Arc::default() }
    }

    /// Enrollments and acks answered so far.
    pub fn answers(&self) -> usize {
        self.answers.load(SeqCst)
    }

    pub fn begin(&self, server: &Server) -> Running {
        let mut workers = JoinSet::new();
        let (next_enrollment, next_ack) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        for worker in 0..ENROLLERS + ACKERS {
            let session = Session::new(Arc::clone(&self.shared), worker);
            let (fleet, answers) = (Arc::clone(&self.fleet), Arc::clone(&self.answers));
            if worker < ENROLLERS {
                workers.spawn(enroll(fleet, session, self.enrollments, Arc::clone(&next_enrollment), answers));
            } else {
                workers.spawn(ack(fleet, session, Arc::clone(&self.acks), Arc::clone(&next_ack), answers));
            }
        }
        let actions = tokio::spawn(create_actions(server.client(), Arc::clone(&self.fleet)));
        Running { workers, actions, all: self.enrollments + self.acks.len(), answers: Arc::clone(&self.answers) }
    }
}

async fn enroll(
    fleet: Arc<Fleet>,
    mut session: Session,
    end: usize,
    next: Arc<AtomicUsize>,
    answers: Arc<AtomicUsize>,
) -> Answered {
    let mut answered = Answered::default();
    loop {
        let number = next.fetch_add(1, SeqCst);
        if number >= end {
            return answered;
        }
        let Some(agent) = fleet.let_in(&mut session, number).await else { return answered };
        answered.enrollments.push(agent);
        answers.fetch_add(1, SeqCst);
    }
}

async fn ack(
    fleet: Arc<Fleet>,
    mut session: Session,
    acks: Arc<Vec<(String, usize)>>,
    next: Arc<AtomicUsize>,
    answers: Arc<AtomicUsize>,
) -> Answered {
    let mut answered = Answered::default();
    while let Some((action, place)) = acks.get(next.fetch_add(1, SeqCst)) {
        let agent = &fleet.agents[*place];
        let response = json!({"osquery": {"stdout": marker(action, &agent.id)}});
        let event = json!({
            "type": "ACTION_RESULT", "subtype": "ACKNOWLEDGED", "action_id": action, "agent_id": agent.id,
            "timestamp": "2026-11-25T18:42:12.859091937Z", "message": "acknowledged", "action_input_type": "osquery",
            "action_response": response
        });
        let path = format!("/api/fleet/agents/{}/acks?", agent.id);
        let body = json!({"events": [event]}).to_string();
        let Some(reply) = post(&mut session, &path, &agent.authorization, body).await else { return answered };
        assert_eq!(reply["items"][0]["status"], 200, "{reply}");
        answered.acks.push((action.clone(), agent.id.clone()));
        answers.fetch_add(1, SeqCst);
    }
    answered
}

/// Creates actions through the management API, one after the other, until the server is gone.
async fn create_actions(client: Client, fleet: Arc<Fleet>) -> Vec<String> {
    let mut given = Vec::new();
    while let Some(id) = create_action(&client, vec![fleet.agents[given.len() % fleet.agents.len()].id.clone()]).await {
        given.push(id);
    }
    given
}

/// Work that goes on.
pub struct Running {
    workers: JoinSet<Answered>,
    actions: tokio::task::JoinHandle<Vec<String>>,
    all: usize,
    answers: Arc<AtomicUsize>,
}

impl Running {
    pub fn is_going(&self) -> bool {
        self.answers.load(SeqCst) < self.all
    }

    /// Waits until everyone has noticed that the server is gone.
    pub async fn end(mut self) -> Answered {
        let mut answered = Answered::default();
        while let Some(one) = self.workers.join_next().await {
            answered.take(one.unwrap());
        }
        answered.actions = self.actions.await.unwrap();
        answered
    }
}
