//! The policy in effect, and the model that follows from it on this host.

use muster_core::error_chain::chain;
use std::time::Duration;

use tokio::time::Instant;

use super::{Coordinator, Deps};
use crate::model::{Built, Document, Level, Surroundings, build, inputs::Invalid};

/// Time to wait for further changes before the model is built again (AG75).
const DEBOUNCE: Duration = Duration::from_millis(100);

/// What the components should be.
#[derive(Default)]
pub(super) struct Wanted {
    document: Option<Document>,
    due: Option<Instant>,
    fault: Option<String>,
    blocked: Vec<String>,
}

impl Wanted {
    /// Returns when the model must be built again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Returns why the model could not be built; the previous components keep running.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Returns the components that a local rule excludes.
    pub(super) fn blocked(&self) -> &[String] {
        &self.blocked
    }

    /// Sets the policy in effect.
    pub(super) fn set(&mut self, document: Document) {
        self.document = Some(document);
    }

    /// Schedules a new model. Further changes within a short time are covered by it.
    pub(super) fn schedule(&mut self, now: Instant) {
        if self.document.is_some() {
            self.due.get_or_insert(now + DEBOUNCE);
        }
    }

    /// Hands over the model of a new policy, unless the policy has none.
    pub(super) fn replace(&mut self, document: &Document, level: Level, deps: &Deps) -> Result<(), Invalid> {
        let built = built(document, level, deps)?;
        *self = Self { document: Some(document.clone()), due: None, fault: None, blocked: built.blocked };
        deps.components.set_signed_policy(document.signed.clone());
        deps.components.want(built.model);
        Ok(())
    }

    /// Stops all components for good.
    pub(super) fn clear(&mut self, deps: &Deps) {
        *self = Self::default();
        deps.components.set_signed_policy(None);
        deps.components.want(Vec::new());
    }
}

fn built(document: &Document, level: Level, deps: &Deps) -> Result<Built, Invalid> {
    let variables = deps.variables.sets();
    build(document, Surroundings { variables: &variables, catalog: &deps.catalog, level })
}

impl Coordinator {
    /// Builds the model of the policy in effect again.
    pub(super) fn rebuild(&mut self) {
        let level = self.level_with(self.policy_log_level.as_deref());
        let wanted = &mut self.components;
        wanted.due = None;
        let Some(document) = &wanted.document else { return };
        match built(document, level, &self.deps) {
            Ok(built) => {
                (wanted.fault, wanted.blocked) = (None, built.blocked);
                self.deps.components.set_signed_policy(document.signed.clone());
                self.deps.components.want(built.model);
            }
            Err(error) => {
                tracing::error!(%error, "the policy has no components with the current variables; keeping the previous ones");
                wanted.fault = Some(chain(&error).to_string());
            }
        }
    }
}
