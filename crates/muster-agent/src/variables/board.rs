//! What providers that run in the background have found.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::{DynamicSet, VariableSets};

/// The values of all providers in the background, and their faults.
#[derive(Debug, Default)]
pub struct Board {
    found: Mutex<Found>,
    changed: Notify,
    /// Providers that have responded, or cannot be reached.
    ready: watch::Sender<BTreeSet<&'static str>>,
}

#[derive(Debug, Default)]
struct Found {
    sets: BTreeMap<&'static str, Vec<DynamicSet>>,
    context: BTreeMap<&'static str, Value>,
    faults: BTreeMap<&'static str, String>,
}

impl Board {
    /// Replaces the sets of a dynamic provider.
    pub fn set_dynamic(&self, provider: &'static str, sets: Vec<DynamicSet>) {
        let mut found = self.found();
        let changed = found.sets.get(provider) != Some(&sets);
        found.sets.insert(provider, sets);
        drop(found);
        self.respond(provider, changed);
    }

    /// Replaces the values of a context provider.
    pub fn set_context(&self, provider: &'static str, values: Value) {
        let mut found = self.found();
        let changed = found.context.get(provider) != Some(&values);
        found.context.insert(provider, values);
        drop(found);
        self.respond(provider, changed);
    }

    /// Sets or clears the fault of a provider. Its last values stay. A fault that lasts is logged once.
    pub fn set_fault(&self, provider: &'static str, fault: Option<String>) {
        let changed = match &fault {
            None => self.found().faults.remove(provider).is_some(),
            Some(reason) => self.found().faults.insert(provider, reason.clone()).as_ref() != Some(reason),
        };
        match fault {
            Some(reason) if changed => tracing::warn!(provider, reason, "variables are not available"),
            None if changed => tracing::info!(provider, "variables are available again"),
            _ => {}
        }
        self.respond(provider, changed);
    }

    /// Removes everything of a provider.
    pub fn forget(&self, provider: &'static str) {
        let mut found = self.found();
        found.sets.remove(provider);
        found.context.remove(provider);
        found.faults.remove(provider);
        drop(found);
        self.ready.send_if_modified(|ready| ready.remove(provider));
    }

    /// Marks that a provider, which has responded before, is asked for further values.
    pub fn await_again(&self, provider: &'static str) {
        self.ready.send_if_modified(|ready| ready.remove(provider));
    }

    /// Adds the values to `sets`.
    pub fn add_to(&self, sets: &mut VariableSets) {
        let found = self.found();
        for (provider, values) in &found.context {
            sets.context.insert((*provider).to_owned(), values.clone());
        }
        sets.dynamic.extend(found.sets.values().flatten().cloned());
    }

    /// Returns the values of a context provider.
    pub fn context(&self, provider: &'static str) -> Value {
        self.found().context.get(provider).cloned().unwrap_or_default()
    }

    /// Returns the faults, each with its provider.
    pub fn faults(&self) -> Vec<String> {
        self.found().faults.iter().map(|(provider, reason)| format!("variables of {provider}: {reason}")).collect()
    }

    /// Returns when something has changed since the last call.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Returns whether all of these providers have responded, or cannot be reached.
    pub fn is_ready(&self, providers: &[&'static str]) -> bool {
        providers.iter().all(|provider| self.ready.borrow().contains(provider))
    }

    /// Waits until [`Self::is_ready`].
    pub async fn ready(&self, providers: &[&'static str]) {
        let all = |ready: &BTreeSet<&str>| providers.iter().all(|provider| ready.contains(provider));
        // The sender is part of this object, and therefore cannot be dropped meanwhile.
        let _ = self.ready.subscribe().wait_for(all).await;
    }

    fn respond(&self, provider: &'static str, changed: bool) {
        // The first response is news even without values: nobody need wait for them any longer.
        let first = self.ready.send_if_modified(|ready| ready.insert(provider));
        if changed || first {
            self.changed.notify_one();
        }
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
