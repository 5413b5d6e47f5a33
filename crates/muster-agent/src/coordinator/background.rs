//! Actions that run beside the loop.

use std::collections::{BTreeMap, BTreeSet};

use tokio::task::{Id, JoinSet};

use crate::state::{Action, PendingAck};

/// What became of an action in the background.
pub(super) enum Finished {
    /// It has run.
    Done(Box<PendingAck>),
    /// The components that receive it, too, have taken it, so that it may run now; or one of them has not.
    Proxied(Result<(), String>),
}

/// Actions that run in the background, so that they do not delay others.
#[derive(Default)]
pub(super) struct Background {
    pub tasks: JoinSet<Finished>,
    /// Ids of the actions.
    pub ids: BTreeSet<String>,
    actions: BTreeMap<Id, Action>,
}

impl Background {
    pub(super) fn start(&mut self, action: Action, work: impl Future<Output = Finished> + Send + 'static) {
        self.ids.insert(action.id.clone());
        self.actions.insert(self.tasks.spawn(work).id(), action);
    }

    pub(super) fn ended(&mut self, task: Id) -> Option<Action> {
        let action = self.actions.remove(&task)?;
        self.ids.remove(&action.id);
        Some(action)
    }
}
