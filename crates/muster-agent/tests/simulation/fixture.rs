//! One simulated agent with simulated dependencies.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use muster_agent::components::supervisor::Supervisor;
use muster_agent::components::{
    ComponentState, Components, Health, InputAction, Launch, ProxiedAction, Reporter, Runtime,
};
use muster_agent::coordinator::quiet::Memory;
use muster_agent::coordinator::report::Snapshot;
use muster_agent::coordinator::{Command, Coordinator, Deps, Ending, LogLevel};
use muster_agent::entropy::Seeded;
use muster_agent::host::{Facts, Own};
use muster_agent::install::privileges::Privileges;
use muster_agent::model::{Catalog, Component, Model};
use muster_agent::net::{Request, Response, Server, Transport, TransportError};
use muster_agent::settings::Settings;
use muster_agent::standalone::file::PolicyFile;
use muster_agent::state::enrollment::{Enrollment, Secret, Trust};
use muster_agent::state::memory::MemoryStore;
use muster_agent::state::{State, Store};
use muster_agent::upgrade::{NotInstalled, Upgrades};
use muster_agent::variables::used::Used;
use muster_agent::variables::{VariableSets, Variables};
use muster_core::Timestamp;
use muster_core::time::Clock;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, oneshot, watch};
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

/// A host that nothing is known about.
pub struct StillFacts;

impl Facts for StillFacts {
    fn local_metadata(&self, own: Own<'_>) -> Box<RawValue> {
        to_raw_value(&json!({"elastic": {"agent": {"id": own.agent_id}}})).unwrap()
    }
}

/// The step of a component that a test holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// None: it starts and stops at once.
    #[default]
    Nothing,
    /// It never gets beyond this state after its start.
    In(Health),
    /// It never stops.
    Stop,
}

/// Every step that a test can hold.
pub const HOLDS: [Hold; 9] = [
    Hold::Nothing,
    Hold::In(Health::Starting),
    Hold::In(Health::Configuring),
    Hold::In(Health::Healthy),
    Hold::In(Health::Degraded),
    Hold::In(Health::Failed),
    Hold::In(Health::Stopping),
    Hold::In(Health::Stopped),
    Hold::Stop,
];

/// A host with simulated components.
pub struct FakeHost {
    journal: Journal,
    alive: AtomicBool,
    hold: Mutex<Hold>,
    reporters: Mutex<HashMap<String, (Component, Reporter)>>,
    /// How long each component takes to stop.
    pub stop_time: Mutex<Duration>,
    /// What components answer to actions for the agent; `None` if they receive none.
    pub proxied: Mutex<Option<Result<(), String>>>,
    /// Whether programs of an earlier agent are still running.
    pub occupied: watch::Sender<bool>,
    /// Whether the agent runs as root, and can change that.
    pub privileges: Mutex<(bool, Result<(), String>)>,
}

impl Privileges for FakeHost {
    fn are_lowered(&self) -> bool {
        !self.privileges.lock().unwrap().0
    }

    fn check(&self) -> Result<(), String> {
        self.privileges.lock().unwrap().1.clone()
    }
}

impl FakeHost {
    /// Holds the components that are started from now on.
    pub fn hold(&self, hold: Hold) {
        *self.hold.lock().unwrap() = hold;
    }

    /// Makes a component fail.
    pub fn fail(&self, id: &str) {
        self.reporters.lock().unwrap()[id].1.set(Health::Failed, "Failed");
    }

    /// Lets the input of a component report a payload.
    pub fn pay(&self, id: &str, payload: Value) {
        let (component, reporter) = &self.reporters.lock().unwrap()[id];
        let mut state = ComponentState::uniform(component, Health::Healthy, "Healthy");
        state.units[1].payload = Some(payload);
        reporter.put(state);
    }

    fn note(&self, what: &str, id: &str) {
        // The tasks of a killed agent go on in the simulation, but no longer count.
        if !self.alive.load(Ordering::Relaxed) {
            return;
        }
        self.journal.lock().unwrap().push(format!("{what} {id}"));
    }
}

#[async_trait]
impl Launch for SharedHost {
    async fn ready(&self) {
        self.0.occupied.subscribe().wait_for(|occupied| !occupied).await.unwrap();
    }

    fn launch(&self, component: &Arc<Component>, reporter: Reporter) -> Box<dyn Runtime> {
        let hold = *self.0.hold.lock().unwrap();
        self.0.note("start", &component.id);
        match hold {
            Hold::In(state) => reporter.set(state, "held"),
            Hold::Nothing | Hold::Stop => reporter.set(Health::Healthy, "Healthy"),
        }
        let known = ((**component).clone(), reporter.clone());
        self.0.reporters.lock().unwrap().insert(component.id.clone(), known);
        Box::new(FakeRuntime { host: self.0.clone(), component: (**component).clone(), hold, reporter })
    }

    fn forget(&self, id: &str) {
        self.0.note("forget", id);
    }

    async fn idle(&self, _: &(dyn Fn() -> bool + Sync)) {}
}

/// The host, as the supervisor shares it with the test.
struct SharedHost(Arc<FakeHost>);

/// The supervisor, except for actions, which simulated components cannot take.
struct Facade(Supervisor, Arc<FakeHost>);

#[async_trait]
impl Components for Facade {
    fn want(&self, model: Model) {
        self.0.want(model);
    }

    async fn updated(&self) {
        self.0.updated().await;
    }

    fn states(&self) -> Vec<ComponentState> {
        self.0.states()
    }

    async fn changed(&self) {
        self.0.changed().await;
    }

    async fn settled(&self) {
        self.0.settled().await;
    }

    async fn perform(&self, action: InputAction) -> Result<Value, String> {
        match action.params["data"]["command"].as_str() {
            Some("echo") => Ok(action.params),
            Some("hang") => std::future::pending().await,
            _ => self.0.perform(action).await,
        }
    }

    fn proxies(&self, kind: &str) -> bool {
        kind == "UNENROLL" && self.1.proxied.lock().unwrap().is_some()
    }

    async fn proxy(&self, action: ProxiedAction) -> Result<(), String> {
        self.1.note("proxy", action.params["id"].as_str().unwrap());
        tokio::time::sleep(SECOND * 40).await;
        self.1.proxied.lock().unwrap().clone().unwrap()
    }

    async fn halt(&self) {
        self.0.halt().await;
    }
}

struct FakeRuntime {
    host: Arc<FakeHost>,
    component: Component,
    hold: Hold,
    reporter: Reporter,
}

#[async_trait]
impl Runtime for FakeRuntime {
    fn update(&mut self, component: &Arc<Component>) -> bool {
        component.work == self.component.work
    }

    async fn stop(&mut self) {
        self.host.note("stop", &self.component.id);
        self.reporter.set(Health::Stopping, "Stopping");
        if self.hold == Hold::Stop {
            std::future::pending::<()>().await;
        }
        let time = *self.host.stop_time.lock().unwrap();
        tokio::time::sleep(time).await;
    }
}

/// Variables that a test changes.
#[derive(Default)]
pub struct FakeVariables {
    sets: Mutex<VariableSets>,
    reads: AtomicUsize,
    bell: Notify,
    observed: Mutex<Used>,
    late: Mutex<Option<(Duration, Value)>>,
    unknown: AtomicBool,
    /// Whether nothing is looked for any more.
    pub stopped: AtomicBool,
}

impl FakeVariables {
    /// Sets `${local.late}` when a policy that uses further variables has waited this long.
    pub fn set_late(&self, after: Duration, value: impl Into<Value>) {
        *self.late.lock().unwrap() = Some((after, value.into()));
    }

    /// Whether variables are being asked for.
    pub fn set_unknown(&self, unknown: bool) {
        self.unknown.store(unknown, Ordering::Relaxed);
        self.bell.notify_one();
    }

    /// The variables that are found.
    pub fn observed(&self) -> Used {
        self.observed.lock().unwrap().clone()
    }

    /// Sets `${local.NAME}`.
    pub fn set(&self, name: &str, value: impl Into<Value>) {
        let mut sets = self.sets.lock().unwrap();
        let local = sets.context.entry("local").or_insert_with(|| json!({}));
        local[name] = value.into();
        self.bell.notify_one();
    }

    /// How often the values were read: once for each model.
    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    /// Removes it.
    pub fn unset(&self, name: &str) {
        let mut sets = self.sets.lock().unwrap();
        sets.context["local"].as_object_mut().unwrap().remove(name);
        self.bell.notify_one();
    }
}

#[async_trait]
impl Variables for FakeVariables {
    fn sets(&self) -> VariableSets {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.sets.lock().unwrap().clone()
    }

    async fn changed(&self) {
        self.bell.notified().await;
    }

    fn observe(&self, used: &Used) {
        *self.observed.lock().unwrap() = used.clone();
    }

    async fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        !self.unknown.load(Ordering::Relaxed)
    }

    async fn ready(&self) {
        let late = self.late.lock().unwrap().clone();
        if let Some((after, value)) = late {
            tokio::time::sleep(after).await;
            self.set("late", value);
        }
    }
}

/// When memory was given back.
#[derive(Default)]
pub struct Releases(pub Mutex<Vec<Instant>>);

impl Memory for Releases {
    fn release(&self) {
        self.0.lock().unwrap().push(Instant::now());
    }
}

/// The network of a version that cannot connect.
struct CutOff;

#[async_trait]
impl Transport for CutOff {
    async fn send(&self, server: &Server, _: Request) -> Result<Response, TransportError> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        Err(TransportError::Connect { server: server.to_string(), source: "no route".into() })
    }
}

/// The way to the first server, through a proxy or not.
struct Way {
    server: FakeServer,
    proxy: Option<String>,
}

impl Way {
    fn of(server: &FakeServer, trust: &Trust) -> Self {
        Self { server: server.clone(), proxy: trust.proxy.as_ref().map(|proxy| proxy.url.expose().to_owned()) }
    }
}

#[async_trait]
impl Transport for Way {
    async fn send(&self, server: &Server, request: Request) -> Result<Response, TransportError> {
        let (is_broken, stuck) = {
            let mut inner = self.server.lock();
            inner.ways.push((request.path.clone(), self.proxy.clone()));
            let broken = self.proxy.as_ref().and_then(|proxy| inner.broken_proxies.get(proxy.as_str()));
            let stuck = self.proxy.as_ref().and_then(|proxy| inner.stuck_proxies.get(proxy.as_str())).copied();
            (broken.is_some_and(|end| request.path.ends_with(end)), stuck)
        };
        if let Some(cut) = stuck.filter(|_| !request.body.is_empty()) {
            request.reached.mark();
            tokio::time::sleep(cut.unwrap_or(request.timeout).min(request.timeout)).await;
            return Err(
                cut.map_or(TransportError::Timeout(request.timeout), |_| TransportError::Broken("reset".into()))
            );
        }
        if is_broken { CutOff.send(server, request).await } else { self.server.send(server, request).await }
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
    pub host: Arc<FakeHost>,
    pub supervisor: Supervisor,
    pub variables: Arc<FakeVariables>,
    pub settings: Settings,
    pub upgrades: Arc<dyn Upgrades>,
    pub memory: Arc<Releases>,
    /// The server of a migration.
    pub other: FakeServer,
    /// Whether other connections lead to that server, or else in another way to the first one.
    pub migrates: bool,
    /// Whether the version that runs cannot reach any server.
    pub is_cut_off: bool,
    pub running: Option<JoinHandle<Ending>>,
    /// Set if the agent is standalone.
    pub policy_file: Option<PolicyFile>,
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
        let host = host(&journal);
        Self {
            supervisor: Supervisor::new(Arc::new(SharedHost(host.clone()))),
            variables: Arc::default(),
            server: FakeServer::default(),
            store,
            host,
            journal,
            settings: Settings::default(),
            upgrades: Arc::new(NotInstalled),
            memory: Arc::default(),
            other: FakeServer::default(),
            migrates: false,
            is_cut_off: false,
            running: None,
            policy_file: None,
            commands: mpsc::channel(1).0,
            seed,
            begun: Instant::now(),
        }
    }

    /// Starts it.
    pub fn start(&mut self) {
        self.supervisor = Supervisor::new(Arc::new(SharedHost(self.host.clone())));
        self.resume();
    }

    /// Starts a coordinator over the components that are running, as after a reload.
    pub fn resume(&mut self) {
        self.seed += 1;
        let stored = self.store.enrollment().unwrap();
        let enrollment = stored.unwrap_or_else(|| Enrollment::without_server("standalone-1".into()));
        // The agent is at the server at which it is enrolled.
        let is_here = enrollment.servers == [HERE] || enrollment.servers.is_empty();
        let way = Way::of(if is_here { &self.server } else { &self.other }, &enrollment.trust_in_effect());
        let (server, other, migrates) = (self.server.clone(), self.other.clone(), self.migrates);
        let connect = move |trust: &Trust| -> Result<Arc<dyn Transport>, String> {
            Ok(if migrates { Arc::new(other.clone()) } else { Arc::new(Way::of(&server, trust)) })
        };
        let deps = Deps {
            store: self.store.clone(),
            transport: if self.is_cut_off { Arc::new(CutOff) } else { Arc::new(way) },
            components: Arc::new(Facade(self.supervisor.clone(), self.host.clone())),
            variables: self.variables.clone(),
            catalog: Arc::new(Catalog::default()),
            facts: Arc::new(StillFacts),
            clock: Arc::new(SimClock(self.begun)),
            entropy: Arc::new(Seeded::new(self.seed)),
            log_level: Arc::new(JournalLevel(self.journal.clone())),
            upgrades: self.upgrades.clone(),
            privileges: self.host.clone(),
            connect: Arc::new(connect),
            memory: self.memory.clone(),
            settings: self.settings.clone(),
            policy_file: self.policy_file.clone(),
        };
        let (commands, mut received) = mpsc::channel(4);
        self.commands = commands;
        let coordinator = Coordinator::new(deps, enrollment).unwrap();
        self.running = Some(tokio::spawn(async move { coordinator.run(&mut received).await }));
    }

    /// Kills it as by `kill -9`: nothing is written, and its programs are gone.
    pub async fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
            let _ = running.await;
        }
        self.host.alive.store(false, Ordering::Relaxed);
        self.host = host(&self.journal);
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

    /// Ids of the components that were started and not told to stop, as of the journal.
    pub fn running(&self) -> Vec<String> {
        let mut running = BTreeSet::new();
        for line in self.journal.lock().unwrap().iter() {
            match line.split_once(' ') {
                Some(("start", id)) => drop(running.insert(id.to_owned())),
                Some(("stop", id)) => drop(running.remove(id)),
                _ => {}
            }
        }
        running.into_iter().collect()
    }
}

fn host(journal: &Journal) -> Arc<FakeHost> {
    Arc::new(FakeHost {
        journal: journal.clone(),
        alive: AtomicBool::new(true),
        hold: Mutex::default(),
        reporters: Mutex::default(),
        // Stopping takes time.
        stop_time: Mutex::new(Duration::from_millis(20)),
        proxied: Mutex::default(),
        occupied: watch::Sender::new(false),
        privileges: Mutex::new((true, Ok(()))),
    })
}

/// The enrollment of the agent.
pub fn enrollment() -> Enrollment {
    Enrollment {
        access_api_key: Secret::new("a2V5OnNlY3JldA=="),
        servers: vec![HERE.into()],
        ..Enrollment::without_server("agent-1".into())
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

/// An action of a component.
pub fn input_action(id: &str, command: &str, timeout: Option<u64>) -> Value {
    let mut action = action(id, "INPUT_ACTION", json!({"command": command}));
    action["input_type"] = "fake".into();
    action["timeout"] = timeout.into();
    action
}

/// URL of the first server.
pub const HERE: &str = "https://fleet.example:8220";

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);
pub const HOUR: Duration = Duration::from_secs(3600);

/// Runs a simulation with many seeds, as many as `MUSTER_SIMULATION_SEEDS` says, from the one in
/// `MUSTER_SIMULATION_FIRST_SEED` on. Each has a runtime of its own, with which the tasks of its killed agents end.
pub fn with_seeds<F: Future<Output = ()>>(default: u64, simulation: impl Fn(u64) -> F) {
    let number = |variable: &str, default| std::env::var(variable).map_or(default, |text| text.parse().unwrap());
    let first = number("MUSTER_SIMULATION_FIRST_SEED", 0);
    for seed in first..first + number("MUSTER_SIMULATION_SEEDS", default) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(simulation(seed));
    }
}

impl Agent {
    /// Whether the first check-in followed the start within this time.
    pub fn begun_within(&self, time: Duration) -> bool {
        self.server.lock().check_ins[0].at - self.begun <= time
    }
}
