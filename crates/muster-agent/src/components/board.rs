//! The states of all components, and the notification of changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{ComponentState, Health};
use crate::model::Component;

/// The state of every component.
#[derive(Default)]
pub(super) struct Board {
    states: Mutex<BTreeMap<String, ComponentState>>,
    bell: Notify,
}

impl Board {
    pub(super) fn put(&self, entry: ComponentState) {
        let mut states = self.lock();
        // A notification interrupts a held check-in, so that only a real change may cause one.
        if states.get(&entry.id) != Some(&entry) {
            states.insert(entry.id.clone(), entry);
            self.bell.notify_one();
        }
    }

    pub(super) fn remove(&self, id: &str) {
        if self.lock().remove(id).is_some() {
            self.bell.notify_one();
        }
    }

    pub(super) fn states(&self) -> Vec<ComponentState> {
        self.lock().values().cloned().collect()
    }

    pub(super) async fn changed(&self) {
        self.bell.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, ComponentState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reports the state of one component.
#[derive(Clone)]
pub struct Reporter {
    board: Arc<Board>,
    component: Arc<Component>,
}

impl Reporter {
    pub(super) fn new(board: Arc<Board>, component: Arc<Component>) -> Self {
        Self { board, component }
    }

    /// Reports a state of the component and all of its units.
    pub fn set(&self, state: Health, message: &str) {
        self.board.put(ComponentState::uniform(&self.component, state, message));
    }

    /// Reports states that differ between the units.
    pub fn put(&self, state: ComponentState) {
        self.board.put(state);
    }
}
