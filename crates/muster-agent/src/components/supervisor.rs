//! Starts, stops and replaces the programs of a policy, and keeps their states.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use muster_core::Entropy;
use muster_core::error_chain::chain;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::log_file::{LogFile, file_name};
use super::process::{self, Program};
use super::spec::{ProcessSpec, Wanted, plan};
use super::{ComponentState, Components, Health, orphans};
use crate::paths::Layout;
use crate::settings::ProcessSettings;
use crate::state::atomic;

/// The state of every component, and a notification of changes.
#[derive(Default)]
struct Board {
    states: Mutex<BTreeMap<String, ComponentState>>,
    bell: Notify,
}

impl Board {
    fn put(&self, id: &str, kind: &str, state: Health, message: String) {
        let entry = ComponentState { id: id.to_owned(), kind: kind.to_owned(), state, message };
        let mut states = lock(&self.states);
        // A notification interrupts a held check-in, so that only a real change may cause one.
        if states.get(id) != Some(&entry) {
            states.insert(id.to_owned(), entry);
            self.bell.notify_one();
        }
    }

    fn remove(&self, id: &str) {
        if lock(&self.states).remove(id).is_some() {
            self.bell.notify_one();
        }
    }
}

struct Running {
    wanted: Wanted,
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

/// Runs programs as processes of this host.
pub struct Supervisor {
    layout: Layout,
    settings: ProcessSettings,
    entropy: Arc<dyn Entropy>,
    board: Arc<Board>,
    // This lock is held across awaits, so that policies are applied one at a time.
    running: tokio::sync::Mutex<BTreeMap<String, Running>>,
    /// Whether this process adopts orphans of its programs.
    is_subreaper: bool,
}

impl Supervisor {
    /// Creates a supervisor without programs.
    pub fn new(layout: Layout, settings: ProcessSettings, entropy: Arc<dyn Entropy>) -> Self {
        Self {
            layout,
            settings,
            entropy,
            board: Arc::default(),
            running: tokio::sync::Mutex::default(),
            is_subreaper: false,
        }
    }

    /// Adopts orphans of programs, so that a process cannot escape by clearing its environment and leaving its session.
    /// The calling process must have no other children.
    #[must_use]
    pub fn adopting_orphans(mut self) -> Self {
        match orphans::become_subreaper() {
            Ok(()) => self.is_subreaper = true,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "failed to become a subreaper; orphaned processes may keep running");
            }
        }
        self
    }

    /// Stops programs that a previous agent left running.
    pub async fn stop_leftovers(&self) {
        orphans::stop_leftovers(&self.layout.run().join("components")).await;
    }

    /// Kills adopted orphans. Called when no program is running that they could belong to.
    async fn kill_adopted(&self) {
        if self.is_subreaper {
            orphans::kill_all(|| orphans::adopted(&process::leaders())).await;
            // The daemon's reaper may already have ended with the daemon.
            orphans::reap(&process::leaders());
        }
    }

    fn start(&self, wanted: Wanted) -> Running {
        let (stop, stopped) = watch::channel(false);
        let board = self.board.clone();
        let task = match &wanted.process {
            // Reported as failed instead of omitted, so that the author of the policy learns why it does not run.
            Err(reason) => {
                board.put(&wanted.id, &wanted.kind, Health::Failed, reason.clone());
                None
            }
            Ok(spec) => self.launch(&wanted, spec.clone(), stopped),
        };
        Running { wanted, stop, task }
    }

    fn launch(&self, wanted: &Wanted, spec: ProcessSpec, stopped: watch::Receiver<bool>) -> Option<JoinHandle<()>> {
        let (id, kind, board) = (wanted.id.clone(), wanted.kind.clone(), self.board.clone());
        // Ids of components come from policies, and may contain characters that are not allowed in file names.
        let name = file_name(&id);
        let directory = self.layout.component(&name);
        let logs = self.layout.logs().join("components");
        if let Err(error) = atomic::private_dir(&directory).and_then(|()| atomic::private_dir(&logs)) {
            board.put(&id, &kind, Health::Failed, format!("Failed: cannot create the working directory: {error}"));
            return None;
        }
        let log = LogFile::new(logs.join(format!("{name}.log")), self.settings.log_max_bytes, self.settings.log_files);
        let program = Program {
            spec,
            directory,
            log: Arc::new(Mutex::new(log)),
            settings: self.settings.clone(),
            entropy: self.entropy.clone(),
            variables: vec![("MUSTER_COMPONENT_ID", id.clone()), ("MUSTER_COMPONENT_TYPE", kind.clone())],
        };
        Some(tokio::spawn(program.keep(stopped, move |state, message| board.put(&id, &kind, state, message))))
    }

    async fn stop(&self, stopped: Vec<Running>, gone: impl Fn(&str) -> bool) {
        // All programs are signaled before the first is awaited, so that they stop in parallel.
        for running in &stopped {
            running.stop.send_replace(true);
        }
        for running in stopped {
            if let Some(task) = running.task {
                let _ = task.await;
            }
            if gone(&running.wanted.id) {
                self.board.remove(&running.wanted.id);
                let directory = self.layout.component(&file_name(&running.wanted.id));
                // Errors are ignored: a file that cannot be removed must not prevent the policy from being applied.
                let _ = std::fs::remove_dir_all(directory);
            }
        }
    }
}

#[async_trait]
impl Components for Supervisor {
    async fn apply(&self, wanted: Vec<Wanted>) {
        let mut running = self.running.lock().await;
        let now = running.iter().map(|(id, running)| (id.clone(), running.wanted.clone())).collect();
        let plan = plan(&now, wanted);
        let stopped = plan.stop.iter().filter_map(|id| running.remove(id)).collect();
        // Programs are stopped before new ones start, because a changed program must not run twice in one directory.
        self.stop(stopped, |id| !plan.start.iter().any(|next| next.id == id)).await;
        for wanted in plan.start {
            running.insert(wanted.id.clone(), self.start(wanted));
        }
        if running.is_empty() {
            self.kill_adopted().await;
        }
    }

    async fn halt(&self) {
        let stopped = std::mem::take(&mut *self.running.lock().await).into_values().collect();
        self.stop(stopped, |_| false).await;
        self.kill_adopted().await;
    }

    fn states(&self) -> Vec<ComponentState> {
        lock(&self.board.states).values().cloned().collect()
    }

    async fn changed(&self) {
        self.board.bell.notified().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
