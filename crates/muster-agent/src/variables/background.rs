//! Providers that ask others: container runtimes and clusters. They run in the background, and only while a policy uses
//! their variables.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::board::Board;
use super::docker;
use super::kubernetes::secrets::Reference;
use super::kubernetes::{leader, objects, pods, secrets};
use super::settings::ProviderSettings;
use super::used::Used;
use crate::state::enrollment::Secret;

/// Maximum time to wait for the first response of providers before a policy is applied without their values.
const PATIENCE: Duration = Duration::from_secs(5);

/// The providers in the background.
pub struct Background {
    settings: ProviderSettings,
    agent_id: String,
    board: Arc<Board>,
    running: Mutex<BTreeMap<&'static str, Running>>,
}

/// A provider that runs.
struct Running {
    task: JoinHandle<()>,
    /// The provider ends when this is dropped, after it has released what it holds.
    _stop: oneshot::Sender<()>,
    /// The secrets that it reads.
    secrets: BTreeSet<Reference>,
}

/// After a reload, other providers go on with what these hold, so that nothing is given back.
impl Drop for Background {
    fn drop(&mut self) {
        self.running().values().for_each(|running| running.task.abort());
    }
}

impl Background {
    /// Creates the providers, none of which runs.
    pub fn new(settings: &ProviderSettings, agent_id: &str) -> Self {
        let board = Arc::default();
        Self { settings: settings.clone(), agent_id: agent_id.into(), board, running: Mutex::default() }
    }

    /// Returns what the providers have found.
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Starts and stops providers, so that those run whose variables are used.
    pub fn observe(&self, used: &Used) {
        let mut running = self.running();
        let wanted = self.wanted(used);
        running.retain(|provider, _| {
            let stays = wanted.contains_key(provider);
            if !stays {
                // An input must not be built from values that nobody keeps up to date.
                self.board.forget(provider);
            }
            stays
        });
        for (provider, secrets) in wanted {
            // A provider that reads other secrets starts anew; until it has, the values of the former ones stay.
            if running.get(provider).is_none_or(|former| former.secrets != secrets) {
                self.board.await_again(provider);
                running.insert(provider, self.start(provider, secrets));
            }
        }
    }

    /// Returns whether all providers that run have responded.
    pub fn is_ready(&self) -> bool {
        self.board.is_ready(&self.names())
    }

    /// Waits for the first responses of the providers that run.
    pub async fn ready(&self) {
        let names = self.names();
        // After this time, the policy is applied with the values that are there; the others cause a new model later.
        let _ = tokio::time::timeout(PATIENCE, self.board.ready(&names)).await;
    }

    /// Stops all providers, and waits a limited time until they have given back what they hold.
    pub async fn stop(&self) {
        let running = std::mem::take(&mut *self.running());
        let tasks: Vec<_> = running.into_values().map(|running| running.task).collect();
        let ended = async {
            for task in tasks {
                // A provider that has panicked has ended as well.
                let _ = task.await;
            }
        };
        let _ = tokio::time::timeout(PATIENCE, ended).await;
    }

    fn names(&self) -> Vec<&'static str> {
        self.running().keys().copied().collect()
    }

    /// Returns the values of the secrets.
    pub fn secrets(&self) -> Vec<Secret> {
        let mut found = Vec::new();
        texts(&self.board.context(secrets::PROVIDER), &mut found);
        found
    }

    /// Returns the providers that must run, with the secrets to read.
    fn wanted(&self, used: &Used) -> BTreeMap<&'static str, BTreeSet<Reference>> {
        let settings = &self.settings;
        let all = [
            (docker::PROVIDER, settings.docker.enabled),
            (objects::PROVIDER, settings.kubernetes.enabled),
            (secrets::PROVIDER, settings.kubernetes_secrets.enabled),
            (leader::PROVIDER, settings.kubernetes_leaderelection.enabled),
        ];
        let is_wanted = |provider| used.of_provider(provider).next().is_some();
        let wanted = all.into_iter().filter(|(provider, enabled)| *enabled && is_wanted(provider));
        wanted
            .map(|(provider, _)| match provider {
                secrets::PROVIDER => (provider, used.of_provider(provider).filter_map(Reference::parse).collect()),
                _ => (provider, BTreeSet::new()),
            })
            .collect()
    }

    fn start(&self, provider: &'static str, secrets: BTreeSet<Reference>) -> Running {
        tracing::info!(provider, "finding variables");
        let (settings, board) = (self.settings.clone(), self.board.clone());
        let (stop, stopped) = oneshot::channel();
        let task = match provider {
            docker::PROVIDER => until(stopped, Box::pin(docker::run(settings.docker, board))),
            objects::PROVIDER => until(stopped, Box::pin(pods::run(settings.kubernetes, board))),
            secrets::PROVIDER => {
                until(stopped, Box::pin(secrets::run(settings.kubernetes_secrets, secrets.clone(), board)))
            }
            _ => Box::pin(leader::run(settings.kubernetes_leaderelection, self.agent_id.clone(), board, stopped)),
        };
        Running { task: tokio::spawn(task), _stop: stop, secrets }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<&'static str, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As one type: each type of task has code of its own.
type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs a provider that holds nothing until it is stopped.
fn until(stopped: oneshot::Receiver<()>, provider: Task) -> Task {
    Box::pin(async {
        tokio::select! {
            // First, so that a stopped provider publishes nothing more.
            biased;
            _ = stopped => {}
            () = provider => {}
        }
    })
}

/// Collects all texts of a tree.
fn texts(value: &Value, found: &mut Vec<Secret>) {
    match value {
        Value::String(text) => found.push(Secret::new(text.as_str())),
        Value::Object(fields) => fields.values().for_each(|field| texts(field, found)),
        _ => {}
    }
}
