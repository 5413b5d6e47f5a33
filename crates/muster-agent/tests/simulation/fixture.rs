//! One simulated agent with simulated dependencies.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use muster_agent::components::spec::Wanted;
use muster_agent::components::{ComponentState, Components, Health};
use muster_agent::coordinator::report::Snapshot;
use muster_agent::coordinator::{Command, Coordinator, Deps, Ending, LogLevel};
use muster_agent::entropy::Seeded;
use muster_agent::host::{Facts, Own};
use muster_agent::settings::Settings;
use muster_agent::state::enrollment::{ENROLLMENT_VERSION, Enrollment, Secret, Trust};
use muster_agent::state::memory::MemoryStore;
use muster_agent::state::{State, Store};
use muster_core::Timestamp;
use muster_core::time::Clock;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::server::FakeServer;

/// What the agent did on its host, in order.
pub type Journal = Arc<Mutex<Vec<String>>>;

struct SimClock(Instant);

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        Timestamp::parse_rfc3339("2026-06-01T00:00:00Z").unwrap().plus(self.0.elapsed())
    }
}

struct StillFacts;

impl Facts for StillFacts {
    fn local_metadata(&self, own: Own<'_>) -> Box<RawValue> {
        to_raw_value(&json!({"elastic": {"agent": {"id": own.agent_id}}})).unwrap()
    }
}

/// Simulated programs.
pub struct FakeComponents {
    journal: Journal,
    running: Mutex<Vec<ComponentState>>,
    bell: Notify,
}

impl FakeComponents {
    /// Makes a component fail.
    pub fn fail(&self, id: &str) {
        for part in self.running.lock().unwrap().iter_mut().filter(|part| part.id == id) {
            part.state = Health::Failed;
        }
        self.bell.notify_one();
    }
}

#[async_trait]
impl Components for FakeComponents {
    async fn apply(&self, wanted: Vec<Wanted>) {
        let ids: Vec<String> = wanted.iter().map(|wanted| wanted.id.clone()).collect();
        self.journal.lock().unwrap().push(format!("apply [{}]", ids.join(" ")));
        // Stopping takes time.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let healthy = |id: String| ComponentState {
            id,
            kind: "process".into(),
            state: Health::Healthy,
            message: "Healthy".into(),
        };
        *self.running.lock().unwrap() = ids.into_iter().map(healthy).collect();
        self.bell.notify_one();
    }

    async fn halt(&self) {
        self.journal.lock().unwrap().push("halt".into());
    }

    fn states(&self) -> Vec<ComponentState> {
        self.running.lock().unwrap().clone()
    }

    async fn changed(&self) {
        self.bell.notified().await;
    }
}

struct JournalLevel(Journal);

impl LogLevel for JournalLevel {
    fn set(&self, level: &str) {
        self.0.lock().unwrap().push(format!("level {level}"));
    }

    fn tail(&self) -> String {
        "a line".into()
    }
}

/// A simulated agent, which can be killed and restarted with the same store.
pub struct Agent {
    pub server: FakeServer,
    pub store: Arc<MemoryStore>,
    pub journal: Journal,
    pub components: Arc<FakeComponents>,
    pub settings: Settings,
    pub running: Option<JoinHandle<Ending>>,
    pub commands: mpsc::Sender<Command>,
    seed: u64,
    begun: Instant,
}

impl Agent {
    /// An enrolled agent that is not running.
    pub fn new(seed: u64) -> Self {
        let store = Arc::new(MemoryStore::default());
        store.save_enrollment(&enrollment()).unwrap();
        let journal = Journal::default();
        Self {
            server: FakeServer::default(),
            store,
            components: components(&journal),
            journal,
            settings: Settings::default(),
            running: None,
            commands: mpsc::channel(1).0,
            seed,
            begun: Instant::now(),
        }
    }

    /// Starts it.
    pub fn start(&mut self) {
        self.seed += 1;
        let deps = Deps {
            store: self.store.clone(),
            transport: Arc::new(self.server.clone()),
            components: self.components.clone(),
            facts: Arc::new(StillFacts),
            clock: Arc::new(SimClock(self.begun)),
            entropy: Arc::new(Seeded::new(self.seed)),
            log_level: Arc::new(JournalLevel(self.journal.clone())),
            settings: self.settings.clone(),
        };
        let (commands, mut received) = mpsc::channel(4);
        self.commands = commands;
        let coordinator = Coordinator::new(deps, self.store.enrollment().unwrap().unwrap()).unwrap();
        self.running = Some(tokio::spawn(async move { coordinator.run(&mut received).await }));
    }

    /// Kills it as by `kill -9`: nothing is written, and its programs are gone.
    pub async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
        self.components = components(&self.journal);
    }

    /// Lets simulated time pass.
    pub async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// Waits until the agent exits.
    pub async fn ended(&mut self, within: Duration) -> Ending {
        let running = self.running.take().unwrap();
        tokio::time::timeout(within, running).await.expect("the agent ends").unwrap()
    }

    pub async fn snapshot(&self) -> Snapshot {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Status(reply)).await.unwrap();
        answer.await.unwrap()
    }

    pub fn state(&self) -> State {
        self.store.state().unwrap()
    }

    /// What it did on its host, except what every start does.
    pub fn did(&self) -> Vec<String> {
        let journal = self.journal.lock().unwrap();
        journal.iter().filter(|line| *line != "level info").cloned().collect()
    }
}

fn components(journal: &Journal) -> Arc<FakeComponents> {
    Arc::new(FakeComponents { journal: journal.clone(), running: Mutex::default(), bell: Notify::new() })
}

fn enrollment() -> Enrollment {
    Enrollment {
        version: ENROLLMENT_VERSION,
        agent_id: "agent-1".into(),
        access_api_key: Secret::new("a2V5OnNlY3JldA=="),
        servers: vec!["https://fleet.example:8220".into()],
        trust: Trust::default(),
        signing_key: None,
        previous_signing_key: None,
        tags: Vec::new(),
        enrolled_at: String::new(),
    }
}

/// A policy with one program.
pub fn policy(revision: i64, program: &str) -> Value {
    json!({"id": "p", "revision": revision, "inputs": [{"id": program, "type": "process", "command": "/bin/true"}]})
}

/// An action.
pub fn action(id: &str, kind: &str, data: impl Into<Value>) -> Value {
    let data: Value = data.into();
    json!({"agent_id": "agent-1", "created_at": "2026-01-01T00:00:00.000Z", "id": id, "type": kind,
        "input_type": "", "data": data})
}

/// An action that shows up in the journal when it runs.
pub fn level(id: &str, level: &str) -> Value {
    action(id, "SETTINGS", json!({"log_level": level}))
}

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);

impl Agent {
    /// Whether the first check-in followed the start within this time.
    pub fn begun_within(&self, time: Duration) -> bool {
        self.server.lock().check_ins[0].at - self.begun <= time
    }
}
