//! Agents that send each request to any of the servers, or through a balancer that knows nothing of them.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method};
use muster_client::types::enrollment_key::CreateEnrollmentKey;
use muster_drones::session::{Answer, Ask, Session};
use muster_drones::wire::{Host, Report, check_in};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::record::History;
use crate::world::World;

/// Agents that enroll at the same time.
const ENROLLING: usize = 16;
/// Pause before the first retry. It doubles up to the longest, as in real agents, whose longest one is minutes.
const RETRY: Duration = Duration::from_millis(100);
const LONGEST_RETRY: Duration = Duration::from_secs(5);

/// The living agents.
pub struct Fleet {
    world: Arc<World>,
    history: Arc<History>,
    token: HeaderValue,
    next: AtomicU32,
    ids: Mutex<Vec<String>>,
    ending: Arc<AtomicBool>,
    tasks: Mutex<JoinSet<()>>,
}

fn any_of<T>(some: &[T]) -> usize {
    rand::random::<u32>() as usize % some.len()
}

fn authorization(token: &str) -> HeaderValue {
    HeaderValue::try_from(format!("ApiKey {token}")).unwrap()
}

impl Fleet {
    pub async fn start(world: &Arc<World>, history: &Arc<History>, agents: u32) -> Arc<Self> {
        let client = world.client(0);
        let policies = client.agent_policies(&Default::default()).await.unwrap();
        let policy_id = Some(policies.items[0].id.clone());
        let key = CreateEnrollmentKey { policy_id, ..CreateEnrollmentKey::default() };
        let key = client.create_enrollment_key(&key).await.unwrap();
        let fleet = Arc::new(Self {
            world: Arc::clone(world),
            history: Arc::clone(history),
            token: authorization(key.api_key.as_deref().unwrap()),
            next: AtomicU32::new(0),
            ids: Mutex::default(),
            ending: Arc::default(),
            tasks: Mutex::default(),
        });
        let left = Arc::new(AtomicU32::new(agents));
        let mut enrolling = JoinSet::new();
        for _ in 0..ENROLLING {
            let (fleet, left) = (Arc::clone(&fleet), Arc::clone(&left));
            enrolling.spawn(async move {
                while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
                    while !fleet.enroll_one().await {}
                }
            });
        }
        enrolling.join_all().await;
        fleet
    }

    /// Enrolls one more agent on any server, which then lives. Returns false if there was no answer.
    pub async fn enroll_one(&self) -> bool {
        let number = self.next.fetch_add(1, Ordering::SeqCst);
        let host = Host { number, agent_id: "", version: "9.5.2" };
        let entries = self.world.entries();
        let mut session = Session::new(Arc::clone(&entries[any_of(entries)]), number);
        let (body, patience) = (host.enroll(&[]).unwrap(), self.world.scale.patience());
        let enrolled = post(&mut session, "/api/fleet/agents/enroll?", &self.token, body, patience).await;
        let Some((200, item)) = enrolled else {
            return false;
        };
        let text = |field: &str| item["item"][field].as_str().unwrap().to_owned();
        let id = text("id");
        self.history.enrolled(&id);
        self.ids.lock().unwrap().push(id.clone());
        let sessions = entries.iter().map(|entry| Session::new(Arc::clone(entry), number)).collect();
        let agent = Agent {
            number,
            id,
            authorization: authorization(&text("access_api_key")),
            sessions,
            ack_token: String::new(),
            policy: None,
            unacknowledged: Vec::new(),
            patience,
            retry: RETRY,
            history: Arc::clone(&self.history),
        };
        self.tasks.lock().unwrap().spawn(agent.live(Arc::clone(&self.ending)));
        true
    }

    /// Any agent.
    pub fn any(&self) -> String {
        let ids = self.ids.lock().unwrap();
        ids[any_of(&ids)].clone()
    }

    pub async fn stop(&self) {
        self.ending.store(true, Ordering::SeqCst);
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    }
}

struct Agent {
    number: u32,
    id: String,
    authorization: HeaderValue,
    sessions: Vec<Session>,
    ack_token: String,
    policy: Option<(String, i64)>,
    /// Actions that were carried out, and whose ack was not answered yet.
    unacknowledged: Vec<String>,
    /// Time after which it gives a request up.
    patience: Duration,
    /// Pause before the next retry.
    retry: Duration,
    history: Arc<History>,
}

/// Posts; `None` without an answer in time.
async fn post(
    session: &mut Session,
    path: &str,
    authorization: &HeaderValue,
    body: String,
    patience: Duration,
) -> Option<(u16, Value)> {
    let ask = Ask {
        method: Method::POST,
        path,
        authorization: Some(authorization),
        body: body.into(),
        packed: false,
        chunk_sha2: None,
    };
    match tokio::time::timeout(patience, session.ask(&ask)).await {
        Ok(Ok(answer)) => Some((answer.status, parsed(&answer))),
        Ok(Err(_)) => None,
        Err(_) => {
            session.close();
            None
        }
    }
}

fn parsed(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.text().unwrap()).unwrap_or_default()
}

impl Agent {
    async fn live(mut self, ending: Arc<AtomicBool>) {
        while !ending.load(Ordering::SeqCst) {
            // Like real agents: acks first, then the next check-in.
            if !self.acknowledge().await || !self.check_in().await {
                return;
            }
        }
    }

    async fn post(&mut self, path: &str, body: String) -> Option<(u16, Value)> {
        let any = any_of(&self.sessions);
        post(&mut self.sessions[any], path, &self.authorization, body, self.patience).await
    }

    /// Returns false if the agent is revoked.
    async fn check_in(&mut self) -> bool {
        let host = Host { number: self.number, agent_id: &self.id, version: "9.5.2" };
        let policy = self.policy.as_ref().map(|(id, revision)| (id.as_str(), *revision));
        let body = check_in(&host, &Report { ack_token: &self.ack_token, policy, is_degraded: false, pid: 1, fill: 0 });
        let (path, began) = (format!("/api/fleet/agents/{}/checkin?", self.id), Instant::now());
        match self.post(&path, body).await {
            Some((200, answer)) => {
                self.retry = RETRY;
                self.history.admitted(&self.id, began);
                self.take(&answer);
                true
            }
            Some((401, _)) => !self.history.rejected(&self.id),
            _ => {
                self.wait().await;
                true
            }
        }
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.retry.mul_f64(0.5 + rand::random::<f64>())).await;
        self.retry = (self.retry * 2).min(LONGEST_RETRY);
    }

    fn take(&mut self, answer: &Value) {
        if let Some(token) = answer["ack_token"].as_str() {
            token.clone_into(&mut self.ack_token);
        }
        for action in answer["actions"].as_array().into_iter().flatten() {
            let id = action["id"].as_str().unwrap();
            if action["type"] == "POLICY_CHANGE" {
                let policy = &action["data"]["policy"];
                let revision = policy["revision"].as_i64().unwrap();
                self.policy = Some((policy["id"].as_str().unwrap().to_owned(), revision));
            } else if self.history.delivered(id, &self.id) || !self.unacknowledged.iter().any(|known| known == id) {
                self.unacknowledged.push(id.to_owned());
            }
        }
    }

    /// Returns false if the agent is revoked.
    async fn acknowledge(&mut self) -> bool {
        for action in std::mem::take(&mut self.unacknowledged) {
            let event = json!({
                "type": "ACTION_RESULT", "subtype": "ACKNOWLEDGED", "action_id": action, "agent_id": self.id,
                "timestamp": "2026-11-25T18:42:12.859091937Z", "message": "acknowledged", "action_input_type": "osquery",
                "action_response": {"osquery": {"stdout": "done"}}
            });
            let path = format!("/api/fleet/agents/{}/acks?", self.id);
            match self.post(&path, json!({"events": [event]}).to_string()).await {
                Some((200, reply)) if reply["items"][0]["status"] == 200 => {
                    self.history.acknowledged(&action, &self.id);
                }
                Some((401, _)) if self.history.rejected(&self.id) => return false,
                _ => self.unacknowledged.push(action),
            }
        }
        true
    }
}
