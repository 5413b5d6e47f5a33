//! The policy in effect, and the model that follows from it on this host.

use muster_core::error_chain::chain;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{Coordinator, Deps};
use crate::model::fleet_block::FleetBlock;
use crate::model::{Built, Document, Level, Surroundings, build, inputs::Invalid};
use crate::state::Enrollment;
use crate::variables::used::Used;

/// Time to wait for further changes before the model is built again (AG75).
const DEBOUNCE: Duration = Duration::from_millis(100);

/// What the components should be.
#[derive(Default)]
pub(super) struct Wanted {
    document: Option<Document>,
    /// The variables that it uses.
    used: Used,
    due: Option<Instant>,
    fault: Option<String>,
    blocked: Vec<String>,
    left_out: usize,
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

    /// Returns the components and inputs that are left out, with the reason.
    pub(super) fn blocked(&self) -> &[String] {
        &self.blocked
    }

    /// Returns the number of inputs above the maximum, which are left out.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }

    /// Sets the policy in effect.
    pub(super) fn set(&mut self, document: Document, deps: &Deps) {
        self.used = Used::of(&document);
        self.document = Some(document);
        self.observe(deps);
    }

    /// Finds the variables of the policy in effect, and no others.
    pub(super) fn observe(&self, deps: &Deps) {
        deps.variables.observe(&self.used);
    }

    /// Returns the variables to observe before a policy is applied; `None` if it uses no further ones.
    pub(super) fn used_with(&self, next: &Document) -> Option<Used> {
        let both = Used::of(next).and(&self.used);
        (both != self.used).then_some(both)
    }

    /// Schedules a new model. Further changes within a short time are covered by it.
    pub(super) fn schedule(&mut self, now: Instant) {
        if self.document.is_some() {
            // Not later because of further changes, which could otherwise delay it forever.
            self.due.get_or_insert(now + DEBOUNCE);
        }
    }

    /// Hands over the model of a new policy.
    pub(super) fn replace(&mut self, document: &Document, built: Built, deps: &Deps) {
        let (used, blocked, left_out) = (Used::of(document), built.blocked, built.left_out);
        *self = Self { document: Some(document.clone()), used, due: None, fault: None, blocked, left_out };
        self.observe(deps);
        // Before the model, because it is what allows services that the model omits to be uninstalled.
        deps.components.set_signed_policy(document.signed.clone());
        deps.components.want(built.model);
    }

    /// Stops all components for good.
    pub(super) fn clear(&mut self, deps: &Deps) {
        *self = Self::default();
        self.observe(deps);
        deps.components.set_signed_policy(None);
        deps.components.want(Vec::new());
    }
}

/// What the model depends on in addition to the policy, the variables and the installed components.
pub(super) struct Around<'a> {
    pub enrollment: &'a Enrollment,
    pub level: Level,
    /// Name of the agent's log level.
    pub log_level: &'a str,
}

/// Builds the model of a policy.
pub(super) fn built(document: &Document, around: &Around<'_>, deps: &Deps) -> Result<Built, Invalid> {
    let variables = deps.variables.sets();
    let host_id = variables.context.get("host").map_or(&Value::Null, |host| &host["id"]);
    let fleet = FleetBlock::new(around.enrollment, around.log_level, host_id);
    let (catalog, level) = (&*deps.catalog, around.level);
    build(document, Surroundings { variables: &variables, catalog, level, fleet: fleet.as_ref() })
}

impl Coordinator {
    /// Returns what the model of a policy with this log level depends on.
    pub(super) fn around<'a>(&'a self, of_policy: Option<&'a str>) -> Around<'a> {
        let own = self.deps.settings.log.level.as_str();
        let log_level = self.state.log_level.as_deref().or(of_policy).unwrap_or(own);
        Around { enrollment: &self.enrollment, level: self.level_with(of_policy), log_level }
    }

    /// Builds the model of the policy in effect again.
    pub(super) fn rebuild(&mut self) {
        self.components.due = None;
        let Some(document) = &self.components.document else { return };
        let signed = document.signed.clone();
        let built = built(document, &self.around(self.policy_log_level.as_deref()), &self.deps);
        let wanted = &mut self.components;
        match built {
            Ok(built) => {
                (wanted.fault, wanted.blocked, wanted.left_out) = (None, built.blocked, built.left_out);
                self.deps.components.set_signed_policy(signed);
                self.deps.components.want(built.model);
            }
            // They are being asked for. The model is built again when they are known, or known to be missing.
            Err(error) if !self.deps.variables.is_ready() => tracing::info!(%error, "waiting for variables"),
            Err(error) => {
                tracing::error!(%error, "the policy has no components with the current variables; keeping the previous ones");
                wanted.fault = Some(chain(&error).to_string());
            }
        }
    }
}
