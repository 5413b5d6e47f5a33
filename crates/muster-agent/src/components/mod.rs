//! Runs the components of a model. Each component has a reconciler of its own, so that none of them can delay another
//! one, or the coordinator.

mod board;
pub mod bounded;
pub mod cgroup;
pub mod child;
mod command;
pub mod diagnostics;
mod host;
pub mod installed_services;
mod limits;
pub mod log_file;
mod metrics;
mod old_logs;
mod operation;
pub mod orphans;
mod otlp;
mod output_budget;
pub mod process;
mod proxied;
mod reconciler;
mod service;
pub mod state;
pub mod supervisor;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use serde_json::Value;

pub use board::Reporter;
pub use diagnostics::Diagnostics;
pub use host::Host;
pub use state::{ComponentState, Health, UnitState};

use crate::model::{Component, Model};
use crate::protocol::line::Line;

/// The components of this agent, as the coordinator sees them.
#[async_trait]
pub trait Components: Send + Sync {
    /// Replaces the wanted components. Returns at once: the reconcilers start, change and stop components on their own.
    fn want(&self, model: Model);
    /// Sets the signed part of the policy in effect, without which no protected service is uninstalled.
    fn set_signed_policy(&self, _: Option<Arc<Value>>) {}
    /// Returns when every component has taken up what is wanted: it was started or updated, or is being stopped.
    async fn updated(&self);
    /// Returns the state of every component, sorted by id. Removed components are listed until they have stopped.
    fn states(&self) -> Vec<ComponentState>;
    /// Returns when a state has changed since the last call.
    async fn changed(&self);
    /// Returns when every removed component has stopped.
    async fn settled(&self);
    /// Runs an action of the first component that has an input of this type (AG164). The error is for people.
    async fn perform(&self, request: InputAction) -> Result<Value, String>;
    /// Returns whether a running component receives the actions of this type that are for the agent.
    fn proxies(&self, _: &str) -> bool {
        false
    }
    /// Gives an action for the agent to the components that receive its type, until all of them have taken it. The error is
    /// for people.
    async fn proxy(&self, _: ProxiedAction) -> Result<(), String> {
        Ok(())
    }
    /// Returns the diagnostics of the running components that speak the component protocol. Takes at most 20 s.
    async fn diagnostics(&self) -> Vec<Diagnostics> {
        Vec::new()
    }
    /// Returns when nothing that an earlier agent left running runs any more.
    async fn cleared(&self) {}
    /// Stops all components because the agent exits. Keeps their working directories.
    async fn halt(&self);
}

/// An action for the agent that components receive before it is carried out.
#[derive(Clone, Debug)]
pub struct ProxiedAction {
    /// Type of the action.
    pub kind: String,
    /// Parameters: the whole action with its signed copy.
    pub params: Value,
}

/// An action for a component.
#[derive(Clone, Debug)]
pub struct InputAction {
    /// Type of the input, which is also the name of the action.
    pub input_type: String,
    /// Parameters: the whole action.
    pub params: Value,
    /// Maximum time for a response.
    pub timeout: Duration,
}

/// Starts components on this host.
#[async_trait]
pub trait Launch: Send + Sync {
    /// Returns when components may start: nothing that an earlier agent left running can disturb them.
    async fn ready(&self) {}
    /// Starts a component in the background, and reports its states from then on.
    fn launch(&self, component: &Arc<Component>, reporter: Reporter) -> Box<dyn Runtime>;
    /// Deletes what a removed component has left behind.
    fn forget(&self, id: &str);
    /// Called when no component is running. `is_idle` returns whether this is still so.
    async fn idle(&self, is_idle: &(dyn Fn() -> bool + Sync));
}

/// A started component. Its reconciler owns it, and calls one method at a time.
#[async_trait]
pub trait Runtime: Send {
    /// Applies a changed component without interrupting it. Returns false if it must be stopped and started again.
    fn update(&mut self, component: &Arc<Component>) -> bool;
    /// Stops it. Returns when nothing of it is running.
    async fn stop(&mut self);
    /// Removes it for good, with the signed policy that omits it. Returns when nothing of it is running.
    async fn remove(&mut self, _: Option<Arc<Value>>) {
        self.stop().await;
    }
    /// Returns the connection for actions, if the component takes any.
    fn line(&self) -> Option<Arc<Line>> {
        None
    }
}

/// A launcher that several parts share.
pub type Launcher = Arc<dyn Launch>;
