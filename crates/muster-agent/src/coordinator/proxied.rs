//! Actions for the agent that components of a protected policy receive first (AG §9.2): a protected service must take the
//! signed action before the agent acts on it, and can refuse it (AG136).

use serde_json::{Value, json};

use super::{Coordinator, Finished};
use crate::components::ProxiedAction;
use crate::state::{Action, Kind};

impl Coordinator {
    /// Returns whether components receive this action first. MIGRATE is not among the types, because a protected agent
    /// refuses it anyway.
    pub(super) fn is_proxied(&self, action: &Action) -> bool {
        matches!(action.kind, Kind::Unenroll | Kind::Upgrade)
            && self.deps.components.proxies(action.kind.as_str())
            && self.is_protected()
    }

    /// Gives the action to the components, in the background.
    pub(super) fn proxy(&mut self, action: Action) {
        let components = self.deps.components.clone();
        let request = ProxiedAction { kind: action.kind.as_str().to_owned(), params: params(&action) };
        self.background.start(action, async move { Finished::Proxied(components.proxy(request).await) });
    }

    /// Carries out the action that the components have taken, or refuses it.
    pub(super) fn proxied(&mut self, action: &Action, taken: Result<(), String>) {
        // It may have been cancelled, or the agent may have left its fleet.
        let Some(action) = self.state.inbox.iter().find(|queued| queued.id == action.id).cloned() else { return };
        let task = taken.and_then(|()| self.read_action(&action));
        self.carry_out(action, task);
    }
}

/// Returns what a component gets: the action with its signed copy, which the component verifies itself.
fn params(action: &Action) -> Value {
    json!({"id": action.id, "type": action.kind.as_str(), "data": action.data, "signed": action.signed})
}
